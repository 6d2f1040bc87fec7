"""Estimating the noise of pictures that have no clean side."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cbsn.noise.autocovariance import REACH, without_bias
from cbsn.noise.pooling import flattest, groups, noise_levels, sample_size, typical_correlation
from cbsn.noise.survey import FEWEST, Blocks, Survey

LAGS = 12
"""Largest distance in pixels at which correlation is looked for."""

DIRECTIONS = ("horizontal", "vertical", "diagonal ↘", "diagonal ↙")
"""Of the correlation; a diagonal step is one pixel down and one sideways."""

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # down and right, of these

_CHANNELS = {1: ("gray",), 3: ("red", "green", "blue")}


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
        return _CHANNELS[len(self.level)]

    def lines(self) -> list[str]:
        """Returns tables in plain text."""
        plural = "" if self.pictures == 1 else "s"
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
        if np.allclose(*self.spread.T):
            del channels[2]
        correlations = [("correlation at px", [str(lag) for lag in range(1, LAGS + 1)])]
        error = np.sqrt(np.mean(self.deviation**2, axis=0))
        names = (*DIRECTIONS, "standard error")
        for name, values in zip(names, (*self.correlation, error), strict=True):
            # Adding 0 makes −0 positive.
            correlations.append((name, [f"{value:.3f}" for value in np.round(values, 3) + 0]))
        return [
            f"Noise of {self.pictures} picture{plural}, seen in {self.source}: "
            f"{self.blocks:,} of {self.of_blocks:,} blocks of 32 × 32 pixels",
            "",
            *(f"{name:26}" + "".join(f"{cell:>12}" for cell in row) for name, row in channels),
            "",
            *(f"{name:17}" + "".join(f"{cell:>7}" for cell in row) for name, row in correlations),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON, by the names of the attributes."""
        return {name: _plain(value) for name, value in vars(self).items()}


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
        survey.add(picture)
    return _estimate(survey, survey.blocks and flattest(survey.blocks), "flat blocks")


def estimate_noise_of_residuals(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> NoiseEstimate:
    """Estimates the noise of pictures from what a denoiser took away from them.

    Hardly any content is in the way. It is measured on the quarter of each picture that is flattest
    when denoised (512 blocks at least), whatever the noise is like there. What the denoiser left in
    the picture is missing, and what it took of the content is there too.

    Args:
        pairs: noisy pictures, as for `estimate_noise`, and denoised ones of equal shape and dtype.

    Raises:
        DataError: as `estimate_noise`, or if the two of a pair differ in shape or dtype.
    """
    survey = Survey()
    for noisy, denoised in pairs:
        survey.add(noisy, denoised)
    return _estimate(survey, survey.blocks, "what the denoiser took away")


def _estimate(survey: Survey, blocks: Blocks | None, source: str) -> NoiseEstimate:
    if blocks is None or len(blocks) < FEWEST:
        raise survey.too_few()
    group, size, scaled = groups(blocks), sample_size(blocks), blocks.scaled
    correlation, deviation = typical_correlation(scaled.mean(axis=1), group, size)
    channels = [typical_correlation(each, group, size)[0] for each in scaled.swapaxes(0, 1)]
    mean = blocks.covariance.mean(axis=0)
    bias = (mean / without_bias(mean))[:, 0, REACH]
    variance = blocks.covariance[:, :, 0, REACH] / bias
    return NoiseEstimate(
        **survey.shares(),
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


def _along(values: np.ndarray) -> np.ndarray:
    """[4, LAGS] of [REACH + 1, 2·REACH + 1], along `DIRECTIONS`."""
    down, right = np.array(_STEPS).T[..., None] * np.arange(1, LAGS + 1)
    return values[down, REACH + right]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value.astype(float), 5).tolist()
    return [_plain(each) for each in value] if isinstance(value, list) else value
