"""What is coarse in a picture needs no teacher."""

import numpy as np
import scipy

from cbsn.data.camera import to_linear, to_srgb

_LEVELS_PER_PIXEL = 2.5
_LEAST, _MOST = 2.0, 8.0


def with_low_frequencies(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Returns a denoised picture with the low frequencies of the noisy one.

    A blind-spot network gets the colours of larger areas somewhat wrong. There the noisy picture
    is right, as the mean of the noise over many pixels is next to nothing: so a Gaussian blur of
    what was taken away is put back. Its standard deviation is 1 pixel for 2.5 levels (of 255) of
    what was taken away, between 2 and 8, so that what comes back of the noise stays small.

    This is done in linear light, the sRGB curve being undone. It is there that a camera's noise has
    a mean of 0; the curve, steep in the dark, makes strongly noisy pictures too dark on average.

    Args:
        noisy: float [H, W, C] in [0, 1].
        denoised: likewise.

    Returns:
        float32, same shape, in [0, 1].
    """
    level = (noisy - denoised).std() * 255
    width = np.clip(level / _LEVELS_PER_PIXEL, _LEAST, _MOST)
    light = to_linear(denoised)
    removed = to_linear(noisy) - light
    coarse = scipy.ndimage.gaussian_filter(removed, (width, width, 0), mode="reflect")
    return to_srgb(np.clip(light + coarse, 0, 1)).astype(np.float32)
