"""JPEG XL files, as far as imagecodecs does not go; `cbsn.data.image_io` is the door to all."""

import struct
from pathlib import Path
from typing import BinaryIO

from cbsn.errors import ImageError

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
JPEG_XL_STARTS = (_CODESTREAM, _CONTAINER)

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Of width to height, by their number, from 1."""

_BITS = (9, 13, 18, 30)


def jpeg_xl_size(path: Path) -> tuple[int, int]:
    """Reads width and height from the header: the decoder takes the memory for any size.

    Raises:
        ImageError: there is no header.
    """
    with path.open("rb") as file:
        head = _codestream_start(file)
    if len(head) < 12 or not head.startswith(_CODESTREAM):
        raise ImageError("has no pixels: the file is damaged or cut off.")
    bits = int.from_bytes(head[2:], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << count) - 1, bits >> count
        return value

    is_small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if is_small else 1 + take(_BITS[take(2)])

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    over, under = _RATIOS[ratio - 1]
    return height * over // under, height


def _codestream_start(file: BinaryIO) -> bytes:
    start = file.read(len(_CONTAINER))
    if start != _CONTAINER:
        return start + file.read(12)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        rest = size - 8
        if size == 1:
            rest = int.from_bytes(file.read(8), "big") - 16
        if kind == b"jxlp":  # a part of it, behind its number
            file.seek(4, 1)
        if kind in (b"jxlc", b"jxlp"):
            return file.read(24)
        if not 0 <= rest < 2**62:
            break
        file.seek(rest, 1)
    return b""
