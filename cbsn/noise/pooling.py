"""What the blocks of all pictures tell together: correlation, and strength by brightness."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cbsn.noise.autocovariance import DISTANCES, FAR, REACH, smooth_energy, without_bias
from cbsn.noise.survey import STEP, Blocks

_FIRST = 16  # flat blocks to begin with
_MOST_CONTENT = (
    1.25  # times the smooth part's energy that noise of the correlation found would have
)
_MIDDLE = (0.1, 0.7)  # quantiles of the variance, between which blocks are taken in the end
_PICTURES = 16  # from so many on, each is a group; with fewer, each place in them
_PLACE = 4  # steps, from place to place
_ERROR = 1.1  # standard error of the mean of normal values' middle half, in units of that of all
_BINS, _IN_BIN = 12, 8  # of brightness: how many at most, and blocks in each at least


def flattest(blocks: Blocks) -> Blocks:
    """Returns the blocks without content.

    Blocks are taken in the order of their content, as long as that is not more than noise of the
    correlation that they have would have. Of these, the loudest and the quietest are dropped: the
    former have texture, the latter are of pictures with texture everywhere.
    """
    blocks = blocks[np.argsort(blocks.content)]
    scaled = blocks.scaled.mean(axis=1)
    sums = np.cumsum(scaled, axis=0, dtype=np.float64)
    number, size = 0, _FIRST
    while size <= len(blocks):
        predicted = smooth_energy(without_bias(sums[size - 1] / size))
        if blocks.content[size - 1] <= _MOST_CONTENT * predicted:
            number = size
        elif number:
            break
        size += size // 8
    if not number:
        return blocks[:0]
    variance = scaled[:number, 0, REACH]
    low, high = np.quantile(variance, _MIDDLE)
    return blocks[:number][(variance >= low) & (variance <= high)]


def groups(blocks: Blocks) -> np.ndarray:
    """Returns a number for each block, equal for those whose errors may be alike; int [n]."""
    pictures = np.unique(blocks.picture, return_inverse=True)[1]
    if pictures.max() + 1 >= _PICTURES:
        return pictures
    places = np.column_stack([pictures, blocks.corner // _PLACE])
    return np.unique(places, axis=0, return_inverse=True)[1].ravel()


def sample_size(blocks: Blocks) -> float:
    """Returns how many independent samples of a map of correlations the blocks are.

    That is the number of pixels in all of them together, as they may overlap, times that of
    independent channels: where channels have nothing in common, the square of the mean of far
    correlations is that many times smaller than the mean of their squares.
    """
    quarters = [
        np.column_stack([blocks.picture, blocks.corner + np.array([down, right])])
        for down in (0, 1)
        for right in (0, 1)
    ]
    pixels = STEP**2 * len(np.unique(np.concatenate(quarters), axis=0))
    far = blocks.scaled[..., DISTANCES >= FAR]
    return pixels * float(np.mean(far**2) / np.mean(far.mean(axis=1) ** 2))


def typical_correlation(
    covariance: np.ndarray, group: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the correlation in the middle half of the `groups`, and its standard error.

    Each group counts as much as it has blocks. The error is told by how much they differ, but is no
    smaller than for a sample of Gaussian noise of this correlation and of this `sample_size`,
    √(Σρ² / size) (Bartlett 1946).
    """
    weights = np.bincount(group).astype(float)
    sums = np.zeros((len(weights), *covariance.shape[1:]))
    np.add.at(sums, group, covariance)
    unbiased = without_bias(sums / weights[:, None, None])
    values = unbiased / unbiased[:, :1, REACH, None]
    middle = _middle_mean(values, weights)
    # 0.69 is what the middle mean of |z| is, z being standard normal.
    spread = _middle_mean(abs(values - middle), weights) / 0.69
    error = spread * np.sqrt(np.sum(weights**2)) / np.sum(weights)
    squares = 2 * np.sum(middle[1:] ** 2) + 2 * np.sum(middle[0, REACH + 1 :] ** 2) + 1
    return middle, _ERROR * np.maximum(error, np.sqrt(squares / size))


def noise_levels(
    variance: np.ndarray,
    brightness: np.ndarray,
    picture: np.ndarray,
    everywhere: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Returns `level`, `spread`, `slope`, `floor`, `misfit` and `points` of `NoiseEstimate`.

    Flat blocks are not as bright as the rest of their picture. So a picture's variance is that of
    the flat blocks of all pictures, as a function of the brightness, averaged over the picture,
    times how much more or less its own flat blocks have. Variance and brightness, [n, C], and
    number of the picture are those of the flat blocks; `everywhere` has the brightness [m, C] of
    all blocks of each picture.
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
    slope, floor, misfit = np.array([_fit(*each) for each in points]).T
    return {
        "level": np.median(levels, axis=0),
        "spread": np.quantile(levels, [0.1, 0.9], axis=0).T,
        "slope": slope,
        "floor": floor,
        "misfit": misfit,
        "points": [np.stack([at, sigma], axis=1) for at, sigma, _ in points],
    }


def points_of(variance: np.ndarray, brightness: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the strength of the noise by the brightness, for one channel of n blocks.

    That is brightness, σ and number of blocks, [m] each, of bins with about as many blocks each, by
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


def _middle_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Along the first axis, the mean of what is between the quartiles."""
    order = np.argsort(values, axis=0)
    shares = weights[order] / np.sum(weights)
    ends = np.cumsum(shares, axis=0)
    inside = np.clip(np.minimum(ends, 0.75) - np.maximum(ends - shares, 0.25), 0, None)
    return np.sum(inside * np.take_along_axis(values, order, axis=0), axis=0) / 0.5
