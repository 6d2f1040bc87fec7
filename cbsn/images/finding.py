"""Finding picture files by name, and the picture format of a suffix."""

import contextlib
import glob
import warnings
from pathlib import Path

from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.files import expanded

# The formats that are read and written, with the suffix of each.
SUFFIX_OF_FORMAT = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp"}
_FORMAT_OF_SUFFIX = {
    **{suffix: format for format, suffix in SUFFIX_OF_FORMAT.items()},
    **dict.fromkeys((".jpeg", ".jpe", ".jfif", ".jif", ".jfi"), "JPEG"),
    ".tiff": "TIFF",
}
_ONLY_READ = {".avif", ".gif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jxl"}
# Lower-case suffixes of the picture files in a folder.
IMAGE_SUFFIXES = frozenset({*_FORMAT_OF_SUFFIX, *_ONLY_READ})

_RAW = {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".mrw", ".nef", ".nrw"}
_RAW |= {".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".srw", ".x3f"}
_OTHERS = {".exr", ".hdr", ".pbm", ".pgm", ".ppm", ".psb", ".psd", ".svg"}
# Pictures that are not read; a warning names those that are skipped in a folder.
_SKIPPED = dict.fromkeys(_RAW, "a raw file") | dict.fromkeys(_OTHERS, "of a kind not read")


def find_images(pattern: str | Path) -> list[Path]:
    """Returns the picture files that a folder, a glob or a single name stands for.

    Args:
        pattern: a folder (its files with one of `IMAGE_SUFFIXES`, without sub-folders), a glob
            (`**` matches any depth), or one file. `~` is expanded. The name of an existing path
            is taken literally, even if it contains `[`, `*` or `?`.

    Returns:
        At least one path, sorted. A `CbsnWarning` reports skipped pictures, such as raw files.

    Raises:
        DataError: if nothing was found, or a folder cannot be read.
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
    if skipped := [each for each in visible if each.suffix.lower() in _SKIPPED]:
        first = min(skipped)
        reason = _SKIPPED[first.suffix.lower()]
        files = f"{len(skipped)} file{'s' * (len(skipped) > 1)}"
        warnings.warn(
            f"skipped in {folder}: {files} of other kinds, such as {first.name} ({reason}). "
            "Convert them to TIFF or PNG.",
            CbsnWarning,
            stacklevel=3,
        )
    return [each for each in visible if each.suffix.lower() in IMAGE_SUFFIXES and each.is_file()]


def _matches(path: Path) -> list[Path]:
    """Returns the files that a glob matches below the longest part of it that exists literally."""
    base = next(each for each in (path, *path.parents) if each.exists() or each == each.parent)
    rest = path.relative_to(base)
    if rest.parts:
        with contextlib.suppress(NotADirectoryError):
            next(base.iterdir(), None)  # glob is silent about folders that it may not read
    matches = {base / each for each in glob.glob(str(rest), root_dir=base, recursive=True)}  # noqa: PTH207
    return [each for each in matches if each.is_file()]


def format_of_suffix(suffix: str) -> str:
    """Returns the format, a key of `SUFFIX_OF_FORMAT`, of a file name's suffix (`.jpeg`)."""
    if suffix.lower() not in _FORMAT_OF_SUFFIX:
        known = sorted(_FORMAT_OF_SUFFIX)
        raise ImageError(f"No picture format has the suffix {suffix!r}; use {known}.")
    return _FORMAT_OF_SUFFIX[suffix.lower()]
