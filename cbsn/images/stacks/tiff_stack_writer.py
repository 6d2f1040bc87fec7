"""Writing stacks to TIFF files: multi-page, ImageJ's hyperstacks, OME-TIFF."""

import io
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cbsn.errors import CbsnWarning
from cbsn.images.stacks.ome_xml import make_xml
from cbsn.images.stacks.stack import Layout
from cbsn.images.stacks.tiff_stacks import TiffFacts
from cbsn.images.tiff import CLASSIC_BYTES
from cbsn.images.tiff_metadata import DESCRIPTION

_IMAGEJ_AXES = "TZCYXS"
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
# What the writer of ImageJ's metadata derives from the shape.
_DERIVED = ("ImageJ", "images", "channels", "slices", "frames", "hyperstack", "axes")
_HOME = {"ImageJ": "ImageJ", "TIFF": "TIFF", "array": "TIFF"}  # the kind of TIFF by source


class TiffStackFile:
    """A TIFF file of stacks, open for writing; see `cbsn.images.stacks.writing.StackFile`.

    Pixels are not compressed, so that planes can be written in any order, and again.
    """

    def __init__(self, path: Path, layouts: Sequence[Layout], *, resume: bool):
        self._layouts = layouts
        if not resume:
            _create(path, layouts)
        self._path = path
        firsts = np.cumsum([0, *(layout.planes for layout in layouts)])
        with tifffile.TiffFile(path) as file:
            # ImageJ's files above 4 GB list only their first page.
            pages: Any = file.pages
            self._offsets = [pages[int(first)].dataoffsets[0] for first in firsts[:-1]]
            # Only where each has tags of its own are there any between the planes.
            own = [page.dataoffsets[0] for page in pages] if _page_tags(layouts[0]) else []
            self._page_offsets = own
        end = own[-1] + layouts[0].plane_bytes if own else self._offsets[-1] + layouts[-1].nbytes
        if path.stat().st_size < end:
            with path.open("r+b") as file:
                file.truncate(end)

    def write(
        self, stack: int, index: Sequence[int], rows: slice, columns: slice, part: np.ndarray
    ) -> None:
        """Writes a part of a plane."""
        layout = self._layouts[stack]
        shape = layout.shape[len(layout.outer) :]
        number = int(np.ravel_multi_index(index, layout.outer_shape)) if layout.outer else 0
        offset = self._offsets[stack] + number * layout.plane_bytes
        if self._page_offsets:
            offset = self._page_offsets[number]
        pixel, width = math.prod(shape[2:]) * layout.dtype.itemsize, shape[1]
        part = np.ascontiguousarray(part, layout.dtype)
        # Not a memory map: several machines may write planes that share a page of it.
        with self._path.open("r+b", buffering=0) as file:
            if columns.stop - columns.start == width:
                file.seek(offset + rows.start * width * pixel)
                _write(file, part)
                return
            for row, values in zip(range(rows.start, rows.stop), part, strict=True):
                file.seek(offset + (row * width + columns.start) * pixel)
                _write(file, values)

    def flush(self) -> None:
        """Waits until everything that was written is on the disk."""
        with self._path.open("r+b") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Does nothing, as nothing stays open."""


def _write(file: io.FileIO, values: np.ndarray) -> None:
    """Writes all bytes; the system may take fewer at a time."""
    rest = values.data.cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def create_tiff_stack(path: Path, layouts: Sequence[Layout], *, resume: bool) -> TiffStackFile:
    """Creates a file, or opens it again; see `cbsn.images.stacks.writing.Create`.

    The kind of TIFF is that of the source. Other formats become OME-TIFF.
    """
    return TiffStackFile(path, layouts, resume=resume)


def _create(path: Path, layouts: Sequence[Layout]) -> None:
    kind = _HOME.get(layouts[0].format, "OME-TIFF")
    if kind == "ImageJ" and (reason := _no_imagej(layouts[0])):
        kind = "OME-TIFF"
        warnings.warn(f"ImageJ's files {reason}: written as OME-TIFF.", CbsnWarning, stacklevel=2)
    size = sum(layout.nbytes for layout in layouts)
    pages = sum(layout.planes for layout in layouts)
    tags = sum(len(entry[3]) for each in _page_tags(layouts[0]) for entry in each)
    big = size + tags + 1000 * pages > CLASSIC_BYTES
    if kind == "ImageJ":
        _create_imagej(path, layouts[0], big)
    elif kind == "OME-TIFF":
        _create_ome(path, layouts, big)
    else:
        _create_plain(path, layouts[0], big)


def _no_imagej(layout: Layout) -> str:
    """Returns why a stack cannot be an ImageJ hyperstack; empty if it can."""
    if [*layout.axes] != [axis for axis in _IMAGEJ_AXES if axis in layout.axes]:
        return f"have no axes in the order {layout.axes}"  # which the user has told
    if layout.samples > 1 and layout.dtype != np.uint8:
        return f"hold no RGB of {layout.dtype}"
    return "" if str(layout.dtype) in _IMAGEJ_DTYPES else f"hold no {layout.dtype}"


def _options(layout: Layout) -> dict[str, Any]:
    """Returns options of `TiffWriter.write` for a stack of any kind."""
    facts = layout.metadata if isinstance(layout.metadata, TiffFacts) else TiffFacts()
    photometric = "rgb" if layout.samples > 1 else "minisblack"
    if facts.photometric == "MINISWHITE":
        photometric = "miniswhite"
    colors = facts.colors
    if colors is not None and layout.dtype.kind == "u" and layout.dtype.itemsize < 4:
        photometric = "palette"
        lacking = 2 ** (8 * layout.dtype.itemsize) - colors.shape[1]
        colors = np.pad(colors, ((0, 0), (0, max(lacking, 0))), "edge")
    options: dict[str, Any] = {
        "data": None,
        "dtype": layout.dtype,
        "photometric": photometric,
        "planarconfig": "contig" if layout.samples > 1 else None,
        "extrasamples": ["unassalpha"] if layout.samples == 4 else None,
        "software": False,
        "iccprofile": facts.profile,
        "colormap": colors if photometric == "palette" else None,
    }
    if facts.resolution:
        x, y, unit = facts.resolution
        options["resolution"] = (x.as_integer_ratio(), y.as_integer_ratio())
        options["resolutionunit"] = unit
    return options


def _create_imagej(path: Path, layout: Layout, big: bool) -> None:
    """Creates an ImageJ hyperstack; it has the axes that ImageJ has, in its order."""
    values = dict(layout.metadata.imagej or {}) if isinstance(layout.metadata, TiffFacts) else {}
    planes = int(values.get("images", layout.planes))
    kept = {
        name: _escaped(value) if isinstance(value, str) and name != "Info" else value
        for name, value in values.items()
        if name not in _DERIVED
    }
    taken = layout.taken
    if labels := kept.pop("Labels", None):
        whole = [max(1, int(values.get(n, 1))) for n in ("frames", "slices", "channels")]
        if len(labels) == planes == math.prod(whole):
            table = np.arange(planes).reshape(whole)
            for place, axis in enumerate("TZC"):
                if axis in taken:
                    table = table.take([*taken[axis]], place)
            kept["Labels"] = [labels[number] for number in table.ravel()]
    if "C" in taken:
        if np.ndim(kept.get("LUTs", ())) == 3 and max(taken["C"]) < len(kept["LUTs"]):
            kept["LUTs"] = [kept["LUTs"][number] for number in taken["C"]]
        if "Ranges" in kept and 2 * max(taken["C"]) + 1 < len(kept["Ranges"]):
            ends = [kept["Ranges"][2 * n : 2 * n + 2] for n in taken["C"]]
            kept["Ranges"] = tuple(end for pair in ends for end in pair)
    options = _options(layout)
    for name in ("planarconfig", "extrasamples"):
        options.pop(name)
    with tifffile.TiffWriter(path, imagej=True) as file:
        file.write(
            **options,
            shape=layout.shape,
            metadata={"axes": layout.axes, **kept},
            truncate=big,
            contiguous=False,
        )


def _escaped(text: str) -> str:
    """Writes characters that are not ASCII as ImageJ does, such as the µ of µm."""
    return "".join(each if each.isascii() else f"\\u{ord(each):04X}" for each in text)


def _create_ome(path: Path, layouts: Sequence[Layout], big: bool) -> None:
    facts = [layout.metadata for layout in layouts]
    text, images = None, [*range(len(layouts))]
    if all(isinstance(each, TiffFacts) and each.ome for each in facts):
        text, images = facts[0].ome, [each.image for each in facts]
    elif isinstance(facts[0], str):  # of a microscope's file
        text = facts[0]
    description: bytes | None = make_xml(layouts, text, images)
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        for layout in layouts:
            shape = (layout.planes, *layout.shape[len(layout.outer) :])
            file.write(**_options(layout), shape=shape, metadata=None, description=description)
            description = None


def _page_tags(layout: Layout) -> list[tuple[Any, ...]]:
    """Returns the tags of each plane, if a file is to be written page by page; else none."""
    facts = layout.metadata
    if not isinstance(facts, TiffFacts) or len(facts.pages) < 2 or len(layout.outer) != 1:
        return []
    if facts.has_axes or facts.has_shape:  # which the first page states for all
        return []
    return [facts.pages[n] for n in layout.taken.get(layout.outer, range(len(facts.pages)))]


def _create_plain(path: Path, layout: Layout, big: bool) -> None:
    facts = layout.metadata if isinstance(layout.metadata, TiffFacts) else TiffFacts()
    options = _options(layout)
    plane = layout.shape[len(layout.outer) :]
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        if pages := _page_tags(layout):
            options |= {"shape": plane, "metadata": None, "contiguous": False}
            for each in pages:
                file.write(**options, extratags=each)
            return
        tags = [*facts.pages[0]] if facts.pages else []
        if isinstance(layout.metadata, TiffFacts) and not facts.has_axes and not facts.has_shape:
            options |= {"metadata": None, "shape": (layout.planes, *plane)}
        else:  # with the shape in a description of its own, after the file's
            described = [tag for tag in tags if tag[0] == DESCRIPTION]
            tags = [tag for tag in tags if tag[0] != DESCRIPTION]
            metadata = {"axes": layout.axes} if facts.has_axes or not facts.has_shape else {}
            options |= {"metadata": metadata, "shape": layout.shape}
            if described:
                options["description"] = described[0][3].rstrip(b"\0")
        file.write(**options, extratags=tags)
