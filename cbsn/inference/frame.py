"""Pictures on their way through a network: what it is given of them, and what they get back."""

import dataclasses
from collections.abc import Callable

import numpy as np

from cbsn.errors import ModelError
from cbsn.inference.strength import Strength
from cbsn.inference.tiling import Index, Tile

ROUNDINGS = {"round": np.rint, "truncate": np.floor}
"""How integer pixels are made; the original C-BSN code truncates."""


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
