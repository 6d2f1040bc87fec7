"""Turning a chunk of pictures into shards of patches: the work of one process at a time."""

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
from data_prep.patches import convert, cut, is_smaller, is_too_small, pad, uncovered
from data_prep.raw import RawData

SHARD_BYTES = 128 * 2**20
"""About how large a shard may become."""

_OWN_NAME = re.compile(rf"\.?patches-(\d+)-\d+\b.*{re.escape(RECORD_SUFFIX)}")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Pictures that are converted together, into shards of their own.

    Args:
        number: of the chunk, unique in the output folder.
        raw: the pictures.
        out: existing folder for the shards.
        patch_size: height and width of a patch, in pixels.
        stride: distance of neighbouring patches, in pixels.
        offset: distance of the first patch from the top and left edge, in pixels.
    """

    number: int
    raw: RawData
    out: Path
    patch_size: int
    stride: int
    offset: int


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """What became of a chunk: entries for the manifest."""

    sources: tuple[Source, ...]
    shards: tuple[Shard, ...]
    failed: tuple[Failure, ...]


def write_chunk(chunk: Chunk, reads: Callable[[int], None] = lambda index: None) -> ChunkResult:
    """Cuts the pictures of a chunk into patches and writes these, shuffled, into shards.

    Only one picture is in memory at a time: its patches go to a temporary file without a name,
    which is gone whenever the process ends, and from there, in random order, to the shards. The
    order depends on the chunk's number and pictures alone.

    Args:
        chunk: the pictures.
        reads: is told the place of each picture before it is read, and their number at the end.

    Returns:
        The entries for the manifest; a file that cannot be read is among the failed ones.

    Raises:
        OSError: the shards cannot be written.
    """
    sources, failed, total = [], [], 0
    size, stride, offset = chunk.patch_size, chunk.stride, chunk.offset
    with tempfile.TemporaryFile(dir=chunk.out) as spool:
        for index, path in enumerate(chunk.raw.files):
            reads(index)
            name = chunk.raw.name(path)
            try:
                stat = path.stat()
                stored, value_range = chunk.raw.read(path)
                image = _prepared(stored, size, chunk.raw.dtype)
            except Exception as error:  # one bad file must not end the others
                failed.append(Failure(name, _reason(error, path)))
                continue
            count = 0
            for patch in cut(image, size, stride, offset):
                spool.write(patch.tobytes())
                count += 1
            height, width = image.shape[:2]
            source = Source(
                name,
                stat.st_size,
                stat.st_mtime_ns,
                count,
                is_smaller(stored, size),
                chunk.number,
                total,
                str(stored.dtype),
                value_range.black,
                value_range.white,
                height * width,
                uncovered(height, width, size, stride, offset),
            )
            sources.append(source)
            total += count
        reads(len(chunk.raw.files))
        spool.flush()
        shards = _write_shards(spool, total, chunk)
    return ChunkResult(tuple(sources), shards, tuple(failed))


def _prepared(stored: np.ndarray, size: int, dtype: str) -> np.ndarray:
    """A picture in the dtype of its data set, large enough for a patch."""
    height, width = stored.shape[:2]
    if is_too_small(max(height, width), size):
        raise ImageError(f"is {width} x {height} pixels: too small for patches of {size}.")
    return pad(convert(stored, dtype), size)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, ImageError):
        return str(error).removeprefix(f"{path}: ")
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    if isinstance(error, OSError) and text:
        return f"{text}."
    return f"cannot be read ({type(error).__name__}{': ' if text else ''}{text})."


def _write_shards(spool: BinaryIO, patches: int, chunk: Chunk) -> tuple[Shard, ...]:
    if not patches:
        return ()
    shape = (patches, chunk.patch_size, chunk.patch_size, 3)
    pool = np.memmap(spool, DTYPES[chunk.raw.dtype], mode="r", shape=shape)
    order = patch_order(chunk.number, patches)
    shards = []
    for part, indices in enumerate(np.array_split(order, -(-pool.nbytes // SHARD_BYTES))):
        path = chunk.out / f"patches-{chunk.number:05d}-{part:02d}{RECORD_SUFFIX}"
        with RecordWriter(path) as writer:
            for index in indices:
                writer.write(pool[index])
        entry = Shard(path.name, writer.records, writer.bytes, writer.sha256, chunk.number)
        shards.append(entry)
    return tuple(shards)


def shard_files(out: Path) -> dict[Path, int]:
    """The shards in a folder, finished or left behind half written, and their chunks' numbers."""
    matches = {path: _OWN_NAME.fullmatch(path.name) for path in out.iterdir()}
    return {path: int(match[1]) for path, match in matches.items() if match}
