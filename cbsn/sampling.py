"""Sampling operations between an image and its sub-images.

All of them take and return tensors of any dtype, channels last, are differentiable, and do not
change any value. Heights and widths may be unknown while a graph is traced.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

Tensor = Any

_AXES = ("depth", "height", "width")


def space_to_batch(x: Tensor, factor: int) -> Tensor:
    """Splits each image into its `factor`² sub-images, stacked along the batch (S2B).

    [N, H, W, C] becomes [factor²·N, H/factor, W/factor, C]. The sub-image `x[n, dy::factor,
    dx::factor]` has index (dy·factor + dx)·N + n.
    """
    if factor == 1:
        return x
    x = _split(x, (factor, factor))
    _, h, _, w, _, c = ops.shape(x)
    return ops.reshape(ops.transpose(x, (2, 4, 0, 1, 3, 5)), (-1, h, w, c))


def batch_to_space(x: Tensor, factor: int) -> Tensor:
    """Puts sub-images back together: the inverse of `space_to_batch` (B2S)."""
    if factor == 1:
        return x
    _, h, w, c = ops.shape(x)
    x = ops.reshape(x, (factor, factor, -1, h, w, c))
    return ops.reshape(ops.transpose(x, (2, 3, 0, 4, 1, 5)), (-1, h * factor, w * factor, c))


def random_subsample(x: Tensor, indices: Tensor, factor: int) -> Tensor:
    """Keeps one pixel of each `factor` × `factor` cell: the random subsampler (RS).

    [N, H, W, C] becomes [N, H/factor, W/factor, C]. The caller draws the indices, so two images
    can be sampled at the same places. They are integers in [0, factor²), [N, H/factor, W/factor]
    or flat; dy·factor + dx takes the pixel (dy, dx) of its cell.
    """
    if factor == 1:
        return x
    cells = to_cells(x, (factor, factor))
    return select(cells, chosen(indices, cells))


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Turns the channels of each pixel into a cell of pixels: sub-pixel upsampling (PixelShuffle).

    (Shi et al., CVPR 2016, arXiv 1609.05158.)

    [N, H, W, factor²·C] becomes [N, H·factor, W·factor, C]. Pixel (dy, dx) of a cell gets the C
    channels from index (dy·factor + dx)·C on.
    """
    _, h, w, c = ops.shape(x)
    cells = ops.reshape(x, (-1, h, w, factor * factor, c // factor**2))
    return from_cells(cells, (factor, factor))


def pixel_shuffle_down(x: Tensor, factor: int, pad: int = 0) -> Tensor:
    """Rearranges each image into a mosaic of its `factor`² sub-images (PD).

    [N, H, W, C] becomes [N, H + 2·pad·factor, W + 2·pad·factor, C]. Tile (dy, dx) of the mosaic is
    `x[:, dy::factor, dx::factor]` with `pad` rows or columns of zeros on each side.
    """
    x = _split(x, (factor, factor))
    x = ops.pad(x, ((0, 0), (pad, pad), (0, 0), (pad, pad), (0, 0), (0, 0)))
    _, h, _, w, _, c = ops.shape(x)
    x = ops.transpose(x, (0, 2, 1, 4, 3, 5))
    return ops.reshape(x, (-1, h * factor, w * factor, c))


def pixel_shuffle_up(x: Tensor, factor: int, pad: int = 0) -> Tensor:
    """Puts a mosaic of sub-images back together: the inverse of `pixel_shuffle_down`."""
    _, h, w, c = ops.shape(x)
    h, w = h // factor, w // factor
    x = ops.reshape(x, (-1, factor, h, factor, w, c))[:, :, pad : h - pad, :, pad : w - pad]
    h, w = h - 2 * pad, w - 2 * pad
    return ops.reshape(ops.transpose(x, (0, 2, 1, 4, 3, 5)), (-1, h * factor, w * factor, c))


def to_cells(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Groups the pixels of images or volumes into cells.

    For cells of `sides` (f₁, f₂, …) pixels, [N, S₁, S₂, …, C] becomes
    [N, S₁/f₁, S₂/f₂, …, f₁·f₂·…, C]. The pixels of a cell are in C order.
    """
    x = _split(x, sides)
    _, *pairs, c = ops.shape(x)
    axes = len(sides)
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return ops.reshape(ops.transpose(x, order), (-1, *pairs[::2], math.prod(sides), c))


def from_cells(cells: Tensor, sides: Sequence[int]) -> Tensor:
    """Puts the pixels of cells back in their places: the inverse of `to_cells`."""
    _, *grid, _, c = ops.shape(cells)
    axes = len(grid)
    x = ops.reshape(cells, (-1, *grid, *sides, c))
    pairs = itertools.chain.from_iterable(
        zip(range(1, axes + 1), range(axes + 1, 2 * axes + 1), strict=True)
    )
    x = ops.transpose(x, (0, *pairs, 2 * axes + 1))
    sizes = [number * side for number, side in zip(grid, sides, strict=True)]
    return ops.reshape(x, (-1, *sizes, c))


def chosen(indices: Tensor, cells: Tensor) -> Tensor:
    """Returns bool [N, *grid, pixels, 1], true at the chosen pixel of each cell."""
    _, *grid, count, _ = ops.shape(cells)
    # As floats, which hold small integers exactly, because TensorFlow compares int32 on the host.
    indices = ops.cast(ops.reshape(indices, (-1, *grid, 1, 1)), "float32")
    places = ops.reshape(ops.arange(count, dtype="float32"), (*[1] * (1 + len(grid)), -1, 1))
    return ops.equal(indices, places)


def select(cells: Tensor, where: Tensor) -> Tensor:
    """Returns the chosen pixel of each cell, [N, *grid, C]; for `where`, see `chosen`."""
    # A selection instead of a gather: its gradient is a selection, too. The gradient of a gather
    # is a scatter, which is slow and, on a GPU, not deterministic.
    return ops.sum(ops.where(where, cells, ops.zeros_like(cells)), axis=-2)


def _split(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Splits each axis into cells: [N, S₁, S₂, …, C] → [N, S₁/f₁, f₁, S₂/f₂, f₂, …, C]."""
    _, *sizes, c = ops.shape(x)
    for name, size, side in zip(_AXES[-len(sizes) :], sizes, sides, strict=True):
        if isinstance(size, int) and size % side:
            raise ValueError(
                f"The {name} must be a multiple of the factor. "
                f"Received: {name}={size}, factor={side}"
            )
    pairs = [(size // side, side) for size, side in zip(sizes, sides, strict=True)]
    return ops.reshape(x, (-1, *itertools.chain.from_iterable(pairs), c))
