"""Pixels under full transparency: what they look like to a network.

Their colours say nothing of the picture; programs leave black, white or anything there. A network
that sees them draws them into the visible edge, so it is given the nearest visible colours instead.
"""

import numpy as np

_NOWHERE = np.int32(2**30)
"""A distance beyond any picture."""


class HiddenPixels:
    """The fully transparent pixels of a picture while it is denoised.

    Args:
        colors: [H, W, 1 or 3], the picture's colours, in which the hidden ones are overwritten by
            those of visible pixels.
        alpha: [H, W], 0 where a pixel is hidden.

    Attributes:
        all: bool, whether there is no visible pixel; then nothing is overwritten.
    """

    def __init__(self, colors: np.ndarray, alpha: np.ndarray):
        self._colors = colors
        self._hidden = alpha == 0
        self._kept = colors[self._hidden]
        self.all = bool(self._hidden.all())
        if len(self._kept) and not self.all:
            _fill(colors, self._hidden)

    def restore(self) -> None:
        """Puts the hidden colours back."""
        self._colors[self._hidden] = self._kept


def _fill(colors: np.ndarray, hidden: np.ndarray) -> None:
    """Gives each hidden pixel the colour of the nearest visible one in its row or column.

    Where there is none in either, those that have just been filled count as visible.
    """
    while hidden.any():
        columns, across = _nearest(~hidden)
        rows, down = (each.T for each in _nearest(~hidden.T))
        distance = np.minimum(across, down)
        y, x = np.nonzero(hidden & (distance < _NOWHERE))
        in_row = across[y, x] <= down[y, x]
        sources = np.where(in_row, y, rows[y, x]), np.where(in_row, columns[y, x], x)
        colors[y, x] = colors[sources]
        hidden = hidden & (distance == _NOWHERE)


def _nearest(visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest visible place in each row of [H, W], and its distance; the first of two."""
    width = visible.shape[1]
    places = np.arange(width, dtype=np.int32)
    before = np.maximum.accumulate(np.where(visible, places, -_NOWHERE), axis=1)
    after = np.minimum.accumulate(np.where(visible, places, _NOWHERE + width)[:, ::-1], axis=1)[
        :, ::-1
    ]
    is_before = places - before <= after - places
    distance = np.where(is_before, places - before, after - places)
    return np.where(is_before, before, after), np.minimum(distance, _NOWHERE)
