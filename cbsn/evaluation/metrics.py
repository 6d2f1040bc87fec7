"""How close a denoised picture is to the clean one."""

from typing import Any

import numpy as np

# Their parts are imported when they are used: some take a second, and not all who import this
# measure something.
import scipy
import skimage

from cbsn.value_range import value_range

_UNIFORM: dict[str, Any] = {"win_size": 7}
_GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

SSIMS = {
    # scikit-image's default, which the AP-BSN and SS-BSN code uses: equal weights in 7×7 windows,
    # sample covariance.
    "uniform": (_UNIFORM, 7),
    # Wang et al. (2004), and MATLAB code since (ssim_index.m): 11×11 windows, Gaussian weights of
    # σ 1.5.
    "gaussian": (_GAUSSIAN, 11),
    # Wang's later ssim.m: the same, after pictures of 384 px or more were made smaller.
    "matlab": (_GAUSSIAN, 11),
}
"""By name: what scikit-image is told, and the side of the window in pixels."""

_SCALE_OF_SSIM = 256


def psnr(clean: np.ndarray, denoised: np.ndarray, data_range: float | None = None) -> float:
    """Returns the peak signal-to-noise ratio in dB, by scikit-image.

    Args:
        clean: [H, W, C], uint8, uint16 or float in [0, 1].
        denoised: same shape and dtype.
        data_range: float > 0, the peak. Default: the dtype's.

    Returns:
        10·log10(peak² / mean squared difference) over all values; infinite where equal.

    Raises:
        ValueError: if shapes or dtypes differ: comparing 8 bits with 16 would give a figure.
    """
    check_comparable("PSNR", clean, denoised)
    peak = data_range or value_range(clean.dtype)
    with np.errstate(divide="ignore"):
        return float(skimage.metrics.peak_signal_noise_ratio(clean, denoised, data_range=peak))


def ssim(
    clean: np.ndarray,
    denoised: np.ndarray,
    data_range: float | None = None,
    flavour: str = "uniform",
) -> float:
    """Returns the structural similarity (Wang et al. 2004), by scikit-image.

    Args:
        clean: [H, W, C], uint8, uint16 or float in [0, 1]; H and W at least those of a window.
        denoised: same shape and dtype.
        data_range: float > 0, the peak. Default: the dtype's.
        flavour: a key of `SSIMS`.

    Returns:
        The mean over all windows that lie in the picture, and over the channels; 1 where equal.

    Raises:
        ValueError: if shapes or dtypes differ, or the pictures are smaller than a window.
    """
    check_comparable("SSIM", clean, denoised)
    settings, window = SSIMS[flavour]
    peak = data_range or value_range(clean.dtype)
    if flavour == "matlab":
        clean, denoised = _made_smaller(clean), _made_smaller(denoised)
    if min(clean.shape[:2]) < window:
        raise ValueError(
            f"SSIM needs pictures of at least {window} px a side. Received: {clean.shape}"
        )
    similarity = skimage.metrics.structural_similarity
    return float(similarity(clean, denoised, data_range=peak, channel_axis=-1, **settings))


def check_comparable(metric: str, clean: np.ndarray, denoised: np.ndarray) -> None:
    """Checks that two pictures have one shape and dtype, and finite values.

    Args:
        metric: its name, for the message.
        clean: any array.
        denoised: any array.

    Raises:
        ValueError: if they have not.
    """
    if clean.shape != denoised.shape or clean.dtype != denoised.dtype:
        raise ValueError(
            f"{metric} compares pictures of one shape and dtype. Received: "
            f"{clean.shape} {clean.dtype} and {denoised.shape} {denoised.dtype}"
        )
    if not (np.isfinite(clean).all() and np.isfinite(denoised).all()):
        raise ValueError(f"{metric} compares finite values. Received: NaN or infinity")


def _made_smaller(picture: np.ndarray) -> np.ndarray:
    """Averages f × f pixels around every f-th one, with f as many times as 256 px fit in a side."""
    factor = max(1, int(min(picture.shape[:2]) / _SCALE_OF_SSIM + 0.5))
    if factor == 1:
        return picture
    # MATLAB's filters of an even side reach one pixel less to the left, SciPy's to the right.
    origin = -1 if factor % 2 == 0 else 0
    averaged = scipy.ndimage.uniform_filter(
        picture.astype(np.float64), (factor, factor, 1), mode="reflect", origin=(origin, origin, 0)
    )
    return averaged[::factor, ::factor]
