"""Cutting a picture into tiles whose results fit together exactly."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tile:
    """A piece of a picture, with as much around it as the network looks at.

    Args:
        rows: rows of the piece of the picture that this tile's result fills.
        columns: columns of that piece.
        source_rows: int [h], rows of the picture that the network is given: those of the piece,
            the halo on both sides, and at the end what fills the tile up to its size. Beyond
            the edge the picture is reflected.
        source_columns: int [w], likewise.
        halo: int, pixels of the source before the piece begins.
    """

    rows: slice
    columns: slice
    source_rows: np.ndarray
    source_columns: np.ndarray
    halo: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Returns a copy of the tile's source of an image [H, W, C], in the image's dtype."""
        return image[self.source_rows[:, None], self.source_columns]

    def crop(self, result: np.ndarray) -> np.ndarray:
        """Returns the part of what the network made of the source that belongs to the piece."""
        height = self.rows.stop - self.rows.start
        width = self.columns.stop - self.columns.start
        return result[self.halo : self.halo + height, self.halo : self.halo + width]


def make_tiles(
    height: int, width: int, *, side: int | None, halo: int, multiple: int
) -> Iterator[Tile]:
    """Divides a picture evenly into tiles; their sources are all of one size.

    Args:
        height: int, rows of the picture, at least 1.
        width: int, columns of the picture, at least 1.
        side: int, rows and columns that a tile's result should have at most; the source's
            rounding up to `multiple` may add a few. None: one tile, the whole picture.
        halo: int, the network's receptive-field radius: with it (or more) the results are those
            of the whole picture at once.
        multiple: int, what the source's height and width are multiples of.

    Yields:
        Tiles that cover every pixel once, row by row.
    """
    columns = _divide(width, side, halo, multiple)
    for piece_rows, source_rows in _divide(height, side, halo, multiple):
        for piece_columns, source_columns in columns:
            yield Tile(piece_rows, piece_columns, source_rows, source_columns, halo)


def _divide(
    size: int, side: int | None, halo: int, multiple: int
) -> list[tuple[slice, np.ndarray]]:
    """The pieces of one axis, each with the indices of its source."""
    count = math.ceil(size / (side or size))
    source = math.ceil((math.ceil(size / count) + 2 * halo) / multiple) * multiple
    step = source - 2 * halo
    starts = range(0, size, step)
    beyond = starts[-1] + step - size
    # Reflecting the indices, not the picture, needs no padded copy of a large one.
    indices = np.pad(np.arange(size), (halo, beyond + halo), mode="reflect")
    return [
        (slice(start, min(start + step, size)), indices[start : start + source]) for start in starts
    ]
