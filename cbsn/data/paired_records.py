"""Patches of two noisy shots of the same scenes."""

import collections
import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cbsn.data.records import PatchRecords
from cbsn.errors import DataError
from cbsn.value_range import ValueRange

_LOOKED_AT = 64  # pairs, spread over all, that tell whether the second shots are other ones


class PairedRecords:
    """Two prepared data sets as one: `Patches` with twice as many channels.

    The second must hold a picture for each of the first's, of the same name (but for its suffix)
    and size, prepared alike; it may hold more. Else, or if they are the same, it is a DataError.
    Where two shots were read in different ranges of values, both get the one that holds the two.
    `partners` are the second's indices by the first's, where it is made of that, and unchecked.
    """

    shots = 2

    def __init__(
        self, first: PatchRecords, second: PatchRecords, partners: Sequence[int] | None = None
    ):
        for name in ("patch_size", "dtype"):
            if getattr(first, name) != getattr(second, name):
                raise DataError(
                    f"Two shots need patches of one kind; prepare both data sets alike. Received: "
                    f"{name} {getattr(first, name)} and {getattr(second, name)}"
                )
        self._first, self._second = first, second
        self.patch_size, self.dtype, self.counts = first.patch_size, first.dtype, first.counts
        self._partners = _find_partners(first, second) if partners is None else partners
        self._ranges: dict[int, tuple[ValueRange, ValueRange]] = {}
        if partners is None:
            self._ranges = _find_ranges(first, second, self._partners)
            self._check_other()

    def __len__(self) -> int:
        return len(self._first)

    def describe(self, index: int) -> str:
        """Says where a pair of patches lies, and of which pictures it is."""
        partner = self._second.describe(self._partners[index])
        return f"{self._first.describe(index)} and {partner}"

    def __getitem__(self, index: int) -> np.ndarray:
        """The pair number `index`: [P, P, 6] of `dtype`; DataError if a record is damaged."""
        shots = [self._first[index], self._second[self._partners[index]]]
        if ranges := self._ranges.get(index):
            common = ValueRange.common(*ranges)
            shots = [shot.copy() for shot in shots]
            for shot, own in zip(shots, ranges, strict=True):
                own.unstretch(shot)
                common.stretch(shot)
        return np.concatenate(shots, axis=-1)

    def _check_other(self) -> None:
        """Refuses second shots with the noise of the first: it would be learned as part of them."""
        for index in range(0, len(self), -(-len(self) // _LOOKED_AT)):
            with contextlib.suppress(DataError):  # a damaged record; training will say so
                pair = self[index]
                if (pair[..., :3] != pair[..., 3:]).any():
                    return
        raise _same(self.describe(0))


def _find_partners(first: PatchRecords, second: PatchRecords) -> list[int]:
    keys, others = (
        [(Path(source.path).with_suffix(""), number) for source, number in records.patches()]
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


def _find_ranges(
    first: PatchRecords, second: PatchRecords, partners: Sequence[int]
) -> dict[int, tuple[ValueRange, ValueRange]]:
    """The ranges of both shots, of the patches where they differ."""
    theirs = second.patches()
    found, seen = {}, set()
    for index, (source, _) in enumerate(first.patches()):
        other, _ = theirs[partners[index]]
        if source.path not in seen:
            seen.add(source.path)
            with contextlib.suppress(OSError):  # the pictures need not be there any more
                if first.picture_path(source).samefile(second.picture_path(other)):
                    raise _same(source.path)
        if 0 < source.pixels != other.pixels > 0:
            raise DataError(
                f"The two shots of {source.path} are not of one size: they have {source.pixels} "
                f"and {other.pixels} pixels. Crop them alike."
            )
        a, b = source.value_range, other.value_range
        if a and b and a != b and source.dtype == other.dtype:
            found[index] = a, b
    return found


def _same(what: str) -> DataError:
    return DataError(
        f"The second shots are the first ones, such as {what}. They must be other shots, of the "
        "same scenes with other noise: give their folder with --second_shots."
    )
