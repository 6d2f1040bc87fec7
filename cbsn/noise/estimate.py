"""Estimates the noise of pictures without clean counterparts."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cbsn.noise.autocovariance import DISTANCES, FAR, REACH, without_bias
from cbsn.noise.survey import FEWEST, STEP, Blocks, Survey

LAGS = 12  # largest distance at which correlation is measured, in pixels
DIRECTIONS = ("horizontal", "vertical", "diagonal ↘", "diagonal ↙")
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # pixels down and to the right in each direction

_PICTURES = 16  # from this many on, each picture is a group of blocks; with fewer, each place
_PLACE = 4  # side of a place, in units of `STEP`
_ERROR = 1.1  # standard error of normal values' middle-half mean, in units of that of the full mean
_BINS, _IN_BIN = 12, 8  # most brightness bins, and fewest blocks in each
_NARROW = 1  # 8-bit level: a range of brightness in which no slope can be seen


RESIDUALS = "what the denoiser removed"  # a `source`
ONE_BRIGHTNESS = (
    "Flat parts are all of one brightness, so how the noise depends on brightness is not known."
)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The noise of a set of pictures with C channels (1 or 3).

    Intensities and standard deviations are in 8-bit levels (of 255), whatever the depth of the
    pictures. Clipped parts show no noise and do not count.
    """

    level: np.ndarray  # [C], standard deviation σ of the median picture
    spread: np.ndarray  # [C, 2], the range of σ that holds 80 % of the pictures
    # [C] each, a and b of the line variance = a · intensity + b. If all noise is shot noise, a
    # white pixel has 255 / a photons. b is the variance of noise that does not depend on light.
    # Without `has_slope`, a is 0.
    slope: np.ndarray
    floor: np.ndarray
    misfit: np.ndarray  # [C], relative deviation of σ from that line, as a root mean square
    points: Sequence[np.ndarray]  # for each channel [n, 2]: increasing intensities, and σ there
    # [4, LAGS], between pixels 1, 2, … steps apart along `DIRECTIONS`, over all channels.
    correlation: np.ndarray
    deviation: np.ndarray  # [4, LAGS], its standard error
    channel_correlation: np.ndarray  # [C, 4, LAGS], the same by channel
    correlation_map: np.ndarray  # [29, 29], for offsets of up to 14 px per axis; 1 in the middle
    clipped: np.ndarray  # [C, 2], share of the pixels at 0 and at full scale
    histogram: np.ndarray  # [C, 64], share of the pixels by value, from 0 to full scale
    pictures: int  # number of pictures
    blocks: int  # number of blocks measured, of 32 × 32 pixels, overlapping by half
    of_blocks: int  # number of blocks in the pictures
    source: str  # what the noise was measured in

    @property
    def channels(self) -> tuple[str, ...]:  # noqa: D102
        return ("gray",) if len(self.level) == 1 else ("red", "green", "blue")

    @property
    def has_slope(self) -> np.ndarray:
        """Whether noise is seen at brightnesses different enough for a line, bool [C]."""
        return np.array([np.ptp(each[:, 0]) >= _NARROW for each in self.points])

    def lines(self, what: str = "picture") -> list[str]:
        """Returns tables as lines of plain text; `what` says what the pictures are."""
        plural = "" if self.pictures == 1 else "s"
        black, white = self.clipped.T

        def of_lines(values: np.ndarray, form: str) -> list[str]:
            known = zip(values, self.has_slope, strict=True)
            return [f"{value:{form}}" if is_known else "unknown" for value, is_known in known]

        channels = [
            ("", self.channels),
            ("σ, of 255", [f"{value:.2f}" for value in self.level]),
            (f"  of 80 % of the {what}s", [f"{a:.1f}–{b:.1f}" for a, b in self.spread]),
            ("variance = a·I + b: a", of_lines(self.slope, ".3f")),
            ("  b", of_lines(self.floor, ".2f")),
            ("  σ deviates from it by", of_lines(self.misfit, ".0%")),
            ("pixels at 0", [f"{value:.2%}" for value in black]),
            ("pixels at full scale", [f"{value:.2%}" for value in white]),
        ]
        if np.allclose(*self.spread.T):
            del channels[2]
        notes = [] if self.has_slope.all() else [ONE_BRIGHTNESS]
        if self.source == RESIDUALS:
            notes.insert(
                0, "Noise that the denoiser left is not in these figures, nor in what follows."
            )
        correlations = [("correlation at px", [str(lag) for lag in range(1, LAGS + 1)])]
        error = np.sqrt(np.mean(self.deviation**2, axis=0))
        names = (*DIRECTIONS, "standard error")
        for name, values in zip(names, (*self.correlation, error), strict=True):
            # Adding 0 makes −0 positive.
            correlations.append((name, [f"{value:.3f}" for value in np.round(values, 3) + 0]))
        return [
            f"Noise of {self.pictures} {what}{plural}, seen in {self.source}: "
            f"{self.blocks:,} of {self.of_blocks:,} blocks of 32 × 32 pixels",
            "",
            *(f"{name:26}" + "".join(f"{cell:>12}" for cell in row) for name, row in channels),
            *notes,
            "",
            *(f"{name:17}" + "".join(f"{cell:>7}" for cell in row) for name, row in correlations),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain values that JSON can store, None where unknown."""
        numbers = {name: _plain(value) for name, value in vars(self).items()}
        for name in ("slope", "floor", "misfit"):
            known = zip(numbers[name], self.has_slope, strict=True)
            numbers[name] = [value if is_known else None for value, is_known in known]
        return numbers


def estimate_noise(pictures: Iterable[np.ndarray]) -> NoiseEstimate:
    """Estimates the noise of pictures from their flat blocks.

    Flat blocks are recognised by the energy of their smooth part, which is removed before anything
    is measured on them. Correlations are averaged over the middle half of the pictures, or of
    places in the pictures if these are few, so that occasional texture does not count.

    Args:
        pictures: [H, W, 1] or [H, W, 3], all with the same number of channels; uint8, uint16 or
            float, which may exceed [0, 1].

    Raises:
        DataError: there are too few flat blocks, different channels, or values that are not finite.
    """
    survey = Survey()
    for picture in pictures:
        survey.add(picture)
    return _estimate(survey, survey.flattest(), "flat blocks")


def estimate_noise_of_residuals(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> NoiseEstimate:
    """Estimates the noise of pictures from what a denoiser removed from them.

    This holds hardly any content. It is measured on the quarter of each picture that is flattest
    after denoising (at least 512 blocks), whatever the noise is like there. Noise that the denoiser
    left in the picture is missed, and content that it removed is included. For pictures and errors,
    see `estimate_noise`. Also raises DataError if a denoised picture has another shape or dtype.
    """
    survey = Survey()
    for noisy, denoised in pairs:
        survey.add(noisy, denoised)
    return _estimate(survey, survey.blocks, RESIDUALS)


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
        **noise_levels(variance, blocks.brightness, blocks.picture, survey.brightness),
        clipped=survey.ends / survey.pixels,
        histogram=survey.histogram / survey.pixels,
        correlation=_along(correlation),
        deviation=_along(deviation),
        channel_correlation=np.stack([_along(each) for each in channels]),
        correlation_map=np.concatenate([correlation[:0:-1, ::-1], correlation]),
        pictures=len(survey.brightness),
        blocks=len(blocks),
        of_blocks=survey.counts["all"],
        source=source,
    )


def groups(blocks: Blocks) -> np.ndarray:
    """Returns a group number for each block, int [n]. Blocks of a group may have similar errors."""
    pictures = np.unique(blocks.picture, return_inverse=True)[1]
    if pictures.max() + 1 >= _PICTURES:
        return pictures
    places = np.column_stack([pictures, blocks.corner // _PLACE])
    return np.unique(places, axis=0, return_inverse=True)[1].ravel()


def sample_size(blocks: Blocks) -> float:
    """Returns how many independent samples of a correlation map the blocks provide.

    This is the number of distinct pixels, as blocks may overlap, times the number of independent
    channels. If channels have nothing in common, averaging far correlations over them makes the
    mean square smaller by that factor.
    """
    quarters = [
        np.column_stack([blocks.picture, blocks.corner + place]) for place in np.ndindex(2, 2)
    ]
    pixels = STEP**2 * len(np.unique(np.concatenate(quarters), axis=0))
    far = blocks.scaled[..., DISTANCES >= FAR]
    return pixels * float(np.mean(far**2) / np.mean(far.mean(axis=1) ** 2))


def typical_correlation(
    covariance: np.ndarray, group: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean correlation of the middle half of the `groups`, and its standard error.

    Groups are weighted by their number of blocks. The error follows from how much they differ, but
    is at least that of Gaussian noise with this correlation and `sample_size`, √(Σρ² / size)
    (Bartlett 1946).
    """
    weights = np.bincount(group).astype(float)
    sums = np.zeros((len(weights), *covariance.shape[1:]))
    np.add.at(sums, group, covariance)
    unbiased = without_bias(sums / weights[:, None, None])
    values = unbiased / unbiased[:, :1, REACH, None]
    middle = middle_mean(values, weights)
    # 0.69 is the middle mean of |z| for a standard normal z.
    spread = middle_mean(abs(values - middle), weights) / 0.69
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

    Flat blocks are not as bright as the rest of their picture. So the variance of all flat blocks,
    as a function of brightness, is averaged over each picture, then scaled by the ratio of the
    variance of the picture's own flat blocks to that function. `variance` and `brightness` [n, C]
    and the number of the `picture` [n] are those of the flat blocks; `everywhere` has the
    brightness [m, C] of all blocks of each picture.
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
    """Returns the strength of the noise by brightness, for one channel of n blocks.

    Sorts the blocks into bins with about equal numbers of blocks. Returns the brightness, σ and
    number of blocks of each bin, [m] each, by increasing brightness.
    """
    bins = np.array_split(np.argsort(brightness), np.clip(len(variance) // _IN_BIN, 1, _BINS))
    # Medians, so that occasional texture does not count.
    typical = [(np.median(brightness[i]), np.median(variance[i]) ** 0.5, len(i)) for i in bins]
    return tuple(np.array(typical).T)


def _fit(brightness: np.ndarray, sigma: np.ndarray, number: np.ndarray) -> tuple[float, ...]:
    """Returns slope and floor of the variance, and the relative deviation of σ from that line."""
    # The error of a variance is proportional to it.
    weights = np.sqrt(number) / sigma**2
    terms = np.stack([brightness, np.ones_like(brightness)], axis=1)
    if np.ptp(brightness) < _NARROW:
        terms[:, 0] = 0
    slope, floor = np.linalg.lstsq(terms * weights[:, None], sigma**2 * weights, rcond=None)[0]
    fitted = np.sqrt(np.maximum(terms @ [slope, floor], 0))
    misfit = np.sqrt(np.average((fitted / sigma - 1) ** 2, weights=number))
    return slope, floor, misfit


def middle_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the weighted mean of the values between the quartiles, along the first axis."""
    order = np.argsort(values, axis=0)
    shares = weights[order] / np.sum(weights)
    ends = np.cumsum(shares, axis=0)
    inside = np.clip(np.minimum(ends, 0.75) - np.maximum(ends - shares, 0.25), 0, None)
    return np.sum(inside * np.take_along_axis(values, order, axis=0), axis=0) / 0.5


def _along(values: np.ndarray) -> np.ndarray:
    """Returns the values [4, LAGS] of a map [REACH + 1, 2·REACH + 1] along `DIRECTIONS`."""
    down, right = np.array(_STEPS).T[..., None] * np.arange(1, LAGS + 1)
    return values[down, REACH + right]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value.astype(float), 5).tolist()
    return [_plain(each) for each in value] if isinstance(value, list) else value
