"""Masks of blind passes: which pixels a network must not see, and what it sees in their place."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from cbsn.orientations import NUM_ORIENTATIONS, orientation_steps
from cbsn.sampling import chosen, from_cells, select, to_cells

Tensor = Any
Offset = tuple[int, ...]
"""Distance of two pixels along each axis; the last one is x, along a row."""

REPLACEMENTS = ("random", "median")

_LARGEST = 64  # pixels that a shape may reach to each side
_MOST_HIDDEN = 3 / 4  # of a cell's pixels, at the worst places of its mask and its neighbours'
_MEDIAN_REACH = (1, 2, 2)  # of the neighbourhoods whose medians are taken, along z, y and x
_FEWEST = 8  # neighbours of a median
_ABSENT = 1e30  # in place of pixels that a median must not count; float32 holds it
_DRAWS = 2**20


def parse_mask_shape(text: str, dimensions: int = 2) -> tuple[Offset, ...]:
    """Returns which pixels a mask hides around the pixel that is predicted, as offsets.

    Args:
        text: one of the following, or several joined by `+`.
            - `point`: none.
            - `x:N`, `y:N` or `z:N`: N pixels to each side along an axis; x runs along a row.
            - `cross:N`: the same as `x:N+y:N`.
            - `square:N`: the square of (2·N + 1)² pixels in plane.
            - `0,1;0,-1`: these offsets, along y and x; with three numbers, along z, y and x.
        dimensions: int, 2 or 3.

    Returns:
        The offsets without the pixel itself, sorted.

    Raises:
        ValueError: if the text is something else, or reaches further than 64 pixels.

    Example:
        >>> parse_mask_shape("x:1+y:1")
        ((-1, 0), (0, -1), (0, 1), (1, 0))
    """
    found = {
        offset
        for part in text.lower().replace(" ", "").split("+")
        for offset in _offsets(part, text, dimensions)
    }
    if any(abs(step) > _LARGEST for offset in found for step in offset):
        raise ValueError(f"A mask reaches at most {_LARGEST} pixels. Received: {text}")
    return tuple(sorted(found - {(0,) * dimensions}))


def _offsets(part: str, text: str, dimensions: int) -> list[Offset]:
    zero = (0,) * dimensions
    if part == "point":
        return [zero]
    name, colon, number = part.partition(":")
    axes = "zyx"[-dimensions:]
    if colon and number.isdecimal() and name in (*axes, "cross", "square"):
        reach = range(-int(number), int(number) + 1)
        if int(number) > _LARGEST:
            raise ValueError(f"A mask reaches at most {_LARGEST} pixels. Received: {text}")
        if name == "square":
            return [(*zero[2:], *each) for each in itertools.product(reach, reach)]
        along = [axes.index(axis) for axis in ("yx" if name == "cross" else name)]
        return [(*zero[:a], step, *zero[a + 1 :]) for a in along for step in reach]
    try:
        offsets = [tuple(map(int, each.split(","))) for each in part.split(";")]
    except ValueError:
        offsets = []
    if offsets and all(len(offset) == dimensions for offset in offsets):
        return offsets
    shapes = [f"{axis}:N" for axis in axes[::-1]]
    planes = ""
    if name == "z" and dimensions == 2:
        planes = " Planes above and below, z:N, are for networks in three dimensions."
    raise ValueError(
        f"A mask's shape is point, {', '.join(shapes)}, cross:N, square:N (N pixels to each side), "
        f"several of them joined by +, or offsets such as {_example(dimensions)}.{planes} "
        f"Received: {text}"
    )


def _example(dimensions: int) -> str:
    zeros = "0," * (dimensions - 1)
    return f'"{zeros}1;{zeros}-1"'


class Masking:
    """Masks one pixel of each cell of a picture, with the pixels around it that share its noise.

    (Noise2Void: Krull et al., CVPR 2019, arXiv 1811.10980, section 3.3, stratified by cells.
    structN2V, which hides pixels around the predicted one, too: Broaddus et al., ISBI 2020. Median
    replacement: N2V2, Höck et al., ECCV-W 2022, arXiv 2211.08512.) No value of a hidden pixel
    remains: what replaces it comes from pixels that no mask hides.

    Args:
        shape: text, see `parse_mask_shape`.
        cell: int, c ≥ 2: the least side of a cell. Cells are as much larger as the shape needs, so
            that at least a quarter of the pixels of each stays visible.
        replacement: what the network sees in place of the predicted pixel. "random": another pixel
            of its cell. "median": the median of the visible pixels among its neighbours, 5 × 5 in
            plane, and 3 planes in three dimensions, or more where the shape covers these. The other
            hidden pixels always take visible ones of their cells at random.
        dimensions: int, 2 for pictures or 3 for volumes.

    Attributes:
        offsets: the pixels hidden around the one that is predicted, see `parse_mask_shape`.
        sides: the sides of a cell in pixels, along each axis.

    Raises:
        ValueError: if a value is out of range or unknown.

    Example:
        >>> Masking("x:3").sides
        (4, 7)
    """

    def __init__(
        self, shape: str = "point", cell: int = 4, replacement: str = "random", dimensions: int = 2
    ):
        if cell < 2:
            raise ValueError(f"mask_cell must be at least 2. Received: mask_cell={cell}")
        if replacement not in REPLACEMENTS:
            raise ValueError(
                f"replacement must be {' or '.join(REPLACEMENTS)}. "
                f"Received: replacement={replacement!r}"
            )
        self.offsets = parse_mask_shape(shape, dimensions)
        self._dimensions = dimensions
        self._replacement = replacement
        reaches = np.abs((*self.offsets, (0,) * dimensions)).max(axis=0)
        self._reaches = tuple(int(reach) for reach in reaches)
        self.sides = _cell_sides(self.offsets, self._reaches, cell)
        self._neighbours = _neighbours(self.offsets, dimensions)

    @property
    def orientations(self) -> tuple[int, ...]:
        """The orientations in plane, see `cbsn.orientations.orient`, in which the mask is the same.

        In others, noise that the mask hides would lie where it does not.
        """

        def turned(offset: Offset, orientation: int) -> Offset:
            transposes, reverses_rows, reverses_columns = orientation_steps(orientation)
            *z, y, x = offset
            y, x = (x, y) if transposes else (y, x)
            return *z, -y if reverses_rows else y, -x if reverses_columns else x

        return tuple(
            number
            for number in range(NUM_ORIENTATIONS)
            if {turned(offset, number) for offset in self.offsets} == {*self.offsets}
        )

    @property
    def flips_z(self) -> bool:
        """Whether the mask is the same when the planes of a volume come in the opposite order."""
        if self._dimensions == 2:
            return True
        return {(-z, *others) for z, *others in self.offsets} == {*self.offsets}

    def __call__(self, x: Tensor, random: Any) -> tuple[Tensor, Tensor]:
        """Masks a batch.

        Args:
            x: float32 [N, *size, C], at least one cell large.
            random: draws the places; see `cbsn.objectives.objective.Objective`.

        Returns:
            The masked batch, and a mask [N, *size, 1] of its dtype, 1 at the pixels to predict. A
            pixel whose mask would reach into the margin at the end of an axis, which fills no cell,
            is none of them.

        Raises:
            ValueError: if the batch is smaller than a cell.
        """
        n, *size, _ = ops.shape(x)
        for length, side in zip(size, self.sides, strict=True):
            if isinstance(length, int) and length < side:
                needed, received = (" × ".join(map(str, each)) for each in (self.sides, size))
                raise ValueError(
                    f"With this mask, patches need {needed} pixels or more. Received: {received}"
                )
        grid = [length // side for length, side in zip(size, self.sides, strict=True)]
        whole = [number * side for number, side in zip(grid, self.sides, strict=True)]
        inner, count = _part(x, whole), math.prod(self.sides)
        cells = to_cells(inner, self.sides)
        at_centre = chosen(random.integers((n, *grid), count), cells)
        centres = ops.cast(at_centre, x.dtype)
        hidden = centres
        if self.offsets:
            hidden = to_cells(self._spread(from_cells(centres, self.sides)), self.sides)
        values = _shuffled_visible(cells, hidden, random)
        if self._replacement == "median":
            visible = ops.where(hidden > 0, ops.full_like(cells, _ABSENT), cells)
            medians, some = self._medians(from_cells(visible, self.sides), at_centre)
            values = ops.where(ops.logical_and(at_centre, some), medians, values)
        replaced = from_cells(ops.where(hidden > 0, values, cells), self.sides)
        mask = from_cells(centres, self.sides)
        margins = [length - each for length, each in zip(size, whole, strict=True)]
        if any(not isinstance(margin, int) or margin for margin in margins):
            mask = mask * self._away_from_margins(whole, margins, mask.dtype)
            padding = ((0, 0), *((0, margin) for margin in margins), (0, 0))
            mask = ops.pad(mask, padding)
            inside = ops.pad(ops.ones_like(inner[..., :1]), padding)
            replaced = ops.where(inside > 0, ops.pad(replaced, padding), x)
        return replaced, mask

    def _spread(self, centres: Tensor) -> Tensor:
        """Returns where a mask hides pixels, 1 or 0, [N, *size, 1]."""
        kernel = np.zeros([2 * reach + 1 for reach in self._reaches], "float32")
        for offset in (*self.offsets, (0,) * len(self._reaches)):
            # A convolution as networks have it is a correlation: its kernel is reversed.
            kernel[tuple(r - step for r, step in zip(self._reaches, offset, strict=True))] = 1
        kernel = ops.convert_to_tensor(kernel[..., None, None], dtype=centres.dtype)
        counts = ops.conv(centres, kernel, padding="same", data_format="channels_last")
        return ops.cast(counts > 0.5, centres.dtype)

    def _medians(self, visible: Tensor, at_centre: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the medians around the centres, for each cell, and whether there are any."""
        reaches = [max(axis) for axis in zip(*self._neighbours, strict=True)]
        padding = ((0, 0), *((reach, reach) for reach in reaches), (0, 0))
        padded = ops.pad(visible, padding, constant_values=_ABSENT)
        _, *size, _ = ops.shape(visible)
        around = []
        for offset in self._neighbours:
            starts = [reach + step for reach, step in zip(reaches, offset, strict=True)]
            ends = [start + length for start, length in zip(starts, size, strict=True)]
            slices = (slice(None), *map(slice, starts, ends))
            around.append(select(to_cells(padded[slices], self.sides), at_centre))
        values = ops.sort(ops.stack(around, axis=-1), axis=-1)
        count = ops.sum(ops.cast(values < _ABSENT, "int32"), axis=-1, keepdims=True)
        middle = ops.stack([ops.maximum(count - 1, 0) // 2, count // 2], axis=-1)[..., 0, :]
        pair = ops.take_along_axis(values, middle, axis=-1)
        medians = ops.mean(pair, axis=-1)
        return ops.expand_dims(medians, -2), ops.expand_dims(count[..., 0], -2) > 0

    def _away_from_margins(
        self, whole: Sequence[Any], margins: Sequence[Any], dtype: Any
    ) -> Tensor:
        """Returns 1 where no pixel of a mask can lie in a margin, else 0; [1, *size, 1]."""
        result = ops.ones((1,) * (len(whole) + 2), dtype)
        for axis, (length, margin, reach) in enumerate(
            zip(whole, margins, self._reaches, strict=True)
        ):
            last = length - reach * ops.cast(ops.convert_to_tensor(margin) > 0, "int32")
            near = ops.cast(ops.arange(length) < last, dtype)
            shape = [1] * (len(whole) + 2)
            shape[axis + 1] = -1
            result = result * ops.reshape(near, shape)
        return result


def _shuffled_visible(cells: Tensor, hidden: Tensor, random: Any) -> Tensor:
    """Returns for each pixel of a cell one of the cell's visible pixels.

    Where several pixels of a cell are hidden, they get different ones as long as there are enough.
    """
    shape = ops.shape(hidden)[:-1]
    count, channels = shape[-1], ops.shape(cells)[-1]
    is_hidden = ops.cast(hidden[..., 0], "int32")
    order = ops.argsort(random.integers(shape, _DRAWS) + _DRAWS * is_hidden, axis=-1)
    rank = ops.cumsum(is_hidden, axis=-1) - is_hidden
    visible = count - ops.sum(is_hidden, axis=-1, keepdims=True)
    taken = ops.reshape(ops.take_along_axis(order, rank % visible, axis=-1), (-1, count))
    # By their places in one long list, as transposing them for each cell would be slow.
    pixels = ops.reshape(cells, (-1, channels))
    places = taken + count * ops.arange(ops.shape(taken)[0], dtype="int32")[:, None]
    return ops.reshape(ops.take(pixels, places, axis=0), (*shape, channels))


def _neighbours(shape: Sequence[Offset], dimensions: int) -> list[Offset]:
    """Returns the offsets of the pixels that a median is taken of."""
    hidden = {*shape}
    for more in itertools.count():
        reaches = [reach + more for reach in _MEDIAN_REACH[-dimensions:]]
        around = itertools.product(*(range(-reach, reach + 1) for reach in reaches))
        found = [each for each in around if any(each) and each not in hidden]
        if len(found) >= _FEWEST:
            return found
    raise AssertionError  # the loop has no end


def _part(x: Tensor, size: Sequence[Any]) -> Tensor:
    return x[(slice(None), *(slice(None, length) for length in size))]


@functools.lru_cache(maxsize=32)  # a recipe asks for them several times
def _cell_sides(
    offsets: tuple[Offset, ...], reaches: tuple[int, ...], least: int
) -> tuple[int, ...]:
    """Returns the sides of cells, large enough for `_MOST_HIDDEN`."""
    sides = [max(least, 2 * reach + 1) if reach else least for reach in reaches]
    shape = [*offsets, (0,) * len(sides)]
    sums = _summed(shape, reaches)
    while True:
        count = math.prod(sides)
        # A mask may lie anywhere in its cell, and hide pixels of the cells around, too.
        if 3 * len(shape) <= count and _worst(sums, reaches, sides) <= _MOST_HIDDEN * count:
            return tuple(sides)
        sides[sides.index(min(sides))] += 1


def _summed(shape: Sequence[Offset], reaches: Sequence[int]) -> np.ndarray:
    """Returns how many pixels of a shape lie before each place, along all axes: [2·reach + 2, …].

    From its values at the corners of a box follows how many lie in the box, however many that are.
    """
    grid = np.zeros([2 * reach + 1 for reach in reaches], np.int32)
    grid[tuple((np.array(shape) + reaches).T)] = 1
    for axis in range(grid.ndim):
        grid = np.cumsum(grid, axis=axis, dtype=np.int32)
    return np.pad(grid, [(1, 0)] * grid.ndim)


def _worst(sums: np.ndarray, reaches: Sequence[int], sides: Sequence[int]) -> int:
    """Returns how many pixels of a cell may be hidden at most, by its mask and its neighbours'.

    Args:
        sums: see `_summed`.
        reaches: how far the shape reaches along each axis.
        sides: those of a cell.
    """
    around = [
        range(-math.ceil(reach / side), math.ceil(reach / side) + 1)
        for reach, side in zip(reaches, sides, strict=True)
    ]
    total = 0
    for cell in itertools.product(*around):
        # For each place of the mask, the part of its shape that lies in this cell is a box.
        ends = []
        for number, side, reach in zip(cell, sides, reaches, strict=True):
            first = number * side - np.arange(side) + reach
            ends.append([np.clip(each, 0, 2 * reach + 1) for each in (first, first + side)])
        hidden = sum(
            (-1) ** corner.count(0)
            * sums[np.ix_(*(e[c] for e, c in zip(ends, corner, strict=True)))]
            for corner in itertools.product((0, 1), repeat=len(sides))
        )
        total += int(np.max(hidden))
    return total
