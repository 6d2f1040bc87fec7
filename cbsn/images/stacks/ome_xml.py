"""OME-XML, the metadata of OME-TIFF files: what a stack's layout needs of it, and the way back.

(Schema: https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome.html)
"""

import contextlib
import copy
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile

from cbsn.errors import ImageError
from cbsn.images.stacks.stack import Channel, Layout, Spacing
from cbsn.images.stacks.units import unit_symbol

_CREATOR = "cbsn"

_TYPES = {
    **{name: name for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32")},
    **{"float32": "float", "float64": "double"},
}
"""OME's names of dtypes."""

# The sizes and what they are called.
_SIZES = (("X", "PhysicalSizeX"), ("Y", "PhysicalSizeY"), ("Z", "PhysicalSizeZ"))
_LENGTHS = (*_SIZES, ("T", "TimeIncrement"))


class Facts(NamedTuple):
    """What OME-XML says about an image."""

    name: str
    spacing: dict[str, Spacing]
    channels: tuple[Channel, ...]


def read_facts(text: str) -> list[Facts]:
    """Returns what OME-XML says about each image; an empty list if it cannot be read."""
    with contextlib.suppress(ElementTree.ParseError):
        root = ElementTree.fromstring(text)
        return [_facts(image) for image in _children(root, "Image")]
    return []


def _facts(image: Any) -> Facts:
    spacing: dict[str, Spacing] = {}
    channels: tuple[Channel, ...] = ()
    for pixels in _children(image, "Pixels"):
        for axis, name in _LENGTHS:
            with contextlib.suppress(KeyError, ValueError):
                size = float(pixels.attrib[name])
                unit = pixels.attrib.get(f"{name}Unit", "s" if axis == "T" else "µm")
                if 0 < size < np.inf:
                    spacing[axis] = Spacing(size, unit)
        channels = tuple(_channel(each.attrib) for each in _children(pixels, "Channel"))
    return Facts(image.attrib.get("Name", ""), spacing, channels)


def _channel(values: Any) -> Channel:
    color = ""
    with contextlib.suppress(KeyError, ValueError):  # RGBA in a signed integer
        color = f"#{int(values['Color']) % 2**32 >> 8:06X}"
    return Channel(values.get("Name", ""), color)


def _children(element: Any, name: str) -> list[Any]:
    """Returns the children with a name, whatever the version of the schema."""
    return [each for each in element if each.tag.rpartition("}")[2] == name]


def make_xml(layouts: Sequence[Layout], source: str | None, images: Sequence[int]) -> bytes:
    """Returns the OME-XML of a file that holds these stacks, plane after plane.

    Args:
        layouts: of the stacks, whose planes are in the order of `Layout.indices`.
        source: the OME-XML of the file that they come from; all of it that still holds is kept.
        images: for each stack, the number of its image in the source.

    Raises:
        ImageError: if OME cannot hold a dtype.
    """
    for layout in layouts:
        if str(layout.dtype) not in _TYPES:
            raise ImageError(f"OME-TIFF holds no {layout.dtype}; use --dtype float32.")
    if source:
        # What is damaged, or of another schema, is made anew.
        with contextlib.suppress(ElementTree.ParseError, LookupError, ValueError):
            return _updated(source, layouts, images)
    ome = tifffile.OmeXml(Creator=_CREATOR)
    for layout in layouts:
        height, width = layout.size("Y"), layout.size("X")
        stored = (layout.planes, 1, 1, height, width, layout.samples)
        shape = (*layout.outer_shape, height, width, *layout.shape[-1:] * ("S" in layout.axes))
        axes = layout.outer + "YX" + "S" * ("S" in layout.axes)
        values: dict[str, Any] = {}
        for axis, name in _LENGTHS:
            values |= _length(layout, axis, name)
        if layout.channels:
            values["Channel"] = {"Name": [each.name or None for each in layout.channels]}
            if all(each.color for each in layout.channels):
                values["Channel"]["Color"] = [_rgba(each.color) for each in layout.channels]
        if layout.name:
            values["Name"] = layout.name
        ome.addimage(layout.dtype, shape, stored, axes=axes, **values)
    return ome.tostring(declaration=True).encode()


def _length(layout: Layout, axis: str, name: str) -> dict[str, Any]:
    """Returns OME's attributes of the spacing along an axis; none if OME has no such unit."""
    if axis not in layout.spacing:
        return {}
    size, unit = layout.spacing[axis].size, layout.spacing[axis].unit
    symbol = unit_symbol(unit)
    if unit and symbol is None:
        return {}
    return {name: size, **({f"{name}Unit": symbol} if unit else {})}


def _rgba(color: str) -> int:
    """Returns `#RRGGBB` as OME has it: RGBA, opaque, in a signed integer of 32 bits."""
    value = int(color[1:], 16) << 8 | 255
    return value - 2**32 if value >= 2**31 else value


def _updated(source: str, layouts: Sequence[Layout], images: Sequence[int]) -> bytes:
    """Returns a source's OME-XML with what has changed."""
    root = ElementTree.fromstring(source)
    namespace = root.tag.rpartition("}")[0][1:]
    ElementTree.register_namespace("", namespace)
    root.attrib["UUID"] = f"urn:uuid:{uuid.uuid4()}"
    root.attrib["Creator"] = _CREATOR
    before = _children(root, "Image")
    chosen = [before[number] for number in images]
    for image in before:
        if image not in chosen:
            root.remove(image)
    page = 0
    for image, layout in zip(chosen, layouts, strict=True):
        _update_image(image, layout, page, namespace)
        page += layout.planes
    # Files that name others would be read together with them.
    for each in _children(root, "BinaryOnly"):
        root.remove(each)
    declaration = b'<?xml version="1.0" encoding="UTF-8"?>'
    return declaration + ElementTree.tostring(root, encoding="utf-8")


def _update_image(image: Any, layout: Layout, page: int, namespace: str) -> None:
    """Updates an image whose first plane is at this page."""
    (pixels,) = _children(image, "Pixels")
    values = pixels.attrib
    order = "XY" + layout.outer[::-1]
    values["DimensionOrder"] = order + "".join(axis for axis in "CZT" if axis not in order)
    values["BigEndian"] = "false"
    if values.get("Type") != _TYPES[str(layout.dtype)]:
        values.pop("SignificantBits", None)
    values["Type"] = _TYPES[str(layout.dtype)]
    if layout.samples > 1:
        values["Interleaved"] = "true"
    else:
        values.pop("Interleaved", None)
    for axis in "XYZT":
        values[f"Size{axis}"] = str(layout.size(axis))
    values["SizeC"] = str(layout.size("C") * layout.samples)
    for axis, name in _LENGTHS:  # what a microscope's own format has told besides its OME-XML
        if name not in values:
            values.update({key: str(value) for key, value in _length(layout, axis, name).items()})
    channels = _update_channels(pixels, layout, namespace)
    if len(channels) == len(layout.channels):
        for each, channel in zip(channels, layout.channels, strict=True):
            if channel.color:
                each.attrib.setdefault("Color", str(_rgba(channel.color)))
            if channel.name:
                each.attrib.setdefault("Name", channel.name)
    _update_planes(pixels, layout)
    for name in ("TiffData", "BinData", "MetadataOnly"):
        for each in _children(pixels, name):
            pixels.remove(each)
    facts = {"IFD": str(page), "PlaneCount": str(layout.planes)}
    data = ElementTree.Element(f"{{{namespace}}}TiffData" if namespace else "TiffData", facts)
    # The schema wants channels first, then this, then planes.
    pixels.insert(len(_children(pixels, "Channel")), data)


def _update_channels(pixels: Any, layout: Layout, namespace: str) -> list[Any]:
    """Makes channels those of the layout, and returns them."""
    own = _own_axes(layout)
    before = _children(pixels, "Channel")
    channels: list[Any] = []
    if own.get("C", "C") in "CS" and own.get("S", "S") == "S":
        most = max(layout.taken.get("C", range(layout.size("C"))), default=0) + 1
        for each in before:
            channels.append(each)
            if layout.samples == 1:  # samples that are no colours have become channels
                count = min(int(each.attrib.get("SamplesPerPixel", 1)), most)  # if it is damaged
                channels += [copy.deepcopy(each) for _ in range(1, count)]
                for number, more in enumerate(channels[len(channels) - count + 1 :], 1):
                    more.attrib["ID"] = f"{each.attrib['ID']}:{number}"
        if "C" in layout.taken and len(channels) > 1:
            channels = [channels[number] for number in layout.taken["C"]]
    if len(channels) != layout.size("C"):  # with axes that the user has told
        tag = f"{{{namespace}}}Channel" if namespace else "Channel"
        name = pixels.attrib["ID"].replace("Pixels:", "", 1)
        channels = [
            ElementTree.Element(tag, {"ID": f"Channel:{name}:{number}"})
            for number in range(layout.size("C"))
        ]
    for each in before:
        pixels.remove(each)
    for place, each in enumerate(channels):  # which the schema wants first
        each.attrib["SamplesPerPixel"] = str(layout.samples)
        pixels.insert(place, each)
    return channels


def _update_planes(pixels: Any, layout: Layout) -> None:
    """Gives what is said of single planes their new positions; removes what is said of others."""
    own, outer = _own_axes(layout), layout.outer
    for each in _children(pixels, "Plane"):
        old = {axis: int(each.attrib.get(f"The{axis}", 0)) for axis in "ZCT"}
        new = dict.fromkeys("ZCT", 0)
        for axis in outer:
            source = own.get(axis, axis)
            source = source if source in "ZCTS" else axis  # one that OME lacks
            new[axis] = 0 if source == "S" else old.pop(source)
            if axis in layout.taken:
                span = layout.taken[axis]
                new[axis] = span.index(new[axis]) if new[axis] in span else -1
        if any(old.values()) or not all(0 <= new[axis] < layout.size(axis) for axis in new):
            pixels.remove(each)
        for axis, number in new.items():
            each.attrib[f"The{axis}"] = str(number)


def _own_axes(layout: Layout) -> Mapping[str, str]:
    """Returns by axis what the file itself calls it; others have their own names."""
    return getattr(layout.metadata, "own_axes", {})
