"""Cutting pictures into equally large patches of one dtype."""

from collections.abc import Iterator

import numpy as np

from cbsn.errors import ImageError

PADDED_SIZE = 256
"""Pictures of any size are padded to patches that are no larger."""


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
    image = pad(image, size)
    for top in _corners(image.shape[0], size, stride, offset):
        for left in _corners(image.shape[1], size, stride, offset):
            yield image[top : top + size, left : left + size]


def is_smaller(image: np.ndarray, size: int) -> bool:
    """Whether a picture [H, W, C] is padded to give a patch of `size`."""
    return min(image.shape[:2]) < size


def is_too_small(longest_side: int, size: int) -> bool:
    """Whether a picture is so much smaller than a patch that it is not padded to one.

    A patch of the usual size is made of any picture, and a larger one of those that are at least
    half as long: what is repeated more often than that is a pattern of mirrors, and no picture.
    """
    return size > max(PADDED_SIZE, 2 * longest_side)


def pad(image: np.ndarray, size: int) -> np.ndarray:
    """Reflects a picture [H, W, C] at the bottom and right, to `size` pixels at least."""
    missing = [(0, max(0, size - length)) for length in image.shape[:2]]
    if not np.any(missing):
        return image
    return np.pad(image, [*missing, (0, 0)], mode="reflect")


def uncovered(height: int, width: int, size: int, stride: int, offset: int) -> int:
    """How many pixels of a picture lie in no patch: margins, and gaps between patches."""
    covered = [
        size + (len(_corners(length, size, stride, offset)) - 1) * min(size, stride)
        for length in (height, width)
    ]
    return height * width - covered[0] * covered[1]


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


def _corners(length: int, size: int, stride: int, offset: int) -> range:
    last = length - size
    return range(min(offset, last), last + 1, stride)
