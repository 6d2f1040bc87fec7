"""Denoisers without a network, to compare the others with."""

from collections.abc import Callable

import numpy as np
import skimage

from cbsn.data.noise import Noise
from cbsn.errors import ConfigError, ImageError
from cbsn.evaluation.metrics import psnr
from cbsn.value_range import value_range

Unit = np.ndarray
Denoise = Callable[[Unit, float], Unit]
"""From a noisy picture [H, W, 1 or 3] in units of [0, 1], and σ in the same, to the denoised."""

BASELINES = ("noisy", "bm3d", "nlm")
"""What `--baselines` knows; the first is the pictures as they are."""

BEST = "best"
_MULTIPLES = (1.0, 1.5, 2.0, 3.0)
"""Of the true σ, from which the best is taken. BM3D takes noise to be white, and noise that is
correlated is weaker at the fine scales than its σ says, and stronger at the coarse ones."""

_SMALLEST = 9
"""BM3D refuses pictures below 8 px a side, and crashes the process on those of 8 × 8; σ cannot be
estimated in much smaller ones."""


class Baseline:
    """A classic denoiser that has to be told how strong the noise is.

    Args:
        name: str, `"bm3d"` (Dabov et al. 2007) or `"nlm"` (non-local means, Buades et al. 2005, by
            scikit-image).
        noise: what was added to the pictures, if it was; the σ of Gaussian noise is known.
        sigma: str, σ of the noise in 8-bit levels; or `"best"` for the one of a few multiples of
            the true σ whose PSNR is best, which only the clean picture tells: what the method
            could do at most. Default None, the known σ, or else an estimate from each picture.

    Raises:
        ConfigError: if `sigma` is none of these, σ differs between the pictures, or the package
            bm3d is not installed.
    """

    def __init__(self, name: str, noise: Noise | None = None, sigma: str | None = None):
        self._name = name
        self._denoise = {"bm3d": _load_bm3d, "nlm": lambda: _non_local_means}[name]()
        self._best = sigma == BEST
        self._sigma = None if self._best or sigma is None else parse_sigma(sigma)
        if sigma is None and noise and noise.kind == "gaussian":
            if noise.sigma[0] != noise.sigma[1]:
                raise ConfigError(
                    f"--baselines {name} is told the σ of the noise, so it must be the same for "
                    "all pictures: give one --noise_sigma, such as 25, or say --baseline_sigma "
                    f"best. Received: {noise}"
                )
            self._sigma = noise.sigma[0] / 255

    def __call__(self, noisy: np.ndarray, clean: np.ndarray | None = None) -> np.ndarray:
        """Denoises a picture.

        Args:
            noisy: [H, W, 1 or 3], uint8, uint16 or float.
            clean: same shape; needed for the best σ only.

        Returns:
            Same shape and dtype; floats in [0, 1].

        Raises:
            ImageError: if the picture is below 9 px a side.
        """
        if min(noisy.shape[:2]) < _SMALLEST:
            raise ImageError(
                f"{self._name} needs pictures of at least {_SMALLEST} px a side. "
                f"Received: {noisy.shape}"
            )
        unit = _unit(noisy)
        if not self._best:
            sigma = self._sigma
            if sigma is None:
                sigma = float(
                    skimage.restoration.estimate_sigma(unit, average_sigmas=True, channel_axis=-1)
                )
            return _to_dtype(self._denoise(unit, sigma), noisy.dtype)
        reference = _unit(clean)
        true = float(np.std(unit - reference))
        results = [np.clip(self._denoise(unit, true * m), 0, 1) for m in _MULTIPLES]
        best = max(results, key=lambda result: psnr(reference, result))
        return _to_dtype(best, noisy.dtype)


def parse_sigma(text: str) -> float:
    """Returns what `--baseline_sigma` says, in units of [0, 1].

    Raises:
        ConfigError: if it is no number in range.
    """
    try:
        sigma = float(text)
    except ValueError:
        sigma = np.nan
    if not 0 < sigma <= 255:
        raise ConfigError(
            "--baseline_sigma takes σ in 8-bit levels, above 0 and up to 255, or best. "
            f"Received: --baseline_sigma {text}"
        )
    return sigma / 255


def _load_bm3d() -> Denoise:
    try:
        import bm3d
    except ImportError as error:
        raise ConfigError(
            "--baselines bm3d needs the package bm3d, which is not installed: "
            f"pip install 'cbsn[bm3d]', or pip install bm3d ({error})"
        ) from error

    def denoise(unit: Unit, sigma: float) -> Unit:
        if unit.shape[-1] == 3:
            return bm3d.bm3d_rgb(unit, sigma)
        return bm3d.bm3d(unit[..., 0], sigma)[..., None]

    return denoise


def _non_local_means(unit: Unit, sigma: float) -> Unit:
    # Patches of 5 × 5 in windows of 13 × 13; h as scikit-image advises for the fast way.
    denoised = skimage.restoration.denoise_nl_means(
        unit, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, channel_axis=-1
    )
    return denoised.reshape(unit.shape)  # a single channel comes back without its axis


def _unit(picture: np.ndarray) -> Unit:
    return picture.astype(np.float64) / value_range(picture.dtype)


def _to_dtype(unit: Unit, dtype: np.dtype) -> np.ndarray:
    unit = np.clip(unit, 0, 1)
    return (np.rint(unit * value_range(dtype)) if dtype.kind == "u" else unit).astype(dtype)
