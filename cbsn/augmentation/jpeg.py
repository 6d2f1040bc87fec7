"""Simulates JPEG compression of a picture (ITU-T T.81), without making a file."""

from typing import Any

import numpy as np
import scipy
from keras import ops

from cbsn.colors import LUMA

Tensor = Any

MULTIPLE = 16  # sides of pictures must be multiples of it: blocks of 8 pixels, with halved chroma
_SIDE = 8

# The tables of the standard's annex K.1, as in libjpeg.
_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    "float32",
)
_CHROMA_TABLE = np.full((_SIDE, _SIDE), 99, "float32")
_CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def compress(pictures: Tensor, quality: Tensor, subsampled: Tensor) -> Tensor:
    """Returns pictures [N, H, W, C] in [0, 1], where C is 1 or 3, as decoded from JPEG files.

    `quality` [N] is 50 to 100, on libjpeg's scale. Where `subsampled`, bool [N], is true, chroma
    has half the resolution (4:2:0). H and W are multiples of 16, the results multiples of 1/255.
    """
    values = ops.round(pictures * 255)
    # How libjpeg scales its tables for a quality of 50 or more.
    scale = 200 - 2 * quality
    if pictures.shape[-1] == 1:
        output = _quantise(values[..., 0] - 128, scale, _LUMA_TABLE)[..., None] + 128
    else:
        red, green, blue = ops.unstack(values, axis=-1)
        y = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        y = _quantise(y - 128, scale, _LUMA_TABLE) + 128
        cb = _chroma(-0.168736 * red - 0.331264 * green + 0.5 * blue, scale, subsampled)
        cr = _chroma(0.5 * red - 0.418688 * green - 0.081312 * blue, scale, subsampled)
        green = y - 0.344136 * cb - 0.714136 * cr
        output = ops.stack([y + 1.402 * cr, green, y + 1.772 * cb], axis=-1)
    return ops.clip(ops.round(output), 0, 255) / 255


def _chroma(plane: Tensor, scale: Tensor, subsampled: Tensor) -> Tensor:
    _, height, width = plane.shape
    halves = ops.reshape(plane, (-1, height // 2, 2, width // 2, 2))
    halves = _quantise(ops.mean(halves, axis=(2, 4)), scale, _CHROMA_TABLE)
    doubled = ops.repeat(ops.repeat(halves, 2, axis=1), 2, axis=2)
    whole = _quantise(plane, scale, _CHROMA_TABLE)
    return ops.where(ops.reshape(subsampled, (-1, 1, 1)), doubled, whole)


def _quantise(plane: Tensor, scale: Tensor, table: np.ndarray) -> Tensor:
    """Quantises the cosine transform of each block of [N, H, W], whose levels are around 0."""
    _, height, width = plane.shape
    blocks = ops.reshape(plane, (-1, height // _SIDE, _SIDE, width // _SIDE, _SIDE))
    steps = ops.floor((table * ops.reshape(scale, (-1, 1, 1)) + 50) / 100)
    steps = ops.clip(steps, 1, 255)[:, None, :, None]
    dct = scipy.fft.dct(np.eye(_SIDE), axis=0, norm="ortho").astype("float32")
    transformed = ops.einsum("ki,nyixj,lj->nykxl", dct, blocks, dct)
    transformed = ops.round(transformed / steps) * steps
    blocks = ops.einsum("ki,nykxl,lj->nyixj", dct, transformed, dct)
    return ops.reshape(blocks, (-1, height, width))
