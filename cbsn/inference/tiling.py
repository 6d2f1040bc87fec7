"""Cutting a picture into tiles whose results fit together exactly."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from cbsn.inference.layout import Layout


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

    def kept(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns which of the result's rows fill a picture of `size` rows, and which of these."""
        pieces = np.flatnonzero((self.writes >= 0) & (self.writes < size))
        return self.margin + pieces, self.writes[pieces]


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
        self, image: np.ndarray, convert: Callable[[np.ndarray], np.ndarray] = np.asarray
    ) -> np.ndarray:
        """Returns a copy of the tile's source of an image [H, W, C].

        Args:
            image: the picture.
            convert: what to make of its values. Rows and columns that it does not have come out
                as 0 all the same.
        """
        rows, columns = self.rows.reads, self.columns.reads
        in_rows, in_columns = (
            (each >= 0) & (each < size)
            for each, size in zip((rows, columns), image.shape[:2], strict=True)
        )
        piece = convert(image[np.ix_(rows[in_rows], columns[in_columns])])
        if piece.shape[:2] == self.source_shape:
            return piece
        source = np.zeros((*self.source_shape, image.shape[2]), piece.dtype)
        source[np.ix_(in_rows, in_columns)] = piece
        return source

    def crop(
        self, result: np.ndarray, height: int, width: int
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Returns the part of the network's result that fills pixels, and the index of these.

        Args:
            result: [h, w, C].
            height: int, rows of the picture; the result may have more.
            width: int, its columns.
        """
        from_rows, rows = self.rows.kept(height)
        from_columns, columns = self.columns.kept(width)
        return result[np.ix_(from_rows, from_columns)], np.ix_(rows, columns)


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
