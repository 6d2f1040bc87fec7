"""Estimating the noise of pictures that have no clean side."""

from collections.abc import Iterable

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import BLOCK, REACH, smooth_energy, without_bias
from cbsn.noise.blocks import Blocks
from cbsn.noise.estimate import LAGS, NoiseEstimate
from cbsn.noise.levels import noise_levels
from cbsn.noise.pooling import groups, sample_size, typical_correlation
from cbsn.noise.survey import Survey

FEWEST = 8
"""Blocks that an estimate takes at least."""

_FIRST = 16
"""Blocks to begin with."""

_MOST_CONTENT = 1.25
"""Energy of the smooth part, in units of what noise of the correlation found would have."""

_MIDDLE = (0.1, 0.7)
"""Quantiles of the variance, between which blocks are taken in the end."""


def estimate_noise(pictures: Iterable[np.ndarray]) -> NoiseEstimate:
    """Estimates the noise of pictures from their flat blocks.

    Flat blocks are told by the energy of their smooth part, which is taken away before anything
    is measured on them. Correlations are those of the middle half of the pictures, or of places
    in few pictures, so that texture here and there does not count.

    Args:
        pictures: [H, W, 1] or [H, W, 3], all of one number of channels; uint8, uint16 or float,
            which may lie beyond [0, 1].

    Raises:
        DataError: if there are too few flat blocks, or pictures of different channels.
    """
    survey = Survey()
    for picture in pictures:
        survey.add(picture, None)
    return _estimate(survey, survey.blocks and flattest(survey.blocks), "flat blocks")


def estimate_noise_of_residuals(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> NoiseEstimate:
    """Estimates the noise of pictures from what a denoiser took away from them.

    As `estimate_noise`, but with hardly any content in the way. It is measured on the quarter of
    each picture that is flattest when denoised (512 blocks at least), whatever the noise is like
    there. What the denoiser left in the picture is missing, and what it took of the content is
    there too.

    Args:
        pairs: the noisy picture, as for `estimate_noise`, and the denoised one of equal shape and
            dtype.

    Raises:
        DataError: likewise, or if the two of a pair differ in shape or dtype.
    """
    survey = Survey()
    for noisy, denoised in pairs:
        survey.add(noisy, denoised)
    return _estimate(survey, survey.blocks, "what the denoiser took away")


def _estimate(survey: Survey, blocks: Blocks | None, source: str) -> NoiseEstimate:
    if blocks is None or len(blocks) < FEWEST:
        raise DataError(too_few(survey))
    scaled = blocks.covariance / blocks.quiet[:, :, None, None]
    group, size = groups(blocks), sample_size(blocks)
    correlation, deviation = typical_correlation(scaled.mean(axis=1), group, size)
    channels = [typical_correlation(each, group, size)[0] for each in scaled.swapaxes(0, 1)]
    mean = blocks.covariance.mean(axis=0)
    bias = (mean / without_bias(mean))[:, 0, REACH]
    variance = blocks.covariance[:, :, 0, REACH] / bias
    return NoiseEstimate(
        **survey.values.shares(),
        **noise_levels(variance, blocks.brightness, blocks.picture, survey.brightness),
        correlation=_along(correlation),
        deviation=_along(deviation),
        channel_correlation=np.stack([_along(each) for each in channels]),
        correlation_map=np.concatenate([correlation[:0:-1, ::-1], correlation]),
        pictures=len(survey.brightness),
        blocks=len(blocks),
        of_blocks=survey.counts["all"],
        source=source,
    )


def flattest(blocks: Blocks) -> Blocks:
    """Returns the blocks without content.

    Blocks are taken in the order of their content, as long as that is not more than noise of the
    correlation that they have would have. Of these, the loudest and the quietest are left out:
    the former have texture, the latter are of pictures with texture everywhere.
    """
    blocks = blocks[np.argsort(blocks.content)]
    scaled = (blocks.covariance / blocks.quiet[:, :, None, None]).mean(axis=1)
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


def _along(values: np.ndarray) -> np.ndarray:
    """[4, LAGS] of [REACH + 1, 2·REACH + 1], along `DIRECTIONS`."""
    lags = np.arange(1, LAGS + 1)
    none = np.zeros_like(lags)
    down = np.stack([none, lags, lags, lags])
    right = np.stack([lags, none, lags, -lags])
    return values[down, REACH + right]


def too_few(survey: Survey) -> str:
    """Says that there are too few flat blocks, what there is, and what to do."""
    counts = survey.counts
    pictures = f"{len(survey.brightness)} picture{'s' * (len(survey.brightness) != 1)}"
    size = f"{BLOCK} × {BLOCK} pixels"
    if not counts["all"]:
        return f"No picture has {size}: give larger ones. Received: {pictures}"
    return (
        "There are too few flat blocks to see the noise in. Give larger or more pictures, or let "
        "python -m cbsn.evaluation.noise take what a denoiser took away (--modelpath, --denoised); "
        "or scale the pictures down, if their noise is blotches of more than 7 pixels. Received: "
        f"{pictures} with {counts['all']} block{'s' * (counts['all'] != 1)} of {size}, of which "
        f"{counts['clipped']} clipped, {counts['silent']} without noise and {counts['uneven']} "
        "uneven"
    )
