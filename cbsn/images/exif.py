"""EXIF trees: the tags of a picture in directories (IFDs), as EXIF blocks and TIFF files hold them.

Values are copied as bytes, so that nothing is lost that a decoder of them does not know, such as
texts that are not ASCII.
"""

import contextlib
import io
import struct
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import tifffile

EXIF, GPS, INTEROP = 34665, 34853, 40965
_BELOW = {0: (EXIF, GPS), EXIF: (INTEROP,)}  # the directories that a directory may point to
ORIENTATION = 274
_MAKER_NOTE = 37500
_LARGEST = 2**24  # bytes of a value; in a damaged file it may claim any size

# Starts of a camera's own data whose offsets do not count from the start of the file.
_MOVABLE = (b"Apple iOS", b"FUJIFILM", b"Nikon\0\2", b"OLYMPUS\0", b"OM SYSTEM\0", b"PENTAX \0")


class Value(NamedTuple):
    """The value of a tag."""

    kind: int  # the type, as TIFF numbers them
    content: bytes  # in little-endian byte order

    @property
    def count(self) -> int:
        """The number of elements."""
        return len(self.content) // _size(self.kind)


Tree: TypeAlias = dict[int, Any]  # for each tag its `Value`, or the `Tree` that it points to


def read_block(block: bytes | None) -> Tree:
    """Reads an EXIF block without its prefix; damaged parts are left out."""
    file = io.BytesIO(block or b"")
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None or len(start := file.read(6)) < 6:
        return {}
    return read_tree(file, struct.unpack(f"{order}2xI", start)[0], order)


def read_tree(file: BinaryIO, offset: int, order: str, *, big: bool = False, kind: int = 0) -> Tree:
    """Reads a directory and those below it; damaged parts are left out.

    Args:
        file: a TIFF file or an EXIF block.
        offset: where the directory begins.
        order: "<" or ">", the byte order.
        big: whether the file is a BigTIFF file. Default False.
        kind: 0 for the first directory, or the tag that points to it. Default 0.
    """
    tree: Tree = {}
    head, pointer = ("Q", "Q") if big else ("H", "I")
    field = struct.calcsize(pointer)
    with contextlib.suppress(struct.error, OSError, ValueError, OverflowError):
        file.seek(offset)
        (number,) = struct.unpack(order + head, file.read(struct.calcsize(head)))
        entry = struct.Struct(f"{order}HH{pointer}{field}s")
        entries = file.read(min(number, 0xFFFF) * entry.size)
        whole = len(entries) // entry.size * entry.size
        for code, form, count, content in entry.iter_unpack(entries[:whole]):
            size = count * _size(form)
            if code in tree or not 0 < size <= _LARGEST:
                continue
            if size > field:
                file.seek(*struct.unpack(order + pointer, content))
                content = file.read(size)
            if len(content) < size:
                continue
            value = swapped(form, content[:size], order)
            if code not in _BELOW.get(kind, ()):
                tree[code] = Value(form, value)
            elif below := read_tree(
                file, int.from_bytes(value, "little"), order, big=big, kind=code
            ):
                tree[code] = below
    return tree


def write_block(tree: Tree) -> bytes:
    """Returns an EXIF block without its prefix."""
    return b"II*\0\x08\0\0\0" + write_tree(tree, 8, "<")


def write_tree(tree: Tree, offset: int, order: str, *, big: bool = False) -> bytes:
    """Returns a directory, followed by its values and those below it, for a place in a file."""
    head, pointer, pointing = ("Q", "Q", 16) if big else ("H", "I", 4)
    field = struct.calcsize(pointer)
    entries, rest = b"", b""
    after = offset + struct.calcsize(f"={head}{pointer}") + len(tree) * (4 + 2 * field)
    for code, value in sorted(tree.items()):
        place = after + len(rest)
        if isinstance(value, dict):
            rest += write_tree(value, place, order, big=big)
            kind, count, content = pointing, 1, struct.pack(order + pointer, place)
        else:
            kind, count = value.kind, value.count
            content = swapped(kind, value.content, order)
            if len(content) > field:
                rest += content
                content = struct.pack(order + pointer, place)
        rest += bytes(len(rest) % 2)
        entries += struct.pack(f"{order}HH{pointer}{field}s", code, kind, count, content)
    return struct.pack(order + head, len(tree)) + entries + bytes(field) + rest


def swapped(kind: int, content: bytes, order: str) -> bytes:
    """Converts a value from little-endian byte order to another one, or back."""
    if order == "<":
        return content
    size = struct.calcsize(f"<{tifffile.TIFF.DATA_FORMATS[kind][-1]}")
    return np.frombuffer(content, f"u{size}").byteswap().tobytes()


def number_of(value: Any, default: int) -> int:
    """Returns the integer that is a tag's value."""
    if not isinstance(value, Value) or value.kind not in (3, 4):
        return default
    return int.from_bytes(value.content[: _size(value.kind)], "little")


def orientation_of(tree: Tree) -> int:
    """Returns the orientation, from 1 (upright) to 8, as EXIF numbers them."""
    found = number_of(tree.get(ORIENTATION), 1)
    return found if 1 <= found <= 8 else 1


def made_upright(block: bytes) -> bytes:
    """Returns an EXIF block without its prefix, with the orientation 1; all else stays in place."""
    order = "<" if block.startswith(b"II") else ">"
    with contextlib.suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (number,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + 12 * number, 12):
            if struct.unpack_from(f"{order}H10x", block, place)[0] == ORIENTATION:
                upright = struct.pack(f"{order}HIHH", 3, 1, 1, 0)
                return block[: place + 2] + upright + block[place + 12 :]
    return block


def points_elsewhere(tree: Tree) -> bool:
    """Returns whether the camera's own data (MakerNote) may hold offsets into the whole file."""
    camera = tree.get(EXIF)
    note = camera.get(_MAKER_NOTE) if isinstance(camera, dict) else None
    return isinstance(note, Value) and not note.content.startswith(_MOVABLE)


def _size(kind: int) -> int:
    """Returns the bytes of an element; 0 for an unknown type."""
    return struct.calcsize(f"<{tifffile.TIFF.DATA_FORMATS.get(kind, '0B')}")
