"""Colours: the luma of Rec. 601 and the sRGB curve (IEC 61966-2-1)."""

from types import ModuleType
from typing import Any

import numpy as np

Tensor = Any

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue


def luma(pictures: np.ndarray) -> np.ndarray:
    """Returns the luma of colours in the same dtype; gray keeps its value.

    Red, green and blue of n shots, [..., 3·n], become [..., n].
    """
    red, green, blue = (
        weight * pictures[..., channel::3].astype(np.float64) for channel, weight in enumerate(LUMA)
    )
    output = red + green + blue
    return (np.rint(output) if pictures.dtype.kind == "u" else output).astype(pictures.dtype)


def to_linear(srgb: Tensor) -> Tensor:
    """Undoes the sRGB curve. Takes values in [0, 1], as a NumPy float array or a tensor."""
    xp = _library(srgb)
    curve = xp.power((xp.maximum(srgb, 0.04045) + 0.055) / 1.055, 2.4)
    return xp.where(srgb <= 0.04045, srgb / 12.92, curve)


def to_srgb(linear: Tensor) -> Tensor:
    """Applies the sRGB curve: the inverse of `to_linear`."""
    xp = _library(linear)
    curve = 1.055 * xp.power(xp.maximum(linear, 0.0031308), 1 / 2.4) - 0.055
    return xp.where(linear <= 0.0031308, linear * 12.92, curve)


def _library(values: Tensor) -> ModuleType:
    """Returns `keras.ops` for tensors; NumPy for arrays and floats, to avoid loading Keras."""
    if isinstance(values, np.ndarray | float):
        return np
    from keras import ops

    return ops
