"""The eight ways to turn and mirror a square patch."""

import numpy as np

NUM_ORIENTATIONS = 8


def orient(patch: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a patch [P, P, C] in one of its eight orientations, as a view.

    `orientation`, in [0, 8), is the number of quarter turns (counter-clockwise), modulo 4; from 4
    on they are followed by a left-right flip.
    """
    patch = np.rot90(patch, orientation % 4)
    return patch[:, ::-1] if orientation >= 4 else patch
