"""Reading and writing picture files: PNG, JPEG, TIFF, WebP and BMP, 8 and 16 bits.

Whatever goes in comes out: 16 bits stay 16 bits, in the values' own range; alpha, colour profile,
EXIF data and what else describes the picture stay with the pixels. Where a format cannot hold
something, `write_picture` says what was lost. AVIF, GIF, HEIC, JPEG 2000 and JPEG XL are read where
an installed library does.

A picture may take hundreds of MB, so copies of it are few. TIFF needs none, to read or to write,
but for values that do not use their dtype's whole range. Of the others Pillow keeps one of its own,
of 4 bytes per pixel in colour, while it reads or writes; a PNG file is in memory as a whole while
it is written, or read with 16 bits or texts.
"""

import contextlib
import dataclasses
import glob
import io
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np

from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.files import atomic_path, expanded
from cbsn.images.picture import EXIF_PREFIX, Picture
from cbsn.images.pillow_files import (
    pillow_pixel_bytes,
    pillow_size,
    read_with_pillow,
    write_with_pillow,
)
from cbsn.images.png import COLOR_CHUNKS, Chunks, write_png
from cbsn.images.tiff import RAW, TIFF_MAGICS, read_tiff, tiff_pixel_bytes, tiff_size, write_tiff
from cbsn.images.tiff_metadata import Tags, has_exif_branches, write_exif
from cbsn.value_range import ROUNDING_ERROR, ValueRange, row_blocks

SUFFIX_OF_FORMAT = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "BMP": ".bmp",
}
"""The formats that are read and written, with the suffix of the files of each."""

_OTHER_SUFFIXES = {
    **dict.fromkeys((".jpeg", ".jpe", ".jfif", ".jif", ".jfi"), "JPEG"),
    ".tiff": "TIFF",
}
_ONLY_READ = {".avif", ".gif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jxl"}

IMAGE_SUFFIXES = frozenset({*SUFFIX_OF_FORMAT.values(), *_OTHER_SUFFIXES, *_ONLY_READ})
"""Suffixes, in lower case, of the files that a folder is searched for."""

_RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".mrw", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".srw", ".x3f"}
)
_SKIPPED_SUFFIXES = frozenset({".exr", ".hdr", ".pbm", ".pgm", ".ppm", ".psb", ".psd", ".svg"})
"""Pictures all the same: a folder's are named as skipped, as raw files are."""

_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")
"""Those of Fujifilm, Olympus, Panasonic, Sigma and Minolta; most others are TIFF files."""

_JPEG_LIMIT = 65533
"""Bytes of a segment, in which JPEG holds EXIF data and XMP packets."""

_XMP_PREFIX_BYTES = 29

_MOST_PER_METRE = {"JPEG": 65535 / 0.0254, "BMP": 2**31 - 1}
"""Of the resolution, as 16 and 32 bits hold it."""

_SMALL = 2**26
"""Bytes of pixels for which there is memory: where there is not, something else was claimed."""


def find_images(pattern: str | Path) -> list[Path]:
    """The picture files that a folder, a glob or a single name stands for.

    Args:
        pattern: a folder (its files with one of `IMAGE_SUFFIXES`, not those of its sub-folders),
            a glob (every file it matches; `**` is any depth), or one file. `~` is expanded. Folders
            may have `[`, `*` and `?` in their names: what exists is taken by its name.

    Returns:
        At least one path, sorted. Of a folder's other pictures, such as raw files, a `CbsnWarning`
        says that they are skipped.

    Raises:
        DataError: nothing was found, or a folder cannot be read.
        ConfigError: the pattern begins with `~NAME`, and there is no such user.
    """
    path = expanded(pattern)
    try:
        if path.is_file():
            return [path]
        if path.is_dir():
            found = _in_folder(path)
            sought = f"no picture ({', '.join(sorted(IMAGE_SUFFIXES))}) in the folder {path}"
        else:
            found = _matches(path)
            sought = f"no file matches {path}"
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror}). Give a folder of "
            f"pictures, a glob in quotes, or one file that you may read. Received: {pattern}"
        ) from error
    if not found:
        raise DataError(f"{sought}. Give a folder of pictures, a glob in quotes, or one file.")
    return sorted(found)


def _in_folder(folder: Path) -> list[Path]:
    visible = [each for each in folder.iterdir() if not each.name.startswith(".")]
    skipped = [each for each in visible if each.suffix.lower() in _RAW_SUFFIXES | _SKIPPED_SUFFIXES]
    if skipped:
        first = min(skipped)
        reason = "a raw file" if first.suffix.lower() in _RAW_SUFFIXES else "of a kind not read"
        files = f"{len(skipped)} file{'s' * (len(skipped) > 1)}"
        warnings.warn(
            f"skipped in {folder}: {files} of other kinds, such as {first.name} ({reason}). "
            "Convert them to TIFF or PNG.",
            CbsnWarning,
            stacklevel=3,
        )
    return [each for each in visible if each.suffix.lower() in IMAGE_SUFFIXES and each.is_file()]


def _matches(path: Path) -> list[Path]:
    """The files that a glob matches below the folders that are there by their very names."""
    base = next(each for each in (path, *path.parents) if each.exists() or each == each.parent)
    rest = path.relative_to(base)
    if rest.parts:
        with contextlib.suppress(NotADirectoryError):
            next(base.iterdir(), None)  # glob is silent about folders that it may not read
    matches = {base / each for each in glob.glob(str(rest), root_dir=base, recursive=True)}  # noqa: PTH207
    return [each for each in matches if each.is_file()]


def read_picture(path: str | Path, *, white: float | None = None) -> Picture:
    """Reads a picture file; what it is, is told by its content, not its name.

    Palette and 1-bit pictures become RGB or gray; a transparent colour becomes an alpha channel.

    Args:
        path: a file with one picture.
        white: float > 0, the value that is white in the file. Default None: as the file or its
            values show it, see `ValueRange.of`.

    Returns:
        The decoded picture; its pixels are writable, and use the whole range of their dtype.

    Raises:
        ImageError: the file is missing, broken, cut off, of another kind, or holds what a
            denoiser of gray and RGB pictures has no use for (CMYK, several pages, raw data of a
            sensor, channels that are neither RGB nor alpha, …), or is a decompression bomb.
    """
    path = Path(path)
    try:
        start = _start(path)
        if start.startswith(_RAW_STARTS) or start[4:12] == b"ftypcrx ":
            raise ImageError(RAW)
        is_tiff = start.startswith(TIFF_MAGICS)
        picture = read_tiff(path) if is_tiff else read_with_pillow(path)
        return _stretched(path, picture, white)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.") from None
    except MemoryError as error:
        if pixel_bytes(path) > _SMALL:
            raise
        raise ImageError(
            f"{path}: needs far more memory than its pixels do: it is damaged, or there is none."
        ) from error
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


def picture_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture file, by its header alone.

    Returns:
        Them; 0 and 0 for a file that cannot be read, as `read_picture` will say.
    """
    path = Path(path)
    with contextlib.suppress(Exception):  # as above
        return tiff_size(path) if _start(path).startswith(TIFF_MAGICS) else pillow_size(path)
    return 0, 0


def write_picture(
    path: str | Path,
    picture: Picture,
    format: str | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Writes a picture with its colour profile and EXIF data; an unfinished file never shows.

    PNG, TIFF, BMP and WebP are written without loss, JPEG with quality 95 and full colour.

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
        with atomic_path(path) as temporary:
            with _CancellableFile(temporary, cancelled) as file:
                if format == "TIFF":
                    write_tiff(file, fitted)
                elif format == "PNG":
                    write_png(file, fitted)
                else:
                    write_with_pillow(file, fitted, format)
            if format == "TIFF" and has_exif_branches(fitted):
                write_exif(temporary, fitted)
    except (CancelledError, MemoryError):
        raise
    except Exception as error:  # encoders have limits of their own, and errors
        raise ImageError(f"{path}: cannot be written as {format} ({_reason(error)}).") from error
    return losses


def format_of_suffix(suffix: str) -> str:
    """The format, a key of `SUFFIX_OF_FORMAT`, that a file name's suffix (`.jpeg`) stands for."""
    by_suffix = {suffix: format for format, suffix in SUFFIX_OF_FORMAT.items()} | _OTHER_SUFFIXES
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


def _stretched(path: Path, picture: Picture, white: float | None) -> Picture:
    """The picture with its colours over the whole range of their dtype, and their own range."""
    stated = picture.value_range and picture.value_range.white
    if not picture.pixels.size:
        raise ImageError("has no pixels: the file is damaged.")
    color = picture.color
    if picture.alpha is not None:
        visible = picture.alpha[..., 0] > 0
        color = color[visible][None] if visible.any() else color
    if white is not None and (cut := ValueRange.cut(picture.color, white)):
        _note(path, f"{cut} values are beyond --white {white:g}, and are cut off")
    found = ValueRange.of(color, white=white, stated=stated)
    if white is None and stated is None and (rest := found.few_decide(color)):
        count, without = rest
        _note(
            path,
            f"{count} of {color.size} values are far above the others, and decide what white is: "
            f"--white {without:g} if they are faulty pixels",
        )
    if picture.alpha is not None and picture.pixels.dtype.kind == "f":
        _check_float_alpha(picture.alpha)
    found.stretch(picture.color)  # a view: in place
    is_whole = found.is_of(picture.pixels.dtype)
    return dataclasses.replace(picture, value_range=None if is_whole else found)


def _note(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}.", CbsnWarning, stacklevel=4)


def _check_float_alpha(alpha: np.ndarray) -> None:
    low, high = float(alpha.min()), float(alpha.max())
    if not (low >= -ROUNDING_ERROR and high <= 1 + ROUNDING_ERROR):
        raise ImageError(
            f"has an alpha channel with values from {low:g} to {high:g}; floats from 0 to 1 are "
            "read."
        )


def _start(path: Path) -> bytes:
    """Enough of a file to tell what it is."""
    with path.open("rb") as file:
        return file.read(16)


def _fit(picture: Picture, format: str) -> tuple[Picture, list[str]]:
    """What of a picture the format can hold, and in words what it cannot."""
    losses: list[str] = []
    pixels = _fit_pixels(picture, format, losses)
    fitted = dataclasses.replace(picture, pixels=pixels, format=format)
    dropped = {}
    if format == "BMP":
        names = {"exif": "EXIF data (orientation)", "icc_profile": "colour profile", "xmp": "XMP"}
        lost = {field: name for field, name in names.items() if getattr(fitted, field)}
        if lost:
            dropped |= dict.fromkeys(lost, "")
            dropped[min(lost)] = " and no ".join(lost.values())
    if format == "JPEG":
        if len(picture.exif or b"") > _JPEG_LIMIT - len(EXIF_PREFIX):
            dropped["exif"] = "EXIF data of more than 64 KB"
        if len(picture.xmp or b"") > _JPEG_LIMIT - _XMP_PREFIX_BYTES:
            dropped["xmp"] = "XMP of more than 64 KB"
    if picture.resolution:
        if format == "WEBP":
            dropped["resolution"] = "resolution"
        if format in _MOST_PER_METRE and max(picture.resolution) > _MOST_PER_METRE[format]:
            dropped["resolution"] = "resolution of that many pixels per metre"
    if format == "PNG" and not _fits_profile(pixels, picture.icc_profile):
        what = "gray" if pixels.shape[-1] < 3 else "colour"
        dropped["icc_profile"] = f"such a colour profile for a {what} picture"
    extras = picture.extras
    home = "PNG" if isinstance(extras, Chunks) else "TIFF" if isinstance(extras, Tags) else "JPEG"
    if extras and home != format:
        names = ["comment"] if isinstance(extras, bytes) else extras.names()
        dropped["extras"] = ", ".join(names)
        if isinstance(extras, Chunks) and COLOR_CHUNKS & {kind for kind, _ in extras.entries}:
            dropped["extras"] += " (what its colours mean: --format png keeps it)"
    losses += [f"{format} holds no {name}: dropped" for name in dropped.values() if name]
    return dataclasses.replace(fitted, **dict.fromkeys(dropped)), losses


def _fit_pixels(picture: Picture, format: str, losses: list[str]) -> np.ndarray:
    """The pixels as the format holds them, in the file's own range where it can."""
    pixels = picture.pixels
    holds_dtype = format == "TIFF" or (format == "PNG" and pixels.dtype != np.float32)
    if picture.value_range and (holds_dtype or pixels.dtype == np.uint8):
        pixels = pixels.copy()
        picture.value_range.unstretch(pixels[..., : picture.color.shape[-1]])
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
    return pixels


def _fits_profile(pixels: np.ndarray, profile: bytes | None) -> bool:
    """Whether a profile's colour space is that of the pixels; strict PNG decoders insist on it."""
    space = (profile or b"")[16:20]
    return space not in (b"RGB ", b"GRAY", b"CMYK", b"Lab ") or space == (
        b"GRAY" if pixels.shape[-1] < 3 else b"RGB "
    )


def _in_blocks(
    pixels: np.ndarray, dtype: type, convert: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    output = np.empty(pixels.shape, dtype)
    for rows in row_blocks(pixels):
        output[rows] = convert(pixels[rows])
    return output
