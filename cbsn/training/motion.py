"""Motion between neighbouring frames, which makes them different pictures rather than two shots."""

import warnings
from collections.abc import Sequence

import numpy as np
import scipy

from cbsn.data.records import spread_patches
from cbsn.data.stack_records import NextFrames
from cbsn.errors import CbsnWarning

_PAIRS = 64  # that are looked at, evenly spread
_BLOCK = 8  # side in pixels of the blocks whose means are compared
# Standard errors of a block's mean. Of normal noise, 1 of 150,000 blocks exceeds them. Of simulated
# still series (photon and read noise, correlated or not, light that changes by 3 %), at most 1.9 %
# did, and of most none.
_SURE = 4.5
_REPORTED = 0.02  # the share of the area from which it matters
_GROUP = 24  # fewest blocks of a patch, of similar brightness, whose median is taken
_MAD = 1.4826  # the standard deviation of normal values, in units of their median deviation from 0

# What it removes is smooth, as what moves is; white noise keeps its deviation (Immerkær, 1996).
_ROUGH = np.outer([1, -2, 1], [1, -2, 1]) / 6
# Of the pixels by brightness: ends of the groups whose noise is measured. Few are bright, and their
# noise differs most.
_SHARES = (*np.arange(0, 1, 0.1), 0.95, 0.98, 0.99, 0.995, 0.998, 1)
_FEWEST = 500  # pixels or blocks of a group


def warn_of_motion(frames: NextFrames) -> None:
    """Warns if more of neighbouring frames differs than noise explains."""
    share = moving_share(frames)
    if share > _REPORTED:
        warnings.warn(
            f"{share:.0%} of the area differs between neighbouring frames by more than noise: what "
            "moves will be blurred. n2v-unet learns from single frames.",
            CbsnWarning,
            stacklevel=2,
        )


def moving_share(frames: NextFrames) -> float:
    """Returns the share of the area that differs between neighbouring frames by more than noise.

    The noise of a pixel by its brightness is measured in the rough part of the differences, and
    from that follows the error of a block's mean. Where noise is correlated between pixels, that is
    larger, by what is seen in the stiller blocks. Light that changes as a whole does not count.
    """
    by_channel: dict[int, list[np.ndarray]] = {}
    for index, pair in spread_patches(frames, _PAIRS):
        by_channel.setdefault(int(frames.channel[index]), []).append(pair)
    found = [_moving(each) for each in by_channel.values()]
    blocks = np.concatenate(found) if found else np.zeros(1, bool)
    return float(blocks.mean())


def _moving(pairs: Sequence[np.ndarray]) -> np.ndarray:
    """Returns for each block of pairs [P, P, 2·C] of one channel whether it has changed."""
    shots = [np.split(pair.astype(np.float64), 2, axis=-1) for pair in pairs]
    firsts, seconds = (np.stack([each[i].mean(axis=-1) for each in shots]) for i in (0, 1))
    side = firsts.shape[1] // _BLOCK * _BLOCK
    if not side:
        return np.zeros(0, bool)
    difference = firsts - seconds
    bright = scipy.ndimage.uniform_filter((firsts + seconds) / 2, (0, 3, 3))
    variance = _variance(scipy.ndimage.convolve(difference, _ROUGH[None], mode="reflect"), bright)
    means, shades, errors = (
        _blocks(each[:, :side, :side]) for each in (difference, bright, variance)
    )
    errors = np.sqrt(errors) / _BLOCK
    for row, shade in zip(means, shades, strict=True):
        for group in _groups(shade, max(1, min(8, len(row) // _GROUP))):
            row[group] -= np.median(row[group])
    score = (np.abs(means) / np.maximum(errors, np.finfo(float).tiny)).ravel()
    groups = _groups(shades.ravel(), int(np.clip(score.size // _FEWEST, 1, 12)))
    ratios = [_MAD * np.median(score[group]) for group in groups]
    return score > _SURE * max(1.0, min(ratios))


def _variance(rough: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Returns the variance of the noise of each pixel, by what pixels as bright have."""
    order = np.argsort(bright, axis=None)
    ends = (np.array(_SHARES) * order.size).astype(int)
    shades, variances, first = [], [], 0
    for end in ends[1:]:
        if end - first < _FEWEST and end < order.size:
            continue
        group = order[first:end]
        first = end
        if not group.size:
            continue
        values = rough.ravel()[group]
        # Of few photons most differences are 0, and so is their median.
        deviation = _MAD * np.median(np.abs(values))
        shades.append(np.median(bright.ravel()[group]))
        variances.append(deviation**2 or values.var())
    return np.interp(bright, shades, variances)


def _blocks(values: np.ndarray) -> np.ndarray:
    """Returns the means of the blocks of patches [N, P, P], as [N, blocks]."""
    count, side, _ = values.shape
    cut = values.reshape(count, side // _BLOCK, _BLOCK, side // _BLOCK, _BLOCK)
    return cut.mean(axis=(2, 4)).reshape(count, -1)


def _groups(values: np.ndarray, number: int) -> list[np.ndarray]:
    """Returns the indices of values in groups of equal size, from the lowest to the highest."""
    return np.array_split(np.argsort(values), number)
