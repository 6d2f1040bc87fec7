"""Reads and writes the benchmarks' MATLAB files: SIDD's (version 5) and DND's (HDF5)."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import scipy

from cbsn.errors import DataError, ImageError, plain_reason
from cbsn.files import atomic_path
from cbsn.images.picture import MAX_PIXELS

DND_FOLDERS = ("dnd_2017", "dnd2017")  # possible names of DND's folder

# The format of version 5: bytes of the header, kinds of values, of parts and of arrays, and a flag.
_HEADER = 128
_INT32 = frozenset({5, 6})
_NUMBERS = _INT32 | {1, 2, 3, 4, 7, 9, 12, 13}
_TEXTS = _NUMBERS | {16, 17, 18}
_MATRIX, _COMPRESSED = 14, 15
_CHAR, _SPARSE, _NUMERIC = 4, 5, range(6, 16)
_COMPLEX = 0x800


def read_mat(path: Path, name: str) -> np.ndarray:
    """Reads one variable. Raises DataError if the file is broken or has no such variable."""
    variables = _load(path, [name])
    if name not in variables:
        raise DataError(f"{path} has no variable {name}.")
    return variables[name]


def write_mat(path: Path, variables: dict[str, Any]) -> None:
    """Writes arrays (cells, if of objects), strings, numbers and dicts (structs) atomically."""
    with atomic_path(path) as temporary:
        scipy.io.savemat(temporary, variables)


def read_blocks(path: Path) -> np.ndarray:
    """Reads SIDD's blocks, noisy or clean: uint8 [pictures, blocks, height, width, 3]."""
    arrays = [np.asarray(v) for name, v in _load(path).items() if not name.startswith("__")]
    is_good = [(each.ndim, each.shape[-1:], each.dtype) for each in arrays] == [(5, (3,), np.uint8)]
    if not (is_good and arrays[0].size):
        found = [f"{each.dtype} {each.shape}" for each in arrays]
        raise DataError(
            f"{path} must hold one array of blocks, uint8 [pictures, blocks, height, width, 3]. "
            f"Found: {', '.join(found) or 'none'}"
        )
    return arrays[0]


def block_places(blocks: np.ndarray) -> dict[str, tuple[int, int]]:
    """Returns the index (n, m) of each block by its name `NNNN_MM`, in order."""
    return {f"{n:04d}_{m:02d}": (n, m) for n, m in np.ndindex(blocks.shape[:2])}


@contextlib.contextmanager
def open_dnd(path: Path) -> Iterator[h5py.Dataset]:
    """Opens a noisy sRGB picture of DND, floats [3, W, H] in [0, 1], for reading in a `with` block.

    Raises ImageError if there is none or the file is broken, even if a read in the block fails.
    """
    try:
        with h5py.File(path) as file:
            data = file["InoisySRGB"]
            _check_dnd(data)
            yield data
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        raise ImageError(f"has no readable `InoisySRGB` (MATLAB 7.3): {error}") from error


def _check_dnd(data: h5py.Dataset | h5py.Group) -> None:
    if not isinstance(data, h5py.Dataset):
        raise ImageError("holds an `InoisySRGB` that is not an array.")
    if len(data.shape or ()) != 3 or data.shape[0] != 3 or data.dtype.kind != "f":
        raise ImageError(
            f"holds `InoisySRGB` of shape {data.shape} and dtype {data.dtype}; "
            "expected floats of shape (3, width, height)."
        )
    if not 0 < data.size <= 3 * MAX_PIXELS:
        raise ImageError(
            f"has {data.shape[1]} x {data.shape[2]} pixels; expected 1 to {MAX_PIXELS:,}."
        )
    # HDF5 crashes the process on empty chunks, and in filters that MATLAB does not use.
    properties = data.id.get_create_plist()
    filters = {properties.get_filter(each)[0] for each in range(properties.get_nfilters())}
    if not filters <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}:
        raise ImageError(
            f"holds `InoisySRGB` compressed by filters {sorted(filters)}, which MATLAB never uses."
        )
    if data.chunks and data.id.chunk_iter(lambda chunk: None if chunk.size else chunk):
        raise ImageError("has no readable `InoisySRGB` (MATLAB 7.3): part of it is empty.")


def _load(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            _check_file(file)
        return scipy.io.loadmat(path, variable_names=names)
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        reason = plain_reason(error)
        raise DataError(f"{path} cannot be read and may be damaged: {reason}.") from error


def _check_file(file: BinaryIO) -> None:
    """Raises ValueError for malformed files, on which SciPy would crash the process."""
    header = file.read(_HEADER)
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    major = header[125:126] if order == "<" else header[124:125]
    if order is None or major not in (b"\1", b"\2"):
        raise ValueError("it is not a MATLAB file of version 5")
    if major == b"\2":
        return  # version 7.3, for which SciPy raises an error
    end = file.seek(0, 2)
    file.seek(_HEADER)
    while file.tell() < end:
        kind, size = struct.unpack(f"{order}II", _exactly(file, 8))
        place = file.tell()
        if place + size > end:
            raise ValueError("it is cut off")
        if kind == _COMPRESSED:
            # All at once, because SciPy will take as much memory afterwards.
            inflated = io.BytesIO(zlib.decompress(file.read(size)))
            _check_matrix(inflated, order, *struct.unpack(f"{order}II", _exactly(inflated, 8)))
        else:
            _check_matrix(file, order, kind, size)
        file.seek(place + size)


def _check_matrix(file: BinaryIO, order: str, kind: int, size: int) -> None:
    if kind != _MATRIX:
        raise ValueError(f"it holds an element of type {kind} instead of an array")
    if not size:
        return
    end = file.tell() + size
    (flags,) = struct.unpack(f"{order}8xI4x", _exactly(file, 16))
    array = flags & 0xFF
    of_numbers = array in (_SPARSE, *_NUMERIC)
    is_array = array in range(16)  # others are functions and such
    allowed = _NUMBERS if of_numbers else _TEXTS
    count = -2  # so that the sizes and the name do not count
    while file.tell() < end:
        count += 1
        kind, length = struct.unpack(f"{order}II", _exactly(file, 8))
        if kind >> 16:  # a short element, with its values in place of the length
            kind, length = kind & 0xFFFF, 0
        elif kind == _MATRIX and not of_numbers:
            _check_matrix(file, order, kind, length)
            continue
        if count == -1 and is_array and (kind not in _INT32 or length < 8 or length % 4):
            raise ValueError("the dimensions of an array cannot be read")
        if kind not in allowed:
            raise ValueError(f"it holds values of unknown type {kind}")
        rest = -(-length // 8) * 8
        while rest > 0 and (block := file.read(min(rest, 2**20))):  # the last may be shorter
            rest -= len(block)
    parts = (3 if array == _SPARSE else 1) + bool(flags & _COMPLEX)
    if file.tell() > end + 8 or ((of_numbers or array == _CHAR) and count != parts):
        raise ValueError("the parts of an array have the wrong lengths")


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise ValueError("it is cut off")
    return content
