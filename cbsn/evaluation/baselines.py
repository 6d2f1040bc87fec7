"""Denoisers without a network, to compare the others with."""

from collections.abc import Callable

import numpy as np
from skimage.restoration import estimate_sigma

from cbsn.data.noise import Noise
from cbsn.errors import ConfigError, ImageError
from cbsn.value_range import value_range

Denoise = Callable[[np.ndarray], np.ndarray]

_SMALLEST = 9
"""BM3D refuses pictures below 8 px a side, and crashes the process on those of 8 × 8."""


def _make_noisy(noise: Noise | None) -> Denoise:
    """Returns what leaves pictures as they are."""
    return lambda noisy: noisy


def _make_bm3d(noise: Noise | None) -> Denoise:
    """Returns BM3D, told the σ of Gaussian noise; σ of any other noise is estimated."""
    try:
        import bm3d
    except ImportError as error:
        raise ConfigError(
            "--baselines bm3d needs the package bm3d, which is not installed: "
            f"pip install 'cbsn[bm3d]', or pip install bm3d ({error})"
        ) from error
    sigma = None
    if noise and noise.kind == "gaussian":
        if noise.sigma[0] != noise.sigma[1]:
            raise ConfigError(
                "--baselines bm3d is told the σ of the noise, so it must be the same for all "
                f"pictures: give one --noise_sigma, such as 25. Received: {noise}"
            )
        sigma = noise.sigma[0] / 255

    def denoise(noisy: np.ndarray) -> np.ndarray:
        if min(noisy.shape[:2]) < _SMALLEST:
            raise ImageError(
                f"BM3D needs pictures of at least {_SMALLEST} px a side. Received: {noisy.shape}"
            )
        scale = value_range(noisy.dtype)
        unit = noisy / scale
        deviation = sigma
        if deviation is None:
            deviation = estimate_sigma(unit, average_sigmas=True, channel_axis=-1)
        if noisy.shape[-1] == 3:
            denoised = bm3d.bm3d_rgb(unit, deviation)
        else:
            denoised = bm3d.bm3d(unit[..., 0], deviation)[..., None]
        denoised = np.clip(denoised, 0, 1)
        if noisy.dtype.kind == "u":
            denoised = np.rint(denoised * scale)
        return denoised.astype(noisy.dtype)

    return denoise


BASELINES: dict[str, Callable[[Noise | None], Denoise]] = {
    "noisy": _make_noisy,
    "bm3d": _make_bm3d,
}
"""What makes each that `--baselines` knows, from the synthetic noise of the pictures, if any.

What is made takes a noisy picture [H, W, 1 or 3], uint8, uint16 or float, and returns the denoised
one, of the same shape and dtype; the floats of `bm3d` in [0, 1].
"""
