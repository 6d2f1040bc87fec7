"""The eight orientations of a picture, by quarter turns and mirroring."""

from typing import Any

import numpy as np

NUM_ORIENTATIONS = 8


def orient(patch: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a patch [H, W, C] in one of its eight orientations, as a view.

    The patch is turned by `orientation` mod 4 quarter turns (counter-clockwise). If `orientation`
    is 4 or more, it is then flipped left to right.
    """
    transposes, reverses_rows, reverses_columns = orientation_steps(orientation)
    if transposes:
        patch = patch.swapaxes(0, 1)
    if reverses_rows:
        patch = patch[::-1]
    return patch[:, ::-1] if reverses_columns else patch


def orientation_steps(orientation: Any) -> tuple[Any, Any, Any]:
    """Returns whether to transpose, then reverse rows, then columns, for an int or a tensor."""
    turns = orientation % 4
    transposes = turns % 2 == 1
    reverses_rows = (turns == 1) | (turns == 2)
    reverses_columns = ((turns == 2) | (turns == 3)) ^ (orientation >= 4)
    return transposes, reverses_rows, reverses_columns
