"""The correlation of many blocks, such that single pictures, or places in them, do not spoil it."""

import numpy as np

from cbsn.noise.autocovariance import FAR, REACH, distances, without_bias
from cbsn.noise.blocks import STEP, Blocks

_PICTURES = 16
"""With blocks of so many pictures, each picture is a group; with fewer, each place in them."""

_PLACE = 4  # steps, from place to place

_ERROR = 1.1
"""Standard error of the mean of the middle half of normal values, in units of that of all."""


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
    far = (blocks.covariance / blocks.quiet[:, :, None, None])[..., distances() >= FAR]
    return pixels * float(np.mean(far**2) / np.mean(far.mean(axis=1) ** 2))


def typical_correlation(
    covariance: np.ndarray, group: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the correlation in the middle half of the groups, and its standard error.

    The error is told by how much the groups differ, but is no smaller than for a sample of
    Gaussian noise of this correlation, √(Σρ² / size) (Bartlett 1946).

    Args:
        covariance: [n, REACH + 1, 2·REACH + 1], from `autocovariance`, in any units.
        group: int [n], from `groups`. Each counts as much as it has blocks.
        size: of the sample, from `sample_size`.

    Returns:
        Two float64 [REACH + 1, 2·REACH + 1].
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


def _middle_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Along the first axis, the mean of what is between the quartiles."""
    order = np.argsort(values, axis=0)
    shares = weights[order] / np.sum(weights)
    ends = np.cumsum(shares, axis=0)
    inside = np.clip(np.minimum(ends, 0.75) - np.maximum(ends - shares, 0.25), 0, None)
    return np.sum(inside * np.take_along_axis(values, order, axis=0), axis=0) / 0.5
