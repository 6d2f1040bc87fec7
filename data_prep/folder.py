"""Any folder or glob of pictures as raw data."""

import contextlib
import glob
import itertools
from pathlib import Path

import numpy as np
import tifffile

from cbsn.data.image_io import find_images, read_picture, to_rgb
from data_prep.raw import RawData


def find(pattern: str | Path) -> RawData:
    """The pictures in a folder, those that a glob matches, or one picture.

    Raises:
        DataError: there are none.
    """
    files = tuple(path.absolute() for path in find_images(pattern))
    dtypes = {_stored_dtype(path) for path in files}
    widest = max(dtypes, key=["uint8", "uint16", "float32"].index)
    return RawData("folder", _root(pattern), files, read, widest)


def read(path: Path) -> np.ndarray:
    """Reads a picture as [H, W, 3] uint8, uint16 or float32; gray is repeated, alpha dropped.

    Raises:
        ImageError: the file is broken or no picture.
    """
    return to_rgb(read_picture(path))


def _root(pattern: str | Path) -> Path:
    path = Path(pattern).expanduser().absolute()
    if path.exists():
        return path if path.is_dir() else path.parent
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))


def _stored_dtype(path: Path) -> str:
    """The dtype of a picture, by its header alone: data sets may be too large to decode twice.

    A file that is broken counts as uint8; it is noticed when it is read.
    """
    with contextlib.suppress(Exception):  # damaged headers raise almost anything
        with path.open("rb") as file:
            start = file.read(25)
        if start.startswith(b"\x89PNG") and start[24:] == b"\x10":  # the bit depth
            return "uint16"
        if start.startswith((b"II", b"MM")):
            with tifffile.TiffFile(path) as tiff:
                found = str(next(p for p in tiff.pages if not p.is_reduced).dtype)
            return found if found in ("uint16", "float32") else "uint8"
    return "uint8"
