"""Reading OME-Zarr (NGFF) images of the versions 0.1 to 0.5, with the library zarr.

Attributes are read as the JSON files that they are, which leaves the arrays to the library.
"""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from cbsn.errors import ConfigError, ImageError, plain_reason
from cbsn.files import read_small
from cbsn.images.stacks.stack import Channel, Layout, Spacing, Stack

AXIS_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
"""The axes that an image may have, in the order of their names in NGFF, and their types there."""

ZARR_SUFFIX = ".zarr"
"""The lower-case suffix of a folder that is a Zarr image."""

_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_JSON_BYTES = 2**28  # more than the metadata of a large plate
_PLACE = re.compile(r"\w+(/\w+/\w+)?")  # of a well's field in the well, or in its plate
_SLAB_BYTES = 2**28
_LARGEST = 1e100  # of a distance: more, infinity or NaN is damaged
_COLOR = re.compile(r"#?([0-9A-Fa-f]{6})(?:[0-9A-Fa-f]{2})?")


@dataclasses.dataclass(frozen=True, eq=False)
class OmeZarrFacts:
    """What a layout keeps of an OME-Zarr image, for the writer.

    Args:
        attributes: of the image's group.
        zarr_format: 2 (NGFF up to 0.4) or 3 (NGFF 0.5).
        chunks: the sizes of a chunk by axis.
        origin: by axis, where the first pixel is, in the unit of the spacing.
        left_out: what else the folder holds, in words, such as `labels (cells)`.
        place: the image's path in a plate or a well.
        above: by their paths, the attributes of the groups that such an image is in.
    """

    attributes: Mapping[str, Any]
    zarr_format: int
    chunks: Mapping[str, int]
    origin: Mapping[str, float]
    left_out: tuple[str, ...] = ()
    place: str = ""
    above: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def ome(self) -> Mapping[str, Any]:
        """The attributes that NGFF defines; at the top if there are others, too."""
        return _ome(self.attributes, self.zarr_format)


def zarr_library() -> Any:
    """Returns the module zarr.

    Raises:
        ConfigError: if it is missing, or too old for OME-Zarr 0.5.
    """
    with contextlib.suppress(ImportError):
        import zarr

        # Other packages may have brought version 2, the last one for Python 3.10.
        if not zarr.__version__.startswith("2."):
            return zarr
    raise ConfigError(
        "OME-Zarr needs another library: pip install 'cbsn[zarr]' (from a clone: '.[zarr]'; Python "
        "3.11 or later)"
    )


def is_ome_zarr(path: Path) -> bool:
    """Returns whether this is a Zarr folder, whatever it holds."""
    return path.is_dir() and any((path / name).is_file() for name in _FILES)


def open_ome_zarr(path: Path) -> list[Stack]:
    """Opens the images of an OME-Zarr folder in their full resolution.

    Labels are left out. Planes are read on demand, and of these only the chunks that are needed.

    Args:
        path: an image, a collection in the layout of bioformats2raw, a plate, or a well of one.

    Returns:
        One stack; or one for each image of a collection or each field of a plate, which has a
        name then.

    Raises:
        ConfigError: if zarr is missing.
        ImageError: if the folder is no OME-Zarr, damaged or incomplete, or of another kind.
    """
    zarr_library()
    attributes, zarr_format = read_group(path)
    ome = _ome(attributes, zarr_format)
    slabs = _Slabs()
    if "multiscales" in ome:
        return [_open_image(path, "", slabs)]
    stacks, names = [], _collection(path, ome)
    above = _above(path, names) if {"plate", "well"} & ome.keys() else {}
    for name in names:
        try:
            stacks.append(_open_image(path, name, slabs, above))
        except ImageError as error:
            raise ImageError(f"has an image {name}, which {error}") from None
    return stacks


def read_group(folder: Path) -> tuple[dict[str, Any], int]:
    """Returns a group's attributes and the version of its Zarr format.

    Raises:
        ImageError: if it is no group, or damaged.
    """
    attributes, zarr_format, is_array = read_node(folder)
    if is_array:
        raise ImageError(
            "is a bare Zarr array, not an OME-Zarr image. Its axes are unknown: pass the folder "
            "that holds it, if that is an OME-Zarr image."
        )
    return attributes, zarr_format


def read_node(folder: Path) -> tuple[dict[str, Any], int, bool]:
    """Returns the attributes of a group or array, its Zarr format, and whether it is an array."""
    if (folder / "zarr.json").is_file():
        node, zarr_format = _json(folder / "zarr.json"), 3
        attributes, is_array = node.get("attributes", {}), node.get("node_type") == "array"
    elif is_ome_zarr(folder):
        file, zarr_format = folder / ".zattrs", 2
        attributes = _json(file) if file.is_file() else {}
        is_array = (folder / ".zarray").is_file()
    else:
        raise ImageError("has no Zarr metadata: it is missing or incomplete.")
    if not isinstance(attributes, dict):
        raise ImageError("has damaged metadata: its attributes are no JSON object.")
    return attributes, zarr_format, is_array


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_small(file, _JSON_BYTES))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ImageError(f"has damaged metadata: its {file.name} is no JSON object.")
    return value


def _ome(attributes: Mapping[str, Any], zarr_format: int) -> Mapping[str, Any]:
    ome = attributes.get("ome", {}) if zarr_format == 3 else attributes
    return ome if isinstance(ome, dict) else {}


def _at(value: Any, *keys: str | int) -> Any:
    """Returns what these keys lead to in a JSON value, or None."""
    for key in keys:
        if isinstance(key, str):
            value = value.get(key) if isinstance(value, dict) else None
        else:
            value = value[key] if isinstance(value, list) and len(value) > key else None
    return value


def _collection(path: Path, ome: Mapping[str, Any]) -> list[str]:
    """Returns the images below a group that is none, as paths."""
    if "plate" in ome:
        names = []
        for well in _paths(_at(ome, "plate", "wells"), "wells"):
            try:
                names += [f"{well}/{field}" for field in _fields(_ome(*read_group(path / well)))]
            except ImageError as error:
                raise ImageError(f"has a well {well}, which {error}") from None
    elif "well" in ome:
        names = _fields(ome)
    else:
        series = (
            _ome(*read_group(path / "OME")).get("series") if is_ome_zarr(path / "OME") else None
        )
        if isinstance(series, list):
            names = _paths([{"path": each} for each in series], "series")
        elif "bioformats2raw.layout" in ome:
            names = []
            while is_ome_zarr(path / str(len(names))):
                names.append(str(len(names)))
        else:
            raise ImageError("has no multiscales metadata: it is not an OME-Zarr image.")
    if not names:
        raise ImageError("is an OME-Zarr collection without images.")
    return names


def _above(root: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the attributes of the groups above the images of a plate or a well, by their paths.

    None of them, if the images' paths are not those that the specification asks for, or the groups
    have several Zarr formats.
    """
    if len({*names}) < len(names) or not all(map(_PLACE.fullmatch, names)):
        return {}
    above = {str(path) for name in names for path in PurePosixPath(name).parents}
    try:
        groups = {path: read_group(root / path) for path in sorted({*above, *names})}
    except ImageError:  # of a row, from which nothing else is read; or of an image
        return {}
    if len({zarr_format for _, zarr_format in groups.values()}) > 1:
        return {}
    return {"" if path == "." else path: groups[path][0] for path in sorted(above)}


def _fields(ome: Mapping[str, Any]) -> list[str]:
    return _paths(_at(ome, "well", "images"), "images")


def _paths(entries: Any, what: str) -> list[str]:
    """Returns the paths in a list of objects that have one."""
    if not isinstance(entries, list):
        raise ImageError(f"has damaged metadata: it lists no {what}.")
    return [_inner(_at(entry, "path")) for entry in entries]


def _inner(name: Any) -> str:
    """Returns a path inside a folder; raises an ImageError if it is none."""
    parts = PureWindowsPath(name) if isinstance(name, str) else None
    if not parts or not name or parts.anchor or ".." in parts.parts:
        raise ImageError(f"has damaged metadata: {name!r} is no path inside of it.")
    return name


def _open_image(
    root: Path, name: str, slabs: "_Slabs", above: Mapping[str, Mapping[str, Any]] | None = None
) -> Stack:
    """Opens an image; `name` is its path in a collection, and `above` what `_above` returns."""
    attributes, zarr_format = read_group(root / name)
    ome = _ome(attributes, zarr_format)
    multiscales = _at(ome, "multiscales", 0)
    if multiscales is None:
        raise ImageError("has no multiscales metadata: it is not an OME-Zarr image.")
    dataset = _at(multiscales, "datasets", 0)
    place = _inner(_at(dataset, "path"))
    axes, units = _axes(_at(multiscales, "axes"), ome, zarr_format)
    array = _array(root / name / place, place, zarr_format)
    if len(array.shape) != len(axes):
        raise ImageError(f"has the axes {axes}, but its array {place} the shape {array.shape}.")
    sizes, origin = _geometry(dataset, multiscales, axes)
    spacing = {}
    for axis, size, unit in zip(axes, sizes, units, strict=True):
        # Writers state 1 for what they do not know.
        if axis != "C" and size > 0 and (size != 1 or unit):
            spacing[axis] = Spacing(size, unit)
    chunks = dict(zip(axes, array.chunks, strict=True))
    left_out = [*_labels(root / name), *_others(ome["multiscales"])]
    if (root / "OME" / "METADATA.ome.xml").is_file():
        left_out.append("OME/METADATA.ome.xml")
    title = _at(multiscales, "name") if name else ""
    order = sorted(axes, key="YX".find)  # the others first, in the file's order
    lengths = dict(zip(axes, array.shape, strict=True))
    layout = Layout(
        "".join(order),
        tuple(lengths[axis] for axis in order),
        array.dtype,
        "OME-Zarr",
        name=title if isinstance(title, str) and title and "/" not in name else name,
        spacing=spacing,
        channels=_channels(ome, lengths.get("C", 1)),
        metadata=OmeZarrFacts(
            attributes, zarr_format, chunks, origin, tuple(left_out), name, above or {}
        ),
    )
    place = f"{name}/{place}" if name else place
    return Stack(layout, _Reader(array, axes, layout, place, slabs))


def _labels(image: Path) -> Iterator[str]:
    """Yields what labels an image has, in words, if it has any."""
    if (image / "labels").is_dir():
        stated = None
        with contextlib.suppress(ImageError):
            stated = _ome(*read_group(image / "labels")).get("labels")
        names = (
            [each for each in stated if isinstance(each, str)] if isinstance(stated, list) else ()
        )
        yield f"labels ({', '.join(names)})" if names else "labels"


def _others(multiscales: Sequence[Any]) -> Iterator[str]:
    """Yields which multiscale images there are besides the first one, in words, if any."""
    if count := len(multiscales) - 1:
        names = [name for each in multiscales[1:] if isinstance(name := _at(each, "name"), str)]
        yield (
            f"{count} other multiscale {'images' if count > 1 else 'image'}"
            f"{' (' * bool(names)}{', '.join(names)}{')' * bool(names)}"
        )


def _array(folder: Path, name: str, zarr_format: int) -> Any:
    if not (folder / ("zarr.json" if zarr_format == 3 else ".zarray")).is_file():
        raise ImageError(f"has no array {name}, which its metadata name: it is incomplete.")
    try:
        array = zarr_library().open_array(str(folder), mode="r", zarr_format=zarr_format)
        if min(array.chunks, default=0) < 1:
            raise ValueError(f"chunks of the shape {array.chunks}")
        return array
    except Exception as error:
        raise ImageError(
            f"has an array {name} that cannot be opened ({plain_reason(error)})."
        ) from error


def _axes(stated: Any, ome: Mapping[str, Any], zarr_format: int) -> tuple[str, list[str]]:
    """Returns the letters of an image's axes, and their units."""
    if stated is None and zarr_format == 2:  # up to version 0.2
        stated = list("tczyx")
    if not isinstance(stated, list) or not stated:
        raise ImageError(
            "has no axes in its multiscales metadata. OME-Zarr is read up to version 0.5. "
            f"Received: version {ome.get('version')}"
        )
    letters, units = "", []
    for entry in stated:
        name = entry if isinstance(entry, str) else _at(entry, "name")
        letter = name.upper() if isinstance(name, str) else None
        if letter not in AXIS_TYPES:
            raise ImageError(f"has an axis {name!r}; only t, c, z, y and x can be read.")
        kind = _at(entry, "type")
        if kind is not None and kind != AXIS_TYPES[letter]:
            raise ImageError(
                f"has an axis {name} of the type {kind!r}; only {AXIS_TYPES[letter]!r} can be read."
            )
        unit = _at(entry, "unit")
        letters += letter
        units.append(unit if isinstance(unit, str) else "")
    if len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters):
        raise ImageError(f"has the axes {letters}; an image has Y and X, and each axis once.")
    return letters, units


def _geometry(dataset: Any, multiscales: Any, axes: str) -> tuple[list[float], dict[str, float]]:
    """Returns the distance of neighbours along each axis, and the place of the first pixel."""
    scale, origin = np.ones(len(axes)), np.zeros(len(axes))
    for level in (dataset, multiscales):  # in the order in which they are applied
        transformations = _at(level, "coordinateTransformations")
        for each in transformations if isinstance(transformations, list) else ():
            for kind in ("scale", "translation"):
                numbers = _at(each, kind)
                if _at(each, "type") != kind or not _are_numbers(numbers, len(axes)):
                    continue
                if kind == "scale":
                    scale, origin = scale * numbers, origin * numbers
                else:
                    origin = origin + numbers
    return scale.tolist(), dict(zip(axes, origin.tolist(), strict=True))


def _are_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(each, int | float) and abs(each) < _LARGEST for each in value)
    )


def _channels(ome: Mapping[str, Any], count: int) -> tuple[Channel, ...]:
    stated = _at(ome, "omero", "channels")
    if not isinstance(stated, list) or len(stated) != count:
        return ()
    channels = []
    for each in stated:
        label, color = _at(each, "label"), _COLOR.fullmatch(str(_at(each, "color")))
        name = label if isinstance(label, str) else ""
        channels.append(Channel(name, f"#{color[1].upper()}" if color else ""))
    return tuple(channels)


class _Slabs:
    """The planes that were decoded last, of all images of a folder."""

    def __init__(self):
        self.last = None, None  # one value, so that threads cannot mix them


class _Reader:
    """Reads parts of planes; see `stack.Read`.

    Chunks may be several planes deep. So that they are not decoded for each of these, all planes of
    a row of chunks are kept, unless they are too large.
    """

    def __init__(self, array: Any, axes: str, layout: Layout, name: str, slabs: _Slabs):
        self._array, self._axes, self._name, self._slabs = array, axes, name, slabs
        self._layout = layout
        self._depths = [
            min(layout.metadata.chunks[axis], layout.size(axis)) for axis in layout.outer
        ]

    def __call__(self, index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
        count = math.prod(self._depths)
        if count == 1 or count * pixels * self._layout.dtype.itemsize > _SLAB_BYTES:
            plane = self._decoded(index, rows, columns)
        else:
            starts = [
                place // depth * depth for place, depth in zip(index, self._depths, strict=True)
            ]
            key = self._name, *starts, rows.start, rows.stop, columns.start, columns.stop
            kept, slab = self._slabs.last
            if kept != key:
                spans = [
                    slice(start, start + depth)
                    for start, depth in zip(starts, self._depths, strict=True)
                ]
                slab = self._decoded(spans, rows, columns)
                self._slabs.last = key, slab
            within = [place - start for place, start in zip(index, starts, strict=True)]
            # A copy: the caller may change what it gets.
            plane = slab[self._key(within, slice(None), slice(None))].copy()
        return plane.T if self._axes.index("X") < self._axes.index("Y") else plane

    def _key(self, index: Sequence[int | slice], rows: slice, columns: slice) -> tuple[Any, ...]:
        places = {"Y": rows, "X": columns, **dict(zip(self._layout.outer, index, strict=True))}
        return tuple(places[axis] for axis in self._axes)

    def _decoded(self, index: Sequence[int | slice], rows: slice, columns: slice) -> np.ndarray:
        try:
            return np.asarray(self._array[self._key(index, rows, columns)])
        except Exception as error:  # each codec has its own; MemoryError: of a wrong chunk shape
            raise ImageError(
                f"has an array {self._name} that cannot be decoded, it is damaged "
                f"({plain_reason(error)})."
            ) from error
