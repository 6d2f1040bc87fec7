"""Pixels on their way into a network and out of it."""

import dataclasses
from collections.abc import Callable

import numpy as np

from cbsn.errors import ModelError
from cbsn.inference.options import ROUNDINGS, Strength
from cbsn.inference.tiling import Index, Tile

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


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture in one orientation, of which the network is given tile after tile.

    Args:
        read: writes the noisy values of a tile, normalised, into an array float32 [h, w, C].
        write: gets the index of some pixels, and the network's result there, float32 [h, w, C].
            What `read` is still to be asked for stays unwritten.
        orientation: int, number of the orientation in a self-ensemble.
    """

    read: Callable[[Tile, np.ndarray], object]
    write: Callable[[tuple[Index, ...], np.ndarray], None]
    orientation: int = 0


class Units:
    """Takes the pixels of one picture to what a network sees, and back.

    Args:
        mean: [C], the mean that is taken off, in units of the value range.
        deviation: [C], what the rest is divided by, in the same units.
        white: float, the value that is 1 in these units.
    """

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, white: float):
        self._mean = mean * white
        self._deviation = deviation * white
        self._white = white

    def normalise(self, values: np.ndarray, out: np.ndarray) -> None:
        """Writes normalised values.

        Args:
            values: [h, w, C] pixels.
            out: float32, of the same shape, contiguous.
        """
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
        """Makes pixels of what the network returned.

        Args:
            y: float32 [h, w, C].
            noisy: the pixels that were there, [h, w, C]; the result is for their dtype.
            strength: how much of what the network removes is removed.
            rounding: a key of `ROUNDINGS`, of integers.

        Returns:
            The pixels as floats, still to be cast.

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
