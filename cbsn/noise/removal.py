"""Checks whether a denoiser removed more from a picture than its visible noise."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import scipy

from cbsn.noise.survey import quietest
from cbsn.value_range import to_levels, value_range

# Ratios of what was removed to the noise that count as too much, and as far too much. For clean
# pictures in place of denoised ones, the ratio is below 1.5, and below 2 where the noisy ones were
# enlarged or saved as high-quality JPEG.
_MUCH = (2.0, 3.0)

# Side of the compared cells, in pixels. Small, so that even pictures full of texture have some
# smooth cells.
_CELL = 8

_FEWEST = 64  # cells needed for a verdict
_MOST_CLIPPED = 0.1  # share of a cell's pixels
_QUIET = 0.05  # quantile of the variance, among cells of similar brightness, taken as noise
_BINS = (128, 8)  # fewest cells in a brightness bin, and most bins
_DRAWN = 4 / 9  # least share of constant cells around a cell that counts as drawn, not photographed
_DIFFERENCE = 2.0  # levels above the noise; a smaller excess is no visible loss
_WINDOW, _WINDOWS = 256, 16  # side in pixels and number of the windows sampled in a large picture

# Ratio of the noise's variance to that of the quietest cells, which have less by chance. This value
# is for white noise; it is 1.3² for correlated noise such as SIDD's, and up to 1.7² in cc15, whose
# cameras smooth flat areas more than others.
_CHANCE = 1.15**2


@dataclasses.dataclass(frozen=True)
class Removal:
    """What was removed from pictures, and the noise that was there.

    Both are measured as variation, beyond a slope, within cells of 8 × 8 pixels that are not
    clipped. The attributes are sums, so they can be added up over several pictures.
    """

    cells: float  # number of cells times number of channels
    removed_power: float  # sum of the residual's variance, in 8-bit levels²
    noise_power: float  # sum of the noise's variance, in 8-bit levels²

    @classmethod
    def of(cls, noisy: np.ndarray, denoised: np.ndarray) -> "Removal":
        """Compares a picture [H, W, C], floats in units of [0, 1] or integers, with a denoised one.

        Noise is everywhere, so except by chance no place varies less than its noise. The quietest
        cells of each brightness and channel thus give an upper bound, a loose one if texture is
        everywhere. Constant cells, such as a frame around a photograph, are ignored. Cells among
        many constant ones, such as letters, were drawn and have no noise. If part of a picture has
        more noise than the rest at the same brightness, such as a subject in front of a blurred
        background, the noise is underestimated.
        """
        return _compare([(noisy, denoised)])

    @property
    def told(self) -> bool:
        """Whether there are enough cells for a verdict."""
        return self.cells >= _FEWEST

    @property
    def removed(self) -> float:
        """Root mean square of what was removed, in 8-bit levels."""
        return float(np.sqrt(self.removed_power / self.cells)) if self.cells else 0.0

    @property
    def noise(self) -> float:
        """Root mean square of the noise, in 8-bit levels; too large where all is texture."""
        return float(np.sqrt(self.noise_power / self.cells)) if self.cells else 0.0

    @property
    def degree(self) -> int:
        """1 if much more than the noise was removed, 2 if far more, else 0."""
        if not self.told or self.removed < self.noise + _DIFFERENCE:
            return 0
        return sum(self.removed >= limit * self.noise for limit in _MUCH)

    def __str__(self) -> str:
        return f"removed {self.removed:.1f} levels, where the noise is about {self.noise:.1f}"


class Sample:
    """Copies of parts of a noisy picture, to compare with the denoised picture later.

    They take little memory and time, however large the picture is. It may be overwritten meanwhile.
    """

    def __init__(self, noisy: np.ndarray):
        self._places = _places(*noisy.shape[:2])
        self._windows = [noisy[place].copy() for place in self._places]

    def compared_with(self, denoised: np.ndarray) -> Removal:
        """Returns what was removed here in a denoised picture of the same shape and dtype."""
        windows = (denoised[place] for place in self._places)
        return _compare(zip(self._windows, windows, strict=True))


def _places(height: int, width: int) -> list[tuple[slice, slice]]:
    """Returns windows spread evenly over a picture, or all of it if it is no larger than these."""
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
    """Returns variance, brightness and removed variance [n, C] of the n usable cells; drawn [n]."""
    white = noisy.dtype.type(value_range(noisy.dtype))
    cells, after = (_cut(to_levels(each)) for each in (noisy, denoised))
    clipped = _cut((noisy == 0) | (noisy == white)).mean(-1).max(-1) > _MOST_CLIPPED
    constant = (np.ptp(cells, axis=-1) == 0).all(-1)
    drawn = (constant & ~clipped).astype(np.float32)
    if drawn.any():  # else spared, as SciPy's filters take a while to load
        drawn = scipy.ndimage.uniform_filter(drawn, 3, mode="nearest")
    tell = ~(constant | clipped)
    cells = cells[tell]
    removed = _rest(cells - after[tell])
    return _rest(cells), cells.mean(-1), removed, drawn[tell] > _DRAWN - 1e-3


def _cut(picture: np.ndarray) -> np.ndarray:
    """Cuts [H, W, C] into cells [H // 8, W // 8, C, 64]; drops the remainder at the far edges."""
    height, width, channels = picture.shape[0] // _CELL, picture.shape[1] // _CELL, picture.shape[2]
    cells = picture[: height * _CELL, : width * _CELL]
    cells = cells.reshape(height, _CELL, width, _CELL, channels)
    return cells.transpose(0, 2, 4, 1, 3).reshape(height, width, channels, _CELL**2)


def _rest(cells: np.ndarray) -> np.ndarray:
    """Returns the variance [n, C] of cells [n, C, 64] around their mean and slope."""
    slope = np.arange(_CELL, dtype=np.float32) - (_CELL - 1) / 2
    slope /= np.sqrt(_CELL * (slope**2).sum())
    slopes = np.stack([np.repeat(slope, _CELL), np.tile(slope, _CELL)], axis=1)
    cells = cells - cells.mean(-1, keepdims=True)
    rest = (cells**2).sum(-1) - ((cells @ slopes) ** 2).sum(-1)
    return np.maximum(rest, 0) / _CELL**2
