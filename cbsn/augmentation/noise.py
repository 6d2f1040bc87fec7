"""Noise of real cameras: as measured, and as processed by cameras and programs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from cbsn.augmentation.clean import Draws, each
from cbsn.augmentation.jpeg import compress
from cbsn.colors import LUMA, to_linear, to_srgb
from cbsn.noise.measured_noise import CorrelatedNoise

Tensor = Any

DRAWS = 13  # random numbers per picture, besides its noise

# For pictures with processed noise:
_WIDER = 1.2  # largest σ in pixels of the blur that widens its correlation
_WHITE = 0.3  # share whose noise is mixed with white noise
_LINEAR = 0.5  # share whose noise is added in linear light
_JPEG, _QUALITY, _SUBSAMPLED = 0.6, (60.0, 99.0), 0.5  # share of JPEGs; of them with halved chroma

# Share whose colour noise is smoothed more than luminance noise, as in cameras, and the largest σ
# of that blur in pixels. In the camera JPEGs of CC15, colour noise reaches as far as after a blur
# of 1.5 to 3.5 pixels, luminance noise as far as after one of 0.5.
_CHROMA, _CHROMA_WIDER = 0.6, 3.0

_TINY = 1e-12  # smallest power to divide by: gray noise has no colours


@dataclasses.dataclass(frozen=True)
class NoiseTables:
    """M noise models as tensors, for pictures of side S with C channels.

    A graph takes tensors as inputs, but would contain copies of arrays: with 127 models of 128
    pixels, tracing took 5 times as long, and 1 GiB.
    """

    brightness: Tensor  # float32 [M, C, K], K points of tone curves, never falling, in [0, 1]
    sigma: Tensor  # float32 [M, C, K], standard deviation at these points, in units of [0, 1]
    roots: Tensor  # float32 [M, C, C, S, S], from `CorrelatedNoise.root`
    linear: Tensor  # float32 [M], 1 where the noise is added in linear light, else 0

    @classmethod
    def of(cls, models: Sequence[CorrelatedNoise], size: int) -> "NoiseTables":
        """Returns the tables of one or more models, which have the same number of channels."""
        points = max(len(curve) for model in models for curve in model.levels)

        def padded(curve: np.ndarray) -> np.ndarray:  # repeats the last point
            return np.pad(curve, ((0, points - len(curve)), (0, 0)), "edge")

        curves = np.stack([[padded(curve) for curve in model.levels] for model in models])
        curves = curves.astype("float32") / 255
        roots = np.stack([model.root(size) for model in models])
        linear = np.array([model.linear for model in models], "float32")
        return cls(*map(ops.convert_to_tensor, (curves[..., 0], curves[..., 1], roots, linear)))

    def draw(self, draws: Draws) -> "NoiseTables":
        """Returns one model's tables for each picture. Uses one random number per picture."""
        model = draws.index(len(self.linear))
        return NoiseTables(*(ops.take(table, model, axis=0) for table in vars(self).values()))


@dataclasses.dataclass(frozen=True)
class NoiseFamily:
    """How strong the added noise is, relative to the measured noise.

    Gains are (lowest, highest) and drawn log-uniformly; the other values are shares of the
    pictures.

    Args:
        gain: gain of noise as it was measured.
        processed, processed_gain: share and gain of noise processed as in camera JPEGs and by
            programs. It is correlated further, and some of it mixed with white noise or compressed.
        none: share without noise.
        none_if_crisp: share of the crisp pictures without noise. Whatever makes pictures crisper
            than a lens draws them, above all downscaling, also removes noise.
    """

    gain: tuple[float, float] = (0.15, 2.5)
    processed: float = 0.6
    processed_gain: tuple[float, float] = (0.04, 3.0)
    none: float = 0.04
    none_if_crisp: float = 0.25


def add_noise(
    clean: Tensor,
    crisp: Tensor,
    tables: NoiseTables,
    family: NoiseFamily,
    draws: Draws,
    random: Any,
) -> Tensor:
    """Returns clean pictures [N, S, S, C] with noise, rounded to 8 bits; some get none.

    Those that are `crisp`, bool [N], are crisper than a lens draws. Uses 13 random numbers per
    picture, and `random.normal(shape)`.
    """
    rows, size, _, channels = clean.shape
    model = tables.draw(draws)
    processed = draws.happens(family.processed)
    if_processed = ops.cast(processed, "float32")
    white = random.normal((rows, channels, size, size))
    wider = draws.uniform(0.0, _WIDER) * if_processed
    chroma = draws.uniform(0.0, _CHROMA_WIDER) * ops.cast(draws.happens(_CHROMA), "float32")
    field = _correlated(white, model.roots, wider, chroma * if_processed)
    share = draws.uniform() * ops.cast(draws.happens(_WHITE), "float32") * if_processed
    other = random.normal((rows, size, size, channels))
    field = ops.sqrt(1 - each(share)) * field + ops.sqrt(each(share)) * other
    low, high = (
        ops.where(processed, of_processed, of_others)
        for of_processed, of_others in zip(family.processed_gain, family.gain, strict=True)
    )
    noise = _sigma(clean, model) * field * each(draws.log_uniform(low, high))
    linear = ops.where(processed, draws.happens(_LINEAR), model.linear > 0.5)
    noisy = _add(clean, noise, linear)
    none = draws.happens(ops.where(crisp, family.none_if_crisp, family.none))
    noisy = ops.where(each(none), clean, noisy)
    quality, is_jpeg = draws.uniform(*_QUALITY), draws.happens(_JPEG)
    compressed = compress(noisy, quality, draws.happens(_SUBSAMPLED))
    is_jpeg = ops.logical_and(is_jpeg, processed)
    return ops.where(each(is_jpeg), compressed, ops.round(noisy * 255) / 255)


def add_measured_noise(
    clean: Tensor, tables: NoiseTables, gain: tuple[float, float], draws: Draws, random: Any
) -> Tensor:
    """Returns clean pictures [N, S, S, C] with noise as it was measured, not rounded.

    Uses two random numbers per picture, and `random.normal(shape)`.
    """
    rows, size, _, channels = clean.shape
    model = tables.draw(draws)
    field = _filtered(random.normal((rows, channels, size, size)), model.roots)
    sigma = _sigma(clean, model) * each(draws.log_uniform(*gain))
    return _add(clean, sigma * ops.transpose(field, (0, 2, 3, 1)), model.linear > 0.5)


def _add(clean: Tensor, noise: Tensor, linear: Tensor) -> Tensor:
    """Adds noise, in linear light where `linear`, bool [N], is true; the result is in [0, 1].

    There the noise is multiplied by the slope of `to_linear`: it was measured in sRGB values.
    """
    light = to_linear(clean)
    slope = ops.where(clean <= 0.04045, 1 / 12.92, 2.4 * light / (clean + 0.055))
    in_linear_light = to_srgb(ops.clip(light + noise * slope, 0.0, 1.0))
    return ops.clip(ops.where(each(linear), in_linear_light, clean + noise), 0.0, 1.0)


def _correlated(white: Tensor, roots: Tensor, wider: Tensor, chroma: Tensor) -> Tensor:
    """Returns noise of standard deviation 1 with a model's correlation, float32 [N, S, S, C].

    It is white noise [N, C, S, S] filtered by blurred roots [N, C, C, S, S] whose power is kept:
    `wider` and, for the colours only, `chroma` are [N], σ of Gaussian blurs in pixels.
    """
    # The luminance [N, 1, C, S, S], the only part of gray.
    weights = np.array(LUMA if roots.shape[1] == 3 else [1.0], "float32")
    luma = ops.sum(roots * weights[:, None, None, None], axis=1, keepdims=True)
    # Two successive Gaussian blurs equal one whose variance is the sum of theirs.
    both = _blurred(luma, wider) + _blurred(roots - luma, ops.sqrt(wider**2 + chroma**2))
    field = _filtered(white, both) * ops.sqrt(_power(roots) / ops.maximum(_power(both), _TINY))
    return ops.transpose(field, (0, 2, 3, 1))


def _filtered(white: Tensor, roots: Tensor) -> Tensor:
    """Multiplies the spectrum of white noise [N, C, S, S] by roots [N, C, C, S, S]."""
    spectrum = ops.fft2((white, ops.zeros_like(white)))
    # Not `einsum`, which computes a 3 × 3 matrix product for each frequency.
    spectrum = tuple(ops.sum(roots * part[:, None], axis=2) for part in spectrum)
    return ops.ifft2(spectrum)[0]


def _blurred(roots: Tensor, sigma: Tensor) -> Tensor:
    """Returns the roots of noise blurred with σ float32 [N] in pixels, but as strong as before."""
    frequency = np.fft.fftfreq(roots.shape[-1])
    squared = np.add.outer(frequency**2, frequency**2).astype("float32")
    filters = ops.exp(-2 * np.pi**2 * ops.square(sigma)[:, None, None] * squared)
    blurred = roots * filters[:, None, None]
    power, after = (ops.sum(_power(each_), axis=1, keepdims=True) for each_ in (roots, blurred))
    return blurred * ops.sqrt(power / ops.maximum(after, _TINY))[..., None]


def _power(roots: Tensor) -> Tensor:
    """Returns the power of each channel, [N, C, 1, 1]."""
    return ops.sum(ops.square(roots), axis=(2, 3, 4))[..., None, None]


def _sigma(clean: Tensor, model: NoiseTables) -> Tensor:
    """Interpolates each picture's tone curves like `np.interp`; returns [N, S, S, C]."""
    brightness, sigma = (table[:, None, None] for table in (model.brightness, model.sigma))
    output = sigma[..., 0]
    for k in range(brightness.shape[-1] - 1):
        start, end = brightness[..., k], brightness[..., k + 1]
        part = ops.clip((clean - start) / ops.maximum(end - start, 1e-6), 0.0, 1.0)
        output = output + part * (sigma[..., k + 1] - sigma[..., k])
    return output
