"""SIDD's files of blocks: 40 pictures with 32 blocks of 256 × 256 pixels each, in one array."""

from pathlib import Path

import numpy as np

from cbsn.data.mat_files import load_mat
from cbsn.errors import DataError


def read_blocks(path: Path) -> np.ndarray:
    """Reads a `.mat` file of blocks, noisy or clean, of the validation or the benchmark.

    Returns:
        uint8 [pictures, blocks, height, width, 3].

    Raises:
        DataError: it cannot be read, or does not hold just such an array.
    """
    try:
        variables = load_mat(path)
    except Exception as error:  # damaged bytes make the decoder raise almost anything
        raise DataError(f"{path} cannot be read, it may be damaged: {error}") from error
    arrays = [np.asarray(v) for name, v in variables.items() if not name.startswith("__")]
    is_good = [(each.ndim, each.shape[-1:], each.dtype) for each in arrays] == [(5, (3,), np.uint8)]
    if not (is_good and arrays[0].size):
        found = [f"{each.dtype} {each.shape}" for each in arrays]
        raise DataError(
            f"{path} should hold one array of blocks, uint8 [pictures, blocks, height, width, 3]. "
            f"Found: {', '.join(found) or 'none'}"
        )
    return arrays[0]


def block_places(blocks: np.ndarray) -> dict[str, tuple[int, int]]:
    """Returns the place [n, m] of each block by its name `NNNN_MM`, in their order."""
    return {f"{n:04d}_{m:02d}": (n, m) for n, m in np.ndindex(blocks.shape[:2])}
