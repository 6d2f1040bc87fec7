"""Cutting a picture into tiles whose results fit together exactly."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """One axis of what a network is given, from its first place to its last.

    Args:
        reads: int [n], the row (or column) of the picture at each place; -1 for zeros.
        writes: int [n], the row that is filled with the result of that place; -1 for none. Each
            row is filled once.
    """

    reads: np.ndarray
    writes: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """Int [rows of the picture], the place whose result fills each row."""
        places = np.flatnonzero(self.writes >= 0)
        return places[np.argsort(self.writes[places])]

    @classmethod
    def mosaic(cls, size: int, stride: int, pad: int) -> "Layout":
        """Its sub-images one after the other, as `cbsn.sampling.pixel_shuffle_down` has them.

        Args:
            size: int, rows of the picture, a multiple of `stride`.
            stride: int, distance of the rows that are neighbours in a sub-image.
            pad: int, zeros around each of them.
        """
        rows = np.arange(size).reshape(-1, stride).T
        rows = np.pad(rows, ((0, 0), (pad, pad)), constant_values=-1).ravel()
        return cls(rows, rows)

    @classmethod
    def reflected(cls, size: int, margin: int) -> "Layout":
        """A picture with a reflected margin, which is cut off the result."""
        rows = np.arange(size)
        return cls(np.pad(rows, margin, "reflect"), np.pad(rows, margin, constant_values=-1))


Index = slice | np.ndarray
"""Places along one axis of an array: a slice where they are evenly spaced, which copies nothing."""


@dataclasses.dataclass(frozen=True)
class Span:
    """One axis of a tile.

    Args:
        reads: int [n], rows (or columns) of the picture that the network is given; -1 for zeros.
        margin: int, how much of its result lies before the piece.
        writes: int [m], rows that the piece of its result fills; -1 for none.
        first: int, first place of the `Layout` that fills any of the rows that are read.
        stop: int, place after the last one of the piece.
    """

    reads: np.ndarray
    margin: int
    writes: np.ndarray
    first: int
    stop: int

    def inside(self, size: int) -> tuple[Index, Index | None]:
        """Says what a picture of `size` rows has of the rows that are read.

        Returns:
            The rows to take, any row standing for those that are zeros; and which of the rows that
            are taken those are, None if there are none.
        """
        if self._reads_last < size and isinstance(self._reads_index, slice):
            return self._reads_index, None
        outside = (self.reads < 0) | (self.reads >= size)
        return (
            _index(np.where(outside, 0, self.reads)),
            np.flatnonzero(outside) if outside.any() else None,
        )

    def kept(self, size: int) -> tuple[Index, Index]:
        """Returns which of the result's rows fill a picture of `size` rows, and which of these."""
        if self._writes_last < size and isinstance(self._writes_index, slice):
            return slice(self.margin, self.margin + self.writes.size), self._writes_index
        pieces = np.flatnonzero((self.writes >= 0) & (self.writes < size))
        return _index(self.margin + pieces), _index(self.writes[pieces])

    # A span is asked once for each picture of a stack.
    @functools.cached_property
    def _reads_last(self) -> int:
        return self.reads.max()

    @functools.cached_property
    def _reads_index(self) -> Index:
        return _index(self.reads)

    @functools.cached_property
    def _writes_last(self) -> int:
        return self.writes.max(initial=-1)

    @functools.cached_property
    def _writes_index(self) -> Index:
        return _index(self.writes)


def _copy(values: np.ndarray, out: np.ndarray) -> None:
    out[...] = values


@dataclasses.dataclass(frozen=True)
class Tile:
    """A piece of a picture, and what the network has to see to make it.

    Args:
        rows: its rows.
        columns: its columns.
    """

    rows: Span
    columns: Span

    @property
    def source_shape(self) -> tuple[int, int]:
        """Rows and columns that the network is given."""
        return self.rows.reads.size, self.columns.reads.size

    def cut(
        self,
        image: np.ndarray,
        convert: Callable[[np.ndarray, np.ndarray], None] = _copy,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns a copy of the tile's source of an image [H, W, C].

        Args:
            image: the picture.
            convert: writes what is to be made of the first array's values into the second one.
                Rows and columns that the picture does not have come out as 0 all the same.
            out: [h, w, C], what it is written into. Default None: a new array of the image's dtype.
        """
        if out is None:
            out = np.empty((*self.source_shape, image.shape[2]), image.dtype)
        rows, rows_outside = self.rows.inside(image.shape[0])
        columns, columns_outside = self.columns.inside(image.shape[1])
        convert(_take(image, rows, columns), out)
        if rows_outside is not None:
            out[rows_outside] = 0
        if columns_outside is not None:
            out[:, columns_outside] = 0
        return out

    def crop(
        self, result: np.ndarray, height: int, width: int
    ) -> tuple[np.ndarray, tuple[Index, ...]]:
        """Returns the part of the network's result that fills pixels, and the index of these.

        Args:
            result: [h, w, C].
            height: int, rows of the picture; the result may have more.
            width: int, its columns.
        """
        from_rows, rows = self.rows.kept(height)
        from_columns, columns = self.columns.kept(width)
        where = rows, columns
        if not any(isinstance(each, slice) for each in where):
            where = np.ix_(*where)
        return _take(result, from_rows, from_columns), where


def _index(places: np.ndarray) -> Index:
    """A slice of the same places, if they are evenly spaced, else the places themselves."""
    if not places.size or places.min() < 0:
        return places
    step = places[1] - places[0] if places.size > 1 else 1
    if step == 0 or (np.diff(places) != step).any():
        return places
    stop = places[-1] + np.sign(step)
    return slice(int(places[0]), None if stop < 0 else int(stop), int(step))


def _take(image: np.ndarray, rows: Index, columns: Index) -> np.ndarray:
    """`image[np.ix_(rows, columns)]`, as a view where these are slices."""
    slices = (each if isinstance(each, slice) else slice(None) for each in (rows, columns))
    piece = image[tuple(slices)]
    for axis, each in enumerate((rows, columns)):
        if not isinstance(each, slice):
            piece = piece.take(each, axis)
    return piece


def make_bands(
    rows: Layout,
    columns: Layout,
    *,
    border: str,
    side: int | None,
    halo: int,
    multiple: int,
    grid: int | None = None,
) -> list[list[Tile]]:
    """Divides what the network is to be given into tiles.

    Args:
        rows: layout of the picture's rows.
        columns: of its columns.
        border: "reflect": the layout is reflected at its ends, all sources are of one size, and
            the network's result is `halo` smaller on each side. "zeros": a source ends where the
            layout does, and the result is as large as it.
        side: int, rows and columns that a tile's piece should have at most, but for rounding
            up to `multiple`. None: one tile, the whole picture.
        halo: int, the network's receptive-field radius: what a source has more than the piece on
            each side.
        multiple: int, what the pieces' heights and widths are multiples of, but the last ones'.
        grid: int, the network's `grid`, for sources of one size whatever that of the picture is,
            unless that is smaller; for networks that are local. Default None: pieces of even size,
            which take less time to compute.

    Returns:
        Bands from top to bottom, each a list of tiles from left to right; they cover every place
        once.
    """
    down, across = (_divide(each, border, side, halo, multiple, grid) for each in (rows, columns))
    return [[Tile(span, other) for other in across] for span in down]


def _divide(
    layout: Layout, border: str, side: int | None, halo: int, multiple: int, grid: int | None
) -> list[Span]:
    size = layout.reads.size
    # What a window reads beyond its result, and what of its result is not to be relied on.
    beyond, margin = (halo, 0) if border == "reflect" else (0, halo)
    largest = _rounded_up(side or size, multiple)
    if grid and size > largest + 2 * margin:
        length = largest + 2 * margin
        # The last window ends where the layout does, or less than `grid` later: up to there, a
        # network that halves pictures reflects them itself.
        last = _rounded_up(size - length, grid)
        firsts = [*range(0, last, largest), last]
        stops = [*(first + margin + largest for first in firsts[:-1]), size]
        starts = [0, *stops[:-1]]
        sources = [_reflected(first - beyond, first + length + beyond, size) for first in firsts]
    else:
        step = _rounded_up(math.ceil(size / math.ceil(size / (side or size))), multiple)
        starts = range(0, size, step)
        stops = [min(start + step, size) for start in starts]
        firsts = [max(0, start - margin) for start in starts]
        sources = [_reflected(start - halo, start + step + halo, size) for start in starts]
        if border == "zeros":
            sources = [
                np.arange(first, min(size, start + step + halo))
                for first, start in zip(firsts, starts, strict=True)
            ]
    places = layout.places
    spans = []
    for source, first, start, stop in zip(sources, firsts, starts, stops, strict=True):
        reads = layout.reads[source]
        needed = places[reads[reads >= 0]].min(initial=size)
        spans.append(Span(reads, start - first, layout.writes[start:stop], int(needed), stop))
    return spans


def _reflected(first: int, stop: int, size: int) -> np.ndarray:
    """Places of an axis of `size` places, reflected at both ends again and again."""
    period = max(1, 2 * (size - 1))
    places = np.abs(np.arange(first, stop)) % period
    return np.minimum(places, period - places)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
