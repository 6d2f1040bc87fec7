"""The submissions to SIDD and DND."""

import base64
import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from cbsn.data.benchmark_files import DND_FOLDERS, open_dnd, read_mat, write_mat
from cbsn.errors import ConfigError, DataError, ImageError, plain_reason
from cbsn.evaluation.submit.submission import Submission
from cbsn.files import atomic_folder, atomic_path, expanded
from cbsn.images.image_files import read_picture

VARIABLE = "BenchmarkNoisyBlocksSrgb"
FILE = f"{VARIABLE}.mat"

SHAPE = (40, 32, 256, 256, 3)  # images, blocks, height, width, colours of the real benchmark

LAYOUTS = {"blocks": "SubmitSrgb.mat", "csv": "SubmitSrgb.csv", "kit": "kit/SubmitSrgb.mat"}
"""The values of `--layout`, and the file that each writes below the submission's folder."""

OPTIONAL_DATA = ("MethodName", "Authors", "PaperTitle", "Venue", "MachineSpecs")


class SiddSubmission(Submission):
    """A submission to SIDD: blocks are denoised one by one to `OUT/blocks/NNNN_DN.png`.

    Block NNNN is block NNNN % 32 of image NNNN // 32. Once all are done, they are written in the
    given layouts (keys of `LAYOUTS`, separated by commas): `blocks` is one array, as SS-BSN's
    packer writes it; `csv` is Kaggle's format, with each block's bytes in base64; `kit` is the
    MATLAB kit's format, with `texts` for its `OPTIONAL_DATA`.

    Example:
        >>> submission = SiddSubmission("BenchmarkNoisyBlocksSrgb.mat", "out")
        >>> submission.run(Denoiser.load("checkpoints/my-run"))
    """

    BENCHMARK = "sidd"
    PART = "block"
    SUFFIX = "_DN.png"
    DTYPE = np.uint8
    BUNDLES = tuple(LAYOUTS.values())

    def __init__(
        self,
        source: str | Path,
        out: str | Path,
        *,
        layouts: str = "blocks",
        texts: Mapping[str, str | None] | None = None,
        resume: bool = False,
    ):
        names = (name.strip() for name in layouts.split(","))
        self._layouts = [*dict.fromkeys(name for name in names if name)]
        if not self._layouts or not {*self._layouts} <= {*LAYOUTS}:
            raise ConfigError(
                f"--layout takes any of {', '.join(LAYOUTS)}, separated by commas. "
                f"Received: --layout {layouts!r}"
            )
        # A method's name may be a path, with bytes that MATLAB has no characters for.
        given = {key: (texts or {}).get(key) or "" for key in OPTIONAL_DATA}
        self._texts = {k: v.encode(errors="backslashreplace").decode() for k, v in given.items()}
        path = expanded(source)
        path = path / FILE if path.is_dir() else path
        self._blocks = _read(path)
        images, blocks, *shape = self._blocks.shape
        found, real = (" × ".join(map(str, sides)) for sides in (self._blocks.shape, SHAPE))
        warning = "" if found == real else f"{path} has the shape {found}, SIDD's has {real}"
        shapes = {f"{n:04d}": tuple(shape) for n in range(images * blocks)}
        super().__init__([path], shapes, warning, {}, out, resume)

    def read(self, name: str) -> np.ndarray:
        """Returns a noisy block, uint8 [H, W, 3]."""
        return np.ascontiguousarray(self._blocks[divmod(int(name), self._blocks.shape[1])])

    def save(self, path: Path, denoised: np.ndarray) -> None:
        """Writes a PNG file."""
        with atomic_path(path) as temporary:
            # A higher level saves a tenth, but takes longer than a GPU needs for the block.
            Image.fromarray(denoised).save(temporary, compress_level=1)

    def load_file(self, path: Path) -> np.ndarray:
        """Reads a PNG file."""
        return read_picture(path).pixels

    def bundle(self, seconds: float | None) -> list[Path]:
        """Writes the given layouts."""
        blocks = np.empty(self._blocks.shape, np.uint8)
        for name in self.shapes:
            blocks[divmod(int(name), self._blocks.shape[1])] = self.load(name)
        paths = [self.out / LAYOUTS[layout] for layout in self._layouts]
        for layout, path in zip(self._layouts, paths, strict=True):
            path.parent.mkdir(exist_ok=True)
            if layout == "blocks":
                israw = np.array(False)
                write_mat(path, {"Idenoised": blocks, "israw": israw, "eval_version": "2.1.4"})
            elif layout == "csv":
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    file.write(b"ID,BLOCK\n")
                    for number, block in enumerate(blocks.reshape(-1, *blocks.shape[2:])):
                        file.write(b"%d,%s\n" % (number, base64.b64encode(block.tobytes())))
            else:
                # The kit itself saves MATLAB 7.3, which SciPy cannot write; this is version 5.
                cells = np.empty(blocks.shape[:2], object)
                for place in np.ndindex(cells.shape):
                    cells[place] = blocks[place] / np.float32(255)
                time = math.nan if seconds is None else seconds
                texts = {"TimeMPSrgb": time, "OptionalData": self._texts}
                write_mat(path, {"DenoisedBlocksSrgb": cells, **texts})
        return paths


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise DataError(
            f"There is no file {path}. Download SIDD's benchmark data, {FILE}, from "
            "https://abdokamel.github.io/sidd and give its path with --input."
        )
    try:
        blocks = read_mat(path, VARIABLE)
    except DataError as error:
        raise DataError(
            f"{error} Download {FILE} (again) from https://abdokamel.github.io/sidd, and give it "
            "as --input."
        ) from error
    if blocks.ndim != 5 or blocks.shape[-1] != 3 or blocks.dtype != np.uint8 or not blocks.size:
        raise DataError(
            f"{path}: {VARIABLE} must be uint8 [images, blocks, height, width, 3]. Found: "
            f"{blocks.dtype} {blocks.shape}. Give the sRGB file of SIDD's benchmark as --input."
        )
    return blocks


IMAGES, BOXES, SIDE = 50, 20, 512  # of the real benchmark: pictures, boxes in each, side in pixels
ROUNDINGS = ("none", "round", "floor")  # to 8-bit levels; none keeps the denoiser's floats

_DOWNLOAD = "from https://noise.visinf.tu-darmstadt.de, and give its folder with --input"

Box = tuple[int, int, int, int]  # top, left, bottom, right, from 0; the last two exclusive


class DndSubmission(Submission):
    """A submission to DND: boxes are denoised one by one to `OUT/crops/IIII_BB.mat`.

    Image IIII and box BB count from 1. Once all are done, the crops of each image are written to
    `OUT/bundled/IIII.mat`; submit the content of that folder. `source` is `dnd_2017` (or
    `dnd2017`), with `info.mat` and `images_srgb/IIII.mat`, or the folder that holds it.

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
            raise ConfigError(
                f"rounding must be one of {', '.join(ROUNDINGS)}. Received: {rounding!r}"
            )
        self._rounding = rounding
        folder = _find(expanded(source))
        boxes = _read_boxes(folder / "info.mat")
        paths = [folder / "images_srgb" / f"{i:04d}.mat" for i in range(1, len(boxes) + 1)]
        if missing := [path for path in paths if not path.is_file()]:
            raise DataError(
                f"{len(missing)} of DND's {len(paths)} pictures cannot be found, such as "
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
                f"the source has {len(boxes)} pictures with {len(shapes)} boxes, one of them "
                f"{height} × {width}; DND has {IMAGES} with {IMAGES * BOXES} of {SIDE} × {SIDE}"
            )
        super().__init__(
            [folder / "info.mat", *paths], shapes, warning, {"rounding": rounding}, out, resume
        )

    def read(self, name: str) -> np.ndarray:
        """Returns a noisy crop, float32 [H, W, 3] in [0, 1]; reads no other part of the picture."""
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
    """Reads the boxes of each picture, converting MATLAB's 1-based, inclusive coordinates."""
    try:
        with h5py.File(path) as file:
            stored = [file[each][()] for each in file["info/boundingboxes"][()].ravel()]
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        raise _unreadable(path, error) from error
    for number, corners in enumerate(stored, 1):
        numbers = corners.ndim == 2 and len(corners) == 4 and corners.dtype.kind in "uif"
        if not numbers or not corners.size or (corners != np.floor(corners)).any():
            raise DataError(
                f"{path}: the boxes of picture {number} must be whole numbers (4, boxes). "
                f"Found: {corners.dtype} {corners.shape}. Download DND {_DOWNLOAD}."
            )
    if not stored:
        raise DataError(f"{path} has no boxes. Download DND {_DOWNLOAD}.")
    return [
        [(r1 - 1, c1 - 1, r2, c2) for r1, c1, r2, c2 in corners.T.astype(int).tolist()]
        for corners in stored
    ]


def _check(path: Path, boxes: list[Box]) -> None:
    """Raises DataError unless a file holds a picture that contains the boxes; reads no pixels."""
    with _noisy(path) as picture:
        _, width, height = picture.shape
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise DataError(
                f"{path}: box {number}, rows {top + 1} to {bottom} and columns {left + 1} to "
                f"{right}, is not inside the picture of {height} rows and {width} columns. "
                f"Download DND, with info.mat, {_DOWNLOAD}."
            )


@contextlib.contextmanager
def _noisy(path: Path) -> Iterator[h5py.Dataset]:
    try:
        with open_dnd(path) as picture:
            yield picture
    except ImageError as error:
        if isinstance(error.__cause__, Exception):  # raised by the decoder
            raise _unreadable(path, error.__cause__) from error
        raise DataError(f"{path} {error} Download DND {_DOWNLOAD}.") from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read and may be damaged: {plain_reason(error)}. "
        f"Download DND {_DOWNLOAD}."
    )
