"""How far denoised pixels are likely to be from the truth, without anything clean.

The results of a picture's orientations (eight, or those that the network's mask allows) differ, and
differ more where the network is less sure. This spread shows where errors are, but not how large
they are: what all orientations have in common, such as texture that all of them remove, does not
show. So the variance of the error is a line, floor + factor · spread², in units of the noise's
variance, and the two numbers are found on some windows of the picture, for each channel:

1. The noise is measured. Noise like it is added to the result, and that is denoised in the same
   way. The errors are now known, since the truth is: a parametric bootstrap. But the result is
   smoother than the truth, and easier to denoise.
2. What was removed from the real picture is known, too. If its mean square is larger than that of
   what was removed in step 1, the difference is content that was lost. With the truth x, the noisy
   picture y and its result r, and with y' = r + noise and its result r', for means over pixels:

       (r − x)² ≈ (r' − r)² + max(0, (y − r)² − (y' − r')²)

   Without the maximum, this is the estimate by covariance penalties (Efron, "The estimation of
   prediction error", JASA 2004), which is Stein's unbiased risk estimate for Gaussian noise and a
   small step. With it, noise that was measured too strong cannot make results too sure.
3. Pixels are sorted by their spread into groups, each of which gives one point of the line.

Masked passes of networks that are blind where they are masked would not help: 64 of them, eight
times the work of the orientations, changed the log-likelihood of errors by less than 0.005.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy

from cbsn.errors import ConfigError
from cbsn.images.picture import Picture
from cbsn.inference.options import Strength
from cbsn.inference.pixels import Frame, cast
from cbsn.inference.tiling import Index
from cbsn.inference.volumes import turned
from cbsn.noise.sampler import NoiseSampler
from cbsn.value_range import row_blocks, value_range

WINDOWS = 16
"""The most windows of a picture, or of a stack's channel, that are looked at."""

CALIBRATED, MEASURED = 128, 256
"""Sides of the windows that are denoised again, and of those in which noise is measured."""

# Shares of the pixels, by their spread, that end the groups. The last ones are edges.
_GROUPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
_AROUND = 3  # side in pixels of the square over which the variance of eight results is averaged
_TINY = 1e-9

Ensemble = Callable[[Sequence[Frame], Callable[[float], None], "Sequence[Spread]"], None]
"""Overwrites pictures with the means of the results of their orientations, and adds each result to
the spread of its picture."""


class Spread:
    """The running variance of a picture's results, as these come tile by tile.

    (Youngs & Cramer, "Some results relevant to choice of sum and sum-of-product algorithms",
    Technometrics 1971. It needs no more than the running sum, which the mean takes anyway.)

    Args:
        shape: the picture's, [H, W, C] or [Z, H, W, C].
    """

    def __init__(self, shape: Sequence[int]):
        self._squares = np.zeros(shape, np.float32)
        self._orientations: list[int] = []

    def add(self, frame: Frame, where: tuple[Index, ...], result: np.ndarray) -> None:
        """Adds the result of some pixels, which is part of `frame.total` already.

        All pixels of one orientation come before those of another.
        """
        assert frame.total is not None
        if frame.orientation not in self._orientations:
            self._orientations.append(frame.orientation)
        count = len(self._orientations)
        if count > 1:
            difference = count * result - frame.total[where]
            squares = turned(self._squares, frame.orientation)
            squares[where] += np.square(difference) / (count * (count - 1))

    def take(self, frame: Frame) -> np.ndarray:
        """Returns the standard deviation, in units of the picture; the spread itself is lost."""
        spread = self._squares
        spread /= max(1, len(self._orientations) - 1)
        np.sqrt(spread, out=spread)
        frame.units.enlarge(spread)
        return spread


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What makes standard deviations of the error of spreads.

    Args:
        noise: the noise; None if it could not be measured. Spreads then stay as they are.
        lines: for each channel, floor and factor of the error's variance.
    """

    noise: NoiseSampler | None = None
    lines: Sequence[tuple[float, float]] = ()

    def __call__(self, result: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Returns the standard deviation of the error of denoised pixels, float32.

        Args:
            result: the pixels, [H, W, C] or [Z, H, W, C].
            spread: from `Spread.take`. It is overwritten.
        """
        if self.noise is None:
            return spread
        around = _around(np.square(spread, out=spread))
        floor, factor = np.array(self.lines, np.float32).T
        for plane, values, variance in zip(*map(_planes, (spread, result, around)), strict=True):
            for rows in row_blocks(plane):
                power = np.square(self.noise.deviation(values[rows]))
                plane[rows] = np.sqrt(floor * power + factor * variance[rows])
        return spread

    @property
    def note(self) -> str:
        """What the user should know about the uncertainty; empty if there is nothing."""
        if self.noise is None:
            return (
                "the noise cannot be measured, so the uncertainty is only the spread of the eight "
                "orientations, which is too small"
            )
        if self.noise.is_rough:
            return (
                "too few parts are flat to measure the noise well, so the uncertainty is a rough "
                "one, which may be too large"
            )
        return ""


class Uncertainty:
    """What a `Denoiser` estimates uncertainty with, see `Denoiser.estimating`.

    Args:
        calibration: of a whole stack's channel. Default None: found from the pictures themselves.
        noise: that of the stack, to find a calibration from the pictures. Default None: it is
            measured in the first picture.
        seed: int ≥ 0, for the noise that is added.

    Attributes:
        calibration: a `Calibration`, given or found.
        sigmas: the standard deviation of the error of each picture or volume that was denoised
            last, float32 of its shape (colours without alpha), in its own units.
    """

    def __init__(
        self,
        calibration: Calibration | None = None,
        noise: NoiseSampler | None = None,
        seed: int = 0,
    ):
        self.calibration = calibration
        self.sigmas: list[np.ndarray] = []
        self._noise = noise
        self._seed = seed

    def __call__(
        self,
        frames: Sequence[Frame],
        units: Sequence[float],
        on_tile: Callable[[float], None],
        ensemble: Ensemble,
    ) -> None:
        """Denoises pictures, as `ensemble` does, and sets `sigmas`.

        Args:
            frames: the pictures or volumes.
            units: for each, how many of its own units one unit of the frame's image is.
            on_tile: called with shares of the work that add up to 1.
            ensemble: see `Ensemble`.
        """
        spreads = [Spread(frame.image.shape) for frame in frames]
        if self.calibration is None:
            windows = _Windows(frames, self._noise)
            own, more = sum(frame.image.size for frame in frames), windows.size
            ensemble(frames, lambda share: on_tile(share * own / (own + more)), spreads)
            found = [spread.take(frame) for spread, frame in zip(spreads, frames, strict=True)]
            self.calibration = windows.calibrated(frames, found, ensemble, self._seed)
            on_tile(more / (own + more))
        else:
            ensemble(frames, on_tile, spreads)
            found = [spread.take(frame) for spread, frame in zip(spreads, frames, strict=True)]
        self.sigmas = []
        for frame, spread, unit in zip(frames, found, units, strict=True):
            sigma = self.calibration(frame.image, spread)
            sigma *= np.float32(unit)
            self.sigmas.append(sigma)

    def of_picture(self, denoised: np.ndarray) -> np.ndarray:
        """Returns the standard deviation for the one picture that was denoised last.

        Args:
            denoised: the result, [H, W] or [H, W, C] with or without alpha.

        Returns:
            Float32 [H, W] or [H, W, C] without alpha; 0 where alpha is 0, as nothing changes there.
        """
        has_alpha = denoised.ndim == 3 and denoised.shape[-1] in (2, 4)
        shape = (*denoised.shape[:-1], denoised.shape[-1] - 1) if has_alpha else denoised.shape
        if not self.sigmas:  # as alpha is 0 everywhere
            return np.zeros(shape, np.float32)
        sigma = self.sigmas[0].reshape(shape)
        if has_alpha:
            sigma[denoised[..., -1] == 0] = 0
        return sigma


def check_strength(strength: Strength) -> None:
    """Raises a ConfigError if nothing is removed, so that there is nothing to estimate."""
    if strength == Strength(0):
        raise ConfigError(
            "Where nothing is removed there is no uncertainty to estimate: omit --strength or "
            "--uncertainty. Received: --strength 0"
        )


def sigma_picture(denoised: Picture, estimate: Uncertainty) -> Picture:
    """Returns the standard deviations of a denoised picture's errors as a picture, in file units.

    It has the picture's orientation and resolution, but none of what is said of its colours.
    """
    sigma = estimate.of_picture(denoised.pixels)
    if denoised.value_range:
        found = denoised.value_range
        sigma *= np.float32((found.white - found.black) / value_range(denoised.pixels.dtype))
    return Picture(sigma, "TIFF", exif=denoised.exif, resolution=denoised.resolution)


class _Windows:
    """Parts of noisy pictures, copied before these are overwritten, to find a calibration with.

    They are parts of the first picture. With the noise given, all pictures are such parts.
    """

    def __init__(self, frames: Sequence[Frame], noise: NoiseSampler | None):
        self.noise = noise
        self._where: list[tuple[int, Any]] = [(number, ...) for number in range(len(frames))]
        if noise is None:
            first = frames[0].image
            height, width = first.shape[:2]
            windows = [first[each] for each in places(height, width, MEASURED)]
            self.noise = NoiseSampler.measure(windows, photographs=frames[0].units.has_white)
            found = places(height, width, CALIBRATED) if self.noise else []
            self._where = [(0, place) for place in found]
        self._noisy = [frames[number].image[place].copy() for number, place in self._where]
        self.size = sum(each.size for each in self._noisy)

    def calibrated(
        self,
        frames: Sequence[Frame],
        spreads: Sequence[np.ndarray],
        ensemble: Ensemble,
        seed: int,
    ) -> Calibration:
        """Returns the calibration, given the pictures, now denoised, and their spreads."""
        noise = self.noise
        if noise is None:
            return Calibration()
        random = np.random.default_rng(seed)
        clean = [frames[number].image[place] for number, place in self._where]
        spread = [spreads[number][place] for number, place in self._where]
        noise = noise.extended(*map(_pixels, (clean, self._noisy, spread)))
        noisy, again = [], []
        for (number, _), truth in zip(self._where, clean, strict=True):
            values = np.stack([noise.add(plane, random) for plane in _planes(truth)])
            noisy.append(cast(values.reshape(truth.shape), truth.dtype, "round"))
            again.append(Frame(noisy[-1].copy(), frames[number].units))
        second = [Spread(frame.image.shape) for frame in again]
        ensemble(again, lambda share: None, second)
        first = [
            _Terms.of(noise, r, s, r, y) for r, s, y in zip(clean, spread, self._noisy, strict=True)
        ]
        repeated = [
            _Terms.of(noise, frame.image, each.take(frame), truth, y)
            for frame, each, truth, y in zip(again, second, clean, noisy, strict=True)
        ]
        channels = range(clean[0].shape[-1])
        lines = [_line(_Terms.join(first, c), _Terms.join(repeated, c)) for c in channels]
        return Calibration(noise, lines)


@dataclasses.dataclass(frozen=True)
class _Terms:
    """Squares for each pixel, all in units of the noise's variance there."""

    spread: np.ndarray
    removed: np.ndarray
    error: np.ndarray

    @classmethod
    def of(
        cls,
        noise: NoiseSampler,
        result: np.ndarray,
        spread: np.ndarray,
        truth: np.ndarray,
        noisy: np.ndarray,
    ) -> "_Terms":
        """Returns those of a denoised window [H, W, C] or [Z, H, W, C]."""
        power = np.square(noise.deviation(result))
        values, truth, noisy = (each.astype(np.float32) for each in (result, truth, noisy))
        return cls(
            _around(np.square(spread)) / power,
            np.square(noisy - values) / power,
            np.square(values - truth) / power,
        )

    @classmethod
    def join(cls, windows: Sequence["_Terms"], channel: int) -> "_Terms":
        """Returns those of all windows in one channel, as vectors."""
        fields = [f.name for f in dataclasses.fields(cls)]
        return cls(
            *(
                np.concatenate([getattr(each, name)[..., channel].ravel() for each in windows])
                for name in fields
            )
        )

    def groups(self) -> tuple[np.ndarray, ...]:
        """Returns the number of pixels, then the mean spread, removed and error of each group."""
        group = np.searchsorted(np.quantile(self.spread, _GROUPS), self.spread)
        count = np.bincount(group)
        terms = (self.spread, self.removed, self.error)
        means = [np.bincount(group, each)[count > 0] / count[count > 0] for each in terms]
        return count[count > 0], *means


def _line(first: _Terms, repeated: _Terms) -> tuple[float, float]:
    """Returns floor and factor of the error's variance, given those of both times.

    They are at least 0, and fit the groups' means with equal relative errors; then both are scaled
    to have the right mean over all pixels.
    """
    count, spread, removed, _ = first.groups()
    _, at, removed_again, error = repeated.groups()
    variance = np.interp(spread, at, error)
    variance += np.maximum(removed - np.interp(spread, at, removed_again), 0)
    variance = np.maximum(variance, _TINY)
    weight = np.sqrt(count) / variance
    terms = np.stack([np.ones_like(spread), spread], axis=1)
    line = scipy.optimize.nnls(terms * weight[:, None], variance * weight)[0]
    line *= (count @ variance) / (count @ (terms @ line))
    return float(line[0]), float(line[1])


def places(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    """Returns at most `WINDOWS` windows of a picture, evenly spread, all of one size.

    Of a small picture, they are all of it.

    Args:
        height: int, of the picture in pixels.
        width: int, of the picture in pixels.
        side: int, the most pixels of a window's side.
    """
    down, across = (-(-length // side) for length in (height, width))
    if down * across > WINDOWS:
        most = int(WINDOWS**0.5)
        down = min(down, max(most, WINDOWS // across))
        across = min(across, WINDOWS // down)
    axes = []
    for length, count in (height, down), (width, across):
        size = min(side, -(-length // count))
        starts = np.linspace(0, length - size, count).astype(int)
        axes.append([slice(int(start), int(start) + size) for start in starts])
    return [(rows, columns) for rows in axes[0] for columns in axes[1]]


def _pixels(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the pixels [N, C] of all pictures."""
    return np.concatenate([each.reshape(-1, each.shape[-1]) for each in images])


def _planes(image: np.ndarray) -> np.ndarray:
    """Returns pictures [N, H, W, C] of one, or of a volume; a view."""
    return image.reshape(-1, *image.shape[-3:])


def _around(variance: np.ndarray) -> np.ndarray:
    """Returns the mean of a variance over small squares of each plane."""
    size = (1,) * (variance.ndim - 3) + (_AROUND, _AROUND, 1)
    around = scipy.ndimage.uniform_filter(variance, size, mode="nearest")
    return np.maximum(around, 0, out=around)  # running sums may end a little below 0
