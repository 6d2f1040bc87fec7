"""Reading HEIC pictures, which iPhones take, with pi-heif; the extra `heif` installs it."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.errors import ImageError
from cbsn.images.picture import EXIF_PREFIX, Header, Picture
from cbsn.images.png import stated_colors
from cbsn.value_range import ValueRange

_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def is_heif(path: Path, start: bytes) -> bool:
    """Returns whether a file that starts with these bytes is a HEIF picture other than AVIF."""
    if start[4:8] != b"ftyp":
        return False
    with path.open("rb") as file:
        box = file.read(min(int.from_bytes(start[:4], "big"), 512))
    brands = {box[place : place + 4] for place in (8, *range(16, len(box), 4))}
    return not _BRANDS.isdisjoint(brands) and brands.isdisjoint({b"avif", b"avis"})


def heif_header(path: Path) -> Header:
    """Returns the header of a HEIF file's main picture."""
    return _header_of(_open(path))


def read_heif(path: Path) -> Picture:
    """Reads a HEIF file's main picture; raises the same errors as `read_with_pillow`.

    The decoder turns it upright, so the orientation in its metadata becomes 1. Values of more than
    8 bits become 16 bits.
    """
    image = _open(path)
    _header_of(image).check(path)
    mode, info = image.mode.split(";")[0], image.info
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"is a {mode} picture; convert it to gray or RGB.")
    exif, xmp = info.get("exif"), info.get("xmp")
    pixels = np.array(np.atleast_3d(np.asarray(image)))
    is_deep = pixels.dtype == np.uint16
    if is_deep:
        to_16_bits(pixels, info["bit_depth"])
    profile, stated = info.get("icc_profile"), info.get("nclx_profile") or {}
    pair = stated.get("color_primaries", 2), stated.get("transfer_characteristics", 2)
    return Picture(
        pixels,
        "HEIF",
        icc_profile=profile or None,
        exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
        value_range=ValueRange(0.0, 65535.0) if is_deep else None,
        xmp=xmp.rstrip(b"\0") or None if xmp else None,
        extras=None if profile else stated_colors(*pair),
    )


def to_16_bits(pixels: np.ndarray, bits: int) -> None:
    """Scales integers of fewer bits, at least 8, to the whole range of uint16, in place."""
    pixels <<= 16 - bits
    pixels |= pixels >> bits


def _open(path: Path) -> Any:
    """Returns the main picture of a file, not decoded yet, and metadata as for an upright one."""
    try:
        import pi_heif
    except ImportError:
        raise ImageError(
            "is a HEIC picture. To read these: pip install 'cbsn[heif]' (from a clone: '.[heif]')"
        ) from None
    content = path.read_bytes()
    _check_texts(content)
    file = pi_heif.open_heif(content, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index]
    pi_heif.set_orientation(image.info)
    return image


def _check_texts(content: bytes) -> None:
    """Raises a ValueError if a name in the list of a file's items is damaged.

    It would end the process: pi-heif 1.4.0 assumes that these bytes are UTF-8.
    """
    start = content.find(b"iinf")
    items = content[start : start - 4 + int.from_bytes(content[start - 4 : start], "big")]
    for item in re.finditer(rb"(....)infe([\2\3])", items, re.DOTALL):
        place = item.start() + (18 if item[2] == b"\3" else 16)
        items[place : item.start() + int.from_bytes(item[1], "big")].decode()


def _header_of(image: Any) -> Header:
    width, height = image.size
    mode, _, bits = image.mode.partition(";")
    size, dtype = (2, "uint16") if bits else (1, "uint8")
    return Header(width, height, width * height * len(mode) * size, dtype)
