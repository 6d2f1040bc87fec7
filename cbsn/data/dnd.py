"""The noisy pictures of the Darmstadt Noise Dataset (DND), sRGB part."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py

from cbsn.errors import ImageError
from cbsn.images.picture import MAX_PIXELS

FOLDERS = ("dnd_2017", "dnd2017")
"""Names that its folder goes by."""


@contextlib.contextmanager
def open_noisy(path: Path) -> Iterator[h5py.Dataset]:
    """Opens `InoisySRGB` of a MATLAB 7.3 file, floats [3, W, H] in [0, 1], to be read in the block.

    Raises:
        ImageError: the file is broken, also where it is read in the block (the decoder's error is
            the cause then), or holds no such picture.
    """
    try:
        with h5py.File(path) as file:
            data = file["InoisySRGB"]
            _check(data)
            yield data
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        raise ImageError(f"has no readable `InoisySRGB` (MATLAB 7.3): {error}") from error


def _check(data: h5py.Dataset | h5py.Group) -> None:
    if not isinstance(data, h5py.Dataset):
        raise ImageError("holds an `InoisySRGB` that is no array.")
    if len(data.shape or ()) != 3 or data.shape[0] != 3 or data.dtype.kind != "f":
        raise ImageError(
            f"holds `InoisySRGB` of shape {data.shape} and dtype {data.dtype}; "
            "expected floats of shape (3, width, height)."
        )
    if not 0 < data.size <= 3 * MAX_PIXELS:
        raise ImageError(f"claims {data.shape[1]} x {data.shape[2]} pixels.")
    # HDF5 ends the process at empty chunks, by filters that MATLAB does not use.
    properties = data.id.get_create_plist()
    filters = {properties.get_filter(each)[0] for each in range(properties.get_nfilters())}
    if not filters <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}:
        raise ImageError(f"holds `InoisySRGB` packed by filters {sorted(filters)}, not as MATLAB.")
    if data.chunks and data.id.chunk_iter(lambda chunk: None if chunk.size else chunk):
        raise ImageError("has no readable `InoisySRGB` (MATLAB 7.3): a part of it is empty.")
