"""Cuts pictures into patches and writes them to shards, within one process."""

import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cbsn.data.manifest import DTYPES, Failure, Shard, Source, patch_order
from cbsn.data.records import RECORD_SUFFIX, RecordWriter
from cbsn.errors import ImageError
from data_prep.cutting import Grid
from data_prep.sources import RawData

SHARD_BYTES = 128 * 2**20  # approximate limit on the size of a shard
_OWN_NAME = re.compile(rf"\.?patches-(\d+)-\d+\b.*{re.escape(RECORD_SUFFIX)}")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Pictures that are converted together, into separate shards in an existing folder."""

    number: int  # unique in the folder
    raw: RawData
    out: Path
    patch_size: int
    stride: int
    offset: int

    @property
    def grid(self) -> Grid:
        """Where the patches lie."""
        return Grid(self.patch_size, self.stride, self.offset)


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """The result of converting a chunk: entries for the manifest."""

    sources: tuple[Source, ...] = ()
    shards: tuple[Shard, ...] = ()
    failed: tuple[Failure, ...] = ()


def write_chunk(chunk: Chunk, reads: Callable[[int], None] = lambda index: None) -> ChunkResult:
    """Cuts the pictures of a chunk into patches and writes them, shuffled, into shards.

    Only one picture, or the planes of one patch of a stack, is in memory at a time. Its patches go
    to an unnamed temporary file, which disappears when the process ends, and from there to the
    shards, in random order. `reads` is called with the index of each file before it is read, and
    with their number at the end.
    """
    sources: list[Source] = []
    failed: list[Failure] = []
    total = 0
    with tempfile.TemporaryFile(dir=chunk.out) as spool:
        for index, path in enumerate(chunk.raw.files):
            reads(index)
            start = spool.tell()
            patches = chunk.raw.patches(path, chunk.grid, chunk.number, total)
            while True:
                try:
                    patch = next(patches)
                except StopIteration as end:
                    sources += end.value
                    total += sum(source.patches for source in end.value)
                    break
                except Exception as error:  # one bad file must not stop the others
                    failed.append(Failure(chunk.raw.name(path), _reason(error, path)))
                    # A stack may be found to be damaged when some of its planes are written.
                    spool.seek(start)
                    spool.truncate()
                    break
                spool.write(patch.tobytes())
        reads(len(chunk.raw.files))
        spool.flush()
        shards = _write_shards(spool, total, chunk) if total else ()
    return ChunkResult(tuple(sources), shards, tuple(failed))


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, ImageError):
        return str(error).removeprefix(f"{path}: ")
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    if isinstance(error, OSError) and text:
        return f"{text}."
    return f"cannot be read ({type(error).__name__}{': ' if text else ''}{text})."


def _write_shards(spool: BinaryIO, patches: int, chunk: Chunk) -> tuple[Shard, ...]:
    depth = (chunk.raw.patch_depth,) if chunk.raw.patch_depth > 1 else ()
    shape = (patches, *depth, chunk.patch_size, chunk.patch_size, chunk.raw.channels)
    pool = np.memmap(spool, DTYPES[chunk.raw.dtype], mode="r", shape=shape)
    order = patch_order(chunk.number, patches)
    shards = []
    for part, indices in enumerate(np.array_split(order, -(-pool.nbytes // SHARD_BYTES))):
        path = chunk.out / f"patches-{chunk.number:05d}-{part:02d}{RECORD_SUFFIX}"
        with RecordWriter(path) as writer:
            for index in indices:
                writer.write(pool[index])
        shards.append(Shard(path.name, writer.records, writer.bytes, writer.sha256, chunk.number))
    return tuple(shards)


def shard_files(out: Path) -> dict[Path, int]:
    """Returns the shards in a folder, complete or half-written, with their chunks' numbers."""
    matches = {path: _OWN_NAME.fullmatch(path.name) for path in out.iterdir()}
    return {path: int(match[1]) for path, match in matches.items() if match}
