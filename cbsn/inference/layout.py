"""How the rows of a picture, or its columns, are laid out for the network."""

import dataclasses

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
