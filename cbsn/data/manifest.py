"""The manifest of a prepared data set: what it was made of and what it consists of."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from cbsn.errors import DataError
from cbsn.files import write_json

MANIFEST_NAME = "manifest.json"
DTYPES = {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2"), "float32": np.dtype("<f4")}
"""What a patch may hold: integers over their full range, floats in [0, 1]."""

_FORMAT = {"format": "cbsn-patches", "version": 1}

_SHUFFLE_SEED = 0


def patch_order(chunk: int, patches: int) -> np.ndarray:
    """Returns in which order the patches of a chunk's pictures, one after the other, are stored.

    Args:
        chunk: int, the chunk's number.
        patches: int, how many patches its pictures give.

    Returns:
        [patches] integers: a permutation, the same whenever a data set is made.
    """
    return np.random.default_rng((_SHUFFLE_SEED, chunk)).permutation(patches)


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture file whose patches are in the data set.

    Args:
        path: relative to the data set's root where it lies below it, with forward slashes.
        size: bytes.
        mtime_ns: time of its last change, in nanoseconds since 1970.
        patches: how many were cut from it.
        padded: whether it was smaller than a patch and was reflect-padded.
        chunk: number of the group of files that share shards.
        first: number of its first patch among those of its chunk, before they are shuffled; -1
            in data sets of versions that did not tell.
    """

    path: str
    size: int
    mtime_ns: int
    patches: int
    padded: bool
    chunk: int
    first: int = -1


@dataclasses.dataclass(frozen=True)
class Shard:
    """A record file: its name in the data set's folder, contents, and whose patches it holds."""

    name: str
    records: int
    bytes: int
    sha256: str
    chunk: int


@dataclasses.dataclass(frozen=True)
class Failure:
    """A source file that could not be converted, and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a prepared data set was made of, and what it consists of; stored as JSON.

    Args:
        kind: `SIDD`, `DND` or `folder`.
        root: folder that the source paths are relative to.
        patch_size: height and width of a patch, in pixels.
        stride: distance of neighbouring patches, in pixels.
        offset: distance of the first patch from the top and left edge, in pixels.
        dtype: a key of `DTYPES`.
        sources: the converted files.
        shards: the record files.
        failed: the files that could not be converted.
    """

    kind: str
    root: str
    patch_size: int
    stride: int
    offset: int
    dtype: str
    sources: tuple[Source, ...] = ()
    shards: tuple[Shard, ...] = ()
    failed: tuple[Failure, ...] = ()

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "Manifest":
        """Reads the manifest of a prepared folder.

        Raises:
            DataError: it is missing, damaged or of another version.
        """
        path = Path(folder) / MANIFEST_NAME
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            found = {key: fields.pop(key) for key in _FORMAT}
            if found != _FORMAT:
                raise ValueError(f"its format is {found}, expected {_FORMAT}")
            if fields["dtype"] not in DTYPES:
                raise ValueError(f"its dtype is {fields['dtype']}, expected one of {[*DTYPES]}")
            for key, entry in (("sources", Source), ("shards", Shard), ("failed", Failure)):
                fields[key] = tuple(entry(**values) for values in fields[key])
            return cls(**fields)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} cannot be used as the manifest of a prepared data set ({error}). "
                "Make the data set again: prepare_dataset.py --force."
            ) from error

    def picture_of(self, shard: str, record: int) -> str:
        """Returns the path of the picture that a patch was cut from.

        Args:
            shard: name of a shard.
            record: number of the patch in it.

        Raises:
            DataError: if the manifest does not tell.
        """
        with contextlib.suppress(DataError):
            patches = self.patches_of(shard)
            if 0 <= record < len(patches):
                return str(Path(self.root, patches[record][0]))
        raise DataError(f"The manifest does not tell the picture of patch {record} of {shard}.")

    def patches_of(self, shard: str) -> list[tuple[str, int]]:
        """Says of every patch of a shard whose it is.

        Args:
            shard: its name.

        Returns:
            For each patch the path of its picture below the root, and its number in that picture.

        Raises:
            DataError: if the manifest does not tell.
        """
        chunk = next((entry.chunk for entry in self.shards if entry.name == shard), None)
        shards = sorted(
            (entry for entry in self.shards if entry.chunk == chunk), key=lambda each: each.name
        )
        # In the order in which they were cut.
        cut = [
            (source.path, number)
            for source in sorted(self.sources, key=lambda each: each.first)
            if source.chunk == chunk
            for number in range(source.patches)
            if source.first >= 0
        ]
        total = sum(entry.records for entry in shards)
        if not shards or len(cut) != total:
            raise DataError(
                f"The manifest does not tell whose patches {shard} holds. Make the data set again: "
                "prepare_dataset.py --force."
            )
        order = patch_order(chunk, total)
        start = sum(entry.records for entry in shards if entry.name < shard)
        count = next(entry.records for entry in shards if entry.name == shard)
        return [cut[patch] for patch in order[start : start + count]]

    def write(self, folder: str | os.PathLike) -> None:
        """Writes the manifest into `folder`, atomically."""
        write_json(Path(folder) / MANIFEST_NAME, {**_FORMAT, **dataclasses.asdict(self)})
