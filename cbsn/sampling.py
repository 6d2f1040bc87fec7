"""Sampling operations between an image and its sub-images.

All of them take and return NHWC tensors of any dtype, are differentiable, and do not change any
value. Heights and widths may be unknown while a graph is traced.
"""

from typing import Any

from keras import ops

Tensor = Any


def space_to_batch(x: Tensor, factor: int) -> Tensor:
    """Splits each image into its `factor`² sub-images, stacked along the batch (S2B).

    [N, H, W, C] becomes [factor²·N, H/factor, W/factor, C]. The sub-image `x[n, dy::factor,
    dx::factor]` has index (dy·factor + dx)·N + n.
    """
    if factor == 1:
        return x
    x = _split_cells(x, factor)
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
    cells = _cells(x, factor)
    n, h, w, _, c = ops.shape(cells)
    return ops.reshape(_select(cells, _chosen(indices, cells)), (n, h, w, c))


def mask_pixels(x: Tensor, masked: Tensor, sources: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """Replaces one pixel of each `cell` × `cell` cell with another pixel of the same cell.

    (The blind-spot masking of Noise2Void, arXiv 1811.10980, section 3.3, stratified by cells.)
    A masked pixel never replaces another one, so nothing of its value is left. Rows and columns
    that do not fill a cell stay unchanged.

    For images [N, H, W, C], `masked` says which pixel of each cell is masked, and `sources` which
    other pixel replaces it: integers dy·cell + dx, [N, H // cell, W // cell]. Returns the masked
    images and a mask [N, H, W, 1] of `x`'s dtype, 1 where a pixel is masked and 0 elsewhere.
    """
    _, height, width, _ = ops.shape(x)
    below, right = height % cell, width % cell
    cells = _cells(x[:, : height - below, : width - right], cell)
    hidden = _chosen(masked, cells)
    replaced = ops.where(hidden, _select(cells, _chosen(sources, cells)), cells)
    margins = ((0, 0), (0, below), (0, right), (0, 0))
    mask = ops.pad(_from_cells(ops.cast(hidden, x.dtype), cell), margins)
    replaced = ops.pad(_from_cells(replaced, cell), margins)
    return ops.where(ops.cast(mask, "bool"), replaced, x), mask


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """Turns the channels of each pixel into a cell of pixels: sub-pixel upsampling (PixelShuffle).

    (Shi et al., CVPR 2016, arXiv 1609.05158.)

    [N, H, W, factor²·C] becomes [N, H·factor, W·factor, C]. Pixel (dy, dx) of a cell gets the C
    channels from index (dy·factor + dx)·C on.
    """
    _, h, w, c = ops.shape(x)
    return _from_cells(ops.reshape(x, (-1, h, w, factor * factor, c // factor**2)), factor)


def pixel_shuffle_down(x: Tensor, factor: int, pad: int = 0) -> Tensor:
    """Rearranges each image into a mosaic of its `factor`² sub-images (PD).

    [N, H, W, C] becomes [N, H + 2·pad·factor, W + 2·pad·factor, C]. Tile (dy, dx) of the mosaic is
    `x[:, dy::factor, dx::factor]` with `pad` rows or columns of zeros on each side.
    """
    x = _split_cells(x, factor)
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


def _cells(x: Tensor, factor: int) -> Tensor:
    """Groups pixels into cells: [N, H, W, C] → [N, H/factor, W/factor, factor², C]."""
    x = _split_cells(x, factor)
    _, h, _, w, _, c = ops.shape(x)
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h, w, factor * factor, c))


def _from_cells(cells: Tensor, factor: int) -> Tensor:
    """The inverse of `_cells`."""
    _, h, w, _, c = ops.shape(cells)
    x = ops.transpose(ops.reshape(cells, (-1, h, w, factor, factor, c)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, h * factor, w * factor, c))


def _chosen(indices: Tensor, cells: Tensor) -> Tensor:
    """Returns bool [N, h, w, factor², 1], true at the chosen pixel of each cell."""
    _, h, w, count, _ = ops.shape(cells)
    # As floats, which hold small integers exactly, because TensorFlow compares int32 on the host.
    indices = ops.cast(ops.reshape(indices, (-1, h, w, 1, 1)), "float32")
    return ops.equal(indices, ops.reshape(ops.arange(count, dtype="float32"), (1, 1, 1, -1, 1)))


def _select(cells: Tensor, chosen: Tensor) -> Tensor:
    """Returns the chosen pixel of each cell, [N, h, w, 1, C]."""
    # A selection instead of a gather: its gradient is a selection, too. The gradient of a gather
    # is a scatter, which is slow and, on a GPU, not deterministic.
    return ops.sum(ops.where(chosen, cells, ops.zeros_like(cells)), axis=3, keepdims=True)


def _split_cells(x: Tensor, factor: int) -> Tensor:
    """Splits height and width: [N, H, W, C] → [N, H/factor, factor, W/factor, factor, C]."""
    _, h, w, c = ops.shape(x)
    for name, size in (("height", h), ("width", w)):
        if isinstance(size, int) and size % factor:
            raise ValueError(
                f"The {name} must be a multiple of the factor. "
                f"Received: {name}={size}, factor={factor}"
            )
    return ops.reshape(x, (-1, h // factor, factor, w // factor, factor, c))
