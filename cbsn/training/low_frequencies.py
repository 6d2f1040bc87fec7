"""What is coarse in a picture needs no teacher."""

import numpy as np
import scipy

_LEVELS_PER_PIXEL = 2.5
_LEAST, _MOST = 2.0, 8.0


def with_low_frequencies(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Returns a denoised picture with the low frequencies of the noisy one.

    A blind-spot network gets the colours of larger areas somewhat wrong. There the noisy picture
    is right, as the mean of the noise over many pixels is next to nothing: so a Gaussian blur of
    what was taken away is put back. Its standard deviation is 1 pixel for 2.5 levels (of 255) of
    what was taken away, between 2 and 8, so that what comes back of the noise stays small.

    Args:
        noisy: float [H, W, C] in [0, 1].
        denoised: likewise.

    Returns:
        float32, same shape, in [0, 1].
    """
    removed = np.asarray(noisy, np.float32) - denoised
    width = np.clip(removed.std() * 255 / _LEVELS_PER_PIXEL, _LEAST, _MOST)
    coarse = scipy.ndimage.gaussian_filter(removed, (width, width, 0), mode="reflect")
    return np.clip(denoised + coarse, 0, 1).astype(np.float32)
