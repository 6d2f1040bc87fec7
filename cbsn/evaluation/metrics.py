"""How close a denoised picture is to the clean one."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio

from cbsn.value_range import value_range


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
    if clean.shape != denoised.shape or clean.dtype != denoised.dtype:
        raise ValueError(
            "PSNR compares pictures of one shape and dtype. Received: "
            f"{clean.shape} {clean.dtype} and {denoised.shape} {denoised.dtype}"
        )
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(clean, denoised, data_range=value_range(clean.dtype)))
