"""What JPEG XL files hold besides the pixels; `cbsn.images.image_files` is the entry for all."""

import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs

from cbsn.errors import ImageError
from cbsn.images.boxes import JUMBF, read_boxes
from cbsn.images.exif import made_upright
from cbsn.images.picture import Header
from cbsn.images.png import stated_colors

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
JPEG_XL_STARTS = (_CODESTREAM, _CONTAINER)

_MOST_METADATA = 2**24  # bytes that a compressed box may hold
_OFFSET = 4  # bytes that say where in its box the EXIF data begin
_HEAD = 128  # bytes of a codestream that hold its header
_LEAST = 12  # bytes of a codestream with pixels
_SIDES = (9, 13, 18, 30)  # bits of height and width
_NAMES = {b"jumb": JUMBF, b"jhgm": "a map for HDR", b"Exif": "EXIF data", b"xml ": "XMP"}
_ORIENTATION = re.compile(rb"(tiff:Orientation(?:>|\s*=\s*[\"']))[1-8]")
# Numbers in ITU-T H.273 of primaries and white points, by their numbers in JPEG XL.
_PRIMARIES = {(1, 1): 1, (9, 1): 9, (11, 1): 12, (11, 11): 11}
_GRAY, _CUSTOM, _UNKNOWN = 1, 2, 2


def jpeg_xl_header(path: Path) -> Header:
    """Reads the header without the decoder, which would allocate memory for any size."""
    with path.open("rb") as file:
        bits = _bits(_codestream_start(file))
    width, height = bits.size()
    return Header(width, height, width * height * 4)


def jpeg_xl_metadata(content: bytes) -> dict[str, Any]:
    """Returns EXIF data, XMP and what the colours mean, as fields of `Picture`.

    `others` names what cannot be read. The decoder turns the pixels upright, so the orientation
    becomes 1.
    """
    found: dict[str, Any] = {}
    rest, start = [], content[:_HEAD] if content.startswith(_CODESTREAM) else b""
    for kind, part in read_boxes(content):
        if kind in (b"jxlc", b"jxlp"):
            own = part[4:] if kind == b"jxlp" else part  # after the number of the part
            start = (start + own[:_HEAD])[:_HEAD]
            continue
        inner = bytes(part)
        if kind == b"brob":
            kind = inner[:4]
            try:
                inner = bytes(imagecodecs.brotli_decode(inner[4:], out=_MOST_METADATA))
            except Exception:  # the decoder is missing, or the box damaged or very large
                inner = b""
        if kind == b"Exif" and len(inner) > _OFFSET:
            offset = _OFFSET + int.from_bytes(inner[:_OFFSET], "big")
            found["exif"] = made_upright(inner[offset:]) or None
        elif kind == b"xml " and inner:
            found["xmp"] = _ORIENTATION.sub(rb"\g<1>1", inner)
        elif kind in _NAMES:
            rest.append(_NAMES[kind])
    stated, lost = _colors(start)
    return {**found, "extras": stated, "others": ", ".join(dict.fromkeys([*lost, *rest]))}


class _Bits:
    """Fields of a codestream's header."""

    def __init__(self, content: bytes):
        self._bits = int.from_bytes(content, "little")

    def take(self, count: int) -> int:
        value, self._bits = self._bits & (1 << count) - 1, self._bits >> count
        return value

    def choice(self, *options: tuple[int, int]) -> int:
        """Takes a number that begins with which of four pairs, base and bits, it has."""
        base, count = options[self.take(2)]
        return base + self.take(count)

    def enum(self) -> int:
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))

    def size(self) -> tuple[int, int]:
        """Takes width and height."""
        is_small = self.take(1)

        def side() -> int:
            return 8 * (1 + self.take(5)) if is_small else self.choice(*((1, n) for n in _SIDES))

        height = side()
        if ratio := self.take(3):  # of width to height, by number
            over, under = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
            return height * over // under, height
        return side(), height

    def depth(self) -> None:
        """Takes the number of bits of samples."""
        if self.take(1):  # floats, and the bits of their exponents
            self.choice((32, 0), (16, 0), (24, 0), (1, 6))
            self.take(4)
        else:
            self.choice((8, 0), (10, 0), (12, 0), (1, 6))


def _bits(start: bytes) -> _Bits:
    if len(start) < _LEAST or not start.startswith(_CODESTREAM):
        raise ImageError("has no pixels: the file is damaged or cut off.")
    return _Bits(start[2:])


def _colors(start: bytes) -> tuple[Any, list[str]]:
    """Returns what colours mean, as PNG states it, and names of what it cannot state."""
    if len(start) < _LEAST:
        return None, []
    bits = _bits(start)
    bits.size()
    if bits.take(1):  # all is as usual
        return None, []
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(1):
            bits.size()
        if bits.take(2):
            return None, []  # a preview or an animation, whose fields follow
    bits.depth()
    bits.take(1)
    for _ in range(bits.choice((0, 0), (1, 0), (2, 4), (1, 12))):
        if bits.take(1):  # alpha of 8 bits
            continue
        if bits.enum():
            return None, []  # a channel that is no alpha, whose fields follow
        bits.depth()
        bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
        bits.take(8 * bits.choice((0, 0), (0, 4), (16, 5), (48, 10)))
        bits.take(1)
    bits.take(1)  # whether pixels are stored as XYB, which the decoder converts
    if bits.take(1):
        return None, []
    if bits.take(1):
        return None, ["a colour profile"]
    unknown = None, ["a colour space that is not sRGB"]
    space, white = bits.enum(), bits.enum()
    if space > _GRAY or white == _CUSTOM:
        return unknown
    primaries = 1 if space == _GRAY else bits.enum()
    if (primaries, white) not in _PRIMARIES or bits.take(1):  # custom ones, or a gamma
        return unknown
    transfer = bits.enum()
    if transfer == _UNKNOWN:
        return unknown
    return stated_colors(_PRIMARIES[primaries, white], transfer), []


def _codestream_start(file: BinaryIO) -> bytes:
    start = file.read(len(_CONTAINER))
    if start != _CONTAINER:
        return start + file.read(12)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        rest = size - 8
        if size == 1:
            rest = int.from_bytes(file.read(8), "big") - 16
        if kind == b"jxlp":  # a part of the codestream, after its number
            file.seek(4, 1)
        if kind in (b"jxlc", b"jxlp"):
            return file.read(24)
        if not 0 <= rest < 2**62:
            break
        file.seek(rest, 1)
    return b""
