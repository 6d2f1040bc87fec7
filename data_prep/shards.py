"""Cuts pictures into patches and writes them to shards, within one process."""

import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cbsn.data.manifest import DTYPES, Failure, Shard, Source, patch_order
from cbsn.data.records import RECORD_SUFFIX, RecordWriter
from cbsn.errors import ImageError
from cbsn.value_range import to_unit
from data_prep.sources import RawData

SHARD_BYTES = 128 * 2**20  # approximate limit on the size of a shard
PADDED_SIZE = 256  # pictures of any size are padded to patches of up to this size
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


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """The result of converting a chunk: entries for the manifest."""

    sources: tuple[Source, ...] = ()
    shards: tuple[Shard, ...] = ()
    failed: tuple[Failure, ...] = ()


def write_chunk(chunk: Chunk, reads: Callable[[int], None] = lambda index: None) -> ChunkResult:
    """Cuts the pictures of a chunk into patches and writes them, shuffled, into shards.

    Only one picture is in memory at a time. Its patches go to an unnamed temporary file, which
    disappears when the process ends, and from there to the shards, in random order. `reads` is
    called with the index of each picture before it is read, and with their number at the end.
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
                image = convert(padded(stored, size), chunk.raw.dtype)
            except Exception as error:  # one bad file must not stop the others
                failed.append(Failure(name, _reason(error, path)))
                continue
            first = total
            for patch in cut(image, size, stride, offset):
                spool.write(patch.tobytes())
                total += 1
            height, width = image.shape[:2]
            source = Source(
                path=name,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                patches=total - first,
                padded=image.shape != stored.shape,
                chunk=chunk.number,
                first=first,
                dtype=str(stored.dtype),
                black=value_range.black,
                white=value_range.white,
                pixels=height * width,
                uncovered=uncovered(height, width, size, stride, offset),
            )
            sources.append(source)
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
    shape = (patches, chunk.patch_size, chunk.patch_size, 3)
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


def convert(image: np.ndarray, dtype: str) -> np.ndarray:
    """Converts a picture to its data set's dtype. Raises ImageError if that would lose values."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ImageError("holds values that are not finite (NaN or infinity).")
    if image.dtype == dtype:
        return image
    if dtype == "float32" and image.dtype.kind == "u":
        return to_unit(image)
    if dtype == "uint16" and image.dtype == np.uint8:
        return image.astype(np.uint16) * 257
    raise ImageError(f"is a {image.dtype} picture in a data set of {dtype}.")


def is_too_small(longest_side: int, size: int) -> bool:
    """Returns whether a picture is too small to be padded to a patch.

    Any picture is padded to patches of up to 256 pixels. For larger patches, its longer side
    must be at least half as long: more reflections make a pattern of mirrors, not a picture.
    """
    return size > max(PADDED_SIZE, 2 * longest_side)


def padded(image: np.ndarray, size: int) -> np.ndarray:
    """Reflects a picture [H, W, C] at the bottom and right, as often as needed to fill a patch."""
    height, width = image.shape[:2]
    if is_too_small(max(height, width), size):
        raise ImageError(f"is {width} x {height} pixels: too small for patches of {size}.")
    missing = [(0, max(0, size - height)), (0, max(0, size - width)), (0, 0)]
    return np.pad(image, missing, mode="reflect") if np.any(missing) else image


def cut(image: np.ndarray, size: int, stride: int, offset: int) -> Iterator[np.ndarray]:
    """Yields the patches with corners at offset + k·stride that lie within a picture, row by row.

    Along an axis too short for even the first patch, it yields the one at the far edge.
    """
    for top in _corners(image.shape[0], size, stride, offset):
        for left in _corners(image.shape[1], size, stride, offset):
            yield image[top : top + size, left : left + size]


def uncovered(height: int, width: int, size: int, stride: int, offset: int) -> int:
    """Returns how many pixels lie in no patch of `cut`: margins, and gaps between patches."""
    covered = [
        size + (len(_corners(length, size, stride, offset)) - 1) * min(size, stride)
        for length in (height, width)
    ]
    return height * width - covered[0] * covered[1]


def _corners(length: int, size: int, stride: int, offset: int) -> range:
    last = length - size
    return range(min(offset, last), last + 1, stride)
