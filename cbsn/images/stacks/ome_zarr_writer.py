"""Writing OME-Zarr (NGFF) images of the versions 0.4 and 0.5, with the library zarr."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cbsn.errors import ImageError
from cbsn.images.stacks.ome_zarr import AXIS_TYPES, OmeZarrFacts, zarr_library
from cbsn.images.stacks.ome_zarr_attributes import Windows, image_attributes, marked, placed
from cbsn.images.stacks.stack import Layout
from cbsn.images.stacks.writing import StackFile

_MOST_LEVELS = 8
_LAST_SIDE = 256  # of the last level, at most
_CHUNK_SIDE = 512
_KEPT_SIDES = (256, 512, 1024, 2048)  # of a source's chunks; others do not fit the grid of parts


def create_ome_zarr(path: Path, layouts: Sequence[Layout], *, resume: bool) -> StackFile:
    """Creates an OME-Zarr folder; see `writing.Create`.

    It becomes version 0.4 if the first layout comes from a Zarr folder of format 2, else 0.5. The
    images of a plate or a well are in one like it. Else, one layout is an image at the root, and
    several are a collection in the layout of bioformats2raw.

    Args:
        path: the folder; it must not exist, except with `resume`.
        layouts: of the images.
        resume: opens what an earlier call with equal layouts has created.

    Raises:
        ConfigError: if zarr is missing.
        ImageError: if OME-Zarr cannot hold a layout, or with `resume`, if the folder does not fit.
    """
    zarr = zarr_library()
    for layout in layouts:
        if "S" in layout.axes and layout.size("C") > 1:
            raise ImageError("has RGB colours in several channels, which OME-Zarr cannot hold.")
    facts = layouts[0].metadata
    zarr_format = facts.zarr_format if isinstance(facts, OmeZarrFacts) else 3
    names = image_paths(layouts)
    above: Mapping[str, Mapping[str, Any]] = {}
    if _are_in_a_plate(layouts):
        assert isinstance(facts, OmeZarrFacts)
        above = facts.above
        # Their places are not their names.
        layouts = [dataclasses.replace(layout, name="") for layout in layouts]
    elif len(layouts) > 1:
        above = {
            "": placed({"bioformats2raw.layout": 3}, zarr_format),
            "OME": placed({"series": names}, zarr_format),
        }
    if not resume:
        inside = [*names, *filter(None, above)]
        for group, attributes in above.items():
            holds = [PurePosixPath(each).name for each in inside if _parent(each) == group]
            zarr.create_group(
                str(path / group), zarr_format=zarr_format, attributes=marked(attributes, holds)
            )
    return _OmeZarrFile(
        [
            _Image(zarr, path / name, layout, zarr_format, resume=resume)
            for name, layout in zip(names, layouts, strict=True)
        ]
    )


def image_paths(layouts: Sequence[Layout]) -> list[str]:
    """Returns the path of each image in the folder that `create_ome_zarr` creates."""
    if _are_in_a_plate(layouts):
        return [layout.metadata.place for layout in layouts]
    return [str(number) for number in range(len(layouts))] if len(layouts) > 1 else [""]


def _are_in_a_plate(layouts: Sequence[Layout]) -> bool:
    """Returns whether images come from a plate or a well."""
    return all(isinstance(each.metadata, OmeZarrFacts) and each.metadata.above for each in layouts)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


class _OmeZarrFile:
    """See `writing.StackFile`."""

    def __init__(self, images: Sequence["_Image"]):
        self._images = images

    def write(
        self, stack: int, index: Sequence[int], rows: slice, columns: slice, part: np.ndarray
    ) -> None:
        """See `StackFile.write`."""
        self._images[stack].write(index, rows, columns, part)

    def flush(self) -> None:
        """See `StackFile.flush`.

        Each chunk is a file, which zarr closes before a write returns, and which recent versions
        replace in one step, so nothing is lost if this process dies. Waiting for the disk as well,
        in case the power fails, would take long: there are thousands of files.
        """
        for image in self._images:
            image.save_windows()

    def close(self) -> None:
        """See `StackFile.close`."""
        self.flush()


class _Image:
    """An image of an OME-Zarr folder, with all its levels.

    A level's pixel is the mean of 2 x 2 pixels of the level before. As parts begin at multiples
    of 2 to the power of the levels, all levels of a part follow from the part alone.
    """

    def __init__(self, zarr: Any, folder: Path, layout: Layout, zarr_format: int, *, resume: bool):
        self._layout = layout
        self._axes = "".join(
            axis
            for axis in AXIS_TYPES
            if axis in layout.axes or (axis == "C" and "S" in layout.axes)
        )
        self._sides = _level_sides(layout.size("Y"), layout.size("X"))
        self._zarr_format = zarr_format
        self._levels = [str(level) for level in range(len(self._sides))]
        self._attributes = image_attributes(layout, self._axes, len(self._sides), zarr_format)
        if resume:
            self._group, self._arrays = self._opened(zarr, folder)
        else:
            self._group = zarr.create_group(
                str(folder), zarr_format=zarr_format, attributes=self._marked()
            )
            self._arrays = [self._create_array(zarr, level) for level in range(len(self._sides))]
        self._windows = Windows(layout, self._ome.get("omero", {}).get("channels", []))

    @property
    def _ome(self) -> dict[str, Any]:
        return self._attributes["ome"] if self._zarr_format == 3 else self._attributes

    def _marked(self) -> dict[str, Any]:
        return marked(self._attributes, self._levels)

    def _shapes(self, level: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of a level and of its chunks."""
        facts = self._layout.metadata
        shape, chunks = [], []
        for axis in self._axes:
            if axis in "YX":
                size = self._sides[level]["YX".index(axis)]
                side = facts.chunks.get(axis) if isinstance(facts, OmeZarrFacts) else None
                chunks.append(min(size, side if side in _KEPT_SIDES else _CHUNK_SIDE))
            else:
                is_rgb = axis == "C" and "S" in self._layout.axes
                size = self._layout.size("S" if is_rgb else axis)
                chunks.append(1)
            shape.append(size)
        return tuple(shape), tuple(chunks)

    def _create_array(self, zarr: Any, level: int) -> Any:
        # Blosc with zstd and a shuffle of bytes: what ome-zarr-py uses, too, so that all read it.
        options: dict[str, Any]
        if self._zarr_format == 3:
            options = {
                "compressors": zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"),
                "dimension_names": [axis.lower() for axis in self._axes],
            }
        else:
            import numcodecs

            options = {
                "compressors": numcodecs.Blosc(cname="zstd", clevel=5, shuffle=1),
                "chunk_key_encoding": {"name": "v2", "separator": "/"},
            }
        shape, chunks = self._shapes(level)
        return self._group.create_array(
            str(level),
            shape=shape,
            chunks=chunks,
            dtype=self._layout.dtype,
            fill_value=0,
            **options,
        )

    def _opened(self, zarr: Any, folder: Path) -> tuple[Any, list[Any]]:
        """Opens what an earlier run has created; raises an ImageError if that is something else."""
        group = zarr.open_group(
            str(folder), mode="r+", zarr_format=self._zarr_format, use_consolidated=False
        )
        stored = dict(group.attrs)
        kept = stored.get("ome", {}) if self._zarr_format == 3 else stored
        is_same = _text(kept.get("multiscales")) == _text(self._ome["multiscales"])
        arrays = []
        for level in range(len(self._sides)):
            array = zarr.open_array(
                str(folder / str(level)), mode="r+", zarr_format=self._zarr_format
            )
            expected = (*self._shapes(level), self._layout.dtype)
            is_same = is_same and (array.shape, array.chunks, array.dtype) == expected
            arrays.append(array)
        if not is_same:
            raise ImageError("was begun with other settings.")
        self._attributes = stored
        return group, arrays

    def write(self, index: Sequence[int], rows: slice, columns: slice, part: np.ndarray) -> None:
        """See `StackFile.write`."""
        layout = self._layout
        step = 2 ** (len(self._sides) - 1)
        for axis, span in (("Y", rows), ("X", columns)):
            if span.start % step or (span.stop % step and span.stop != layout.size(axis)):
                raise ValueError(f"parts must begin and end at multiples of {step}: {span}")
        places: dict[str, Any] = dict(zip(layout.outer, index, strict=True))
        if "S" in layout.axes:
            places["C"] = slice(None)
        for level, array in enumerate(self._arrays):
            if level:
                part = _halved(part)
            top, left = rows.start >> level, columns.start >> level
            places["Y"] = slice(top, top + part.shape[0])
            places["X"] = slice(left, left + part.shape[1])
            key = tuple(places[axis] for axis in self._axes)
            array[key] = np.moveaxis(part, -1, 0) if "S" in layout.axes else part
        self._windows.add(layout.channel(index), part)

    def save_windows(self) -> None:
        """Stores the range of values that viewers should show."""
        if self._windows.store():
            self._group.update_attributes(self._marked())


def _halved(part: np.ndarray) -> np.ndarray:
    """Returns the means of 2 x 2 pixels, [h, w] or [h, w, S], of the same dtype.

    At an odd end there is but one pixel, or two, to average.
    """
    if part.shape[0] % 2 or part.shape[1] % 2:
        ends = [(0, size % 2) for size in part.shape[:2]]
        part = np.pad(part, [*ends, *[(0, 0)] * (part.ndim - 2)], mode="edge")
    # Exact for integers; and the sum of quarters cannot overflow.
    wide = np.float32 if part.dtype.itemsize < 4 else np.float64
    mean = np.zeros((part.shape[0] // 2, part.shape[1] // 2, *part.shape[2:]), wide)
    with np.errstate(invalid="ignore"):  # infinities of both signs
        for row in range(2):
            for column in range(2):
                mean += part[row::2, column::2] * wide(0.25)
    if part.dtype.kind != "f":
        np.rint(mean, out=mean)
    return mean.astype(part.dtype)


def _level_sides(height: int, width: int) -> list[tuple[int, int]]:
    """Returns the height and width of each level."""
    sides = [(height, width)]
    while max(sides[-1]) > _LAST_SIDE and len(sides) < _MOST_LEVELS:
        height, width = (-(-side // 2) for side in sides[-1])
        sides.append((height, width))
    return sides


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
