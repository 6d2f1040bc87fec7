"""The attributes of OME-Zarr (NGFF) images that are written, and whether they are still as written.

Each group that cbsn writes has a mark among its attributes: the names of what it holds, and the
checksum of the other attributes. So a folder that holds something else is told from a result.
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.errors import ImageError
from cbsn.images.stacks.ome_zarr import AXIS_TYPES, OmeZarrFacts, read_node
from cbsn.images.stacks.stack import Channel, Layout

_RGB = tuple(
    map(Channel, ("Red", "Green", "Blue", "Alpha"), ("#FF0000", "#00FF00", "#0000FF", "#FFFFFF"))
)
_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")  # of a group
_OF_ARRAY = re.compile(r"zarr\.json|c|\.zarray|\.zattrs|\d+")  # what it may hold
_OF_SYSTEMS = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini")  # which nobody misses
_COLORS = ("#00FF00", "#FF00FF", "#00FFFF", "#FF0000", "#0000FF", "#FFFF00")


MARK = "cbsn"
"""The attribute that shows what cbsn has written in a group."""


def marked(attributes: Mapping[str, Any], holds: Sequence[str]) -> dict[str, Any]:
    """Returns a group's attributes with the mark of cbsn.

    Args:
        attributes: of the group.
        holds: the names of the groups and arrays that it holds.
    """
    others = {name: value for name, value in attributes.items() if name != MARK}
    return {**others, MARK: {"holds": [*holds], "sha256": _sha256(others)}}


def _sha256(attributes: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()


def find_foreign(folder: Path) -> Path | None:
    """Returns something in a Zarr folder that cbsn has not written; None if there is nothing.

    It is the folder itself, or a group in it, if its attributes are not those that were written.
    The values of arrays do not count.
    """
    try:
        attributes, _, is_array = read_node(folder)
    except ImageError:
        return folder
    entries = sorted(each for each in folder.iterdir() if not _OF_SYSTEMS.fullmatch(each.name))
    if is_array:
        return next((each for each in entries if not _OF_ARRAY.fullmatch(each.name)), None)
    mark = attributes.pop(MARK, None)
    holds = mark.get("holds") if isinstance(mark, dict) else None
    if not isinstance(holds, list) or mark.get("sha256") != _sha256(attributes):
        return folder
    for entry in entries:
        if entry.name in holds:
            if found := find_foreign(entry):
                return found
        elif entry.name not in _FILES:
            return entry
    return None


def placed(ome: Mapping[str, Any], zarr_format: int) -> dict[str, Any]:
    """Returns what NGFF defines, at its place in a group's attributes."""
    return {"ome": {**ome, "version": "0.5"}} if zarr_format == 3 else {**ome}


def image_attributes(layout: Layout, axes: str, levels: int, zarr_format: int) -> dict[str, Any]:
    """Returns the attributes of an image: those of its source, with what has changed."""
    facts = layout.metadata if isinstance(layout.metadata, OmeZarrFacts) else None
    # Up to version 0.4, NGFF's attributes are among the others.
    kept = facts.attributes if facts and facts.zarr_format == zarr_format == 3 else {}
    ome = copy.deepcopy(dict(facts.ome)) if facts else {}
    source = ome.pop("multiscales", [{}])[0]
    ome.pop("omero", None)
    omero = _kept_omero(layout) or _new_omero(layout)
    multiscales = {
        **{key: value for key, value in source.items() if key != "coordinateTransformations"},
        "axes": [*_axes(layout, axes)],
        "datasets": [
            {"path": str(level), "coordinateTransformations": _transformations(layout, axes, level)}
            for level in range(levels)
        ],
        "type": "mean",
        "metadata": {"description": "Mean of 2 x 2 pixels in y and x, level by level."},
    }
    if layout.name:
        multiscales["name"] = layout.name
    if zarr_format == 2:
        multiscales["version"] = "0.4"
    ome["multiscales"] = [multiscales]
    if omero:
        ome["omero"] = omero
    return {**kept, **placed(ome, zarr_format)}


def _axes(layout: Layout, axes: str) -> Iterator[dict[str, str]]:
    for axis in axes:
        entry = {"name": axis.lower(), "type": AXIS_TYPES[axis]}
        if axis in layout.spacing and layout.spacing[axis].unit:
            entry["unit"] = layout.spacing[axis].unit
        yield entry


def _transformations(layout: Layout, axes: str, level: int) -> list[dict[str, Any]]:
    """Returns the scale of a level, and where the centre of its first pixel is."""
    facts = layout.metadata
    scale, translation = [], []
    for axis in axes:
        size = layout.spacing[axis].size if axis in layout.spacing and axis != "C" else 1.0
        origin = facts.origin.get(axis, 0.0) if isinstance(facts, OmeZarrFacts) else 0.0
        if axis in layout.taken and axis != "C":
            origin += layout.taken[axis].start * size
        factor = 2**level if axis in "YX" else 1
        scale.append(float(size * factor))
        translation.append(float(origin + size * (factor - 1) / 2))
    transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(translation):
        transformations.append({"type": "translation", "translation": translation})
    return transformations


def _kept_omero(layout: Layout) -> dict[str, Any] | None:
    """Returns the source's attribute `omero` for the channels taken, or None if it has none."""
    facts = layout.metadata
    omero = facts.ome.get("omero") if isinstance(facts, OmeZarrFacts) else None
    if not isinstance(omero, dict):
        return None
    channels = omero.get("channels")
    taken = layout.taken.get("C", range(layout.size("C")))
    # Without channels, the reader has found that their number does not fit.
    if not isinstance(channels, list) or not layout.channels or len(channels) <= max(taken):
        return None
    omero = copy.deepcopy({**omero, "channels": [channels[place] for place in taken]})
    for axis in {"T", "Z"} & layout.taken.keys():
        if isinstance(omero.get("rdefs"), dict):  # the planes that viewers show first
            omero["rdefs"].pop(f"default{axis}", None)
    return omero


def _new_omero(layout: Layout) -> dict[str, Any] | None:
    channels = _RGB[: layout.samples] if "S" in layout.axes else layout.channels
    if not channels:
        return None
    full = _full_range(layout.dtype)
    entries = []
    for number, channel in enumerate(channels):
        usual = "#FFFFFF" if len(channels) == 1 else _COLORS[number % len(_COLORS)]
        entries.append(
            {
                "label": channel.name or str(number),
                "color": (channel.color or usual).removeprefix("#"),
                "active": True,
                "window": _window(full, full),
            }
        )
    return {"channels": entries}


class Windows:
    """For each channel, the values that viewers should show as black and as white.

    A source's own are kept. Others come from the last level, where outliers have been averaged.

    Args:
        layout: of the image.
        channels: of the attribute `omero`, into which `store` puts what has been found.
    """

    def __init__(self, layout: Layout, channels: Sequence[dict[str, Any]]):
        self._layout, self._channels = layout, channels
        self._full = _full_range(layout.dtype)
        # The full range keeps the colours of an RGB image.
        is_rgb_of_integers = "S" in layout.axes and layout.dtype.kind != "f"
        self._are_fixed = _kept_omero(layout) is not None or is_rgb_of_integers
        self._ranges: dict[int, tuple[float, float]] = {}
        if not self._are_fixed:
            for number, channel in enumerate(channels):
                found = channel["window"]["start"], channel["window"]["end"]
                if found != self._full:  # else nothing has been written yet
                    self._ranges[number] = found

    def add(self, channel: int, part: np.ndarray) -> None:
        """Widens the range of a channel by these pixels; RGB samples share one range."""
        values = part[np.isfinite(part)] if part.dtype.kind == "f" else part
        if self._are_fixed or not values.size:
            return
        low, high = values.min().item(), values.max().item()
        for number in range(self._layout.samples) if "S" in self._layout.axes else (channel,):
            before = self._ranges.get(number, (low, high))
            self._ranges[number] = min(low, before[0]), max(high, before[1])

    def store(self) -> bool:
        """Puts the ranges into the attributes, and returns whether there are any."""
        for number, channel in enumerate(self._channels):
            if number in self._ranges:
                ends = self._ranges[number]
                channel["window"] = _window(
                    ends if self._layout.dtype.kind == "f" else self._full, ends
                )
        return bool(self._ranges and self._channels)


def _full_range(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind == "f":
        return 0.0, 1.0
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _window(ends: tuple[float, float], shown: tuple[float, float]) -> dict[str, float]:
    return {"min": ends[0], "max": ends[1], "start": shown[0], "end": shown[1]}
