"""The Darmstadt Noise Dataset (DND), sRGB part, as raw data."""

from pathlib import Path

import h5py
import numpy as np

from cbsn.errors import DataError, ImageError
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
            return RawData("DND", folder, files, read, "float32")
    raise DataError(
        f"There is no *.mat file in {' or '.join(map(str, folders))}. Download DND from "
        "https://noise.visinf.tu-darmstadt.de and say with --source where its folder lies."
    )


def read(path: Path) -> np.ndarray:
    """Reads `InoisySRGB` of a MATLAB 7.3 file, stored [3, W, H], as [H, W, 3] float32 in [0, 1].

    Raises:
        ImageError: the file is broken or holds no such picture.
    """
    try:
        with h5py.File(path) as file:
            stored = file["InoisySRGB"][()]
    except (OSError, KeyError, RuntimeError) as error:
        raise ImageError(f"has no readable `InoisySRGB` (MATLAB 7.3): {error}") from error
    if stored.ndim != 3 or stored.shape[0] != 3 or stored.dtype.kind != "f":
        raise ImageError(
            f"holds `InoisySRGB` of shape {stored.shape} and dtype {stored.dtype}; "
            "expected floats of shape (3, width, height)."
        )
    return np.ascontiguousarray(stored.T, np.float32)
