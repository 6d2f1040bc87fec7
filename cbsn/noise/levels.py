"""How strong noise is, and how that depends on the brightness."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_BINS = 12
_IN_BIN = 8  # blocks at least


def noise_levels(
    variance: np.ndarray,
    brightness: np.ndarray,
    picture: np.ndarray,
    everywhere: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Returns how strong the noise is.

    Flat blocks are not as bright as the rest of their picture. So a picture's variance is that of
    the flat blocks of all pictures, as a function of the brightness, averaged over the picture,
    times how much more or less its own flat blocks have.

    Args:
        variance: [n, C] of the noise in the flat blocks, in 8-bit levels².
        brightness: [n, C] of the flat blocks, in 8-bit levels.
        picture: int [n], index of their pictures.
        everywhere: brightness [m, C] of all blocks of each picture.

    Returns:
        `level`, `spread`, `slope`, `floor`, `misfit` and `points` of `NoiseEstimate`.
    """
    points = [points_of(v, b) for v, b in zip(variance.T, brightness.T, strict=True)]

    def predicted(bright: np.ndarray) -> np.ndarray:
        curves = zip(bright.T, points, strict=True)
        return np.stack([np.interp(b, at, sigma**2) for b, (at, sigma, _) in curves], axis=1)

    levels = []
    for number, bright in enumerate(everywhere):
        if not len(bright):
            continue
        mean = predicted(bright).mean(axis=0)
        mine = picture == number
        if mine.any():
            mean *= variance[mine].sum(axis=0) / predicted(brightness[mine]).sum(axis=0)
        levels.append(np.sqrt(mean))
    fits = np.array([_fit(*each) for each in points])
    return {
        "level": np.median(levels, axis=0),
        "spread": np.quantile(levels, [0.1, 0.9], axis=0).T,
        "slope": fits[:, 0],
        "floor": fits[:, 1],
        "misfit": fits[:, 2],
        "points": [np.stack([at, sigma], axis=1) for at, sigma, _ in points],
    }


def points_of(variance: np.ndarray, brightness: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the strength of the noise by the brightness, for one channel.

    Args:
        variance: [n] of the noise in flat blocks.
        brightness: [n], theirs.

    Returns:
        Brightness, σ and number of blocks, [m] each, of bins with about as many blocks each, by
        increasing brightness.
    """
    bins = np.array_split(np.argsort(brightness), np.clip(len(variance) // _IN_BIN, 1, _BINS))
    # Medians, as texture here and there is not to count.
    typical = [(np.median(brightness[i]), np.median(variance[i]) ** 0.5, len(i)) for i in bins]
    return tuple(np.array(typical).T)


def _fit(brightness: np.ndarray, sigma: np.ndarray, number: np.ndarray) -> tuple[float, ...]:
    """Slope and floor of the variance, and the relative deviation of σ from that."""
    # The error of a variance is in proportion to it.
    weights = np.sqrt(number) / sigma**2
    terms = np.stack([brightness, np.ones_like(brightness)], axis=1)
    if np.ptp(brightness) < 1:  # level of 255: no slope can be seen
        terms[:, 0] = 0
    slope, floor = np.linalg.lstsq(terms * weights[:, None], sigma**2 * weights, rcond=None)[0]
    fitted = np.sqrt(np.maximum(terms @ [slope, floor], 0))
    misfit = np.sqrt(np.average((fitted / sigma - 1) ** 2, weights=number))
    return slope, floor, misfit
