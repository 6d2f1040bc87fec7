"""The boxes of AVIF and JPEG 2000 files, for metadata that their decoders leave out."""

import struct
from collections.abc import Iterator
from typing import Any

from cbsn.images.picture import EXIF_PREFIX
from cbsn.images.png import stated_colors

JUMBF = "JUMBF data (such as content credentials)"
_XMP_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_ID = b"JpgTiffExif->JP2"
_NAMES_BY_ID = {
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "geo tags (GeoJP2)",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "IPTC data",
}
_NAMES = {b"xml ": "XML", b"jp2i": "a statement of rights", b"jumb": JUMBF, b"asoc": "labels"}
_USUAL_SPACES = {16, 17, 18}  # sRGB, gray and YCC with its primaries and transfer function


def read_boxes(content: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yields the kind and the content of each box, up to the first one that is damaged."""
    rest = memoryview(content)
    while len(rest) >= 8:
        size, kind = struct.unpack_from(">I4s", rest)
        head = 8
        if size == 1 and len(rest) >= 16:
            (size,), head = struct.unpack_from(">Q", rest, 8), 16
        size = size or len(rest)  # 0: up to the end of the file
        if not head <= size <= len(rest):
            return
        yield kind, rest[head:size]
        rest = rest[size:]


def avif_metadata(content: bytes) -> dict[str, Any]:
    """Returns what the colours of an AVIF file without a profile mean, as fields of `Picture`."""
    part: Any = content
    for kind, before in (b"meta", 0), (b"iprp", 4), (b"ipco", 0):
        part = next((inner for each, inner in read_boxes(part[before:]) if each == kind), b"")
    # The first is that of the picture; others are of a map for HDR.
    for kind, inner in read_boxes(part):
        if kind == b"colr" and inner[:4] == b"nclx" and len(inner) >= 8:
            return {"extras": stated_colors(*struct.unpack_from(">HH", inner, 4))}
    return {}


def jpeg_2000_metadata(content: bytes) -> dict[str, Any]:
    """Returns the profile, EXIF data and XMP of a JPEG 2000 file, as fields of `Picture`.

    `others` names the rest. A bare codestream has none.
    """
    found: dict[str, Any] = {}
    rest, spaces = [], []
    for kind, inner in read_boxes(content):
        key = bytes(inner[:16])
        if kind == b"jp2h":
            colors = [bytes(each) for name, each in read_boxes(inner) if name == b"colr"]
            profiles = [each[3:] for each in colors if each[:1] in (b"\2", b"\3")]
            spaces = [int.from_bytes(each[3:7], "big") for each in colors if each[:1] == b"\1"]
            found["icc_profile"] = profiles[0] if profiles else None
        elif kind == b"uuid" and key == _XMP_ID:
            found["xmp"] = bytes(inner[16:]).rstrip(b"\0") or None
        elif kind == b"uuid" and key == _EXIF_ID:
            found["exif"] = bytes(inner[16:]).removeprefix(EXIF_PREFIX) or None
        elif kind == b"uuid":
            rest.append(_NAMES_BY_ID.get(key, "data of another program (UUID)"))
        elif kind in _NAMES:
            rest.append(_NAMES[kind])
    if spaces and not found.get("icc_profile") and spaces[0] not in _USUAL_SPACES:
        rest.insert(0, f"a colour space that is not sRGB (number {spaces[0]} of JPEG 2000)")
    return {**found, "others": ", ".join(dict.fromkeys(rest))}
