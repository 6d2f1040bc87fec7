"""The segments of JPEG files; `cbsn.images.image_files` is the entry for all formats."""

import dataclasses
import mmap
import re
from collections.abc import Iterable
from pathlib import Path

from cbsn.images.boxes import JUMBF

COMMENT, _EXTENDED_XMP, _PHOTOSHOP = "COM", "APP1", "APP13"
_MARKERS = {COMMENT: b"\xff\xfe", _EXTENDED_XMP: b"\xff\xe1", _PHOTOSHOP: b"\xff\xed"}
_KEPT = {
    COMMENT: b"",
    _EXTENDED_XMP: b"http://ns.adobe.com/xmp/extension/\0",
    _PHOTOSHOP: b"Photoshop 3.0\0",
}
_IPTC = b"8BIM\x04\x04"
_MOST = 65533  # bytes in a segment
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of frame headers

# Starts of what is read in another way, or says how the pixels are stored.
_KNOWN = {
    "APP0": (b"",),
    "APP1": (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"),
    "APP2": (b"ICC_PROFILE\0", b"MPF\0", b"urn:iso:std:iso:ts:21496:"),  # the last: a map for HDR
    "APP12": (b"Ducky",),
    "APP14": (b"Adobe",),
}


@dataclasses.dataclass(frozen=True)
class Segments:
    """The metadata of a JPEG file besides its profile, EXIF data, XMP packet and resolution."""

    entries: tuple[tuple[str, bytes], ...]  # name of the marker and content, in the file's order

    def names(self) -> list[str]:
        """Returns names of what other formats cannot hold, for messages."""
        names = {
            COMMENT: "comment",
            _EXTENDED_XMP: "extended XMP",
            _PHOTOSHOP: "IPTC data of JPEG"
            if any(marker == _PHOTOSHOP and _IPTC in content for marker, content in self.entries)
            else "data of Photoshop",
        }
        return [*dict.fromkeys(names[marker] for marker, _ in self.entries)]

    def encode(self) -> bytes:
        """Returns the segments as JPEG files hold them."""
        parts = [
            (marker, content[start : start + _MOST])
            for marker, content in self.entries
            for start in range(0, len(content), _MOST)  # comments of other formats may be longer
        ]
        return b"".join(
            _MARKERS[marker] + (len(content) + 2).to_bytes(2, "big") + content
            for marker, content in parts
        )


def sort_segments(segments: Iterable[tuple[str, bytes]]) -> tuple[Segments | None, list[str]]:
    """Divides what precedes a file's pixels into what JPEG results keep, and names of the rest.

    Args:
        segments: names of the markers, such as `APP13`, and contents.
    """
    kept: list[tuple[str, bytes]] = []
    rest: list[str] = []
    for marker, content in segments:
        if content.startswith(_KNOWN.get(marker, ())):
            continue
        if marker in _KEPT and content.startswith(_KEPT[marker]):
            kept.append((marker, content))
        elif marker == "APP11" and content.startswith(b"JP"):
            rest.append(JUMBF)
        else:
            rest.append(f"data in {marker}")
    found = Segments(tuple(kept)) if any(content for _, content in kept) else None
    return found, [*dict.fromkeys(rest)]


def bytes_after_end(path: Path) -> int | None:
    """Returns the size of what follows the pictures in a JPEG file; None if the first has no end.

    Other pictures may follow the first one. Padding does not count.
    """
    access = mmap.ACCESS_READ
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=access) as content:
        end = _end(content, 0)
        if end < 0:
            return None
        while following := re.compile(rb"\0*(?=\xff\xd8\xff)").match(content, end):
            if (after := _end(content, following.end())) < 0:
                break
            end = after
        return len(content[end:].strip(b"\0\xff\r\n "))


def jpeg_bits(content: bytes) -> int | None:
    """Returns the bits per sample that the frame header of a JPEG file states, or None."""
    place = 2
    while content[place : place + 1] == b"\xff" and len(content) > place + 4:
        if content[place + 1] in _FRAMES:
            return content[place + 4]
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def _end(content: mmap.mmap, start: int) -> int:
    """Returns where a picture ends that starts here, or -1.

    That is after the first EOI marker behind its headers, as thumbnails in these have one, too.
    Pillow requires it only in larger files; in a small one, zeros in its place are read as pixels.
    """
    place = start + 2
    while content[place : place + 1] == b"\xff" and content[place + 1] != 0xDA:
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    found = content.find(b"\xff\xd9", place + 1)
    return found + 2 if found >= 0 else -1
