"""The submission to the Darmstadt Noise Dataset (DND), sRGB."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from cbsn.data.benchmark_files import DND_FOLDERS, open_dnd, read_mat, write_mat
from cbsn.errors import ConfigError, DataError, ImageError, plain_reason
from cbsn.evaluation.submit.submission import Submission
from cbsn.files import atomic_folder, expanded

IMAGES, BOXES, SIDE = 50, 20, 512  # of the real benchmark: pictures, boxes in each, pixels a side
ROUNDINGS = ("none", "round", "floor")  # to 8-bit levels; none: the denoiser's floats

_DOWNLOAD = "from https://noise.visinf.tu-darmstadt.de, and say with --source where its folder lies"

Box = tuple[int, int, int, int]  # top, left, bottom, right, from 0; the last two lie beyond it


class DndSubmission(Submission):
    """The boxes of DND, denoised one by one to `OUT/crops/IIII_BB.mat`.

    Image IIII and box BB count from 1. When all are there, those of each image are written to
    `OUT/bundled/IIII.mat`; the content of that folder is to be submitted. The source is the folder
    `dnd_2017` (or `dnd2017`), or the one that holds it, with `info.mat` and `images_srgb/IIII.mat`.

    Example:
        >>> DndSubmission("dnd_2017", "out").run(Denoiser.load("checkpoints/my-run"))
    """

    BENCHMARK = "dnd"
    PART = "crop"
    SUFFIX = ".mat"
    DTYPE = np.float32
    BUNDLES = ("bundled",)

    def __init__(
        self, source: str | Path, out: str | Path, *, rounding: str = "none", resume: bool = False
    ):
        if rounding not in ROUNDINGS:
            raise ConfigError(f"rounding is one of {', '.join(ROUNDINGS)}. Received: {rounding!r}")
        self._rounding = rounding
        folder = _find(expanded(source))
        boxes = _read_boxes(folder / "info.mat")
        paths = [folder / "images_srgb" / f"{i:04d}.mat" for i in range(1, len(boxes) + 1)]
        if missing := [path for path in paths if not path.is_file()]:
            raise DataError(
                f"DND has {len(paths)} pictures, of which {len(missing)} cannot be found, such as "
                f"{missing[0]}. Download it {_DOWNLOAD}."
            )
        self._places: dict[str, tuple[Path, Box]] = {}
        for path, each in zip(paths, boxes, strict=True):
            _check(path, each)
            self._places |= {f"{path.stem}_{b:02d}": (path, box) for b, box in enumerate(each, 1)}
        shapes = {
            name: (bottom - top, right - left, 3)
            for name, (_, (top, left, bottom, right)) in self._places.items()
        }
        other = [shape[:2] for shape in shapes.values() if shape[:2] != (SIDE, SIDE)]
        warning = ""
        if other or [len(each) for each in boxes] != [BOXES] * IMAGES:
            height, width = (other or [(SIDE, SIDE)])[0]
            warning = (
                f"the source has {len(boxes)} pictures with {len(shapes)} boxes, one of "
                f"{height} × {width}, and DND has {IMAGES} with {IMAGES * BOXES} of {SIDE} × {SIDE}"
            )
        super().__init__(
            [folder / "info.mat", *paths], shapes, warning, {"rounding": rounding}, out, resume
        )

    def read(self, name: str) -> np.ndarray:
        """Returns a noisy crop, float32 [H, W, 3] in [0, 1]; no more is read of the picture."""
        path, (top, left, bottom, right) = self._places[name]
        with _noisy(path) as picture:
            crop = picture[:, left:right, top:bottom]
        return np.ascontiguousarray(crop.T, np.float32)

    def save(self, path: Path, denoised: np.ndarray) -> None:
        """Rounds in float32, as AP-BSN does, and writes a MATLAB file."""
        if self._rounding != "none":
            levels = denoised * np.float32(255)
            if self._rounding == "round":
                levels += np.float32(0.5)
            denoised = np.floor(levels) / np.float32(255)
        write_mat(path, {"Idenoised_crop": denoised})

    def load_file(self, path: Path) -> np.ndarray:
        """Reads a MATLAB file."""
        return read_mat(path, "Idenoised_crop")

    def bundle(self, seconds: float | None) -> list[Path]:
        """Writes a file for each image."""
        folder = self.out / "bundled"
        crops: dict[str, list[str]] = {}
        for name, (path, _) in self._places.items():
            crops.setdefault(path.name, []).append(name)
        with atomic_folder(folder) as temporary:
            for file, names in crops.items():
                cells = np.empty((1, len(names)), object)
                for place, name in enumerate(names):
                    cells[0, place] = self.load(name)
                facts = {"israw": np.array(False), "eval_version": "1.0"}
                write_mat(temporary / file, {"Idenoised": cells, **facts})
        return [folder]


def _find(source: Path) -> Path:
    folders = [source, *(source / name for name in DND_FOLDERS)]
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
        [(r1 - 1, c1 - 1, r2, c2) for r1, c1, r2, c2 in corners.T.astype(int).tolist()]
        for corners in stored
    ]


def _check(path: Path, boxes: list[Box]) -> None:
    """Raises DataError unless a file has a picture in which the boxes lie; reads no pixel."""
    with _noisy(path) as picture:
        _, width, height = picture.shape
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise DataError(
                f"{path}: box {number}, rows {top + 1} to {bottom} and columns {left + 1} to "
                f"{right}, is not inside the picture of {height} rows and {width} columns. "
                f"Download DND, info.mat too, {_DOWNLOAD}."
            )


@contextlib.contextmanager
def _noisy(path: Path) -> Iterator[h5py.Dataset]:
    try:
        with open_dnd(path) as picture:
            yield picture
    except ImageError as error:
        if isinstance(error.__cause__, Exception):  # the decoder's
            raise _unreadable(path, error.__cause__) from error
        raise DataError(f"{path} {error} Download DND {_DOWNLOAD}.") from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read, it may be damaged: {plain_reason(error)}. "
        f"Download DND {_DOWNLOAD}."
    )
