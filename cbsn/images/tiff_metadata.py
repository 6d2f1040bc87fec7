"""The metadata of TIFF files; `cbsn.images.tiff` reads and writes the pixels.

Tags are copied unchanged from one TIFF file to another: ImageJ's, OME's, GeoTIFF's, IPTC. EXIF data
are a tree of tags whose branches lie anywhere in the file; Pillow reads and writes these.
"""

import contextlib
import dataclasses
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from cbsn.images.picture import EXIF_PREFIX, INCH, Picture

_ORIENTATION_TAG = 274
_XMP_TAG = 700
_UNIT_TAG = 296
_METRES = {2: INCH, 3: 0.01}  # of the units in `_UNIT_TAG`; 1 means no unit
_IMAGEJ_TAG = 50839  # regions and labels, whose content also has the file's byte order

# tifffile cannot write tags that point to branches: tags with the preceding codes stand in.
_BRANCHES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

# How the pixels are stored, which the writer decides; resolution and profile are set separately.
_STRUCTURE = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 282, 283, 284}
    | {288, 289, 290, 291, 292, 293, 296, 297, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333}
    | {334, 336, 337, 338, 339, 340, 342, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521}
    | {529, 530, 531, 532, 34675, 50706}
)
_LAYERS_TAG = 37724  # Photoshop's: would stay noisy, and make the file many times larger
_SKIPPED = _STRUCTURE | {*_BRANCHES, *(code - 1 for code in _BRANCHES), ExifTags.IFD.Interop}
_SKIPPED |= {_ORIENTATION_TAG, _LAYERS_TAG}

# Tags of a TIFF file that belong to the trunk of the EXIF tree.
_EXIF_TAGS = frozenset(
    {269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316, 318, 319, 33432, 18246}
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
    # tifffile's own description only says how the pixels are stored.
    skipped = _SKIPPED | ({270} if page.parent.is_shaped else set())
    entries: list[tuple[Any, ...]] = [tag.astuple() for tag in tags if tag.code not in skipped]
    byteorder = page.parent.byteorder
    if byteorder == ">" and _IMAGEJ_TAG not in tags:
        # tifffile makes a second copy of the pixels to write a big-endian file.
        byteorder = "<"
        for place, (code, kind, count, value, once) in enumerate(entries):
            size = struct.calcsize(f"<{tifffile.TIFF.DATA_FORMATS[kind][-1]}")
            swapped = np.frombuffer(value, f"u{size}").byteswap().tobytes()
            entries[place] = code, kind, count, swapped, once
    unit = int(tags.valueof(_UNIT_TAG, 2))
    resolution = per_metre = None
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = (Fraction(*tags.valueof(code)) for code in (282, 283))
        if x > 0 and y > 0 and (x, y, unit) != (1, 1, 1):  # tifffile writes these for none
            resolution = (x, y, unit)
            if metres := _METRES.get(unit):
                per_metre = (float(x) / metres, float(y) / metres)
    xmp, profile = tags.valueof(_XMP_TAG), page.iccprofile
    return {
        "icc_profile": profile if isinstance(profile, bytes) and profile else None,
        "exif": _read_exif(path, page),
        "xmp": xmp if isinstance(xmp, bytes) and xmp else None,
        "resolution": per_metre,
        "extras": Tags(byteorder, tuple(entries), resolution),
    }


def write_options(picture: Picture) -> dict[str, Any]:
    """Returns `tifffile.imwrite` options for the metadata; `write_exif` adds EXIF branches."""
    exif = _exif_of(picture)
    own = picture.extras if isinstance(picture.extras, Tags) else None
    tags: list[tuple[Any, ...]] = [(_ORIENTATION_TAG, "H", 1, exif.get(_ORIENTATION_TAG, 1), True)]
    resolution = None
    if own:
        tags += own.entries
        resolution = own.resolution
    else:
        tags += [
            (code, "s", 0, exif[code].encode(), True)
            for code in sorted(_EXIF_TAGS & {*exif})
            if isinstance(exif[code], str)
        ]
        if picture.xmp:
            tags.append((_XMP_TAG, "B", len(picture.xmp), picture.xmp, True))
        if picture.resolution:  # PNG rounds pixels per metre; restores whole ones per inch
            x, y = picture.resolution
            resolution = (Fraction(x / 100), Fraction(y / 100), 3)
            inches = [round(each * INCH) for each in picture.resolution]
            if max(abs(np.divide(inches, INCH) - picture.resolution)) < 1:
                resolution = (Fraction(inches[0]), Fraction(inches[1]), 2)
    tags += [(code - 1, "I", 1, 0, True) for code in _BRANCHES if exif.get_ifd(code)]
    options: dict[str, Any] = {"extratags": tags, "byteorder": own.byteorder if own else "<"}
    if resolution:
        *pair, unit = resolution
        options |= {"resolution": tuple(map(_rational, pair)), "resolutionunit": unit}
    return options


def write_exif(path: Path, picture: Picture) -> None:
    """Appends the branches of a picture's EXIF tree, if it has any, to a file without them."""
    exif = _exif_of(picture)
    branches = {code: branch for code in _BRANCHES if (branch := _branch(exif, code))}
    if not branches:
        return
    with tifffile.TiffFile(path, mode="r+") as file, path.open("r+b") as raw:
        head = raw.read(16 if file.is_bigtiff else 8)
        for code, branch in branches.items():
            ifd = TiffImagePlugin.ImageFileDirectory_v2(head, group=code)
            for key, value in branch.items():
                ifd[key] = value
                try:
                    ifd.tobytes(0)
                except Exception:  # Pillow may read damaged blocks that it cannot write
                    del ifd[key]
            end = raw.seek(0, 2)
            end += end % 2
            raw.seek(end)
            raw.write(ifd.tobytes(end))
            tag = file.pages.first.tags[code - 1]
            raw.seek(tag.offset)
            raw.write(struct.pack(f"{file.byteorder}H", code))
            raw.seek(tag.valueoffset)
            raw.write(struct.pack(f"{file.byteorder}I", end))


def _exif_of(picture: Picture) -> Image.Exif:
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # damaged blocks make Pillow raise almost anything
        exif.load(picture.exif or b"")
    return exif


def _read_exif(path: Path, page: tifffile.TiffPage) -> bytes | None:
    """Returns the EXIF tree of a TIFF file as a separate block, or None if it is empty."""
    found = Image.Exif()
    with contextlib.suppress(Exception), path.open("rb") as file:
        stored = Image.Exif()
        stored.endian, stored.bigtiff = page.parent.byteorder, page.parent.is_bigtiff
        stored.load_from_fp(file, page.offset)
        for code in _EXIF_TAGS & {*stored}:
            if code != 270 or not page.parent.is_shaped:
                found[code] = stored[code]
        for code in _BRANCHES:
            if branch := _branch(stored, code):
                found.get_ifd(code).update(branch)
    if found.get(_ORIENTATION_TAG) == 1:
        del found[_ORIENTATION_TAG]
    if not found and not any(found.get_ifd(code) for code in _BRANCHES):
        return None
    try:
        block = found.tobytes()
    except Exception:  # Pillow may read damaged data that it cannot write
        orientation = Image.Exif()
        orientation[_ORIENTATION_TAG] = page.tags.valueof(_ORIENTATION_TAG, 1)
        block = orientation.tobytes()
    return block.removeprefix(EXIF_PREFIX)


def _branch(exif: Image.Exif, code: int) -> dict[int, Any]:
    branch = dict(exif.get_ifd(code))
    if ExifTags.IFD.Interop in branch:
        branch[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
    return branch


def _rational(value: Fraction) -> tuple[int, int]:
    """Returns numerator and denominator, each of at most 32 bits."""
    value = value.limit_denominator(10**6)
    return value.as_integer_ratio() if value.numerator < 2**32 else (2**32 - 1, 1)
