"""The sRGB curve (IEC 61966-2-1) on the device that computes; `cbsn.noise.camera` has NumPy's."""

from typing import Any

from keras import ops

Tensor = Any


def to_linear(srgb: Tensor) -> Tensor:
    """Undoes the sRGB curve; float32 of any shape, values in [0, 1]."""
    curve = ops.power((ops.maximum(srgb, 0.04045) + 0.055) / 1.055, 2.4)
    return ops.where(srgb <= 0.04045, srgb / 12.92, curve)


def to_srgb(linear: Tensor) -> Tensor:
    """Applies the sRGB curve; float32 of any shape, values in [0, 1]."""
    curve = 1.055 * ops.power(ops.maximum(linear, 0.0031308), 1 / 2.4) - 0.055
    return ops.where(linear <= 0.0031308, linear * 12.92, curve)
