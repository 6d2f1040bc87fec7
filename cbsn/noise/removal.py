"""Whether a denoiser removed more from a picture than the noise that is seen in it."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy.ndimage import uniform_filter

from cbsn.noise.survey import quietest
from cbsn.value_range import to_levels, value_range

# How many times the noise is too much to be right, and far too much. Clean pictures taken for
# denoised ones stay below 1.5, and below 2 where the noisy ones were enlarged or went through JPEG
# of a high quality.
_MUCH = (2.0, 3.0)

# Side in pixels of the cells that are looked at. Small, so that even pictures full of texture have
# some that are smooth.
_CELL = 8

_FEWEST = 64  # cells that are enough to tell
_MOST_CLIPPED = 0.1  # share of a cell's pixels
_QUIET = 0.05  # quantile of the variance, among cells of about one brightness, taken for noise
_BINS = (128, 8)  # cells of about one brightness, at least; and the most bins of brightness
_DRAWN = 4 / 9  # share of constant cells around one from which on it was drawn, not photographed
_DIFFERENCE = 2.0  # levels beyond the noise below which nothing is lost that can be seen
_WINDOW, _WINDOWS = 256, 16  # side in pixels, and number, of what is looked at of a large picture

# How much more variance noise has than the quietest cells have of it by chance. That is so for
# white noise; for correlated noise, as SIDD's, it is 1.3²; in cc15, whose cameras smooth flat
# places more than others, up to 1.7².
_CHANCE = 1.15**2


@dataclasses.dataclass(frozen=True)
class Removal:
    """What was removed from pictures, and the noise that was there.

    Both are of what varies, by more than a slope, within cells of 8 × 8 pixels that are not
    clipped. The attributes are sums, so those of several pictures add up.
    """

    cells: float  # their number, times that of the channels
    removed_power: float  # Σ of the variance of the residual, in 8-bit levels²
    noise_power: float  # Σ of that of the noise

    @classmethod
    def of(cls, noisy: np.ndarray, denoised: np.ndarray) -> "Removal":
        """Compares a picture [H, W, C], floats in units of [0, 1] or integers, with a denoised one.

        Noise is everywhere, so no place has less variance than the noise has there, but by chance:
        the quietest cells of each brightness and channel tell how much there is at most; of a
        picture with texture everywhere that may be a lot. Constant cells, as of a frame around a
        photograph, count for nothing; but cells with many of them around, as letters have, were
        drawn, so there is no noise. Where part of a picture has more noise than the rest at the
        same brightness, as before a background that was blurred, there is more than this says.
        """
        return _compare([(noisy, denoised)])

    @property
    def told(self) -> bool:
        """Whether there are cells enough to tell anything."""
        return self.cells >= _FEWEST

    @property
    def removed(self) -> float:
        """Root mean square of what was removed, in 8-bit levels."""
        return float(np.sqrt(self.removed_power / self.cells)) if self.cells else 0.0

    @property
    def noise(self) -> float:
        """That of the noise, in 8-bit levels; more than it is where all is texture."""
        return float(np.sqrt(self.noise_power / self.cells)) if self.cells else 0.0

    @property
    def degree(self) -> int:
        """1 where much more than the noise was removed, 2 for far more, else 0."""
        if not self.told or self.removed < self.noise + _DIFFERENCE:
            return 0
        return sum(self.removed >= limit * self.noise for limit in _MUCH)

    def __str__(self) -> str:
        return f"removed {self.removed:.1f} levels, of noise there are about {self.noise:.1f}"


class Sample:
    """Places of a noisy picture, kept to be compared with what becomes of them.

    They take little memory and time, however large the picture is: it may be overwritten.
    """

    def __init__(self, noisy: np.ndarray):
        self._places = _places(*noisy.shape[:2])
        self._windows = [noisy[place].copy() for place in self._places]

    def compared_with(self, denoised: np.ndarray) -> Removal:
        """Returns what was removed at these places; of the same shape and dtype."""
        windows = (denoised[place] for place in self._places)
        return _compare(zip(self._windows, windows, strict=True))


def _places(height: int, width: int) -> list[tuple[slice, slice]]:
    """Windows evenly spread over a picture, or all of one that is no larger than these together."""
    if height * width <= _WINDOWS * _WINDOW**2:
        return [(slice(None), slice(None))]
    down = int(np.clip(height // _WINDOW, 1, _WINDOWS))
    across = int(np.clip(width // _WINDOW, 1, _WINDOWS))
    if down * across > _WINDOWS:
        side = int(_WINDOWS**0.5)
        down = max(min(down, side), _WINDOWS // across)
        across = _WINDOWS // down
    tops, lefts = (
        np.linspace(0, max(0, length - _WINDOW), number).astype(int)
        for length, number in ((height, down), (width, across))
    )
    return [
        (slice(top, top + _WINDOW), slice(left, left + _WINDOW)) for top in tops for left in lefts
    ]


def _compare(windows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Removal:
    parts = [_cells(noisy, denoised) for noisy, denoised in windows]
    variance, brightness, removed, drawn = map(np.concatenate, zip(*parts, strict=True))
    shot, noise = ~drawn, np.zeros_like(variance)
    noise[shot] = _CHANCE * quietest(variance[shot], brightness[shot], _QUIET, _BINS, "stable")
    return Removal(removed.size, float(removed.sum(dtype=float)), float(noise.sum(dtype=float)))


def _cells(noisy: np.ndarray, denoised: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the n cells that can tell: variance, brightness and what was removed [n, C]; drawn [n]."""
    white = noisy.dtype.type(value_range(noisy.dtype))
    cells, after = (_cut(to_levels(each)) for each in (noisy, denoised))
    clipped = _cut((noisy == 0) | (noisy == white)).mean(-1).max(-1) > _MOST_CLIPPED
    constant = (np.ptp(cells, axis=-1) == 0).all(-1)
    drawn = uniform_filter((constant & ~clipped).astype(np.float32), 3, mode="nearest")
    tell = ~(constant | clipped)
    cells = cells[tell]
    removed = _rest(cells - after[tell])
    return _rest(cells), cells.mean(-1), removed, drawn[tell] > _DRAWN - 1e-3


def _cut(picture: np.ndarray) -> np.ndarray:
    """[H, W, C] as [H // 8, W // 8, C, 64]; what is left at the far edges does not count."""
    height, width, channels = picture.shape[0] // _CELL, picture.shape[1] // _CELL, picture.shape[2]
    cells = picture[: height * _CELL, : width * _CELL]
    cells = cells.reshape(height, _CELL, width, _CELL, channels)
    return cells.transpose(0, 2, 4, 1, 3).reshape(height, width, channels, _CELL**2)


def _rest(cells: np.ndarray) -> np.ndarray:
    """The variance [n, C] of cells [n, C, 64], less their mean and slope."""
    slope = np.arange(_CELL, dtype=np.float32) - (_CELL - 1) / 2
    slope /= np.sqrt(_CELL * (slope**2).sum())
    slopes = np.stack([np.repeat(slope, _CELL), np.tile(slope, _CELL)], axis=1)
    cells = cells - cells.mean(-1, keepdims=True)
    rest = (cells**2).sum(-1) - ((cells @ slopes) ** 2).sum(-1)
    return np.maximum(rest, 0) / _CELL**2
