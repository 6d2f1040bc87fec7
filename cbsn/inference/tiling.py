"""Cutting a picture into tiles whose results fit together exactly."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from cbsn.inference.layout import Layout

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
    rows: Layout, columns: Layout, *, border: str, side: int | None, halo: int, multiple: int
) -> list[list[Tile]]:
    """Divides what the network is to be given evenly into tiles.

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

    Returns:
        Bands from top to bottom, each a list of tiles from left to right; they cover every place
        once.
    """
    across = _divide(columns, border, side, halo, multiple)
    return [
        [Tile(span, other) for other in across]
        for span in _divide(rows, border, side, halo, multiple)
    ]


def _divide(layout: Layout, border: str, side: int | None, halo: int, multiple: int) -> list[Span]:
    size = layout.reads.size
    count = math.ceil(size / (side or size))
    step = math.ceil(math.ceil(size / count) / multiple) * multiple
    starts = range(0, size, step)
    if border == "reflect":
        beyond = starts[-1] + step - size
        # Reflecting the indices, not the picture, needs no padded copy of a large one.
        indices = np.pad(np.arange(size), (halo, beyond + halo), mode="reflect")
        sources = [(indices[start : start + step + 2 * halo], 0) for start in starts]
    else:
        sources = [
            (np.arange(max(0, start - halo), min(size, start + step + halo)), min(start, halo))
            for start in starts
        ]
    places = layout.places
    spans = []
    for start, (source, margin) in zip(starts, sources, strict=True):
        reads = layout.reads[source]
        first = places[reads[reads >= 0]].min(initial=size)
        stop = min(start + step, size)
        spans.append(Span(reads, margin, layout.writes[start:stop], int(first), stop))
    return spans
