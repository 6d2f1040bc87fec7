"""Patches of two noisy shots of the same scenes."""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cbsn.data.records import PatchRecords
from cbsn.errors import DataError


class PairedRecords:
    """Two prepared data sets as one, whose patches have twice as many channels.

    The second must hold a picture for each of the first's, of the same name (but for its suffix)
    and size, prepared with the same patch size and stride. It may hold more.

    Args:
        first: the first shots.
        second: the second ones, of any order.
        partners: of each patch of the first, the second's index; None to find them by the names
            of the pictures.

    Attributes:
        paths, patch_size, dtype, counts: as `PatchRecords` has them, of the first shots.

    Raises:
        DataError: if they do not fit together.
    """

    def __init__(
        self, first: PatchRecords, second: PatchRecords, partners: Sequence[int] | None = None
    ):
        for name in ("patch_size", "dtype"):
            if getattr(first, name) != getattr(second, name):
                raise DataError(
                    f"Two shots need patches of one kind; prepare both data sets alike. Received: "
                    f"{name} {getattr(first, name)} and {getattr(second, name)}"
                )
        self._first = first
        self._second = second
        self.paths = first.paths
        self.patch_size = first.patch_size
        self.dtype = first.dtype
        self.counts = first.counts
        self._partners = _find_partners(first, second) if partners is None else partners

    def __len__(self) -> int:
        return len(self._first)

    def describe(self, index: int) -> str:
        """Says where a pair of patches lies, and of which pictures it is."""
        partner = self._second.describe(self._partners[index])
        return f"{self._first.describe(index)} and {partner}"

    def __getitem__(self, index: int) -> np.ndarray:
        """The pair number `index`: [P, P, 6] of `dtype`, the first shot's channels first.

        Raises:
            DataError: a record is damaged; the message names file and record.
        """
        shots = (self._first[index], self._second[self._partners[index]])
        return np.concatenate(shots, axis=-1)


def _find_partners(first: PatchRecords, second: PatchRecords) -> list[int]:
    keys, others = (
        [(Path(picture).with_suffix(""), number) for picture, number in records.patches()]
        for records in (first, second)
    )
    places = {key: index for index, key in enumerate(others)}
    here, there = (collections.Counter(picture for picture, _ in each) for each in (keys, others))
    bad = [picture for picture in here if here[picture] != there[picture]]
    if bad:
        raise DataError(
            f"Each picture needs a second shot of its name and size. {len(bad)} of {len(here)} "
            f"have none, such as {bad[0]}: the first gives {here[bad[0]]} patches, the second "
            f"{there[bad[0]]}."
        )
    return [places[key] for key in keys]
