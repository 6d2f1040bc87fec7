"""Preparing pixels for a network, and making pixels of its output."""

import dataclasses
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cbsn.errors import ModelError
from cbsn.inference.options import ROUNDINGS, Strength
from cbsn.inference.tiling import Tile, arange

Array = Any  # or a tensor
_NOWHERE = 2**30  # a distance beyond any picture


def fill_hidden(colors: np.ndarray, hidden: np.ndarray) -> None:
    """Fills each hidden pixel of [H, W, C] with the nearest visible colour in its row or column.

    If there is none in either, pixels that have just been filled count as visible. If all pixels
    are hidden, nothing changes.
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

    `xp` is `numpy` or `tensorflow`. `running_maximum` returns the largest value so far at each
    position of the last axis.

    Returns:
        For each pixel, the row and column of the nearest visible one in its row or column (its own
        if it is visible or there is none), and whether it is still hidden.
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
    """Returns the nearest visible place on the last axis (of two, the first), and its distance."""
    width = xp.shape(visible)[-1]
    places = arange(0, width, xp)
    before = running_maximum(xp.where(visible, places, -_NOWHERE))
    after = xp.where(visible, places, _NOWHERE + width)
    after = -running_maximum(-after[..., ::-1])[..., ::-1]
    is_before = places - before <= after - places
    distance = xp.where(is_before, places - before, after - places)
    return xp.where(is_before, before, after), distance


class Units:
    """Converts the pixels of one picture to the values that a network sees, and back.

    Pixels are [h, w, C], or [z, h, w, C] of a volume.

    Subtracts the mean [C] and divides by the deviation [C]. Both are given for a `white` of 1.
    Results are clipped to [0, `white`], or not if that is None.
    """

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, white: float | None):
        self._mean = mean * (white or 1.0)
        self._deviation = deviation * (white or 1.0)
        self._limits = (-np.inf, np.inf) if white is None else (0.0, white)
        self.has_white = white is not None

    def normalise(self, values: np.ndarray, out: np.ndarray) -> None:
        """Normalises pixels and writes them to `out`, contiguous float32 of the same shape."""
        # Computes whole rows, because NumPy is slow at loops over only three channels.
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
        """Converts the network's output `y` for `noisy` pixels to pixels.

        They are still floats, but have values that the dtype of `noisy` can hold.

        Raises:
            ModelError: if values are not finite.
        """
        dtype = np.float64 if noisy.dtype == np.float64 else np.float32
        values = np.multiply(_rows(y), _repeated(self._deviation, y, dtype), dtype=dtype)
        if self._mean.any():
            values += _repeated(self._mean, y, dtype)
        if not np.isfinite([values.min(initial=0), values.max(initial=0)]).all():
            raise ModelError(
                "The network returned values that are not finite: its weights are broken, or they "
                "exceed 65504, the largest value in float16. To find out, try cbsn denoise "
                "--precision float32."
            )
        np.clip(values, *self._limits, out=values)
        values = values.reshape(y.shape)
        if not strength.is_whole:
            values = strength.blend(noisy.astype(dtype), values)
            np.clip(values, *self._limits, out=values)
        if noisy.dtype.kind == "u":
            ROUNDINGS[rounding](values, out=values)
        return values

    def enlarge(self, deviations: np.ndarray) -> None:
        """Makes standard deviations of the network's output [..., C] those of pixels, in place."""
        deviations *= self._deviation.astype(deviations.dtype)


def cast(values: np.ndarray, dtype: DTypeLike, rounding: str) -> np.ndarray:
    """Returns values of any dtype in another one; integers are rounded, and clipped to its range.

    `rounding` is a key of `ROUNDINGS`.
    """
    dtype = np.dtype(dtype)
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if values.dtype.kind == "f":
            # In float64, which holds all integers of 32 bits.
            values = ROUNDINGS[rounding](values.astype(np.float64))
        else:
            values = values.astype(np.int64)
        values = np.clip(values, limits.min, limits.max)
    return values.astype(dtype)


def _rows(values: np.ndarray) -> np.ndarray:
    """Reshapes [h, w, C] to [h, w·C], or [z, h, w, C] to [z·h, w·C], as a view if possible."""
    *rows, width, channels = values.shape
    return values.reshape(math.prod(rows), width * channels)


def _repeated(channels: np.ndarray, values: np.ndarray, dtype: type) -> np.ndarray:
    """Repeats a number per channel for each value of a row, or returns one if all are equal."""
    if (channels == channels[0]).all():
        return channels[:1].astype(dtype)
    return np.tile(channels.astype(dtype), values.shape[-2])


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture in one orientation, which the network gets tile by tile."""

    image: np.ndarray  # [H, W, C], or a volume [Z, H, W, C]
    units: Units  # made from its statistics
    orientation: int = 0  # its number in a self-ensemble
    total: np.ndarray | None = None  # float32, a self-ensemble's sum, in this orientation

    samples = 1

    def read(self, tile: Tile, out: np.ndarray) -> None:
        """Writes the network's input for a tile to `out`, float32 [1, (z,) h, w, C]."""
        self.units.normalise(tile.take(self.image), out[0])
        tile.clear(out[0])
