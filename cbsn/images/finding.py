"""Finding picture files by name, and the picture format of a suffix."""

import contextlib
import glob
import os
import warnings
from pathlib import Path

from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.files import expanded
from cbsn.images.stacks.ome_sets import without_repeats
from cbsn.images.stacks.ome_zarr import ZARR_SUFFIX, is_ome_zarr

# The formats that are read and written, with the suffix of each.
SUFFIX_OF_FORMAT = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp"}
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo")
_FORMAT_OF_SUFFIX = {
    **{suffix: format for format, suffix in SUFFIX_OF_FORMAT.items()},
    **dict.fromkeys(JPEG_SUFFIXES, "JPEG"),
    ".tiff": "TIFF",
}
_ONLY_READ = {".avif", ".gif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jxl"}
RESULTS = "denoised"  # name of the default folder for results
# Lower-case suffixes of the picture files in a folder.
IMAGE_SUFFIXES = frozenset({*_FORMAT_OF_SUFFIX, *_ONLY_READ})
# Those of microscopes' files, which hold stacks.
_STACK_SUFFIXES = frozenset({".czi", ".nd2", ".lif"})
_TAKEN = IMAGE_SUFFIXES | _STACK_SUFFIXES
_INCOMPLETE = "is no OME-Zarr image (it has no zarr.json, .zattrs or .zgroup): copy it again."

_RAW = {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq"}
_RAW |= {".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2"}
_RAW |= {".rwl", ".sr2", ".srf", ".srw", ".x3f"}
_OTHERS = {".exr", ".hdr", ".pbm", ".pgm", ".pnm", ".ppm", ".psb", ".psd", ".svg", ".tga"}
# Pictures that are not read; a warning names those that are skipped in a folder.
_SKIPPED = dict.fromkeys(_RAW, "a raw file") | dict.fromkeys(_OTHERS, "an unsupported format")


def find_images(
    pattern: str | Path, recursive: bool = False, *, outside: str | Path | None = None
) -> list[Path]:
    """Returns the picture files that a folder, a glob or a single name stands for.

    A folder that is an OME-Zarr image counts as a file. Of an OME-TIFF set of several files, the
    first one stands for all.

    Args:
        pattern: a folder (its files with one of `IMAGE_SUFFIXES`, or of stacks), a glob (`**`
            matches any depth), or one file. `~` is expanded. The name of an existing path is taken
            literally, even if it contains `[`, `*` or `?`.
        recursive: whether a folder stands for the pictures in its sub-folders, too, other than
            hidden ones, links, and those named `RESULTS`. Default False.
        outside: a folder, such as that of the results, whose pictures are not found by way of a
            folder or glob above it. Default None.

    Returns:
        At least one path, sorted. Links that lead nowhere are among them. A `CbsnWarning` reports
        skipped pictures, such as raw files, and those that belong to another one.

    Raises:
        DataError: if nothing was found, or a folder cannot be read.
    """
    path = expanded(pattern)
    try:
        if path.is_file() or is_ome_zarr(path):
            return [path]
        if path.is_dir() and path.suffix.lower() == ZARR_SUFFIX:
            raise DataError(f"{path} {_INCOMPLETE}")
        if path.is_dir():
            found = _in_folder(path, recursive, outside)
            sought = f"no picture ({', '.join(sorted(IMAGE_SUFFIXES))}) in the folder {path}"
        else:
            found = _matches(path, outside)
            sought = f"no file matches {path}"
            if path.exists() and not found:
                sought = f"{path} is a pipe or a device, and no file"
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror}). Give a folder of "
            f"pictures, a glob in quotes, or one file that you may read. Received: {pattern}"
        ) from error
    if not found:
        raise DataError(f"{sought}. Give a folder of pictures, a glob in quotes, or one file.")
    return without_repeats(sorted(found))


def are_single(*patterns: str | Path | None) -> bool:
    """Returns whether each is one picture or stack, rather than a folder or a glob."""
    paths = [expanded(each) for each in patterns if each is not None]
    return len(paths) == len(patterns) and all(
        each.is_file() or is_ome_zarr(each) for each in paths
    )


def literal_part(path: Path) -> Path:
    """Returns the longest part of a path, without a glob, that exists."""
    return next(each for each in (path, *path.parents) if each.exists() or each == each.parent)


def _in_folder(top: Path, recursive: bool, outside: str | Path | None) -> list[Path]:
    visible: list[Path] = []
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            inside = [each for each in folder.iterdir() if not each.name.startswith(".")]
        except OSError as error:
            if folder == top:
                raise
            text = f"skipped: the folder {folder} cannot be read ({error.strerror})."
            warnings.warn(text, CbsnWarning, stacklevel=3)
            continue
        visible += inside
        if recursive:
            below = [
                each for each in inside if each.is_dir() and each.suffix.lower() != ZARR_SUFFIX
            ]
            for each in filter(Path.is_symlink, below):  # which may lead to a folder above it
                text = f"skipped: the folder {each}, which is a link. Give it by itself."
                warnings.warn(text, CbsnWarning, stacklevel=3)
            wanted = [each for each in below if not each.is_symlink()]
            wanted = [each for each in wanted if not (outside and _lies_in(each, outside))]
            folders += [each for each in wanted if each.name != RESULTS]
            for each in wanted:
                if each.name == RESULTS:
                    text = f"skipped: the folder {each}, whose name is that of earlier results."
                    warnings.warn(text, CbsnWarning, stacklevel=3)
    if skipped := [each for each in visible if each.suffix.lower() in _SKIPPED]:
        first = min(skipped)
        reason = _SKIPPED[first.suffix.lower()]
        files = f"{len(skipped)} file{'s' * (len(skipped) > 1)}"
        warnings.warn(
            f"skipped in {top}: {files} that cannot be read, such as {first.relative_to(top)} "
            f"({reason}). Convert them to TIFF or PNG.",
            CbsnWarning,
            stacklevel=3,
        )
    for each in visible:
        if each.suffix.lower() == ZARR_SUFFIX and each.is_dir() and not is_ome_zarr(each):
            warnings.warn(f"skipped: {each} {_INCOMPLETE}", CbsnWarning, stacklevel=3)
    return [
        each
        for each in visible
        if (each.suffix.lower() in _TAKEN and each.is_file())
        or (each.suffix.lower() == ZARR_SUFFIX and is_ome_zarr(each))
        or _is_broken_link(each)
    ]


def _matches(path: Path, outside: str | Path | None) -> list[Path]:
    """Returns the files that a glob matches below the longest part of it that exists literally."""
    base = literal_part(path)
    rest = path.relative_to(base)
    if rest.parts:
        with contextlib.suppress(NotADirectoryError):
            next(base.iterdir(), None)  # glob is silent about folders that it may not read
    matches = {base / each for each in glob.glob(str(rest), root_dir=base, recursive=True)}  # noqa: PTH207
    if outside and not _lies_in(base, outside):
        matches = {each for each in matches if not _lies_in(each.parent, outside)}
    inside_zarr = {
        each for each in matches if ZARR_SUFFIX in (p.suffix.lower() for p in each.parents)
    }
    return [
        each
        for each in matches - inside_zarr
        if each.is_file() or is_ome_zarr(each) or _is_broken_link(each)
    ]


def _is_broken_link(path: Path) -> bool:
    """Returns whether this would be a picture if it led somewhere; reading it then says so."""
    return path.suffix.lower() in _TAKEN and path.is_symlink() and not path.exists()


def _lies_in(path: Path, folder: str | Path) -> bool:
    # Not Path.resolve, which fails on links that lead to themselves.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def format_of_suffix(suffix: str) -> str:
    """Returns the format, a key of `SUFFIX_OF_FORMAT`, of a file name's suffix (`.jpeg`)."""
    if suffix.lower() not in _FORMAT_OF_SUFFIX:
        known = sorted(_FORMAT_OF_SUFFIX)
        raise ImageError(f"No picture format has the suffix {suffix!r}; use {known}.")
    return _FORMAT_OF_SUFFIX[suffix.lower()]
