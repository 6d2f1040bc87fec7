"""The submission to the SIDD benchmark, sRGB."""

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cbsn.data.mat_files import read_mat, write_mat
from cbsn.errors import ConfigError, DataError
from cbsn.evaluation.submit.submission import Submission
from cbsn.files import atomic_path, expanded
from cbsn.images.image_files import read_picture


class Extras(NamedTuple):
    """What the kit's layout has beside the blocks.

    Args:
        seconds: per megapixel; None if not known.
        texts: the fields of its `OptionalData`.
    """

    seconds: float | None
    texts: dict[str, str]


def _write_blocks(blocks: np.ndarray, path: Path, extras: Extras) -> None:
    """The array as it is: the layout of SS-BSN's packer."""
    israw = np.array(False)
    write_mat(path, {"Idenoised": blocks, "israw": israw, "eval_version": "2.1.4"})


def _write_csv(blocks: np.ndarray, path: Path, extras: Extras) -> None:
    """A line for each block, its bytes in base64: the layout of the Kaggle pages."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"ID,BLOCK\n")
        for number, place in enumerate(np.ndindex(blocks.shape[:2])):
            file.write(b"%d,%s\n" % (number, base64.b64encode(blocks[place].tobytes())))


def _write_kit(blocks: np.ndarray, path: Path, extras: Extras) -> None:
    """The layout of the MATLAB kit: cells of single in [0, 1].

    The kit itself saves MATLAB 7.3; SciPy writes no such file, and this is of version 5.
    """
    cells = np.empty(blocks.shape[:2], object)
    for place in np.ndindex(cells.shape):
        cells[place] = blocks[place] / np.float32(255)
    path.parent.mkdir(exist_ok=True)
    write_mat(
        path,
        {
            "DenoisedBlocksSrgb": cells,
            "TimeMPSrgb": math.nan if extras.seconds is None else extras.seconds,
            "OptionalData": extras.texts,
        },
    )


class Layout(NamedTuple):
    """Where a layout is written below the submission's folder, and what writes it."""

    path: str
    write: Callable[[np.ndarray, Path, Extras], None]


LAYOUTS = {
    "blocks": Layout("SubmitSrgb.mat", _write_blocks),
    "csv": Layout("SubmitSrgb.csv", _write_csv),
    "kit": Layout("kit/SubmitSrgb.mat", _write_kit),
}
"""What `--layout` takes."""


VARIABLE = "BenchmarkNoisyBlocksSrgb"
FILE = f"{VARIABLE}.mat"

SHAPE = (40, 32, 256, 256, 3)
"""Images, blocks, height, width and colours of the real benchmark."""

OPTIONAL_DATA = ("MethodName", "Authors", "PaperTitle", "Venue", "MachineSpecs")
"""Fields of the kit's `OptionalData`."""


class SiddSubmission(Submission):
    """The blocks of SIDD, denoised one by one to `OUT/blocks/NNNN_DN.png`.

    Block NNNN is block NNNN % 32 of image NNNN // 32. When all are there, they are written in the
    layouts asked for: `OUT/SubmitSrgb.mat` (`blocks`), `OUT/SubmitSrgb.csv` (`csv`) or
    `OUT/kit/SubmitSrgb.mat` (`kit`).

    Args:
        source: `BenchmarkNoisyBlocksSrgb.mat`, or the folder that holds it. The blocks are uint8
            [40, 32, 256, 256, 3]; other numbers bring a warning.
        out: folder to write.
        layouts: str, keys of `LAYOUTS` with commas between them. Default `"blocks"`.
        texts: values of `OPTIONAL_DATA` for the layout `kit`; those not given are empty.
        resume: whether to go on with the submission in `out`. Default False.

    Raises:
        ConfigError: if there is no such layout, or `out` holds a submission and `resume` is False.
        DataError: if the file is missing or broken.

    Example:
        >>> submission = SiddSubmission("BenchmarkNoisyBlocksSrgb.mat", "out")
        >>> submission.run(Denoiser.load("checkpoints/my-run"))
    """

    BENCHMARK = "sidd"
    PART = "block"
    SUFFIX = "_DN.png"
    DTYPE = np.uint8
    BUNDLES = tuple(layout.path for layout in LAYOUTS.values())

    def __init__(
        self,
        source: str | Path,
        out: str | Path,
        *,
        layouts: str = "blocks",
        texts: dict[str, str | None] | None = None,
        resume: bool = False,
    ):
        self._layouts = _parse_layouts(layouts)
        # A path, as a method's name may be, can have bytes that MATLAB has no characters for.
        given = {key: (texts or {}).get(key) or "" for key in OPTIONAL_DATA}
        self._texts = {k: v.encode(errors="backslashreplace").decode() for k, v in given.items()}
        path = _find(expanded(source))
        self._blocks = _read(path)
        images, blocks, *shape = self._blocks.shape
        warning = ""
        if self._blocks.shape != SHAPE:
            warning = f"{path} is {_times(self._blocks.shape)}, and SIDD's is {_times(SHAPE)}"
        super().__init__(
            source=path.parent,
            files=[path],
            shapes={f"{n:04d}": tuple(shape) for n in range(images * blocks)},
            warning=warning,
            out=out,
            resume=resume,
        )

    def read(self, name: str) -> np.ndarray:
        """Returns a noisy block, uint8 [H, W, 3]."""
        return np.ascontiguousarray(self._blocks[divmod(int(name), self._blocks.shape[1])])

    def save(self, path: Path, denoised: np.ndarray) -> None:
        """Writes a PNG file."""
        with atomic_path(path) as temporary:
            # A higher level takes longer than a GPU takes for the block, and saves a tenth.
            Image.fromarray(denoised).save(temporary, compress_level=1)

    def load_file(self, path: Path) -> np.ndarray:
        """Reads a PNG file."""
        return read_picture(path).pixels

    def bundle(self, load: Callable[[str], np.ndarray], seconds: float | None) -> list[Path]:
        """Writes the layouts."""
        denoised = np.empty(self._blocks.shape, np.uint8)
        for name in self.shapes:
            denoised[divmod(int(name), denoised.shape[1])] = load(name)
        paths = []
        for layout in self._layouts:
            paths.append(self.progress.out / LAYOUTS[layout].path)
            LAYOUTS[layout].write(denoised, paths[-1], Extras(seconds, self._texts))
        return paths


def _parse_layouts(names: str) -> list[str]:
    wanted = [*dict.fromkeys(name.strip() for name in names.split(",") if name.strip())]
    if not wanted or not {*wanted} <= {*LAYOUTS}:
        raise ConfigError(
            f"--layout takes {', '.join(LAYOUTS)}, with commas between them. "
            f"Received: --layout {names!r}"
        )
    return wanted


def _find(source: Path) -> Path:
    path = source / FILE if source.is_dir() else source
    if path.is_file():
        return path
    raise DataError(
        f"There is no file {path}. Download SIDD's benchmark data, {FILE}, from "
        "https://abdokamel.github.io/sidd and say with --source where it lies."
    )


def _read(path: Path) -> np.ndarray:
    try:
        blocks = read_mat(path, VARIABLE)
    except DataError as error:
        raise DataError(
            f"{error} Download {FILE} (again) from https://abdokamel.github.io/sidd, and give it "
            "as --source."
        ) from error
    if blocks.ndim != 5 or blocks.shape[-1] != 3 or blocks.dtype != np.uint8 or not blocks.size:
        raise DataError(
            f"{path}: {VARIABLE} should be uint8 [images, blocks, height, width, 3]. Found: "
            f"{blocks.dtype} {blocks.shape}. Give the sRGB file of SIDD's benchmark as --source."
        )
    return blocks


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
