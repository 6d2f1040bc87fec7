"""Noise like that of some pictures, to be drawn again."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import scipy

from cbsn.colors import to_linear, to_srgb
from cbsn.errors import DataError
from cbsn.noise.measured_noise import CorrelatedNoise, measure_noise, measure_roughly
from cbsn.value_range import value_range

_LEAST = 1e-3  # 8-bit levels, so that nothing is divided by 0
_NORMAL = 1.4826  # standard deviations of a normal distribution in its median absolute deviation
_SMOOTH = 0.2  # share of those with least content
_BEYOND = 1.0  # deviations of the noise from a brightness that was measured to one that was not
_IN_GROUP, _MOST_GROUPS = 256, 16  # fewest pixels, and most groups, of a brightness not measured
_ENDS = (0.1, 99.9)  # percentiles of the values that count as 0 and 255, if there is no white


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSampler:
    """Draws noise like that of given pictures.

    Args:
        model: the strength of the noise by brightness, and its correlation.
        low, span: floats, the value that counts as level 0, and how far above it level 255 is.
        is_rough: whether the pictures have too few flat parts, so that it was measured where there
            is least content. It is then too strong rather than too weak. Default False.

    Example:
        >>> sampler = NoiseSampler.measure([noisy])
        >>> again = sampler.add(denoised, np.random.default_rng(0))
    """

    model: CorrelatedNoise
    low: float
    span: float
    is_rough: bool = False

    @classmethod
    def measure(
        cls, pictures: Sequence[np.ndarray], *, photographs: bool = True
    ) -> "NoiseSampler | None":
        """Measures the noise of pictures of one shape, or of parts of one picture.

        Args:
            pictures: [H, W, 1] or [H, W, 3] each; uint8 or uint16 of the whole range, or float.
            photographs: whether white is known (1 for floats), and the noise may have passed the
                sRGB curve. Otherwise values are floats of any range. Default True.

        Returns:
            What draws such noise; None if there are not even eight blocks of 32 × 32 pixels that
            show noise.
        """
        # As one picture, since one model is wanted. No block across a seam is flat.
        picture = np.concatenate([*pictures]) if len(pictures) > 1 else pictures[0]
        low, span = 0.0, float(value_range(picture.dtype))
        if not photographs:
            low, high = map(float, np.percentile(picture, _ENDS))
            span = high - low
            if not span > 0:
                return None
            picture = ((picture - low) / span).astype(np.float32)
        is_rough = False
        try:
            model = measure_noise([picture])[0]
        except DataError:
            is_rough = True
            try:
                model = measure_roughly(picture)
            except DataError:
                return None
        if not photographs:
            model = dataclasses.replace(model, linear=False)
        return cls(model, low, span, is_rough)

    def extended(
        self, denoised: np.ndarray, noisy: np.ndarray, content: np.ndarray
    ) -> "NoiseSampler":
        """Returns the same for values that are darker or brighter than all that was measured.

        Nothing of such a brightness is flat, such as the cells of a fluorescence microscope. So the
        noise there is what a denoiser has removed from the pixels with least content around; but
        not less than where it was measured, since not all denoisers remove all noise.

        Args:
            denoised: float [N, C], pixels of the result.
            noisy: float [N, C], the same before.
            content: float [N, C], how much content there is around each, in any unit.

        Example:
            >>> pixels = (each.reshape(-1, 1) for each in (clean, noisy, spread))
            >>> sampler = sampler.extended(*pixels)
        """
        levels, unit = [], 255 / self.span
        for channel, curve in enumerate(self.model.levels):
            values, before = (each[:, channel].astype(np.float64) for each in (denoised, noisy))
            at, removed = unit * (values - self.low), unit * (before - values)
            parts = []
            for beyond, end in (
                (at < curve[0, 0] - _BEYOND * curve[0, 1], curve[0]),
                (at > curve[-1, 0] + _BEYOND * curve[-1, 1], curve[-1]),
            ):
                found = _typical(at[beyond], removed[beyond], content[beyond, channel])
                parts.append(found[found[:, 1] > end[1]])
            levels.append(np.concatenate([parts[0], curve, parts[1]]))
        return dataclasses.replace(self, model=dataclasses.replace(self.model, levels=levels))

    def deviation(self, values: np.ndarray) -> np.ndarray:
        """Returns the standard deviation of the noise, float32, at clean values [..., C]."""
        output = np.empty(values.shape, np.float32)
        for channel, (at, sigma) in enumerate(each.T for each in self.model.levels):
            levels = (values[..., channel] - np.float32(self.low)) * np.float32(255 / self.span)
            found = np.maximum(np.interp(levels, at, sigma), _LEAST)
            output[..., channel] = found * (self.span / 255)
        return output

    def add(self, clean: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns clean values [H, W, C] with noise, float32, neither rounded nor clipped.

        Noise that arose in linear light is added there, and clipped as in a camera.
        """
        height, width, channels = clean.shape
        size = max(height, width)
        white = random.standard_normal((channels, size, size), np.float32)
        spectrum = np.einsum("cdhw,dhw->chw", self._root(size), scipy.fft.fft2(white))
        field = scipy.fft.ifft2(spectrum).real.transpose(1, 2, 0)[:height, :width]
        noise = self.deviation(clean) * field.astype(np.float32)
        if not self.model.linear:
            return clean.astype(np.float32) + noise
        values = np.clip(clean / self.span, 0, 1)
        light = to_linear(values)
        slope = np.where(values <= 0.04045, 1 / 12.92, 2.4 * light / (values + 0.055))
        noisy = to_srgb(np.clip(light + noise / self.span * slope, 0, 1))
        return (noisy * self.span).astype(np.float32)

    @functools.cached_property
    def _roots(self) -> dict[int, np.ndarray]:
        return {}

    def _root(self, size: int) -> np.ndarray:
        if size not in self._roots:
            self._roots[size] = self.model.root(size)
        return self._roots[size]


def _typical(at: np.ndarray, removed: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Returns brightness and standard deviation [n, 2] of groups of pixels, by brightness."""
    count = min(_MOST_GROUPS, len(at) // _IN_GROUP)
    found = np.empty((count, 2))
    groups = np.array_split(np.argsort(at, kind="stable"), count) if count else []
    for number, group in enumerate(groups):
        smooth = group[np.argsort(content[group], kind="stable")[: int(_SMOOTH * len(group))]]
        # The median, which a few edges do not change.
        found[number] = at[group].mean(), _NORMAL * np.median(np.abs(removed[smooth]))
    return found
