"""Reading and writing picture files: PNG, JPEG, TIFF, WebP and BMP, 8 and 16 bits.

16-bit pictures keep their 16 bits and their own value range. Alpha, colour profile, EXIF data and
other metadata stay with the pixels, or `write_picture` reports what was lost. AVIF, GIF, JPEG 2000,
JPEG XL and, with the extra `heif`, HEIC are only read.

A picture may take hundreds of MB, so few copies are made. TIFF needs none, unless the values do not
use their dtype's whole range. For other formats, Pillow keeps one, of 4 bytes per pixel in colour.
A whole PNG file is in memory while it is written, or while it is read with 16 bits or texts.
"""

import contextlib
import dataclasses
import functools
import io
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cbsn.errors import CbsnWarning, ConfigError, ImageError, unreadable
from cbsn.files import atomic_path
from cbsn.images.exif import points_elsewhere, read_block
from cbsn.images.finding import format_of_suffix
from cbsn.images.heif import heif_header, is_heif, read_heif
from cbsn.images.picture import EXIF_PREFIX, INCH, Header, Picture
from cbsn.images.pillow_files import pillow_header, read_with_pillow, write_with_pillow
from cbsn.images.png import COLOR_CHUNKS, Chunks, write_png
from cbsn.images.tiff import RAW, TIFF_MAGICS, read_tiff, tiff_header, write_tiff
from cbsn.images.tiff_metadata import Tags, write_exif
from cbsn.value_range import ROUNDING_ERROR, ValueRange, from_unit, row_blocks, to_unit

# Starts of raw files by Fujifilm, Olympus, Panasonic, Sigma and Minolta; most others are TIFF.
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")
_SEGMENT = 65533  # bytes that JPEG has for EXIF data, and for an XMP packet, prefixes included
_XMP_PREFIX_BYTES = 29
_MOST_PER_METRE = {"JPEG": 65535 / INCH, "BMP": 2**31 - 1}  # limits of 16 and 32 bits
_SMALL = 2**26  # bytes of pixels that fit into memory; if it runs out, something else is too large


def read_picture(path: str | Path, *, white: float | None = None) -> Picture:
    """Reads a picture file. The content determines the format, not the name.

    Palette and 1-bit pictures become RGB or gray; a transparent colour becomes an alpha channel.

    Args:
        path: a file with one picture.
        white: float > 0, the value of white in the file. Default: found by `ValueRange.of`.

    Returns:
        The decoded picture; its pixels are writable, and use the whole range of their dtype.

    Raises:
        ImageError: if the file is missing, broken, a decompression bomb, or not a single gray or
            RGB picture (but CMYK, several pages, a camera's raw data, …).
    """
    path = Path(path)
    try:
        start = _start(path)
        if start.startswith(_RAW_STARTS) or start[4:12] == b"ftypcrx ":
            raise ImageError(RAW)
        if start.startswith(TIFF_MAGICS):
            picture = read_tiff(path)
        elif is_heif(path, start):
            picture = read_heif(path)
        else:
            picture = read_with_pillow(path, start)
        return _stretched(path, picture, white)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.") from None
    except MemoryError as error:
        if read_header(path).pixel_bytes > _SMALL:
            raise
        raise ImageError(
            f"{path}: needs far more memory than its pixels do: it is damaged, or there is none."
        ) from error
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise ImageError(f"{path}: {unreadable(error)}") from error


def read_header(path: str | Path) -> Header:
    """Returns a picture file's header without decoding the pixels; all 0 if it is unreadable."""
    path = Path(path)
    with contextlib.suppress(Exception):  # damaged headers make decoders raise almost anything
        start = _start(path)
        if start.startswith(TIFF_MAGICS):
            return tiff_header(path)
        return heif_header(path) if is_heif(path, start) else pillow_header(path, start)
    return Header(0, 0, 0)


def check_jpeg_quality(quality: int) -> None:
    """Raises a ConfigError if `--jpeg_quality` is not an integer from 1 to 100."""
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ConfigError(
            f"--jpeg_quality must be an integer from 1 to 100. Received: --jpeg_quality {quality}"
        )


def write_picture(
    path: str | Path,
    picture: Picture,
    *,
    jpeg_quality: int = 95,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Writes a picture with its colour profile and EXIF data; `path` never holds a part of it.

    PNG, TIFF, BMP and WebP are lossless; JPEG keeps the full colour resolution.

    Args:
        path: the file to write or replace. Its suffix sets the format; its folder must exist.
        picture: what to write; its own `format` does not matter.
        jpeg_quality: int from 1 to 100, for JPEG. Default 95.
        cancelled: called before each part of the file; True ends writing with a CancelledError.

    Returns:
        Messages about what the format could not hold.

    Raises:
        ImageError: if the format is unknown or the file cannot be written.
        ConfigError: if `jpeg_quality` is out of range.
    """
    check_jpeg_quality(jpeg_quality)
    path = Path(path)
    format = format_of_suffix(path.suffix)
    write_other = functools.partial(write_with_pillow, jpeg_quality=jpeg_quality)
    write = {"TIFF": write_tiff, "PNG": write_png}.get(format, write_other)
    fitted, losses = _fit(picture, format)
    try:
        with atomic_path(path) as temporary:
            with _CancellableFile(temporary, cancelled) as file:
                write(file, fitted)
            if format == "TIFF":
                write_exif(temporary, fitted)
    except (CancelledError, MemoryError):
        raise
    except Exception as error:  # encoders have their own limits and errors
        raise ImageError(f"{path}: cannot be written as {format} ({_reason(error)}).") from error
    return losses


def to_rgb(picture: Picture) -> np.ndarray:
    """Returns the picture as [H, W, 3] of its own dtype; repeats gray and drops alpha."""
    color = picture.color
    return np.broadcast_to(color, (*color.shape[:2], 3))


class _CancellableFile(io.BufferedWriter):
    """A new file whose `write` raises `CancelledError` once `cancelled` returns True."""

    def __init__(self, path: Path, cancelled: Callable[[], bool]):
        super().__init__(io.FileIO(path, "w"))
        self._cancelled = cancelled

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        if self._cancelled():
            raise CancelledError
        return super().write(data)

    def fileno(self) -> int:
        raise io.UnsupportedOperation  # Pillow would write to the descriptor directly


def _start(path: Path) -> bytes:
    """Reads enough of a file to identify its format."""
    with path.open("rb") as file:
        return file.read(26)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _stretched(path: Path, picture: Picture, white: float | None) -> Picture:
    """Stretches a picture's colours to the whole range of their dtype, and records their own."""
    pixels, color, alpha = picture.pixels, picture.color, picture.alpha
    if not pixels.size:
        raise ImageError("has no pixels: the file is damaged.")
    if alpha is not None:
        visible = alpha[..., 0] > 0
        color = color[visible][None] if visible.any() else color
    if white is not None and (cut := ValueRange.cut(picture.color, white)):
        _note(path, f"{cut} values are beyond --white {white:g}, and are cut off")
    stated = picture.value_range.white if picture.value_range else None
    found = ValueRange.of(color, white=white, stated=stated)
    if white is None and stated is None and (rest := found.few_decide(color)):
        few = f"{rest[0]} of {color.size} values are far above the others, and decide what white is"
        _note(path, f"{few}: --white {rest[1]:g} if they are faulty pixels")
    if alpha is not None and pixels.dtype.kind == "f":
        low, high = float(alpha.min()), float(alpha.max())
        if not -ROUNDING_ERROR <= low <= high <= 1 + ROUNDING_ERROR:
            values = f"values from {low:g} to {high:g}"
            raise ImageError(f"has an alpha channel with {values}; floats must be from 0 to 1.")
    found.stretch(picture.color)  # a view: in place
    return dataclasses.replace(picture, value_range=None if found.is_of(pixels.dtype) else found)


def _note(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}.", CbsnWarning, stacklevel=4)


def _fit(picture: Picture, format: str) -> tuple[Picture, list[str]]:
    """Returns what a format can hold of a picture, and messages about what it cannot."""
    losses: list[str] = []
    pixels = _fit_pixels(picture, format, losses)
    dropped = {}
    if format == "BMP":
        names = {"exif": "EXIF data (orientation)", "icc_profile": "colour profile", "xmp": "XMP"}
        if lost := [field for field in names if getattr(picture, field)]:
            dropped = dict.fromkeys(lost, "")
            dropped[lost[0]] = " and no ".join(names[field] for field in lost)
    if format == "JPEG":
        if len(picture.exif or b"") > _SEGMENT - len(EXIF_PREFIX):
            dropped["exif"] = "EXIF data of more than 64 KB"
        if len(picture.xmp or b"") > _SEGMENT - _XMP_PREFIX_BYTES:
            dropped["xmp"] = "XMP of more than 64 KB"
    if picture.resolution:
        if format == "WEBP":
            dropped["resolution"] = "resolution"
        if max(picture.resolution) > _MOST_PER_METRE.get(format, np.inf):
            dropped["resolution"] = "resolution of that many pixels per metre"
    if format == "PNG":  # strict decoders require a profile of the pixels' own colour space
        own, what = (b"GRAY", "gray") if pixels.shape[-1] < 3 else (b"RGB ", "colour")
        if (picture.icc_profile or b"")[16:20] in {b"RGB ", b"GRAY", b"CMYK", b"Lab "} - {own}:
            dropped["icc_profile"] = f"such a colour profile for a {what} picture"
    extras = picture.extras
    home = "PNG" if isinstance(extras, Chunks) else "TIFF" if isinstance(extras, Tags) else "JPEG"
    if extras and home != format:
        dropped["extras"] = ", ".join(extras.names())
        if isinstance(extras, Chunks) and COLOR_CHUNKS & {kind for kind, _ in extras.entries}:
            dropped["extras"] += " (what its colours mean: --format png keeps it)"
    if "TIFF" in (picture.format, format) and points_elsewhere(read_block(picture.exif)):
        losses.append(
            "the camera's MakerNote was moved unchanged: programs may misread offsets in it"
        )
    losses += [f"{format} holds no {name}: dropped" for name in dropped.values() if name]
    if picture.others:
        losses.append(f"the file also held {picture.others}: dropped")
    emptied: dict[str, Any] = dict.fromkeys(dropped)
    return dataclasses.replace(picture, pixels=pixels, format=format, **emptied), losses


def _fit_pixels(picture: Picture, format: str, losses: list[str]) -> np.ndarray:
    """Returns the pixels as the format holds them, if possible in the file's own range."""
    pixels, colors = picture.pixels, picture.color.shape[-1]
    holds_dtype = format == "TIFF" or (format == "PNG" and pixels.dtype != np.float32)
    if picture.value_range and (holds_dtype or pixels.dtype == np.uint8):
        pixels = pixels.copy()
        picture.value_range.stretch(pixels[..., :colors], undo=True)
    if picture.alpha is not None and format in ("JPEG", "BMP"):
        pixels = pixels[..., :colors]
        losses.append(f"{format} holds no alpha channel: dropped")
    if pixels.dtype == np.float32 and format != "TIFF":
        pixels = _converted(pixels, np.uint16)
        if format == "PNG":
            losses.append("PNG holds no floats: reduced to 16 bits")
    if pixels.dtype == np.uint16 and format not in ("PNG", "TIFF"):
        pixels = _converted(pixels, np.uint8)
        losses.append(f"{format} holds 8 bits: reduced from {picture.pixels.dtype}")
    if format == "WEBP" and pixels.shape[-1] < 3:
        pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], axis=-1)
    return pixels


def _converted(pixels: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    converted = np.empty(pixels.shape, dtype)
    for rows in row_blocks(pixels):
        converted[rows] = from_unit(to_unit(pixels[rows]), dtype)
    return converted
