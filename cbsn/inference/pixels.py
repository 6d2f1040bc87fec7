"""Pixels on their way into a network and out of it."""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from cbsn.errors import ModelError
from cbsn.inference.options import ROUNDINGS, Strength
from cbsn.inference.tiling import Tile, arange

Array = Any  # or a tensor
_NOWHERE = 2**30  # a distance beyond any picture


def fill_hidden(colors: np.ndarray, hidden: np.ndarray) -> None:
    """Gives each hidden pixel of [H, W, C] the colour of the nearest in its row or column.

    Where there is none in either, those that have just been filled count as visible; where
    everything is hidden, nothing changes.
    """
    while hidden.any() and not hidden.all():
        y, x, left = nearest_visible(hidden, np, lambda each: np.maximum.accumulate(each, axis=-1))
        filled = hidden & ~left
        colors[filled] = colors[y[filled], x[filled]]
        hidden = left


def nearest_visible(
    hidden: Array, xp: ModuleType, running_maximum: Callable[[Array], Array]
) -> tuple[Array, Array, Array]:
    """Finds where hidden pixels [..., H, W] take their colours from, for arrays and in a graph.

    `xp` is `numpy` or `tensorflow`, and `running_maximum` gives the largest value up to each place
    of the last axis.

    Returns:
        For each pixel, row and column of the nearest visible one in its row or column: of itself if
        it is visible or there is none; and whether it is hidden still.
    """

    def transposed(x: Array) -> Array:
        return np.swapaxes(x, -1, -2) if xp is np else xp.linalg.matrix_transpose(x)

    columns, across = _nearest_in_row(~hidden, xp, running_maximum)
    rows, down = map(transposed, _nearest_in_row(~transposed(hidden), xp, running_maximum))
    in_row = across <= down
    found = hidden & (xp.minimum(across, down) < _NOWHERE)
    height, width = xp.shape(hidden)[-2], xp.shape(hidden)[-1]
    y = xp.where(found & ~in_row, rows, arange(0, height, xp)[:, None])
    x = xp.where(found & in_row, columns, arange(0, width, xp))
    return y, x, hidden & ~found


def _nearest_in_row(
    visible: Array, xp: ModuleType, running_maximum: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """The nearest visible place along the last axis, and its distance; the first of two."""
    width = xp.shape(visible)[-1]
    places = arange(0, width, xp)
    before = running_maximum(xp.where(visible, places, -_NOWHERE))
    after = xp.where(visible, places, _NOWHERE + width)
    after = -running_maximum(-after[..., ::-1])[..., ::-1]
    is_before = places - before <= after - places
    distance = xp.where(is_before, places - before, after - places)
    return xp.where(is_before, before, after), distance


class Units:
    """Takes the pixels of one picture to what a network sees, and back.

    The mean [C] is taken off, and the rest divided by the deviation [C], both given for a `white`
    of 1.
    """

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, white: float):
        self._mean = mean * white
        self._deviation = deviation * white
        self._white = white

    def normalise(self, values: np.ndarray, out: np.ndarray) -> None:
        """Writes pixels [h, w, C], normalised, into contiguous float32 [h, w, C]."""
        # Rows as a whole: NumPy is slow at loops over as few as three channels.
        rows, out = _rows(values), _rows(out)
        if self._mean.any():
            mean = _repeated(self._mean, values, np.float32)
            np.subtract(rows, mean, out=out, dtype=np.float32, casting="same_kind")
            rows = out
        deviation = _repeated(self._deviation, values, np.float32)
        np.divide(rows, deviation, out=out, dtype=np.float32, casting="same_kind")

    def finish(
        self, y: np.ndarray, noisy: np.ndarray, strength: Strength, rounding: str
    ) -> np.ndarray:
        """Makes pixels of what the network returned for `noisy` ones, [h, w, C].

        They are floats still, but what the dtype of the noisy ones can hold.

        Raises:
            ModelError: if values are not finite.
        """
        dtype = np.float64 if noisy.dtype == np.float64 else np.float32
        values = np.multiply(_rows(y), _repeated(self._deviation, y, dtype), dtype=dtype)
        if self._mean.any():
            values += _repeated(self._mean, y, dtype)
        if not np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
            raise ModelError(
                "The network returned values that are not finite: its weights are broken, or it "
                "computes in float16, which has none above 65504; the --precision float32 of "
                "infer.py tells."
            )
        np.clip(values, 0, self._white, out=values)
        values = values.reshape(y.shape)
        if not strength.is_whole:
            values = strength.blend(noisy.astype(dtype), values)
            np.clip(values, 0, self._white, out=values)
        if noisy.dtype.kind == "u":
            ROUNDINGS[rounding](values, out=values)
        return values


def _rows(values: np.ndarray) -> np.ndarray:
    """[h, w, C] → [h, w·C], a view where it can be one."""
    height, width, channels = values.shape
    return values.reshape(height, width * channels)


def _repeated(channels: np.ndarray, values: np.ndarray, dtype: type) -> np.ndarray:
    """A number for each channel as one for each value of a row, or for all of them."""
    if (channels == channels[0]).all():
        return channels[:1].astype(dtype)
    return np.tile(channels.astype(dtype), values.shape[1])


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture in one orientation, of which the network is given tile after tile."""

    image: np.ndarray  # [H, W, C]
    units: Units  # its statistics
    orientation: int = 0  # its number in a self-ensemble
    total: np.ndarray | None = None  # float32 [H, W, C], a self-ensemble's sum, oriented as this

    samples = 1

    def read(self, tile: Tile, out: np.ndarray) -> None:
        """Writes what the network is to see in place of a tile into float32 [1, h, w, C]."""
        self.units.normalise(tile.take(self.image), out[0])
        tile.clear(out[0])
