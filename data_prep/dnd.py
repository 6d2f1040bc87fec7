"""The Darmstadt Noise Dataset (DND), sRGB part, as raw data."""

from pathlib import Path

import h5py
import numpy as np

from cbsn.errors import DataError, ImageError
from cbsn.images.picture import MAX_PIXELS
from cbsn.value_range import ValueRange
from data_prep.raw import RawData

FOLDERS = ("dnd_2017", "dnd2017")
"""Names that its folder goes by."""


def find(source: str | Path) -> RawData:
    """The noisy pictures of DND: `SOURCE/dnd_2017/images_srgb/*.mat`.

    Raises:
        DataError: there are none.
    """
    folders = [Path(source).absolute() / name / "images_srgb" for name in FOLDERS]
    for folder in folders:
        files = tuple(sorted(folder.glob("*.mat")))
        if files:
            return RawData("DND", folder, files, read, longest_side, "float32")
    raise DataError(
        f"There is no *.mat file in {' or '.join(map(str, folders))}. Download DND from "
        "https://noise.visinf.tu-darmstadt.de and say with --source where its folder lies."
    )


def read(path: Path) -> tuple[np.ndarray, ValueRange]:
    """Reads `InoisySRGB` of a MATLAB 7.3 file, stored [3, W, H], as [H, W, 3] float32 in [0, 1].

    Raises:
        ImageError: the file is broken or holds no such picture.
    """
    try:
        with h5py.File(path) as file:
            data = file["InoisySRGB"]
            if not isinstance(data, h5py.Dataset):
                raise ImageError("holds an `InoisySRGB` that is no array.")
            if len(data.shape or ()) != 3 or data.shape[0] != 3 or data.dtype.kind != "f":
                raise ImageError(
                    f"holds `InoisySRGB` of shape {data.shape} and dtype {data.dtype}; "
                    "expected floats of shape (3, width, height)."
                )
            if not 0 < data.size <= 3 * MAX_PIXELS:
                raise ImageError(f"claims {data.shape[1]} x {data.shape[2]} pixels.")
            _check_chunks(data)
            stored = data[()]
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        raise ImageError(f"has no readable `InoisySRGB` (MATLAB 7.3): {error}") from error
    return np.ascontiguousarray(stored.T, np.float32), ValueRange(0.0, 1.0)


def _check_chunks(data: h5py.Dataset) -> None:
    """Refuses what makes HDF5 end the process: empty chunks, by filters that MATLAB does not use.

    Raises:
        ImageError: as said.
    """
    properties = data.id.get_create_plist()
    filters = {properties.get_filter(each)[0] for each in range(properties.get_nfilters())}
    if not filters <= {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}:
        raise ImageError(f"holds `InoisySRGB` packed by filters {sorted(filters)}, not as MATLAB.")
    for number in range(data.id.get_num_chunks() if data.chunks else 0):
        if not data.id.get_chunk_info(number).size:
            raise ImageError("has no readable `InoisySRGB` (MATLAB 7.3): a part of it is empty.")


def longest_side(path: Path) -> int:
    """Reads the larger of a picture's height and width."""
    with h5py.File(path) as file:
        return max(file["InoisySRGB"].shape[1:])
