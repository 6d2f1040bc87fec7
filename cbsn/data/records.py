"""Patch records: the TFRecord files that training reads.

A file holds patches of equal size, of pictures or of volumes. Each is a TFRecord frame (length, its
checksum, data, its checksum) around a `tf.train.Example` with a single bytes feature, `Noisy`: the
patch's values in C order, little-endian. TensorFlow reads and writes the same files, but is not
imported here, because its start-up takes longer than preparing a small data set. So the few
protobuf bytes around the pixels, which are the same for every patch of a file, are written by hand.
"""

import bisect
import contextlib
import functools
import hashlib
import itertools
import math
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import google_crc32c
import numpy as np

from cbsn.data.manifest import DTYPES, MANIFEST_NAME, Manifest, Source
from cbsn.errors import DataError
from cbsn.files import FolderLock, atomic_path, share_folder

RECORD_SUFFIX = ".tfrecords"
_BARE_PATCH_SIZE = 256  # patch size of files without a manifest: the authors' SIDD256 and DND256


class Patches(Protocol):
    """Patches of pictures, all of the same size, as input for `PatchPipeline`."""

    shots: int  # 2 for pairs of noisy shots, concatenated along the channels, else 1
    channels: int  # of a shot: 3, or 1 for gray stacks
    patch_size: int  # height and width
    patch_depth: int  # planes along Z; 1 for patches that are no volumes
    dtype: np.dtype
    counts: Sequence[int]  # number of patches in each file

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns patch `index`: [patch_size, patch_size, channels·shots] of `dtype`.

        With a `patch_depth` above 1 it is [patch_depth, patch_size, patch_size, channels·shots].
        """

    def describe(self, index: int) -> str:
        """Says where a patch lies and which picture it is from."""


def spread_patches(patches: Patches, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields index and patch for up to `most` patches, spread evenly over all."""
    for index in range(0, len(patches), -(-len(patches) // most)):
        with contextlib.suppress(DataError):  # a damaged record, which training will report
            yield index, patches[index]


def size_text(patch_size: int, patch_depth: int) -> str:
    """Returns the size of a patch in words: `64 px`, or of a volume `16 × 64 × 64 voxels`."""
    if patch_depth == 1:
        return f"{patch_size} px"
    return f"{patch_depth} × {patch_size} × {patch_size} voxels"


def plane_text(source: Source, patch: int) -> str:
    """Returns which plane of a stack a patch is from, such as `T 5, C 1`; empty for a picture.

    For a volume, Z is its first plane.
    """
    plane = _plane(source, patch)
    if source.corners:
        plane["Z"] = source.corners[0][plane["Z"]]
    return ", ".join(f"{axis} {place}" for axis, place in plane.items())


def channel_of(source: Source, patch: int) -> int:
    """Returns which channel of a stack, of those selected, a patch is from."""
    return _plane(source, patch).get("C", 0)


def _plane(source: Source, patch: int) -> dict[str, int]:
    if not source.axes:
        return {}
    plane = np.unravel_index(patch // source.patches_at_once, source.steps)
    return dict(zip(source.axes, map(int, plane), strict=True))


class PatchRecords:
    """Random access to the patches of record files, as `Patches`, from any number of threads.

    `records[i]` takes tens of microseconds. Every access opens its file anew, reads one patch and
    verifies its checksum. So a data set may have more shards than a process may open files, and a
    file that shrinks meanwhile raises an error, where a memory map would crash the process.

    The manifest, if there is one, tells which picture each patch is from. Raises DataError if a
    file is missing or does not consist of whole patches of this kind.
    """

    shots = 1

    def __init__(
        self, paths: list[Path], patch_size: int, dtype: np.dtype, manifest: Manifest | None = None
    ):
        self.paths = tuple(paths)
        self.manifest = manifest
        self.channels = manifest.channels if manifest else 3
        self.patch_size = patch_size
        self.patch_depth = manifest.patch_depth if manifest else 1
        self.dtype = np.dtype(dtype)
        self._shape = manifest.patch_shape if manifest else (patch_size, patch_size, 3)
        self._frame = _frame(math.prod(self._shape) * self.dtype.itemsize)
        self.counts: Sequence[int] = [*map(self._count, self.paths)]
        self._ends = [*itertools.accumulate(self.counts)]
        self._in_use: FolderLock | None = None

    @classmethod
    def open(cls, path: str | os.PathLike) -> "PatchRecords":
        """Opens a data set. While it is open, a preparation that replaces its files keeps them.

        `path` is a folder written by `cbsn prepare`, or a record file of 256×256 patches
        without a manifest (the authors' `SIDD256.tfrecords`), or a folder of such files. Raises
        DataError if there is no such data set, or it is incomplete, damaged or empty.
        """
        path = Path(path)
        try:
            # Before the manifest is read, so that the files it lists stay.
            in_use = share_folder(path if path.is_dir() else path.parent)
            has_manifest = (path / MANIFEST_NAME).is_file()
            records = cls._prepared(path) if has_manifest else cls._bare(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
        records._in_use = in_use
        if not len(records):
            raise DataError(f"{path} holds no patches. Prepare it again with cbsn prepare.")
        return records

    @classmethod
    def _prepared(cls, path: Path) -> "PatchRecords":
        manifest = Manifest.read(path)
        shards = [path / shard.name for shard in manifest.shards]
        records = cls(shards, manifest.patch_size, DTYPES[manifest.dtype], manifest)
        expected = sum(shard.records for shard in manifest.shards)
        if len(records) != expected:
            raise DataError(
                f"{path} holds {len(records)} patches, but its {MANIFEST_NAME} lists {expected}. "
                "Run cbsn prepare again."
            )
        return records

    @classmethod
    def _bare(cls, path: Path) -> "PatchRecords":
        files = [path] if path.is_file() else sorted(path.glob(f"[!.]*{RECORD_SUFFIX}"))
        if not files:
            raise DataError(
                f"{path} is neither a {RECORD_SUFFIX} file nor a folder with "
                f"{MANIFEST_NAME} or {RECORD_SUFFIX} files. Prepare one with cbsn prepare."
            )
        with files[0].open("rb") as file:
            start = file.read(64)
        for dtype in DTYPES.values():  # recognised by the length of the first record
            if start.startswith(_frame(_BARE_PATCH_SIZE**2 * 3 * dtype.itemsize).head):
                return cls(files, _BARE_PATCH_SIZE, dtype)
        raise DataError(
            f"Record 0 of {files[0]} does not hold a {_BARE_PATCH_SIZE}x{_BARE_PATCH_SIZE}x3 patch "
            f"of {' or '.join(DTYPES)} in the feature `Noisy`. Other files need a "
            f"{MANIFEST_NAME}: prepare the pictures with cbsn prepare."
        )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def describe(self, index: int) -> str:
        """Says where a patch lies and, if known, which picture it is from."""
        path, number = self._locate(index)
        text = f"record {number} of {path}"
        if self.manifest:
            with contextlib.suppress(DataError, IndexError):
                source, patch = self.manifest.patches_of(path.name)[number]
                plane = plane_text(source, patch)
                return f"{text} ({self.picture_path(source)}{plane and ', '}{plane})"
        return text

    def patches(self) -> list[tuple[Source, int]]:
        """Returns each patch's picture and its number there. Raises DataError if not recorded."""
        if not self.manifest:
            raise DataError(
                f"{self.paths[0].parent} has no {MANIFEST_NAME} that says where its patches come "
                "from. Prepare the pictures with cbsn prepare."
            )
        return [patch for path in self.paths for patch in self.manifest.patches_of(path.name)]

    def picture_path(self, source: Source) -> Path:
        """Returns the path that a picture had when the data set was prepared."""
        return Path(self.manifest.root if self.manifest else "", source.path)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns patch `index` of `dtype`, read-only. Raises DataError if damaged.

        It is [P, P, C], or of a volume [D, P, P, C].
        """
        path, number = self._locate(index)
        frame = self._frame
        shift = -len(frame.head) % 16  # aligns the first value as in other arrays
        buffer = np.empty(shift + frame.size, np.uint8)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(number * frame.size)
                count = file.readinto(buffer[shift:].data)
        except OSError as error:
            raise DataError(f"Record {number} of {path} cannot be read: {error}.") from error
        buffer.flags.writeable = False  # google_crc32c accepts no writeable arrays
        first = shift + len(frame.head)
        payload = buffer[first : first + frame.payload]
        if (
            count < frame.size
            or buffer[shift:first].tobytes() != frame.head
            or buffer[-4:].tobytes() != frame.checksum(payload)
        ):
            raise DataError(
                f"Record {number} of {path} is damaged: its checksum or length is wrong. "
                "Prepare the data set again (cbsn prepare --force) or copy the file again."
            )
        return payload.view(self.dtype).reshape(self._shape)

    def _locate(self, index: int) -> tuple[Path, int]:
        """Returns the file that a patch lies in, and its number there."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"the number of patches is {len(self)}. Received: index={index}")
        file = bisect.bisect_right(self._ends, index)
        return self.paths[file], index - (self._ends[file] - self.counts[file])

    def _count(self, path: Path) -> int:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}). Run cbsn prepare again."
            ) from error
        records, rest = divmod(size, self._frame.size)
        if rest:
            shape = "x".join(map(str, self._shape))
            raise DataError(
                f"Record {records} of {path} is cut off, or the file does not hold "
                f"{shape} {self.dtype} patches: {size} bytes are not "
                f"a multiple of {self._frame.size}. Prepare or copy it again."
            )
        return records


class RecordWriter:
    """Writes patches of equal size to a record file in an existing folder.

    The complete file appears when the `with` block ends without an error. Afterwards, `records`,
    `bytes` and `sha256` describe what was written.

    Example:
        with RecordWriter("patches.tfrecords") as writer:
            writer.write(np.zeros((256, 256, 3), np.uint8))
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.records = self.bytes = 0
        self._digest = hashlib.sha256()
        self._cleanup = contextlib.ExitStack()
        self._layout: tuple | None = None

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the bytes written so far."""
        return self._digest.hexdigest()

    def __enter__(self) -> "RecordWriter":
        temporary = self._cleanup.enter_context(atomic_path(self.path))
        self._file = self._cleanup.enter_context(temporary.open("wb"))
        return self

    def __exit__(self, *error: Any) -> None:
        self._cleanup.__exit__(*error)

    def write(self, patch: np.ndarray) -> None:
        """Appends a patch, uint8, uint16 or float32; DataError if not as before.

        It is [P, P, 3 or 1], or of a volume [D, P, P, 3 or 1].
        """
        channels = 1 if patch.shape[-1:] == (1,) else 3
        depth = patch.shape[:1] if patch.ndim == 4 else ()
        side = patch.shape[len(depth) : len(depth) + 1]
        layout = self._layout or ((*depth, *side, *side, channels), patch.dtype)
        if (patch.shape, patch.dtype) != layout or patch.dtype not in DTYPES.values():
            raise DataError(
                f"All patches of {self.path.name} must be {layout[1]} of shape {layout[0]}, and of "
                f"a dtype in {[*DTYPES]}. Received: shape {patch.shape}, dtype {patch.dtype}."
            )
        self._layout = layout
        payload = patch.tobytes()
        frame = _frame(len(payload))
        for part in (frame.head, payload, frame.checksum(payload)):
            self._file.write(part)
            self._digest.update(part)
        self.records += 1
        self.bytes += frame.size


class _Frame(NamedTuple):
    """The bytes around every patch of a file, which depend only on the patch's size."""

    head: bytes  # start of the frame and of the Example, up to the first pixel
    head_crc: int  # of the Example's part of `head`; the data's checksum continues from it
    payload: int  # size of a patch in bytes
    size: int  # size of the whole frame in bytes

    def checksum(self, payload: bytes | np.ndarray) -> bytes:
        return _masked(google_crc32c.extend(self.head_crc, payload))


@functools.cache
def _frame(payload: int) -> _Frame:
    example = b""
    # BytesList.value, Feature.bytes_list, key and value, Features.feature, Example.features
    for tag in (b"\x0a", b"\x0a", b"\x0a\x05Noisy\x12", b"\x0a", b"\x0a"):
        example = tag + _varint(len(example) + payload) + example
    length = (len(example) + payload).to_bytes(8, "little")
    head = length + _masked(google_crc32c.value(length)) + example
    return _Frame(head, google_crc32c.value(example), payload, len(head) + payload + 4)


def _varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _masked(crc: int) -> bytes:
    """Rotates and offsets a checksum, as TFRecord does in case the data contains checksums."""
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return ((rotated + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")
