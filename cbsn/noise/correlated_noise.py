"""Noise like that of given photographs."""

import functools
from collections.abc import Sequence

import numpy as np
import scipy

from cbsn.errors import ConfigError
from cbsn.noise.camera import to_linear, to_srgb
from cbsn.value_range import value_range


class CorrelatedNoise:
    """Gaussian noise with correlated pixels and channels, as strong as the brightness has it.

    Cameras have their noise in linear light, and the sRGB curve bends it: noisy pixels are darker
    in the mean than clean ones. Where what a camera does next has undone that, it is noise in sRGB
    values.

    Args:
        levels: of each of C channels float [n, 2], n ≥ 1 intensities, increasing, and the standard
            deviation of the noise there, in 8-bit levels; in between it is interpolated.
        covariance: float [C, C, R + 1, 2·R + 1], of noise of standard deviation 1, between one
            channel's pixel and another's that is 0 to R pixels further down and −R to R to the
            right; 0 beyond. The other half is taken to be equal by symmetry.
        linear: whether it is added, and clipped, in linear light, or else in sRGB values.

    Attributes:
        levels, linear: as given.
    """

    def __init__(
        self, levels: Sequence[np.ndarray], covariance: np.ndarray, *, linear: bool = True
    ):
        self.levels = [*levels]
        self._covariance = covariance
        self.linear = linear
        self.root = functools.cache(self._make_root)
        """From a size [H, W] to what white noise's spectrum is to be multiplied with, float32
        [C, C, H, W // 2 + 1], the real Fourier transform's."""

    def __call__(
        self, image: np.ndarray, random: np.random.Generator, gain: float = 1.0
    ) -> np.ndarray:
        """Returns a picture with noise.

        Args:
            image: [H, W, C], noise-free, sRGB, uint8, uint16 or float in [0, 1].
            random: draws the noise.
            gain: float ≥ 0, what the noise is multiplied with.

        Returns:
            float32, same shape, in [0, 1], not rounded.

        Raises:
            ConfigError: if the picture has other than C channels.
        """
        clean = self.clean(image)
        noise = self._sigma(clean) * self._normal(clean.shape, random) * np.float32(gain)
        if not self.linear:
            return np.clip(clean + noise, 0, 1)
        light = to_linear(clean)
        # The slope of the sRGB curve, as the noise was measured behind it.
        slope = np.where(clean <= 0.04045, 1 / 12.92, 2.4 * light / (clean + 0.055))
        return to_srgb(np.clip(light + noise * slope, 0, 1)).astype(np.float32)

    def clean(self, image: np.ndarray) -> np.ndarray:
        """Returns what the noisy picture is to be compared with: the same, float32 in [0, 1].

        Raises:
            ConfigError: as `__call__` does.
        """
        self.check(image.shape[-1])
        unit = image.astype(np.float32) / np.float32(value_range(image.dtype))
        return np.clip(unit, 0, 1)

    def check(self, channels: int) -> None:
        """Refuses pictures of other channels than those that the noise is of.

        Raises:
            ConfigError: for those.
        """
        if channels != len(self.levels):
            raise ConfigError(
                "The noise was measured on pictures of another number of channels, "
                f"{len(self.levels)}. Received: {channels}"
            )

    def _sigma(self, clean: np.ndarray) -> np.ndarray:
        planes = [
            np.interp(clean[..., channel], *(points.T / 255))
            for channel, points in enumerate(self.levels)
        ]
        return np.stack(planes, axis=-1).astype(np.float32)

    def _normal(self, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        """Noise of standard deviation 1; it repeats at the borders."""
        white = random.standard_normal((shape[2], *shape[:2]), dtype=np.float32)
        spectrum = np.einsum("cdhw,dhw->chw", self.root(shape[:2]), scipy.fft.rfft2(white))
        return scipy.fft.irfft2(spectrum, s=shape[:2]).transpose(1, 2, 0)

    def _make_root(self, size: tuple[int, int]) -> np.ndarray:
        """[C, C, H, W // 2 + 1], what white noise's spectrum is to be multiplied with."""
        channels, reach = len(self._covariance), self._covariance.shape[2] - 1
        whole = np.zeros((channels, channels, *size))
        down, right = np.mgrid[: reach + 1, -reach : reach + 1]
        # What is too far for a small picture is folded into it.
        np.add.at(whole, (..., down % size[0], right % size[1]), self._covariance)
        mirrored = self._covariance.copy()
        mirrored[:, :, 0] = 0  # the first row has its other half in itself
        np.add.at(whole, (..., -down % size[0], -right % size[1]), mirrored)
        power = scipy.fft.rfft2(whole).real.transpose(2, 3, 0, 1)
        values, vectors = np.linalg.eigh(power)
        # What was measured with errors may have powers below 0.
        values = np.sqrt(np.maximum(values, 0))
        root = (vectors * values[..., None, :]) @ vectors.swapaxes(-1, -2)
        return root.transpose(2, 3, 0, 1).astype(np.float32)
