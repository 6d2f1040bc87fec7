"""Estimating the noise of pictures that have no clean side."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import (
    BLOCK,
    FAR,
    REACH,
    STEP,
    Blocks,
    distances,
    smooth_energy,
    without_bias,
)
from cbsn.noise.survey import Survey, noise_levels

LAGS = 12
"""Largest distance in pixels at which correlation is looked for."""

DIRECTIONS = ("horizontal", "vertical", "diagonal ↘", "diagonal ↙")
"""Of the correlation; a diagonal step is one pixel down and one sideways."""

CHANNELS = {1: ("gray",), 3: ("red", "green", "blue")}
"""Names of the channels, by their number."""


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The noise of a set of pictures with C channels (1 or 3).

    Intensities and standard deviations are in 8-bit levels (of 255), whatever the depth of the
    pictures. Where pixels are clipped, there is no noise to see: such parts do not count.

    Args:
        level: [C], standard deviation σ in the median picture.
        spread: [C, 2], between which standard deviations 80 % of the pictures are.
        slope: [C], a of the line variance = a · intensity + b; 255 / a are the photons of a white
            pixel, if light is all that the noise depends on.
        floor: [C], b of it: the variance of the noise that does not depend on the light.
        misfit: [C], by how much σ is off the line, relative to it, as a root mean square.
        points: of each channel [n, 2], intensities and σ there, by increasing intensity.
        correlation: [4, LAGS], of pixels 1, 2, … steps apart along `DIRECTIONS`, all channels
            together.
        deviation: [4, LAGS], its standard error.
        channel_correlation: [C, 4, LAGS], of each channel.
        correlation_map: [29, 29], of pixels up to 14 down and to the right; 1 in the middle.
        clipped: [C, 2], share of the pixels at 0 and at full scale.
        histogram: [C, 64], share of the pixels by value, from 0 to full scale.
        pictures: int, how many were looked at.
        blocks: int, of how many blocks of 32 × 32 pixels, which overlap by half, this is.
        of_blocks: int, how many there are.
        source: str, what the noise was seen in.
    """

    level: np.ndarray
    spread: np.ndarray
    slope: np.ndarray
    floor: np.ndarray
    misfit: np.ndarray
    points: Sequence[np.ndarray]
    correlation: np.ndarray
    deviation: np.ndarray
    channel_correlation: np.ndarray
    correlation_map: np.ndarray
    clipped: np.ndarray
    histogram: np.ndarray
    pictures: int
    blocks: int
    of_blocks: int
    source: str

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels."""
        return CHANNELS[len(self.level)]

    def lines(self) -> list[str]:
        """Returns tables in plain text."""
        plural = "" if self.pictures == 1 else "s"
        low, high = self.spread.T
        black, white = self.clipped.T
        channels = [
            ("", self.channels),
            ("σ, of 255", [f"{value:.2f}" for value in self.level]),
            ("  of 80 % of the pictures", [f"{a:.1f}–{b:.1f}" for a, b in self.spread]),
            ("variance = a·I + b: a", [f"{value:.3f}" for value in self.slope]),
            ("  b", [f"{value:.2f}" for value in self.floor]),
            ("  σ is off that by", [f"{value:.0%}" for value in self.misfit]),
            ("pixels at 0", [f"{value:.2%}" for value in black]),
            ("pixels at full scale", [f"{value:.2%}" for value in white]),
        ]
        if np.allclose(low, high):
            del channels[2]
        rows = [*zip(DIRECTIONS, self.correlation, strict=True)]
        rows.append(("standard error", np.sqrt(np.mean(self.deviation**2, axis=0))))
        correlations = [
            ("correlation at px", [str(lag) for lag in range(1, LAGS + 1)]),
            # Adding 0 makes −0 positive.
            *(
                (name, [f"{value:.3f}" for value in np.round(values, 3) + 0])
                for name, values in rows
            ),
        ]
        return [
            f"Noise of {self.pictures} picture{plural}, seen in {self.source}: "
            f"{self.blocks:,} of {self.of_blocks:,} blocks of 32 × 32 pixels",
            "",
            *_table(channels, 26, 12),
            "",
            *_table(correlations, 17, 7),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON, by the names of the attributes."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items()}


def _table(rows: Sequence[tuple[str, Sequence[str]]], first: int, others: int) -> list[str]:
    return [
        name.ljust(first) + "".join(str(cell).rjust(others) for cell in cells)
        for name, cells in rows
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value.astype(float), 5).tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


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
        "python -m cbsn noise take what a denoiser took away (--modelpath, --denoised); "
        "or scale the pictures down, if their noise is blotches of more than 7 pixels. Received: "
        f"{pictures} with {counts['all']} block{'s' * (counts['all'] != 1)} of {size}, of which "
        f"{counts['clipped']} clipped, {counts['silent']} without noise and {counts['uneven']} "
        "uneven"
    )
