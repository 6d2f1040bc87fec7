"""Which values the pixels of pictures have."""

from typing import Any

import numpy as np

from cbsn.value_range import value_range

BINS = 64
"""Of the histogram, from 0 to full scale."""


class Values:
    """Counts the values of pictures, one after the other."""

    def __init__(self) -> None:
        self._pixels = 0
        self._ends: Any = 0
        self._counts: Any = 0

    def add(self, picture: np.ndarray) -> np.ndarray:
        """Counts a picture.

        Args:
            picture: [H, W, C], uint8, uint16 or float.

        Returns:
            bool [H, W, C], where it is exactly at 0 or at full scale. Floats beyond are not.
        """
        scale = value_range(picture.dtype)
        black, white = picture == 0, picture == scale
        self._pixels += picture.shape[0] * picture.shape[1]
        self._ends += np.stack([black.sum(axis=(0, 1)), white.sum(axis=(0, 1))], axis=1)
        self._counts += np.stack(
            [
                np.histogram(np.clip(channel, 0, scale), BINS, (0, scale))[0]
                for channel in np.moveaxis(picture, 2, 0)
            ]
        )
        return black | white

    def shares(self) -> dict[str, np.ndarray]:
        """Returns `clipped` and `histogram` of `NoiseEstimate`; at least one picture was added."""
        return {"clipped": self._ends / self._pixels, "histogram": self._counts / self._pixels}
