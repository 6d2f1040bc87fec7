"""The submission to the SIDD benchmark, sRGB."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cbsn.data.benchmark_files import read_mat, write_mat
from cbsn.errors import ConfigError, DataError
from cbsn.evaluation.submit.submission import Submission
from cbsn.files import atomic_path, expanded
from cbsn.images.image_files import read_picture

VARIABLE = "BenchmarkNoisyBlocksSrgb"
FILE = f"{VARIABLE}.mat"

SHAPE = (40, 32, 256, 256, 3)  # images, blocks, height, width, colours of the real benchmark

LAYOUTS = {"blocks": "SubmitSrgb.mat", "csv": "SubmitSrgb.csv", "kit": "kit/SubmitSrgb.mat"}
"""What `--layout` takes, and where each is written below the submission's folder."""

OPTIONAL_DATA = ("MethodName", "Authors", "PaperTitle", "Venue", "MachineSpecs")


class SiddSubmission(Submission):
    """The blocks of SIDD, denoised one by one to `OUT/blocks/NNNN_DN.png`.

    Block NNNN is block NNNN % 32 of image NNNN // 32. When all are there, they are written in the
    layouts asked for (keys of `LAYOUTS` with commas between them): `blocks` is the array as
    SS-BSN's packer writes it, `csv` is Kaggle's, with each block's bytes in base64, and `kit` is
    that of the MATLAB kit, with `texts` for its `OPTIONAL_DATA`.

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
                f"--layout takes {', '.join(LAYOUTS)}, with commas between them. "
                f"Received: --layout {layouts!r}"
            )
        # A path, as a method's name may be, can have bytes that MATLAB has no characters for.
        given = {key: (texts or {}).get(key) or "" for key in OPTIONAL_DATA}
        self._texts = {k: v.encode(errors="backslashreplace").decode() for k, v in given.items()}
        path = expanded(source)
        path = path / FILE if path.is_dir() else path
        self._blocks = _read(path)
        images, blocks, *shape = self._blocks.shape
        found, real = (" × ".join(map(str, sides)) for sides in (self._blocks.shape, SHAPE))
        warning = "" if found == real else f"{path} is {found}, and SIDD's is {real}"
        shapes = {f"{n:04d}": tuple(shape) for n in range(images * blocks)}
        super().__init__([path], shapes, warning, {}, out, resume)

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

    def bundle(self, seconds: float | None) -> list[Path]:
        """Writes the layouts."""
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
                    for number, place in enumerate(np.ndindex(blocks.shape[:2])):
                        text = base64.b64encode(blocks[place].tobytes())
                        file.write(b"%d,%s\n" % (number, text))
            else:
                # The kit itself saves MATLAB 7.3; SciPy writes no such file, and this is version 5.
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
            "https://abdokamel.github.io/sidd and say with --source where it lies."
        )
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
