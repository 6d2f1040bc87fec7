"""The chunks of PNG files; `cbsn.images.image_files` is the entry for all formats."""

import dataclasses
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL.PngImagePlugin import putchunk

from cbsn.errors import CbsnWarning, ImageError
from cbsn.images.picture import Header, Picture, squeezed

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Chunks that define what the colours mean, besides the profile.
COLOR_CHUNKS = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"mDCv", b"cLLi"})
# Numbers of the primaries and the transfer function of sRGB, BT.709 and BT.601, and "unspecified".
_ORDINARY = {1, 2, 5, 6}, {1, 2, 6, 13}
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_KEPT = COLOR_CHUNKS | _TEXT_CHUNKS | {b"pHYs", b"sCAL", b"pCAL", b"oFFs"}
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_XMP = b"XML:com.adobe.xmp"
_MOST_XMP = 2**26
_BLOCK = 2**20
# Huffman codes of the differences, without a search for repeated bytes, which photographs do not
# have: they are written 2.4 to 4 times as fast as at the default strategy, and 1 to 10 % smaller.
_COMPRESSION = {
    "level": 4,
    "strategy": imagecodecs.PNG.STRATEGY.RLE,
    "filter": imagecodecs.PNG.FILTER.PAETH,
}
_PART = 8192  # bytes in an IDAT chunk, as libpng divides what it compresses
_CUT_OFF = "is cut off: its IEND chunk is missing."


@dataclasses.dataclass(frozen=True)
class Chunks:
    """The metadata of a PNG file besides its profile, EXIF data and XMP packet."""

    entries: tuple[tuple[bytes, bytes], ...]  # kind and content, in the file's order

    def names(self) -> list[str]:
        """Returns names of what other formats cannot hold, for messages; not the resolution."""
        kinds = dict.fromkeys(kind for kind, _ in self.entries if kind != b"pHYs")
        others = [kind.decode() for kind in kinds if kind not in _TEXT_CHUNKS]
        return [*others, *(["texts"] if kinds.keys() & _TEXT_CHUNKS else [])]


def stated_colors(primaries: int, transfer: int) -> Chunks | None:
    """Returns what colours without a profile mean, as PNG states it; None for sRGB.

    Args:
        primaries: the number of the primaries in ITU-T H.273.
        transfer: the number of the transfer function there.
    """
    pair = primaries, transfer
    if max(pair) > 255 or all(n in usual for n, usual in zip(pair, _ORDINARY, strict=True)):
        return None
    return Chunks(((b"cICP", bytes([*pair, 0, 1])),))


@dataclasses.dataclass(frozen=True)
class PngFile:
    """A PNG file whose chunks have been read."""

    depth: int  # bits per sample
    chunks: Chunks
    xmp: bytes | None
    # The file without texts, animation and damaged chunks; None if it has none of these.
    pixels_only: io.BytesIO | None

    @property
    def resolution(self) -> tuple[float, float] | None:
        """Pixels per metre, or None."""
        for kind, content in self.chunks.entries:
            if kind == b"pHYs" and len(content) == 9 and content[8] == 1:
                x, y = struct.unpack(">II", content[:8])
                return (float(x), float(y)) if x and y else None
        return None


def png_header(start: bytes) -> Header:
    """Returns the header of a PNG file that starts with these 26 bytes."""
    width, height, bits, kind = struct.unpack(">IIBB", start[16:26])
    channels = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}[kind] * (start[12:16] == b"IHDR")
    size, dtype = (2, "uint16") if bits == 16 else (1, "uint8")
    return Header(width, height, width * height * channels * size, dtype)


def inspect_png(path: Path) -> PngFile:
    """Reads the chunks of a PNG file and verifies the checksums of those that the pixels need."""
    xmp, entries, pixels_only = None, [], None
    wanted = [(0, len(SIGNATURE))]  # offsets and sizes of what the pixels need
    with path.open("rb") as file:
        start = file.read(25)
        if len(start) < 25:
            raise ImageError(_CUT_OFF)
        if not start.startswith(SIGNATURE):
            raise ImageError("is damaged: its first bytes are not a PNG's; copy it as binary data.")
        if start[12:16] != b"IHDR":
            raise ImageError("is damaged: it does not begin with an IHDR chunk.")
        file.seek(len(SIGNATURE))
        kind = b""
        while kind != b"IEND":
            place = file.tell()
            kind, content, matches = _read_chunk(file)
            name = kind.decode("latin-1")
            if kind == b"IHDR" and place > len(SIGNATURE):
                raise ImageError("is damaged: it has two IHDR chunks.")
            if not matches and not kind[0] & 0x20:  # upper case first: a critical chunk
                raise ImageError(f"is damaged: the checksum of its {name} chunk is wrong.")
            if kind == b"acTL" and (frames := int.from_bytes(content[:4], "big")) > 1:
                raise ImageError(f"is an animation of {frames} frames; save them one by one.")
            if not matches:
                warnings.warn(
                    f"{path}: its chunk {name} is damaged, and is left out.",
                    CbsnWarning,
                    stacklevel=2,
                )
            elif packet := _xmp_of(kind, content):
                xmp = xmp or packet
            elif kind in _KEPT:
                entries.append((kind, content))
            if matches and kind not in _TEXT_CHUNKS | _ANIMATION:
                wanted.append((place, file.tell() - place))
        if sum(size for _, size in wanted) < file.tell():
            pixels_only = io.BytesIO()
            for place, size in wanted:
                file.seek(place)
                pixels_only.write(file.read(size))
            pixels_only.seek(0)
    return PngFile(start[24], Chunks(tuple(entries)), xmp, pixels_only)


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns 8-bit or 16-bit pixels [H, W, C] as a PNG file without metadata."""
    # The room that imagecodecs makes by itself is too little for narrow pictures: it does not count
    # the byte that each row begins with, the number of its filter.
    size = pixels.nbytes + len(pixels)
    size += size // 8 + size // 64 + 16  # the most that zlib may add
    size += 12 * (size // _PART + 1) + 256  # the frames of IDAT chunks; the other chunks
    return bytes(imagecodecs.png_encode(squeezed(pixels), out=size, **_COMPRESSION))


def write_png(file: BinaryIO, picture: Picture) -> None:
    """Writes an 8-bit or 16-bit picture."""
    # Pillow cannot write 16-bit colour, nor imagecodecs metadata: its chunks are inserted here.
    png = memoryview(encode_png(picture.pixels))
    own = [*picture.extras.entries] if isinstance(picture.extras, Chunks) else []
    if picture.icc_profile:
        profile = b"ICC Profile\0\0" + zlib.compress(picture.icc_profile)
        own = [*((kind, c) for kind, c in own if kind != b"sRGB"), (b"iCCP", profile)]
    if picture.resolution and not any(kind == b"pHYs" for kind, _ in own):
        x, y = (min(round(each), 2**31 - 1) for each in picture.resolution)
        own.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    if picture.exif:
        own.append((b"eXIf", picture.exif))
    if picture.xmp:
        own.append((b"iTXt", _XMP + bytes(5) + picture.xmp))
    header = 33  # the signature and the IHDR chunk, which comes first in every PNG
    file.write(png[:header])
    for kind, content in own:
        putchunk(file, kind, content)
    file.write(png[header:])


def _read_chunk(file: BinaryIO) -> tuple[bytes, bytes, bool]:
    """Returns a chunk's kind, its content if needed, and whether its checksum is right."""
    head = file.read(8)
    if len(head) < 8:
        raise ImageError(_CUT_OFF)
    rest, kind = struct.unpack(">I4s", head)
    checksum, parts = zlib.crc32(kind), []
    while rest:
        block = file.read(min(rest, _BLOCK))
        if not block:
            raise ImageError(_CUT_OFF)
        checksum = zlib.crc32(block, checksum)
        rest -= len(block)
        if kind in _KEPT or kind == b"acTL":
            parts.append(block)
    return kind, b"".join(parts), file.read(4) == checksum.to_bytes(4, "big")


def _xmp_of(kind: bytes, content: bytes) -> bytes | None:
    """Returns the XMP packet in a chunk, or None."""
    if kind != b"iTXt" or not content.startswith(_XMP + b"\0"):
        return None
    is_compressed, rest = content[len(_XMP) + 1 : len(_XMP) + 2], content[len(_XMP) + 3 :]
    text = b"".join(rest.split(b"\0", 2)[2:])  # after language and translated keyword
    if is_compressed == b"\1":
        try:
            text = zlib.decompressobj().decompress(text, _MOST_XMP)
        except zlib.error:
            return None
    return text or None
