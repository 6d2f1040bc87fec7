"""Where the patches of an image lie, and how they are cut out of it."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cbsn.errors import ImageError

PADDED_SIZE = 256  # pictures of any size are padded to patches of up to this size


class Grid(NamedTuple):
    """The side of a patch, the distance between neighbours, and that of the first from the edge."""

    size: int
    stride: int
    offset: int


def is_too_small(longest_side: int, size: int) -> bool:
    """Returns whether a picture is too small to be padded to a patch.

    Any picture is padded to patches of up to 256 pixels. For larger patches, its longer side
    must be at least half as long: more reflections make a pattern of mirrors, not a picture.
    """
    return size > max(PADDED_SIZE, 2 * longest_side)


def padded(image: np.ndarray, size: int) -> np.ndarray:
    """Reflects a picture [H, W, C] at the bottom and right, as often as needed to fill a patch."""
    height, width = image.shape[:2]
    if is_too_small(max(height, width), size):
        raise ImageError(f"is {width} x {height} pixels: too small for patches of {size}.")
    missing = [(0, max(0, size - height)), (0, max(0, size - width)), (0, 0)]
    return np.pad(image, missing, mode="reflect") if np.any(missing) else image


def cut(
    image: np.ndarray, size: int, stride: int, offset: int, *, to_edge: bool = False
) -> Iterator[np.ndarray]:
    """Yields the patches with corners at offset + k·stride that lie within a picture, row by row.

    Along an axis too short for even the first patch, it yields the one at the far edge.

    Args:
        image: array [H, W, C], or planes [D, H, W, C] that are cut alike, at least one patch large.
        size: the side of a patch, in pixels.
        stride: distance between neighbouring patches.
        offset: distance of the first patch from the upper and left edges.
        to_edge: whether there are also patches at the lower and right edges, nearer to their
            neighbours than `stride`, where there would be margins. Default False.
    """
    height, width = image.shape[-3:-1]
    for top in corners(height, size, stride, offset, to_edge=to_edge):
        for left in corners(width, size, stride, offset, to_edge=to_edge):
            yield image[..., top : top + size, left : left + size, :]


def uncovered(
    height: int, width: int, size: int, stride: int, offset: int, *, to_edge: bool = False
) -> int:
    """Returns how many pixels lie in no patch of `cut`: margins, and gaps between patches."""
    covered = []
    for length in (height, width):
        firsts = corners(length, size, stride, offset, to_edge=to_edge)
        gaps = itertools.pairwise(firsts)
        covered.append(size + sum(min(size, after - before) for before, after in gaps))
    return height * width - covered[0] * covered[1]


def corners(length: int, size: int, stride: int, offset: int, *, to_edge: bool) -> list[int]:
    """Returns where the patches of `cut` begin along an axis of this length."""
    last = length - size
    found = [*range(min(offset, last), last + 1, stride)]
    if to_edge and found[-1] < last:
        found.append(last)
    return found
