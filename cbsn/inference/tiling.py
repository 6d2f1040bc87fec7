"""Cutting a picture or a volume into tiles whose results fit together exactly.

`Axis` and `Spans` compute with integers where tiles start and end, and which row of the picture
fills each place of the network's input. They serve both NumPy and the exported graph, which learns
the size of a picture only as it runs; `xp` is `numpy` or `tensorflow`.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # it loads Keras, which not everyone needs who asks for the size of tiles
    from cbsn.recipes import Recipe

Integer = Any  # an int, or an integer scalar of `xp`
Integers = Any  # [n] integers of `xp`


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a network's input, whose places hold the rows (or columns) of a picture.

    Sub-images lie one after the other, as in `cbsn.sampling.pixel_shuffle_down`.
    """

    size: Integer  # rows of the picture, a multiple of `stride`
    stride: int = 1  # distance in the picture of neighbouring rows of a sub-image
    pad: int = 0  # places before and after each sub-image
    reflects: bool = False  # whether these reflect the sub-image; else they are zeros
    xp: ModuleType = np  # or `tensorflow`

    @property
    def length(self) -> Integer:
        """Number of places."""
        return self.size + 2 * self.stride * self.pad

    def rows(self, places: Integers) -> Integers:
        """Returns the row at each place; -1 for zeros."""
        if self.stride == 1 and self.pad == 0:
            return places
        cells = self.size // self.stride
        block = cells + 2 * self.pad
        sub_image, cell = places // block, places % block - self.pad
        if self.reflects:
            cell = reflected(cell, cells, self.xp)
        is_inside = (cell >= 0) & (cell < cells)
        return self.xp.where(is_inside, cell * self.stride + sub_image, -1)

    def places(self, rows: Integers) -> Integers:
        """Returns the place whose result fills each row."""
        block = self.size // self.stride + 2 * self.pad
        return rows % self.stride * block + self.pad + rows // self.stride


def pass_axes(recipe: "Recipe", size: Integer, xp: ModuleType = np) -> tuple[Axis, Axis]:
    """Returns the axes of a recipe's first pass and of its R3 pass, for `size` rows.

    Zeros at the end pad the size to a multiple of the stride. R3 treats them as part of the
    picture, which it reflects by 2 at each end if the recipe's border is "zeros".
    """
    stride = recipe.denoise_stride
    padded = _rounded_up(size, stride)
    margin = 2 if recipe.border == "zeros" else 0
    return Axis(padded, stride, recipe.denoise_pad, xp=xp), Axis(padded, 1, margin, True, xp)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How an axis is divided into tiles, each a piece of it and a source with its surroundings.

    With the border "reflect", the axis is reflected at its ends, all sources have one size, and
    the network's result is `halo` smaller on each side. With "zeros", a source stops at the ends of
    the axis, and the result is as large as the source.

    With the network's `grid`, all sources of a picture have one size; and unless they are `even`,
    all pictures that are not smaller have that size in common. This is for local networks, and for
    NumPy. Without it, pieces are of even size.

    Sources on a grid may extend beyond the end of the axis. There they hold what the network itself
    pads a picture with, a reflection or zeros, as `fill` says.
    """

    border: str
    side: int | None  # most places of a piece, before rounding up to `multiple`; None: one tile
    halo: int  # the network's: places that a source adds to its piece on each side
    multiple: int  # the size of every piece but the last is a multiple of this
    grid: int | None = None
    even: bool = False  # with a grid: sources are no larger than their number requires
    fill: str = "reflect"  # with a grid: the network's `padding_mode`


class Span(NamedTuple):
    """One axis of a tile: its source is the places [first, stop), its piece is [start, end).

    A source may extend beyond the axis. `margin` is the number of places of the network's result
    before the piece.
    """

    first: Integer
    stop: Integer
    margin: Integer
    start: Integer
    end: Integer


class Spans:
    """An axis in `count` tiles, one every `step` places, whose pieces cover each place once."""

    def __init__(self, axis: Axis, tiling: Tiling):
        self.axis = axis
        self._fill = tiling.fill
        self._halo, self._zeros = tiling.halo, tiling.border == "zeros"
        # Near the ends of a source, the network omits its result if the border is reflected. With a
        # border of zeros, its result there differs from that of the whole picture.
        self._unreliable, self._omitted = (tiling.halo, 0) if self._zeros else (0, tiling.halo)
        self._last = None
        side, length = tiling.side or axis.length, axis.length
        if tiling.grid:
            inside = max(1, length - 2 * self._unreliable)
            count = divided_up(inside, side)
            if tiling.even and count == 1:
                self.step, self.count = _rounded_up(length, tiling.multiple), 1
                return
            most = divided_up(inside, count) if tiling.even else side
            self.step = _rounded_up(most, tiling.multiple)
            rest = inside - self.step
            if rest > 0:
                # The last window ends with the axis, or less than `grid` later: that far, a network
                # that halves pictures would reflect them itself.
                self._last = _rounded_up(rest, tiling.grid)
                self.count = divided_up(self._last, self.step) + 1
                return
        self.step = _rounded_up(divided_up(length, divided_up(length, side)), tiling.multiple)
        self.count = divided_up(length, self.step)

    def span(self, index: Integer) -> Span:
        """Returns the span of the tile with this number."""
        minimum, maximum = self.axis.xp.minimum, self.axis.xp.maximum
        length = self.axis.length
        start, end = index * self.step, (index + 1) * self.step
        first, stop = start - self._halo, end + self._halo
        if self._last is not None:
            first = min(start, self._last) - self._omitted
            stop = first + self.step + 2 * self._halo
            start += self._unreliable if index > 0 else 0
            end = end + self._unreliable if index + 1 < self.count else length
        elif self._zeros:
            first, stop = maximum(first, 0), minimum(stop, length)
        return Span(first, stop, start - first - self._omitted, start, minimum(end, length))

    def reads(self, span: Span) -> Integers:
        """Returns the rows of the picture that a source holds; -1 for zeros."""
        xp, length = self.axis.xp, self.axis.length
        places = arange(span.first, span.stop, xp)
        rows = self.axis.rows(reflected(places, length, xp))
        return rows if self._fill == "reflect" else xp.where(places < length, rows, -1)


def arange(first: Integer, stop: Integer, xp: ModuleType = np) -> Integers:
    """Returns the integers [first, stop) as int32."""
    return np.arange(first, stop, dtype=np.int32) if xp is np else xp.range(first, stop)


def reflected(places: Integers, size: Integer, xp: ModuleType = np) -> Integers:
    """Reflects places at 0 and `size` - 1, repeatedly, as `numpy.pad` does."""
    period = xp.maximum(2 * (size - 1), 1)
    # Reflects at 0 first, because ONNX computes remainders of negative numbers differently.
    places = xp.abs(places) % period
    return xp.minimum(places, period - places)


def divided_up(number: Integer, divisor: Integer) -> Integer:
    """Divides, rounding up. Avoids negative numbers, which ONNX rounds differently."""
    return (number + divisor - 1) // divisor


def _rounded_up(number: Integer, multiple: int) -> Integer:
    return divided_up(number, multiple) * multiple


Index = slice | np.ndarray
"""Places along one axis of an array: a slice, which copies nothing, if they are evenly spaced."""


@dataclasses.dataclass(frozen=True)
class Lines:
    """One axis of a tile, as indexes of arrays."""

    reads: np.ndarray  # rows (or columns, or planes) of the picture in the source; -1 for zeros
    taken: Index  # the rows to take for these, with any row in place of zeros
    zeros: np.ndarray  # positions of the zeros in `reads`
    kept: Index  # rows of the network's result that go into the picture
    filled: Index  # the rows of the picture that they fill
    share: float  # fraction of the picture's rows that they are


@dataclasses.dataclass(frozen=True)
class Tile:
    """A piece of a picture, and the source that the network needs to compute it.

    Pictures are [H, W, C]. Volumes are [Z, H, W, C], and have one more line and slice.
    """

    lines: tuple[Lines, ...]  # rows and columns; of a volume, planes before these
    needed: int  # tiles that must be read before the pixels of this one are overwritten

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Numbers of rows and columns of the source."""
        return tuple(each.reads.size for each in self.lines)

    @property
    def share(self) -> float:
        """Fraction of the picture that the tile fills."""
        return math.prod(each.share for each in self.lines)

    @property
    def where(self) -> tuple[Index, ...]:
        """Index of the pixels that the tile fills."""
        filled = tuple(each.filled for each in self.lines)
        if any(isinstance(each, slice) for each in filled):  # all of them, of a volume
            return filled
        return np.ix_(*filled)

    def take(self, image: np.ndarray) -> np.ndarray:
        """Returns the tile's source from an image [H, W, C] before `clear`; a view if possible."""
        return take(image, *(each.taken for each in self.lines))

    def clear(self, source: np.ndarray) -> None:
        """Zeroes the rows and columns of a source [h, w, C] that lie outside the picture."""
        for axis, each in enumerate(self.lines):
            source[(slice(None),) * axis + (each.zeros,)] = 0

    def crop(self, result: np.ndarray) -> np.ndarray:
        """Returns the part of the network's result [h, w, C] that fills the tile's pixels."""
        return take(result, *(each.kept for each in self.lines))


def make_tiles(
    axes: Sequence[Axis],
    tilings: Sequence[Tiling],
    size: Sequence[int],
    filled: Sequence[int] | None = None,
) -> list[Tile]:
    """Divides the network's input into tiles, from left to right, then from top to bottom.

    Those of volumes begin with the first planes. Places outside a picture of this size are zeros.
    The tiles fill each pixel of a picture of the size `filled` once. Default None, the same as
    `size`.
    """
    spans = [Spans(*each) for each in zip(axes, tilings, strict=True)]
    rows, *others = map(list, map(_lines, spans, size, filled or size))
    # For each row of tiles, the first place that it or a later row still has to read.
    read = [axes[0].places(each.reads[each.reads >= 0]) for each in rows]
    firsts = [places.min(initial=axes[0].length) for places in reversed(read)]
    firsts_to_come = np.minimum.accumulate(firsts)[::-1]
    ends = [spans[0].span(index).end for index in range(spans[0].count)]
    needed = np.searchsorted(firsts_to_come, ends) * math.prod(map(len, others))
    return [
        Tile((row, *rest), int(count))
        for row, count in zip(rows, needed, strict=True)
        for rest in itertools.product(*others)
    ]


def _lines(spans: Spans, size: int, filled: int) -> Iterator[Lines]:
    for span in map(spans.span, range(spans.count)):
        reads = spans.reads(span)
        is_zero = (reads < 0) | (reads >= size)
        places = arange(span.start, span.end)
        rows = spans.axis.rows(places)
        is_own = (rows >= 0) & (rows < filled) & (spans.axis.places(rows) == places)
        pieces = np.flatnonzero(is_own)
        yield Lines(
            reads=reads,
            taken=as_index(np.where(is_zero, 0, reads)),
            zeros=np.flatnonzero(is_zero),
            kept=as_index(span.margin + pieces),
            filled=as_index(rows[pieces]),
            share=pieces.size / filled,
        )


def as_index(places: np.ndarray) -> Index:
    """Returns places as a slice if they are evenly spaced, else the places themselves."""
    if not places.size or places.min() < 0:
        return places
    step = places[1] - places[0] if places.size > 1 else 1
    if step == 0 or (np.diff(places) != step).any():
        return places
    stop = places[-1] + np.sign(step)
    return slice(int(places[0]), None if stop < 0 else int(stop), int(step))


def take(image: np.ndarray, *places: Index) -> np.ndarray:
    """Returns `image[np.ix_(*places)]`, as a view if all of them are slices."""
    slices = (each if isinstance(each, slice) else slice(None) for each in places)
    image = image[tuple(slices)]
    for axis, each in enumerate(places):
        if not isinstance(each, slice):
            image = image.take(each, axis)
    return image
