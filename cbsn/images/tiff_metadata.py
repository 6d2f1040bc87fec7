"""The metadata of TIFF files; `cbsn.images.tiff` reads and writes the pixels.

Tags are copied unchanged from one TIFF file to another: ImageJ's, OME's, GeoTIFF's, IPTC. Those of
an EXIF block become tags of the file, and the directories below (camera, GPS) follow the pixels.
"""

import contextlib
import dataclasses
import struct
from collections.abc import Set
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cbsn.images.exif import (
    EXIF,
    GPS,
    INTEROP,
    ORIENTATION,
    Value,
    number_of,
    orientation_of,
    read_block,
    read_tree,
    swapped,
    write_block,
    write_tree,
)
from cbsn.images.picture import INCH, Picture

DESCRIPTION = 270

_XMP_TAG = 700
_UNIT_TAG = 296
_METRES = {2: INCH, 3: 0.01}  # of the units in `_UNIT_TAG`; 1 means no unit
_IMAGEJ_TAG = 50839  # regions and labels, whose content also has the file's byte order

# For bytes of these types tifffile would write twice the count, unless the type is a text.
_RATIONAL: dict[Any, str] = {5: "2I", 10: "2i"}

# tifffile cannot write tags that point to branches: tags with the preceding codes stand in.
_BRANCHES = (EXIF, GPS)

# How the pixels are stored, which the writer decides; resolution and profile are set separately.
_STRUCTURE = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 282, 283, 284}
    | {288, 289, 290, 291, 292, 293, 296, 297, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333}
    | {334, 336, 337, 338, 339, 340, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521}
    | {529, 530, 531, 532, 34675, 50706}
)
_LAYERS_TAG = 37724  # Photoshop's: would stay noisy, and make the file many times larger
_SKIPPED = _STRUCTURE | {*_BRANCHES, *(code - 1 for code in _BRANCHES), INTEROP}
_SKIPPED |= {ORIENTATION, _LAYERS_TAG}

# Tags of a TIFF file that belong to the trunk of the EXIF tree; the last ones are Windows'.
_EXIF_TAGS = frozenset(
    {269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316, 318, 319, 33432, 50341}
    | {18246, 18249, 40091, 40092, 40093, 40094, 40095}
)


@dataclasses.dataclass(frozen=True)
class Tags:
    """Tags of a TIFF file that describe its picture."""

    byteorder: str  # "<" or ">", of the file and thus of the values
    entries: tuple[tuple[Any, ...], ...]  # as in tifffile: code, type, count, value, writeonce
    resolution: tuple[Fraction, Fraction, int] | None  # x, y and unit

    def names(self) -> list[str]:
        """Returns names of what other formats cannot hold, for messages."""
        codes = [code for code, *_ in self.entries if code not in _EXIF_TAGS | {_XMP_TAG}]
        return [tifffile.TIFF.TAGS.get(code, f"tag {code}") for code in codes]


def read_metadata(path: Path, page: tifffile.TiffPage) -> dict[str, Any]:
    """Returns `icc_profile`, `exif`, `xmp`, `resolution` and `extras` of a page's picture."""
    tags = page.tags
    byteorder = page.parent.byteorder
    if byteorder == ">" and _IMAGEJ_TAG not in tags:
        byteorder = "<"  # tifffile makes a second copy of the pixels to write a big-endian file
    entries = _entries(page, byteorder, _SKIPPED)
    x, y, unit = (tags.valueof(code) for code in (282, 283, _UNIT_TAG))
    resolution = _resolution(x, y, unit)
    per_metre = None
    if resolution and (metres := _METRES.get(resolution[2])):
        per_metre = (float(resolution[0]) / metres, float(resolution[1]) / metres)
    xmp, profile = tags.valueof(_XMP_TAG), page.iccprofile
    return {
        "icc_profile": profile if isinstance(profile, bytes) and profile else None,
        "exif": _read_exif(path, page, has_resolution=resolution is not None),
        "xmp": xmp if isinstance(xmp, bytes) and xmp else None,
        "resolution": per_metre,
        "extras": Tags(byteorder, entries, resolution),
    }


def tags_of(page: tifffile.TiffPage) -> tuple[tuple[Any, ...], ...]:
    """Returns the tags of a page that say nothing about how its pixels are stored.

    They are `extratags` of `tifffile.TiffWriter.write` for a little-endian file, for the page that
    is written first.
    """
    entries = _entries(page, "<", _SKIPPED - {ORIENTATION})
    return tuple((code, _RATIONAL.get(kind, kind), *rest) for code, kind, *rest in entries)


def _is_shape(text: Any) -> bool:
    """Returns whether a description is tifffile's, which says how the pixels are stored."""
    return isinstance(text, str) and text.startswith(('{"shape":', "shape=("))


def _entries(
    page: tifffile.TiffPage, byteorder: str, skipped: Set[int]
) -> tuple[tuple[Any, ...], ...]:
    """Returns a page's tags, as tifffile has them, for a file with this byte order.

    tifffile's own description is not among them; the file's may be next to it.
    """
    entries: list[tuple[Any, ...]] = [
        tag.astuple()
        for tag in page.tags
        if tag.code not in skipped and not (tag.code == DESCRIPTION and _is_shape(tag.value))
    ]
    own = page.parent.byteorder
    if own != byteorder:
        entries = [(c, kind, n, swapped(kind, value, own), o) for c, kind, n, value, o in entries]
    return tuple(entries)


def write_options(picture: Picture, *, big: bool) -> dict[str, Any]:
    """Returns `tifffile.imwrite` options for the metadata; `write_exif` adds EXIF branches.

    A thumbnail in the EXIF block is left out, as it shows the noisy picture.
    """
    exif = read_block(picture.exif)
    own = picture.extras if isinstance(picture.extras, Tags) else None
    tags: list[tuple[Any, ...]] = [(ORIENTATION, "H", 1, orientation_of(exif), True)]
    resolution = None
    if own:
        tags += own.entries
        resolution = own.resolution
    else:
        tags += [
            (code, value.kind, value.count, value.content, True)
            for code, value in exif.items()
            if isinstance(value, Value) and code not in _SKIPPED | {_XMP_TAG}
        ]
        if picture.xmp:
            tags.append((_XMP_TAG, "B", len(picture.xmp), picture.xmp, True))
        if picture.resolution:  # PNG rounds pixels per metre; restores whole ones per inch
            x, y = (Fraction(each / 100) for each in picture.resolution)
            resolution = (x, y, 3)
            inches = [round(each * INCH) for each in picture.resolution]
            if max(abs(np.divide(inches, INCH) - picture.resolution)) < 1:
                resolution = (Fraction(inches[0]), Fraction(inches[1]), 2)
        else:
            unit = number_of(exif.get(_UNIT_TAG), 2)
            resolution = _resolution(_ratio(exif.get(282)), _ratio(exif.get(283)), unit)
    # A pointer of a BigTIFF file has 64 bits.
    tags += [(code - 1, "Q" if big else "I", 1, 0, True) for code in _BRANCHES if code in exif]
    tags = [(code, _RATIONAL.get(kind, kind), *rest) for code, kind, *rest in tags]
    options: dict[str, Any] = {"extratags": tags, "byteorder": own.byteorder if own else "<"}
    if resolution:
        *sides, unit = resolution
        options |= {"resolution": tuple(map(_rational, sides)), "resolutionunit": unit}
    return options


def write_exif(path: Path, picture: Picture) -> None:
    """Appends the branches of a picture's EXIF tree, if it has any, to a file without them."""
    exif = read_block(picture.exif)
    branches = {code: exif[code] for code in _BRANCHES if code in exif}
    if not branches:
        return
    with tifffile.TiffFile(path, mode="r+") as file, path.open("r+b") as raw:
        for code, branch in branches.items():
            end = raw.seek(0, 2)
            end = raw.seek(end + end % 2)
            raw.write(write_tree(branch, end, file.byteorder, big=file.is_bigtiff))
            tag = file.pages.first.tags[code - 1]
            raw.seek(tag.offset)
            raw.write(struct.pack(f"{file.byteorder}H", code))
            raw.seek(tag.valueoffset)
            raw.write(struct.pack(f"{file.byteorder}{'Q' if file.is_bigtiff else 'I'}", end))


def _resolution(x: Any, y: Any, unit: Any) -> tuple[Fraction, Fraction, int] | None:
    """Returns a resolution, x and y being pairs of integers, unless it is missing or damaged."""
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = Fraction(*x), Fraction(*y)
        unit = int(unit) if unit in range(1, 6) else 2
        if x > 0 and y > 0 and (x, y, unit) != (1, 1, 1):  # tifffile writes these for none
            return x, y, unit
    return None


def _ratio(value: Any) -> tuple[int, ...] | None:
    is_ratio = isinstance(value, Value) and value.kind == 5 and value.count == 1
    return struct.unpack("<II", value.content) if is_ratio else None


def _read_exif(path: Path, page: tifffile.TiffPage, *, has_resolution: bool) -> bytes | None:
    """Returns the EXIF tree of a TIFF file as a separate block, or None if it is empty."""
    with path.open("rb") as file:
        tree = read_tree(file, page.offset, page.parent.byteorder, big=page.parent.is_bigtiff)
    found = {code: value for code, value in tree.items() if code in _EXIF_TAGS.union(_BRANCHES)}
    text = found[DESCRIPTION].content if DESCRIPTION in found else b""
    unwanted = [DESCRIPTION] if _is_shape(text.decode("latin-1")) else []
    unwanted += [ORIENTATION] if orientation_of(found) == 1 else []
    unwanted += [] if has_resolution else [282, 283, _UNIT_TAG]
    for code in unwanted:
        found.pop(code, None)
    return write_block(found) if found else None


def _rational(value: Fraction) -> tuple[int, int]:
    """Returns numerator and denominator, each of at most 32 bits."""
    value = value.limit_denominator(10**6)
    return value.as_integer_ratio() if value.numerator < 2**32 else (2**32 - 1, 1)
