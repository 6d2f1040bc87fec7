"""The layouts in which denoised SIDD blocks are submitted.

Each writer takes the blocks, uint8 [images, blocks, height, width, 3], the file to write, and the
`Extras` that only the kit's layout has. It writes atomically, and raises OSError if it cannot.
"""

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cbsn.evaluation.submit.matlab import write_mat
from cbsn.files import atomic_path


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
