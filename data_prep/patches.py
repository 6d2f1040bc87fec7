"""Cutting pictures into equally large patches of one dtype."""

from collections.abc import Iterator

import numpy as np

from cbsn.errors import ImageError


def cut(image: np.ndarray, size: int, stride: int, offset: int) -> Iterator[np.ndarray]:
    """Cuts all patches with corners at offset + k·stride that lie within the picture.

    Along an axis that is too short for even the first of them, the patch at the far edge is
    taken; a picture smaller than a patch is first padded by reflection at the bottom and right
    (again and again if need be, down to a single pixel). So every picture gives patches.

    Args:
        image: [H, W, C], any dtype.
        size: height and width of a patch.
        stride: distance of neighbouring patches.
        offset: distance of the first patch from the top and left edge.

    Yields:
        Views [size, size, C], row after row.
    """
    image = _pad(image, size)
    for top in _corners(image.shape[0], size, stride, offset):
        for left in _corners(image.shape[1], size, stride, offset):
            yield image[top : top + size, left : left + size]


def is_smaller(image: np.ndarray, size: int) -> bool:
    """Whether a picture [H, W, C] is padded to give a patch of `size`."""
    return min(image.shape[:2]) < size


def convert(image: np.ndarray, dtype: str) -> np.ndarray:
    """Gives a picture the dtype of its data set, white staying white.

    Args:
        image: uint8, uint16 (full range) or float32 ([0, 1]), any shape.
        dtype: `uint8`, `uint16` or `float32`, at least as wide as the picture's.

    Raises:
        ImageError: values would be lost, or are not finite.
    """
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ImageError("holds values that are not finite (NaN or infinity).")
    if image.dtype == dtype:
        return image
    if dtype == "float32" and image.dtype.kind == "u":
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    if dtype == "uint16" and image.dtype == np.uint8:
        return image.astype(np.uint16) * 257
    raise ImageError(f"is a {image.dtype} picture in a data set of {dtype}.")


def _pad(image: np.ndarray, size: int) -> np.ndarray:
    missing = [(0, max(0, size - length)) for length in image.shape[:2]]
    return np.pad(image, [*missing, (0, 0)], mode="reflect")


def _corners(length: int, size: int, stride: int, offset: int) -> range:
    last = length - size
    return range(min(offset, last), last + 1, stride)
