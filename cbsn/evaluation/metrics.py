"""How close a denoised picture is to the clean one."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cbsn.value_range import value_range

_SSIM_WINDOW = 7


def psnr(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio in dB, by scikit-image.

    Args:
        clean: [H, W, C], uint8, uint16 or float in [0, 1].
        denoised: same shape and dtype.

    Returns:
        10·log10(peak² / mean squared difference) over all values; infinite where equal.

    Raises:
        ValueError: if shapes or dtypes differ: comparing 8 bits with 16 would give a figure.
    """
    check_comparable("PSNR", clean, denoised)
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(clean, denoised, data_range=value_range(clean.dtype)))


def ssim(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Returns the structural similarity, by scikit-image with its defaults.

    Args:
        clean: [H, W, C], uint8, uint16 or float in [0, 1]; H and W at least 7.
        denoised: same shape and dtype.

    Returns:
        The mean over all 7×7 windows, which weigh their pixels equally, and over the channels;
        1 where equal.

    Raises:
        ValueError: if shapes or dtypes differ, or the pictures are smaller than a window.
    """
    check_comparable("SSIM", clean, denoised)
    if min(clean.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {_SSIM_WINDOW} px a side. Received: {clean.shape}"
        )
    peak = value_range(clean.dtype)
    return float(structural_similarity(clean, denoised, data_range=peak, channel_axis=-1))


def check_comparable(metric: str, clean: np.ndarray, denoised: np.ndarray) -> None:
    """Checks that two pictures have one shape and dtype.

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
