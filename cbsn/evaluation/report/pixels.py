"""Pixels as they are shown: 8 bits, not too many of them, in a data URI."""

import base64
import io

import numpy as np
from PIL import Image

from cbsn.value_range import value_range

LONGEST = 1024
"""Pixels of the longer side of what is shown whole; a report has many pictures."""


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """Returns a picture as float32, 1.0 being white; values beyond [0, 1] stay.

    Args:
        pixels: [H, W, C], uint8, uint16 or float. NaN and −∞ become 0, ∞ becomes 1.

    Raises:
        TypeError: for any other dtype.
    """
    unit = pixels.astype(np.float32) / np.float32(value_range(pixels.dtype))
    return np.nan_to_num(unit, copy=False, posinf=1, neginf=0)


def to_8bit(pixels: np.ndarray) -> np.ndarray:
    """Returns a picture as uint8, [H, W, C]; floats are clipped to [0, 1].

    Args:
        pixels: as for `to_unit`.

    Raises:
        TypeError: likewise.
    """
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(np.clip(to_unit(pixels), 0, 1) * 255).astype(np.uint8)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Returns a Pillow image of a picture, gray or RGB.

    Args:
        pixels: as for `to_unit`.

    Raises:
        TypeError: likewise.
    """
    pixels = to_8bit(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def shrunk(image: Image.Image) -> Image.Image:
    """Returns an image whose longer side is at most `LONGEST`: itself if it is small enough."""
    longer = max(image.size)
    if longer <= LONGEST:
        return image
    width, height = (max(1, round(side * LONGEST / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def data_uri(image: Image.Image) -> str:
    """Returns an image as the data URI of a WebP, with its exact pixels."""
    buffer = io.BytesIO()
    # A quarter smaller than PNG, and no slower; more effort saves little more.
    image.save(buffer, "WEBP", lossless=True, method=1, quality=50)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
