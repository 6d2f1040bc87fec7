"""The submission to the Darmstadt Noise Dataset (DND), sRGB."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from cbsn.data.mat_files import read_mat, write_mat
from cbsn.errors import ConfigError, DataError, plain_reason
from cbsn.evaluation.submit.submission import Submission
from cbsn.files import atomic_folder, expanded

FOLDERS = ("dnd_2017", "dnd2017")
"""Names that its folder goes by."""

IMAGES, BOXES, SIDE = 50, 20, 512
"""Of the real benchmark: pictures, boxes in each, and pixels along a box."""

ROUNDINGS = ("none", "round", "floor")

_DOWNLOAD = "from https://noise.visinf.tu-darmstadt.de, and say with --source where its folder lies"


class Box(NamedTuple):
    """A box of a picture, from the top and left pixel up to but without the bottom and right."""

    top: int
    left: int
    bottom: int
    right: int


class DndSubmission(Submission):
    """The boxes of DND, denoised one by one to `OUT/crops/IIII_BB.mat`.

    Image IIII and box BB count from 1. When all are there, those of each image are written to
    `OUT/bundled/IIII.mat`; the content of that folder is to be submitted.

    Args:
        source: the folder `dnd_2017` (or `dnd2017`), or the one that holds it. Inside are
            `info.mat` and `images_srgb/IIII.mat`. Other numbers than 50 images with 20 boxes of
            512 × 512 bring a warning.
        out: folder to write.
        rounding: `"round"` or `"floor"` to 8-bit levels, or `"none"` for the denoiser's floats as
            they are. Default `"none"`.
        resume: whether to go on with the submission in `out`. Default False.

    Raises:
        ConfigError: if `rounding` is none of these, or `out` holds a submission and `resume` is
            False.
        DataError: if a file is missing or broken, or a box is not inside its picture.

    Example:
        >>> DndSubmission("dnd_2017", "out").run(Denoiser.load("checkpoints/my-run"))
    """

    BENCHMARK = "dnd"
    PART = "crop"
    SUFFIX = ".mat"
    DTYPE = np.float32
    BUNDLES = ("bundled",)

    def __init__(
        self,
        source: str | Path,
        out: str | Path,
        *,
        rounding: str = "none",
        resume: bool = False,
    ):
        if rounding not in ROUNDINGS:
            raise ConfigError(f"rounding is one of {', '.join(ROUNDINGS)}. Received: {rounding!r}")
        folder = _find(expanded(source))
        boxes = _read_boxes(folder / "info.mat")
        self._names = [
            [f"{i:04d}_{b:02d}" for b in range(1, len(each) + 1)] for i, each in enumerate(boxes, 1)
        ]
        paths = [folder / "images_srgb" / f"{i:04d}.mat" for i in range(1, len(boxes) + 1)]
        if missing := [path for path in paths if not path.is_file()]:
            raise DataError(
                f"DND has {len(paths)} pictures, of which {len(missing)} cannot be found, such as "
                f"{missing[0]}. Download it {_DOWNLOAD}."
            )
        self._places = {}
        for path, names, each in zip(paths, self._names, boxes, strict=True):
            _check(path, each)
            self._places |= {name: (path, box) for name, box in zip(names, each, strict=True)}
        self._rounding = rounding
        super().__init__(
            source=folder,
            files=[folder / "info.mat", *paths],
            shapes={name: _shape(box) for name, (_, box) in self._places.items()},
            warning=_compare_with_real(boxes),
            out=out,
            resume=resume,
        )
        self.settings = {"rounding": rounding}

    def read(self, name: str) -> np.ndarray:
        """Returns a noisy crop, float32 [H, W, 3] in [0, 1]; no more is read of the picture."""
        path, box = self._places[name]
        try:
            with h5py.File(path) as file:
                crop = file["InoisySRGB"][:, box.left : box.right, box.top : box.bottom]
        except (OSError, KeyError, RuntimeError) as error:
            raise _unreadable(path, error) from error
        return np.ascontiguousarray(crop.T, np.float32)

    def finish(self, denoised: np.ndarray) -> np.ndarray:
        """Rounds in float32, as AP-BSN does."""
        if self._rounding == "none":
            return denoised
        levels = denoised * np.float32(255)
        if self._rounding == "round":
            levels += np.float32(0.5)
        return np.floor(levels) / np.float32(255)

    def save(self, path: Path, denoised: np.ndarray) -> None:
        """Writes a MATLAB file."""
        write_mat(path, {"Idenoised_crop": denoised})

    def load_file(self, path: Path) -> np.ndarray:
        """Reads a MATLAB file."""
        return read_mat(path, "Idenoised_crop")

    def bundle(self, load: Callable[[str], np.ndarray], seconds: float | None) -> list[Path]:
        """Writes a file for each image."""
        folder = self.progress.out / "bundled"
        with atomic_folder(folder) as temporary:
            for number, names in enumerate(self._names, 1):
                cells = np.empty((1, len(names)), object)
                for place, name in enumerate(names):
                    cells[0, place] = load(name)
                write_mat(
                    temporary / f"{number:04d}.mat",
                    {"Idenoised": cells, "israw": np.array(False), "eval_version": "1.0"},
                )
        return [folder]


def _find(source: Path) -> Path:
    folders = [source, *(source / name for name in FOLDERS)]
    for folder in folders:
        if (folder / "info.mat").is_file():
            return folder
    raise DataError(
        f"There is no info.mat in {' or '.join(map(str, folders))}. Download DND {_DOWNLOAD}."
    )


def _read_boxes(path: Path) -> list[list[Box]]:
    """Reads the boxes of each picture; MATLAB's rows and columns count from 1, inclusively."""
    try:
        with h5py.File(path) as file:
            stored = [file[each][()] for each in file["info/boundingboxes"][()].ravel()]
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        raise _unreadable(path, error) from error
    for number, corners in enumerate(stored, 1):
        numbers = corners.ndim == 2 and len(corners) == 4 and corners.dtype.kind in "uif"
        if not numbers or not corners.size or (corners != np.floor(corners)).any():
            raise DataError(
                f"{path}: the boxes of picture {number} should be whole numbers (4, boxes). "
                f"Found: {corners.dtype} {corners.shape}. Download DND {_DOWNLOAD}."
            )
    if not stored:
        raise DataError(f"{path} has no boxes. Download DND {_DOWNLOAD}.")
    return [
        [Box(r1 - 1, c1 - 1, r2, c2) for r1, c1, r2, c2 in corners.T.astype(int).tolist()]
        for corners in stored
    ]


def _check(path: Path, boxes: list[Box]) -> None:
    """Raises DataError unless a file has a picture in which the boxes lie; reads no pixel."""
    try:
        with h5py.File(path) as file:
            shape, dtype = file["InoisySRGB"].shape, file["InoisySRGB"].dtype
    except (OSError, KeyError, RuntimeError, AttributeError) as error:
        raise _unreadable(path, error) from error
    if len(shape) != 3 or shape[0] != 3 or dtype.kind != "f":
        raise DataError(
            f"{path}: InoisySRGB should be floats (3, width, height). Found: {dtype} {shape}. "
            f"Download DND {_DOWNLOAD}."
        )
    _, width, height = shape
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise DataError(
                f"{path}: box {number}, rows {top + 1} to {bottom} and columns {left + 1} to "
                f"{right}, is not inside the picture of {height} rows and {width} columns. "
                f"Download DND, info.mat too, {_DOWNLOAD}."
            )


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read, it may be damaged: {plain_reason(error)}. "
        f"Download DND {_DOWNLOAD}."
    )


def _shape(box: Box) -> tuple[int, int, int]:
    return box.bottom - box.top, box.right - box.left, 3


def _compare_with_real(boxes: list[list[Box]]) -> str:
    sizes = [_shape(box)[:2] for each in boxes for box in each]
    if [len(each) for each in boxes] == [BOXES] * IMAGES and {*sizes} == {(SIDE, SIDE)}:
        return ""
    height, width = next((size for size in sizes if size != (SIDE, SIDE)), (SIDE, SIDE))
    return (
        f"the source has {len(boxes)} pictures with {len(sizes)} boxes, one of {height} × {width}, "
        f"and DND has {IMAGES} with {IMAGES * BOXES} of {SIDE} × {SIDE}"
    )
