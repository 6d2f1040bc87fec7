"""Reading and writing picture files: PNG, JPEG, TIFF, WebP and BMP, 8 and 16 bits.

Whatever goes in comes out: 16 bits stay 16 bits, alpha, colour profile and EXIF orientation stay
with the pixels. Where a format cannot hold something, `write_picture` says what was lost.

A picture may take hundreds of MB, so copies of it are few. TIFF needs none, to read or to write.
Of the others Pillow keeps one of its own, of 4 bytes per pixel in colour, while it reads or
writes; a PNG file is in memory as a whole while it is written, or read with 16 bits.
"""

import contextlib
import dataclasses
import glob
import io
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np

from cbsn.data.picture import EXIF_PREFIX, Picture
from cbsn.data.pillow_files import (
    pillow_pixel_bytes,
    read_with_pillow,
    write_png,
    write_with_pillow,
)
from cbsn.data.tiff import TIFF_MAGICS, read_tiff, tiff_pixel_bytes, write_tiff
from cbsn.errors import DataError, ImageError
from cbsn.files import atomic_path
from cbsn.value_range import ValueRange, row_blocks

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
"""Suffixes, in lower case, of the files that a folder is searched for."""

SUFFIX_OF_FORMAT = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "BMP": ".bmp",
}
"""The formats that are read and written, with the suffix of the files of each."""

_JPEG_EXIF_LIMIT = 65533 - len(EXIF_PREFIX)


def find_images(pattern: str | Path) -> list[Path]:
    """The picture files that a folder, a glob or a single name stands for.

    Args:
        pattern: a folder (its files with one of `IMAGE_SUFFIXES`, not those of its sub-folders),
            a glob (every file it matches; `**` is any depth), or one file. `~` is expanded.

    Returns:
        At least one path, sorted.

    Raises:
        DataError: nothing was found.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [
            p
            for p in path.iterdir()
            if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
        ]
        sought = f"no {', '.join(sorted(IMAGE_SUFFIXES))} file in the folder {path}"
    else:
        matches = {Path(match) for match in glob.glob(str(path), recursive=True)}  # noqa: PTH207
        found = [match for match in matches if match.is_file()]
        sought = f"no file matches {path}"
    if not found:
        raise DataError(f"{sought}. Give a folder of pictures, a glob in quotes, or one file.")
    return sorted(found)


def read_picture(path: str | Path, *, white: float | None = None) -> Picture:
    """Reads a picture file; what it is, is told by its content, not its name.

    Palette and 1-bit pictures become RGB or gray; a transparent colour becomes an alpha channel.
    Of a TIFF file, the orientation is the one EXIF entry that is kept.

    Args:
        path: a PNG, JPEG, TIFF, WebP or BMP file with one picture.
        white: float > 0, the value that is white in the file. Default None: as the file or its
            values show it, see `ValueRange.of`.

    Returns:
        The decoded picture; its pixels are writable, and use the whole range of their dtype.

    Raises:
        ImageError: the file is missing, broken, cut off, of another kind, or holds what a
            denoiser of gray and RGB pictures has no use for (CMYK, several pages, …), or is a
            decompression bomb.
    """
    path = Path(path)
    try:
        is_tiff = _start(path).startswith(TIFF_MAGICS)
        return _stretched(read_tiff(path) if is_tiff else read_with_pillow(path), white)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise ImageError(
            f"{path}: cannot be read, it may be damaged or cut off ({_reason(error)})."
        ) from error


def pixel_bytes(path: str | Path) -> int:
    """How many bytes the pixels of a picture file will take, about, by its header alone.

    Returns:
        The number; 0 for a file that cannot be read, as `read_picture` will say.
    """
    path = Path(path)
    with contextlib.suppress(Exception):  # damaged headers make decoders raise almost anything
        if _start(path).startswith(TIFF_MAGICS):
            return tiff_pixel_bytes(path)
        return pillow_pixel_bytes(path)
    return 0


def write_picture(
    path: str | Path,
    picture: Picture,
    format: str | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Writes a picture with its colour profile and EXIF data; an unfinished file never shows.

    PNG, TIFF, BMP and WebP are written without loss, JPEG with quality 95 and full colour.
    TIFF takes of the EXIF data only the orientation.

    Args:
        path: the file to write or replace; its folder must exist.
        picture: what to write.
        format: a key of `SUFFIX_OF_FORMAT`. Default: the one of the path's suffix.
        cancelled: asked before each part of the file; if it says True, the writing ends.

    Returns:
        What the format could not hold, in words: empty if nothing was lost.

    Raises:
        ImageError: the format is unknown or the file cannot be written.
        CancelledError: `cancelled` said True; the path is as it was.
    """
    path = Path(path)
    format = format or format_of_suffix(path.suffix)
    fitted, losses = _fit(picture, format)
    try:
        with atomic_path(path) as temporary, _CancellableFile(temporary, cancelled) as file:
            if format == "TIFF":
                write_tiff(file, fitted)
            elif format == "PNG":
                write_png(file, fitted)
            else:
                write_with_pillow(file, fitted, format)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be written as {format} ({_reason(error)}).") from error
    return losses


def format_of_suffix(suffix: str) -> str:
    """The format, a key of `SUFFIX_OF_FORMAT`, that a file name's suffix (`.jpeg`) stands for."""
    by_suffix = {suffix: format for format, suffix in SUFFIX_OF_FORMAT.items()}
    by_suffix |= {".jpeg": "JPEG", ".tiff": "TIFF"}
    if suffix.lower() not in by_suffix:
        raise ImageError(f"No picture format has the suffix {suffix!r}; use {sorted(by_suffix)}.")
    return by_suffix[suffix.lower()]


def to_rgb(picture: Picture) -> np.ndarray:
    """The picture as [H, W, 3] of its own dtype: gray is repeated, alpha is dropped."""
    color = picture.color
    return np.broadcast_to(color, (*color.shape[:2], 3))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


class _CancellableFile(io.BufferedWriter):
    """A new file; to write to it raises `CancelledError` once `cancelled` says True."""

    def __init__(self, path: Path, cancelled: Callable[[], bool]):
        super().__init__(io.FileIO(path, "w"))
        self._cancelled = cancelled

    def write(self, data: bytes | memoryview) -> int:
        if self._cancelled():
            raise CancelledError
        return super().write(data)

    def fileno(self) -> int:
        raise io.UnsupportedOperation  # Pillow would write to the descriptor directly


def _stretched(picture: Picture, white: float | None) -> Picture:
    """The picture with its colours over the whole range of their dtype, and their own range."""
    stated = picture.value_range and picture.value_range.white
    if not picture.pixels.size:
        raise ImageError("has no pixels: the file is damaged.")
    found = ValueRange.of(picture.color, white=white, stated=stated)
    found.stretch(picture.color)  # a view: in place
    is_whole = found.is_of(picture.pixels.dtype)
    return dataclasses.replace(picture, value_range=None if is_whole else found)


def _start(path: Path) -> bytes:
    """Enough of a file to tell what it is."""
    with path.open("rb") as file:
        return file.read(4)


def _fit(picture: Picture, format: str) -> tuple[Picture, list[str]]:
    """What of a picture the format can hold, and in words what it cannot."""
    losses = []
    pixels = picture.pixels
    holds_dtype = format == "TIFF" or (format == "PNG" and pixels.dtype != np.float32)
    if picture.value_range and (holds_dtype or pixels.dtype == np.uint8):
        pixels = pixels.copy()
        picture.value_range.unstretch(pixels[..., : picture.color.shape[-1]])
    exif, icc_profile = picture.exif, picture.icc_profile
    if picture.alpha is not None and format in ("JPEG", "BMP"):
        pixels = pixels[..., : picture.color.shape[-1]]
        losses.append(f"{format} holds no alpha channel: dropped")
    if pixels.dtype == np.float32 and format != "TIFF":
        pixels = _in_blocks(pixels, np.uint16, lambda x: np.rint(np.clip(x, 0, 1) * 65535))
        if format == "PNG":
            losses.append("PNG holds no floats: reduced to 16 bits")
    if pixels.dtype == np.uint16 and format not in ("PNG", "TIFF"):
        pixels = _in_blocks(pixels, np.uint8, lambda x: (x.astype(np.uint32) + 128) // 257)
        losses.append(f"{format} holds 8 bits: reduced from {picture.pixels.dtype}")
    if format == "WEBP" and pixels.shape[-1] < 3:
        pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], axis=-1)
    if format == "BMP" and (exif or icc_profile):
        exif = icc_profile = None
        losses.append("BMP holds no EXIF data (orientation) and no colour profile: dropped")
    if format == "JPEG" and exif and len(exif) > _JPEG_EXIF_LIMIT:
        exif = None
        losses.append("JPEG holds 64 KB of EXIF data: dropped")
    return Picture(pixels, format, icc_profile, exif), losses


def _in_blocks(
    pixels: np.ndarray, dtype: type, convert: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    output = np.empty(pixels.shape, dtype)
    for rows in row_blocks(pixels):
        output[rows] = convert(pixels[rows])
    return output
