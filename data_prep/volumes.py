"""Patches of volumes: which planes they take, and the planes of one after the other."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from cbsn.errors import ImageError
from cbsn.images.stacks.stack import Layout
from data_prep.cutting import corners

Read = Callable[[tuple[int, ...]], np.ndarray]
"""Returns a plane [H, W, C] by its index, as for `Stack.read`."""


_MASK_CELL = 4  # planes of the smallest patch for the masks of n2v-unet-3d, by default


def first_planes(planes: int, depth: int) -> list[int]:
    """Returns the planes that patches begin at: one patch after the other, up to the last plane."""
    return corners(max(planes, depth), depth, depth, 0, to_edge=True)


def check_depth(layout: Layout, depth: int) -> None:
    """Raises an ImageError unless patches of this depth can be cut from a stack.

    It needs more planes along Z than half a patch has; a reflection fills the rest. Of fewer, a
    plane would come three times and more in a patch, always with the same noise, and a network
    would learn to take the noise of a pixel from its copies.
    """
    if "Z" not in layout.axes:
        axes = layout.axes.replace("T", "Z") if "T" in layout.axes else "ZYX"
        raise ImageError(
            f"has no axis Z for patches of {depth} planes, but {layout.describe()}. If a TIFF file "
            f"holds the planes of a volume without saying so, name its axes: --axes {axes}."
        )
    planes = layout.size("Z")
    if 2 * planes <= depth:
        advice, most = "Use", 2 * planes - 1
        if most > 1:
            advice += f" --patch_depth {most} or less"
            if most < _MASK_CELL:
                # Or the next error would be that no cell of a mask fits into such a patch.
                advice += f" with cbsn train --mask_cell {most}"
            advice += ", or"
        raise ImageError(
            f"has too few planes along Z for patches of {depth}: {planes}. {advice} a network in "
            "two dimensions."
        )


def slabs(layout: Layout, depth: int, read: Read) -> Iterator[np.ndarray]:
    """Yields the planes that patches of volumes are cut from, [depth, H, W, C].

    Each plane is read once, and only those of one patch are in memory. An array is valid until the
    next one comes.

    Args:
        layout: that of a stack with the axis Z.
        depth: the planes of a patch. A thinner volume is reflected at its last plane.
        read: reads planes of the stack.
    """
    place, planes = layout.outer.index("Z"), layout.size("Z")
    others = [layout.size(axis) for axis in layout.outer if axis != "Z"]
    slab = None
    for index in itertools.product(*map(range, others)):
        end = 0
        for start in first_planes(planes, depth):
            stop = min(start + depth, planes)
            if slab is not None and start < end:
                slab[: end - start] = slab[len(slab) - (end - start) :].copy()
            for z in range(end, stop):
                plane = read((*index[:place], z, *index[place:]))
                if slab is None:
                    slab = np.empty((min(depth, planes), *plane.shape), plane.dtype)
                slab[z - start] = plane
            end = stop
            assert slab is not None  # as a stack has one plane at least
            missing = depth - len(slab)
            yield np.pad(slab, [(0, missing), *[(0, 0)] * 3], mode="reflect") if missing else slab
