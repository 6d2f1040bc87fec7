"""What is coarse in a picture needs no teacher."""

from typing import Any

import numpy as np
from keras import ops

from cbsn.srgb import to_linear, to_srgb

Tensor = Any

_LEVELS_PER_PIXEL = 2.5
_LEAST, _MOST = 2.0, 8.0

_TRUNCATE = 4.0
"""Standard deviations of a blur's kernel in which all of it is, as SciPy has it."""


def with_low_frequencies(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Returns denoised pictures with the low frequencies of the noisy ones.

    A blind-spot network gets the colours of larger areas somewhat wrong. There the noisy picture
    is right, as the mean of the noise over many pixels is next to nothing: so a Gaussian blur of
    what was taken away is put back. Its standard deviation is 1 pixel for 2.5 levels (of 255) of
    what was taken away, between 2 and 8, so that what comes back of the noise stays small.

    This is done in linear light, the sRGB curve being undone. It is there that a camera's noise has
    a mean of 0; the curve, steep in the dark, makes strongly noisy pictures too dark on average.

    It is computed for all pictures at once, with matrices of H × H and W × W for each: for patches,
    not for photographs.

    Args:
        noisy: float [N, H, W, C] in [0, 1], or one picture, [H, W, C].
        denoised: likewise.

    Returns:
        float32, same shape, in [0, 1].
    """
    if noisy.ndim == 3:
        return with_low_frequencies(noisy[None], denoised[None])[0]
    level = (noisy - denoised).std(axis=(1, 2, 3)) * 255
    width = np.clip(level / _LEVELS_PER_PIXEL, _LEAST, _MOST).astype(np.float32)
    noisy, denoised = (ops.convert_to_tensor(each, "float32") for each in (noisy, denoised))
    light = to_linear(denoised)
    coarse = _blurred(to_linear(noisy) - light, width)
    return ops.convert_to_numpy(to_srgb(ops.clip(light + coarse, 0.0, 1.0)))


def _blurred(pictures: Tensor, width: np.ndarray) -> Tensor:
    """A Gaussian blur, float32 [N] pixels wide; beyond their border pictures are mirrored."""
    _, rows, columns, _ = pictures.shape
    pictures = ops.einsum("nhi,nijc->nhjc", _blur(width, rows), pictures)
    return ops.einsum("nwj,nhjc->nhwc", _blur(width, columns), pictures)


def _blur(width: np.ndarray, size: int) -> Tensor:
    """float32 [N, size, size], what the pixels of a row are to be multiplied with."""
    most = int(_TRUNCATE * _MOST + 0.5)
    place = np.arange(size, dtype=np.float32)
    to, of = place[:, None], place
    times = -(-most // size) // 2 + 1
    starts = 2 * size * np.arange(-times, times + 1, dtype=np.float32)
    # Each pixel is there again and again: as it is, and mirrored.
    offsets = [of - to + start for start in starts] + [-1 - of - to + start for start in starts]
    width = ops.convert_to_tensor(width[:, None, None])
    reach = ops.floor(_TRUNCATE * width + 0.5)
    weights = sum(
        ops.where(np.abs(offset) <= reach, ops.exp(-0.5 * ops.square(offset / width)), 0.0)
        for offset in offsets
        if np.abs(offset).min() <= most
    )
    return weights / ops.sum(weights, axis=2, keepdims=True)
