"""Any folder or glob of pictures as raw data."""

import contextlib
import functools
import glob
import itertools
import os
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cbsn.images.image_files import find_images, read_picture, to_rgb
from cbsn.images.tiff import TIFF_MAGICS, whole_pages
from cbsn.value_range import ValueRange, value_range
from data_prep.raw import RawData


def find(pattern: str | Path, white: float | None = None) -> RawData:
    """The pictures in a folder, those that a glob matches, or one picture.

    Args:
        pattern: as for `find_images`.
        white: what white is in the files, as for `read_picture`.

    Raises:
        DataError: there are none.
    """
    files = tuple(path.absolute() for path in find_images(pattern))
    dtypes = {_stored_dtype(path) for path in files}
    widest = max(dtypes, key=["uint8", "uint16", "float32"].index)
    reader = functools.partial(read, white=white)
    return RawData("folder", _root(pattern), files, reader, longest_side, widest)


def read(path: Path, white: float | None = None) -> tuple[np.ndarray, ValueRange]:
    """Reads a picture as [H, W, 3] uint8, uint16 or float32; gray is repeated, alpha dropped.

    Args:
        path: the file.
        white: what white is in it, as for `read_picture`.

    Returns:
        The picture over the whole range of its dtype, and what that is in the file.

    Raises:
        ImageError: the file is broken or no picture.
    """
    picture = read_picture(path, white=white)
    whole = ValueRange(0.0, value_range(picture.pixels.dtype))
    return to_rgb(picture), picture.value_range or whole


def longest_side(path: Path) -> int:
    """Reads the larger of a picture's height and width from its header."""
    with path.open("rb") as file:
        is_tiff = file.read(4).startswith(TIFF_MAGICS)
    if is_tiff:
        with tifffile.TiffFile(path) as tiff:
            page = next(whole_pages(tiff)).aspage()
            return max(page.imagewidth, page.imagelength)
    with Image.open(path) as picture:
        return max(picture.size)


def _root(pattern: str | Path) -> Path:
    path = Path(pattern).expanduser().absolute()
    if os.path.lexists(path):
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
                found = str(next(whole_pages(tiff)).dtype)
            return found if found in ("uint16", "float32") else "uint8"
    return "uint8"
