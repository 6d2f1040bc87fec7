"""The eight ways to turn and mirror a square patch."""

import numpy as np

NUM_ORIENTATIONS = 8


def orient(patch: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a patch in one of its eight orientations, as a view.

    Args:
        patch: [P, P, C], any dtype.
        orientation: int in [0, 8): `orientation` mod 4 quarter turns (counter-clockwise), then
            a left-right flip where it is 4 or more.

    Returns:
        [P, P, C].
    """
    patch = np.rot90(patch, orientation % 4)
    return patch[:, ::-1] if orientation >= 4 else patch
