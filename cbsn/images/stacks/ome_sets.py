"""OME-TIFF sets: files whose metadata name one another, and which are read as one.

Their OME-XML is in each of them, in one of them (the master), or in a companion without pixels.
(https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html)
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import tifffile

from cbsn.errors import CbsnWarning, ImageError
from cbsn.files import read_small

_SUFFIXES = (".tif", ".tiff", ".tf2", ".tf8", ".btf")
_LARGEST = 2**28  # bytes of a companion
_ADVICE = "or name its axes, such as --axes TYX."


class _Metadata(NamedTuple):
    """OME-XML, the names of the TIFF files in it, each with its UUID, and where it says it is."""

    is_tiff: bool
    text: str
    names: frozenset[tuple[str, str]]
    elsewhere: str | None


def open_tiff(path: Path, axes: str | None) -> tifffile.TiffFile:
    """Opens a TIFF file; one of an OME-TIFF set with the metadata of the set.

    Args:
        path: the file.
        axes: what the user says about it. With these, metadata that cannot be had are no error.

    Raises:
        ImageError: if OME-XML is damaged, or lies in a file that is missing or another set's.
    """
    try:
        place, found = _metadata_of(path)
        is_named = found is None or place == path or path.name in dict(found.names)
        # A companion of a single file need not name it.
        if not is_named and found and (found.is_tiff or found.names):
            raise ImageError(
                f"has its metadata in {place.name}, which does not name it: give it the name that "
                f"it had, {_ADVICE}"
            )
    except ImageError:
        if axes is None:
            raise
        return tifffile.TiffFile(path)
    if found is None or found.is_tiff:
        return tifffile.TiffFile(place)
    return tifffile.TiffFile(path, omexml=found.text)


def without_repeats(paths: Sequence[Path]) -> list[Path]:
    """Returns files without those that are read together with an earlier one.

    So the first file stands for an OME-TIFF set; a `CbsnWarning` names the others. A renamed copy
    is no part of a set.
    """
    places = {_place(path): path for path in paths if path.suffix.lower() in _SUFFIXES}
    left_out: set[Path] = set()
    for place, path in places.items() if len(places) > 1 else ():
        if path in left_out:
            continue
        claimed = _files_of(path) or frozenset()
        others = [
            other
            for name in sorted({name for name, _ in claimed} - {place})
            if (other := places.get(name)) and other not in left_out
            # Without OME-XML of its own, or with the same.
            if _files_of(other) in (None, claimed)
        ]
        if others:
            left_out.update(others)
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            text = f"left out: {others[0]}{more}, read with {path.name} as one OME-TIFF set."
            warnings.warn(text, CbsnWarning, stacklevel=3)
    return [path for path in paths if path not in left_out]


def files_read_with(path: Path) -> list[Path]:
    """Returns a file, the others of its OME-TIFF set, and the one that has their metadata."""
    if path.suffix.lower() not in _SUFFIXES:
        return [path]
    try:
        place, found = _metadata_of(path)
    except ImageError:  # it is read without them, if at all
        return [path]
    others = (
        [path.parent / name for name in sorted({name for name, _ in found.names})] if found else []
    )
    return [*dict.fromkeys([path, place, *others])]


def _place(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118


def _files_of(path: Path) -> frozenset[tuple[str, str]] | None:
    """Returns the files of a file's set, each with its UUID; None for one without OME-XML."""
    try:
        _, found = _metadata_of(path)
    except ImageError:  # opening it tells
        return frozenset()
    if found is None:
        return None
    folder = os.path.realpath(path.parent)
    files = {(os.path.normpath(os.path.join(folder, name)), i) for name, i in found.names}  # noqa: PTH118
    return frozenset(files) if _place(path) in dict(files) else frozenset()


def _metadata_of(path: Path) -> tuple[Path, _Metadata | None]:
    """Returns the OME-XML of a TIFF file's set, if there is any, and the file that has it."""
    found = _read(path)
    if found is None or found.elsewhere is None:
        return path, found
    place = path.parent / found.elsewhere
    if not found.elsewhere or not place.is_file():
        raise ImageError(
            f"has its metadata in {found.elsewhere or 'another file'}, which is not next to it: "
            f"put it there, {_ADVICE}"
        )
    other = _read(place)
    if other is None or other.elsewhere is not None:
        raise ImageError(
            f"has its metadata in {place.name}, which has none: copy it anew, {_ADVICE}"
        )
    return place, other


def _read(path: Path) -> _Metadata | None:
    with contextlib.suppress(OSError):
        status = path.stat()
        return _read_once(path.absolute(), status.st_size, status.st_mtime_ns)
    return None


@functools.lru_cache(8)  # of a large set, each may be megabytes
def _read_once(path: Path, size: int, mtime_ns: int) -> _Metadata | None:
    text, is_tiff = None, False
    # What is no TIFF file, or a damaged one, is reported when it is opened.
    with contextlib.suppress(Exception):
        with path.open("rb") as opened:
            start = opened.read(4)
        if is_tiff := start[:2] in (b"II", b"MM"):
            with tifffile.TiffFile(path) as file:
                text = file.ome_metadata
        elif b"<" in start:
            text = read_small(path, _LARGEST).decode("utf-8-sig").strip()
            text = text if text.endswith("OME>") else None
    if text is None:
        return None
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ImageError(
            f"has damaged OME-XML, which should name its axes ({error}): copy it anew, {_ADVICE}"
        ) from None
    names, elsewhere = set(), None
    for each in root.iter():
        kind = each.tag.rpartition("}")[2]
        if kind == "UUID" and (name := each.get("FileName")):
            names.add((name, (each.text or "").strip()))
        elif kind == "BinaryOnly":
            elsewhere = each.get("MetadataFile", "")
    return _Metadata(is_tiff, text, frozenset(names), elsewhere)
