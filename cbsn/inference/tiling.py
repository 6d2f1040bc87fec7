"""Cutting a picture into tiles whose results fit together exactly."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tile:
    """A piece of a picture, and what the network has to see to make it.

    Args:
        rows: rows of the piece of the picture that this tile's result fills.
        columns: columns of that piece.
        source_rows: int [h], rows of the picture that the network is given: those of the piece,
            the halo on both sides, and at the end what fills the tile up to its size. Beyond
            the edge the picture is reflected.
        source_columns: int [w], likewise.
    """

    rows: slice
    columns: slice
    source_rows: np.ndarray
    source_columns: np.ndarray

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Returns a copy of the tile's source of an image [H, W, C], in the image's dtype."""
        return image[self.source_rows[:, None], self.source_columns]

    def crop(self, result: np.ndarray) -> np.ndarray:
        """Returns the part of the network's result (without the halo) that fills the piece."""
        height = self.rows.stop - self.rows.start
        width = self.columns.stop - self.columns.start
        return result[:height, :width]


def make_bands(
    height: int, width: int, *, side: int | None, halo: int, multiple: int
) -> list[list[Tile]]:
    """Divides a picture evenly into tiles; their sources are all of one size.

    Args:
        height: int, rows of the picture, at least 1.
        width: int, columns of the picture, at least 1.
        side: int, rows and columns that a tile's result should have at most, but for rounding
            up to `multiple`. None: one tile, the whole picture.
        halo: int, the network's receptive-field radius: what a source has more than the result
            on each side.
        multiple: int, what the results' height and width are multiples of.

    Returns:
        Bands from top to bottom, each a list of tiles from left to right; they cover every
        pixel once.
    """
    columns = _divide(width, side, halo, multiple)
    return [
        [Tile(rows, piece, source_rows, source) for piece, source in columns]
        for rows, source_rows in _divide(height, side, halo, multiple)
    ]


def _divide(
    size: int, side: int | None, halo: int, multiple: int
) -> list[tuple[slice, np.ndarray]]:
    """The pieces of one axis, each with the indices of its source."""
    count = math.ceil(size / (side or size))
    step = math.ceil(math.ceil(size / count) / multiple) * multiple
    starts = range(0, size, step)
    beyond = starts[-1] + step - size
    # Reflecting the indices, not the picture, needs no padded copy of a large one.
    indices = np.pad(np.arange(size), (halo, beyond + halo), mode="reflect")
    return [
        (slice(start, min(start + step, size)), indices[start : start + step + 2 * halo])
        for start in starts
    ]
