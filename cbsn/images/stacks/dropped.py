"""What a stack's result lacks of its source's metadata, as its format has no place for them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from cbsn.images.stacks.ome_zarr import ZARR_SUFFIX, OmeZarrFacts
from cbsn.images.stacks.ome_zarr_attributes import MARK
from cbsn.images.stacks.stack import Layout
from cbsn.images.stacks.tiff_stacks import TiffFacts
from cbsn.images.stacks.units import unit_symbol

_MOST = 8  # names in a note

# Attributes of NGFF that OME-TIFF has in its own way, or that are no metadata.
_OF_NGFF = ("multiscales", "omero", "version", "_creator", "bioformats2raw.layout", MARK)

# Of OME-XML, what OME-Zarr has, too, and what says how the pixels are stored.
_ELEMENTS = (
    *("OME", "Image", "Pixels", "Channel", "LightPath", "Plane", "TiffData", "UUID"),
    *("BinData", "BinaryOnly", "MetadataOnly"),
)
_ATTRIBUTES = {
    "Channel": r"ID|Name|Color|SamplesPerPixel|\w+Unit",
    "Plane": r"The[ZCT]|\w+Unit",
    "Pixels": r"ID|DimensionOrder|Type|Size[XYZCT]|PhysicalSize[XYZ](Unit)?|TimeIncrement(Unit)?"
    "|BigEndian|Interleaved|SignificantBits",
}

_NUMBERED = re.compile(r"(Image)?:?\d*")  # a name that says nothing

# The same of ImageJ's metadata.
_OF_IMAGEJ = (
    *("ImageJ", "images", "channels", "slices", "frames", "hyperstack", "axes", "mode"),
    *("loop", "unit", "spacing", "finterval", "LUTs"),
)
_DISPLAY = {"min", "max", "Ranges"}
_SHOWN = "display ranges"

_UNITS = {2: "inch", 3: "centimeter"}  # of TIFF
_SOFTWARE = 305


def dropped_metadata(layout: Layout, target: Path) -> Iterator[str]:
    """Yields notes on what a result lacks of the metadata of its source.

    Args:
        layout: of the result, with what its source says.
        target: the file or folder of the result.
    """
    facts, to_zarr = layout.metadata, target.suffix.lower() == ZARR_SUFFIX
    names: list[str] = []
    if isinstance(facts, OmeZarrFacts):
        if facts.left_out:
            yield f"not in the result: {', '.join(facts.left_out)}."
        names = [] if to_zarr else [*_of_zarr(facts, layout)]
    elif to_zarr and isinstance(facts, TiffFacts):
        names = [*_of_tiff(facts, layout)]
    elif to_zarr and isinstance(facts, str):  # the OME-XML of a microscope's file
        names = [*_of_xml(facts, None)]
    names = [*dict.fromkeys(names)]
    if names:
        many = ", …" * (len(names) > _MOST)
        kind = "OME-Zarr" if to_zarr else "TIFF"
        yield (
            f"the result in {kind} lacks some metadata of the source: {', '.join(names[:_MOST])}"
            f"{many}. To keep them, omit --format."
        )


def _of_zarr(facts: OmeZarrFacts, layout: Layout) -> Iterator[str]:
    if facts.above:
        yield "plate"
    if any(facts.origin.values()):
        yield "origin (translation)"
    for axis, each in layout.spacing.items():
        if each.unit and unit_symbol(each.unit) is None:
            yield f"voxel size in {axis} ({each.unit})"
    omero = facts.ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if isinstance(channels, list) and any(
        isinstance(each, dict) and "window" in each for each in channels
    ):
        yield _SHOWN
    for name in {**facts.attributes, **facts.ome}:
        if name not in _OF_NGFF and (name != "ome" or facts.zarr_format != 3):
            yield name


def _of_tiff(facts: TiffFacts, layout: Layout) -> Iterator[str]:
    if facts.ome is not None:
        yield from _of_xml(facts.ome, facts.image, has_name=bool(layout.name))
    for name in facts.imagej or ():
        if name not in _OF_IMAGEJ:
            yield _SHOWN if name in _DISPLAY else name
    if facts.resolution and facts.resolution[2] in _UNITS:
        x, y, unit = facts.resolution
        yield f"resolution ({float(x):g} x {float(y):g} pixels per {_UNITS[unit]})"
    if facts.profile:
        yield "colour profile"
    for code in dict.fromkeys(tag[0] for tags in facts.pages for tag in tags):
        if code != _SOFTWARE:  # that of the source has not written the result
            yield tifffile.TIFF.TAGS.get(code, f"tag {code}")


def _of_xml(text: str, number: int | None, *, has_name: bool = True) -> Iterator[str]:
    """Yields the names of what OME-XML says besides voxel size and channels.

    Args:
        text: the OME-XML.
        number: that of the stack among its images. None for all.
        has_name: whether the result has the image's name.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        yield "OME-XML"
        return
    images = [each for each in root if _tag(each) == "Image"]
    for top in root:
        if top not in images:
            yield from (name for name in [_tag(top)] if name not in _ELEMENTS)
    for image in images if number is None else images[number : number + 1]:
        if not has_name and not _NUMBERED.fullmatch(image.attrib.get("Name", "")):
            yield "name of the image"
        for element in image.iter():
            tag = _tag(element)
            for attribute in element.attrib if tag in _ATTRIBUTES else ():
                if not re.fullmatch(_ATTRIBUTES[tag], attribute):
                    yield attribute
            if tag not in _ELEMENTS and not tag.endswith("Ref"):
                yield tag


def _tag(element: Any) -> str:
    return element.tag.rpartition("}")[2]
