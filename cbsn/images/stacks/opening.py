"""Finding and opening stacks of any format, and which format their results have."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cbsn.errors import CbsnError, ConfigError, DataError, ImageError, unreadable
from cbsn.images.stacks import microscopes, ome_zarr
from cbsn.images.stacks.ome_zarr import ZARR_SUFFIX
from cbsn.images.stacks.ome_zarr_writer import create_ome_zarr
from cbsn.images.stacks.stack import Stack, check_axes
from cbsn.images.stacks.tiff_stack_writer import create_tiff_stack
from cbsn.images.stacks.tiff_stacks import is_tiff_stack, open_tiff_stacks
from cbsn.images.stacks.writing import Create
from cbsn.images.tiff import TIFF_MAGICS

# The names of the formats that are written, with the suffix of each.
FORMATS = {"tiff": ".ome.tif", "zarr": ".ome.zarr"}


def is_stack(path: Path, axes: str | None = None) -> bool:
    """Returns whether a path is that of a stack, rather than of a picture.

    Args:
        path: a file, or a folder of OME-Zarr.
        axes: letters of the axes of TIFF files, which makes all of them stacks: a single plane, and
            planes that a program has written as the colours of a picture. Default None.
    """
    if path.is_dir():
        return ome_zarr.is_ome_zarr(path)
    if path.suffix.lower() in microscopes.SUFFIXES:
        return True
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(4) in TIFF_MAGICS:
            if axes is not None:
                return True
            status = path.stat()
            return _is_tiff_stack(path.absolute(), status.st_size, status.st_mtime_ns)
    return False


@functools.cache
def _is_tiff_stack(path: Path, size: int, mtime_ns: int) -> bool:
    return is_tiff_stack(path)


@contextlib.contextmanager
def open_stacks(path: str | Path, axes: str | None = None) -> Iterator[list[Stack]]:
    """Opens the stacks of a file or an OME-Zarr folder, one for each of its images.

    Args:
        path: a TIFF (of several pages, ImageJ's, OME's), CZI, ND2 or LIF file, or a folder.
        axes: letters of `AXES` in the file's order. Default: what the file says; those of a plain
            TIFF file are T, Y and X.

    Raises:
        ConfigError: if a library is missing, or `axes` are given for a format that has its own.
        ImageError: if the file is missing, damaged, or none of these.

    Example:
        >>> with open_stacks("cells.tif", axes="ZYX") as stacks:
        ...     first = stacks[0].read((0,))
    """
    path = Path(path)
    with _errors_of(path):
        stacks, close = _open(path, axes)
    try:
        yield [Stack(stack.layout, _guarded(path, stack)) for stack in stacks]
    finally:
        close()


def _open(path: Path, axes: str | None) -> tuple[list[Stack], Callable[[], None]]:
    if axes is not None:
        axes = axes.upper()
        check_axes(axes)
    if not path.is_dir() and path.suffix.lower() not in microscopes.SUFFIXES:
        return open_tiff_stacks(path, axes)
    if axes is not None:
        raise ConfigError(f"{path.suffix} files name their axes: omit --axes. Received: {axes}")
    if path.is_dir():
        if not ome_zarr.is_ome_zarr(path):
            raise ImageError("is a folder, and no OME-Zarr image.")
        return ome_zarr.open_ome_zarr(path), lambda: None
    return microscopes.open_microscope_file(path)


def _guarded(path: Path, stack: Stack):
    def read(index, rows, columns):
        with _errors_of(path):
            return stack._read(index, rows, columns)

    return read


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Makes errors name the file; damaged bytes make decoders raise almost anything."""
    try:
        yield
    except ImageError as error:
        raise with_path(error, path) from None
    except (CbsnError, MemoryError):
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.") from None
    except Exception as error:
        raise ImageError(f"{path}: {unreadable(error)}") from error


def are_stacks(paths: Sequence[Path], axes: str | None = None) -> bool:
    """Returns whether files are stacks, rather than pictures. For `axes`, see `is_stack`.

    Raises:
        DataError: if there are both.
    """
    stacks = [path for path in paths if is_stack(path, axes)]
    if not stacks or len(stacks) == len(paths):
        return bool(stacks)
    # One damaged picture, which looks like a stack, must not stop all others.
    stack = next((path for path in stacks if _opens(path)), None)
    if stack is None:
        return False
    picture = next(path for path in paths if path not in {*stacks})
    raise DataError(
        f"There are stacks, such as {stack}, and pictures, such as {picture}. Keep them in two "
        "folders, or use a glob."
    )


def _opens(path: Path) -> bool:
    with contextlib.suppress(ImageError), open_stacks(path):
        return True
    return False


def with_path(error: ImageError, path: Path) -> ImageError:
    """Returns an error that names the file, as do those of reading it."""
    return error if str(path) in str(error) else ImageError(f"{path}: {error}")


def suffix_of(path: Path) -> str:
    """Returns the suffix of a stack's name, such as `.ome.tif`."""
    name = path.name.lower()
    double = [each for each in (".ome.tif", ".ome.tiff", ".ome.zarr") if name.endswith(each)]
    return path.name[-len(double[0]) :] if double else path.suffix


def target_suffix(path: Path, format: str) -> str:
    """Returns the suffix of a stack's result.

    Args:
        path: the stack.
        format: `auto` or `same` for that of the source, or OME-TIFF if it is only read; or a key
            of `FORMATS`.

    Raises:
        ConfigError: if the format holds no stacks.
    """
    own = suffix_of(path)
    kind = "zarr" if path.is_dir() else "tiff"
    if format in ("auto", "same", kind):
        fits = own.lower().endswith((ZARR_SUFFIX,) if path.is_dir() else (".tif", ".tiff"))
        return own if fits else FORMATS[kind]
    if format not in FORMATS:
        raise ConfigError(
            f"Stacks are written as {' or '.join(FORMATS)}. Received: {path} with --format {format}"
        )
    return FORMATS[format]


def writer_of(target: Path) -> Create:
    """Returns what creates files with the suffix of a target."""
    is_zarr = target.suffix.lower() == ZARR_SUFFIX
    return create_ome_zarr if is_zarr else create_tiff_stack
