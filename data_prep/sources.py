"""The raw data sets: which pictures they have, and how these are read."""

import dataclasses
import functools
import glob
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cbsn.data.dnd import FOLDERS, open_noisy
from cbsn.errors import DataError
from cbsn.images.finding import find_images
from cbsn.images.image_files import read_header, read_picture, to_rgb
from cbsn.value_range import ValueRange


@dataclasses.dataclass(frozen=True)
class RawData:
    """The pictures of a raw data set, and how to read them.

    Args:
        kind: `SIDD`, `DND` or `folder`.
        root: the folder it lies in; the manifest names files relative to it.
        files: its pictures.
        read: gives the picture in a file, [H, W, 3] uint8, uint16 or float32 over the whole range
            of its dtype (floats: [0, 1]), and what that range is in the file; raises ImageError
            if the file is broken. It can be pickled, as it is sent to other processes.
        longest_side: gives the larger of a picture's height and width, in pixels, by its header
            alone; 0 or any error if the file is broken. It can be pickled, too.
        dtype: the widest dtype among its pictures: `uint8`, `uint16` or `float32`.
        offset: usual distance of the first patch from the top and left edge, in pixels.
    """

    kind: str
    root: Path
    files: tuple[Path, ...]
    read: Callable[[Path], tuple[np.ndarray, ValueRange]]
    longest_side: Callable[[Path], int]
    dtype: str
    offset: int = 0

    def name(self, path: Path) -> str:
        """The name of one of `files` in the manifest."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def names(self) -> dict[str, Path]:
        """All files by their names in the manifest."""
        return {self.name(path): path for path in self.files}


def find_raw(dataset: str | Path, source: str | Path, white: float | None = None) -> RawData:
    """Finds the pictures of a data set.

    Args:
        dataset: `SIDD` or `DND` in any case, or a folder, glob or picture file.
        source: folder that holds SIDD or DND.
        white: what white is in the pictures of a folder, as for `read_picture`.

    Raises:
        DataError: there are none.
    """
    find = {"SIDD": _find_sidd, "DND": _find_dnd}.get(str(dataset).upper())
    return find(Path(source).absolute()) if find else _find_pictures(dataset, white)


def _find_sidd(source: Path) -> RawData:
    root = source / "SIDD_Medium_Srgb" / "Data"
    files = sorted(
        path
        for path in root.glob("*/*")
        if "NOISY" in path.name.upper() and path.suffix.upper() == ".PNG"
    )
    if not files:
        raise DataError(
            f"There is no {root / '*' / '*NOISY*.PNG'}. Download SIDD Medium (sRGB) from "
            "https://abdokamel.github.io/sidd and say with --source where its folder lies."
        )
    return RawData("SIDD", root, tuple(files), read_rgb, _longest_side, "uint8", offset=10)


def _find_dnd(source: Path) -> RawData:
    folders = [source / name / "images_srgb" for name in FOLDERS]
    for folder in folders:
        if files := sorted(folder.glob("*.mat")):
            return RawData("DND", folder, tuple(files), read_dnd, _longest_side_dnd, "float32")
    raise DataError(
        f"There is no *.mat file in {' or '.join(map(str, folders))}. Download DND from "
        "https://noise.visinf.tu-darmstadt.de and say with --source where its folder lies."
    )


def read_dnd(path: Path) -> tuple[np.ndarray, ValueRange]:
    """Reads a picture of DND, as `RawData.read` does."""
    with open_noisy(path) as noisy:
        stored = noisy[()]
    return np.ascontiguousarray(stored.T, np.float32), ValueRange(0.0, 1.0)


def _longest_side_dnd(path: Path) -> int:
    with open_noisy(path) as noisy:
        return max(noisy.shape[1:])


def _find_pictures(pattern: str | Path, white: float | None) -> RawData:
    files = tuple(path.absolute() for path in find_images(pattern))
    widest = max(map(_stored_dtype, files), key=["uint8", "uint16", "float32"].index)
    root = Path(pattern).expanduser().absolute()
    if not os.path.lexists(root):
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), root.parts))
    elif not root.is_dir():
        root = root.parent
    read = functools.partial(read_rgb, white=white)
    return RawData("folder", root, files, read, _longest_side, widest)


def read_rgb(path: Path, white: float | None = None) -> tuple[np.ndarray, ValueRange]:
    """Reads a picture file, as `RawData.read` does; gray is repeated, alpha dropped."""
    picture = read_picture(path, white=white)
    return to_rgb(picture), picture.range_in_file


def _longest_side(path: Path) -> int:
    return max(read_header(path)[:2])


def _stored_dtype(path: Path) -> str:
    """The dtype of a picture, by its header alone: data sets may be too large to decode twice.

    A file that is broken counts as uint8; it is noticed when it is read.
    """
    dtype = read_header(path).dtype
    return dtype if dtype in ("uint16", "float32") else "uint8"
