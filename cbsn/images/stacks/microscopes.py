"""Reading stacks of microscopes' own formats, CZI, ND2 and LIF; the extra `bio` installs what for.

The plugins of bioio (https://bioio-devs.github.io/bioio) read ND2 and LIF files. Zeiss' own library
reads CZI files: aicspylibczi 4.0.1, which bioio's plugin uses, writes past the end of its memory if
a scene is larger than the first one.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import logging
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from cbsn.errors import CbsnError, ConfigError, ImageError, plain_reason
from cbsn.images.stacks.ome_xml import Facts, read_facts
from cbsn.images.stacks.stack import AXES, Channel, Layout, Spacing, Stack

SUFFIXES = {".czi": "CZI", ".nd2": "ND2", ".lif": "LIF"}

_ND2_MAGIC = b"\xda\xce\xbe\x0a"  # legacy ND2 files are JPEG 2000
_LEAST_BYTES = 256  # that a plane of a CZI file takes: less than its header
_CZI_SIZES = "Metadata/Information/Image/Dimensions"
_CZI_TYPES = {
    **{"Gray8": np.uint8, "Gray16": np.uint16, "Gray32Float": np.float32},
    **{"Bgr24": np.uint8, "Bgr48": np.uint16, "Bgr96Float": np.float32},
}

# Reads a part of a plane by its position on each axis, its rows and its columns.
_Plane = Callable[[dict[str, int], slice, slice], np.ndarray]
_Opened = tuple[list[Stack], Callable[[], None]]


def open_microscope_file(path: Path) -> _Opened:
    """Opens the stacks of a CZI, ND2 or LIF file, one for each scene (position, image).

    Axes of one position are left out, other than Y and X.

    Args:
        path: the file, with one of `SUFFIXES`.

    Returns:
        The stacks, and what closes the file.

    Raises:
        ConfigError: if a library is missing.
        ImageError: if the file is damaged, or holds what a stack cannot.
        OSError: if there is no such file, or it must not be read.
    """
    format = SUFFIXES[path.suffix.lower()]
    library = _import_library(format)
    with path.open("rb") as file:
        start = file.read(len(_ND2_MAGIC))
    with _errors_of(library), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata that are missing or unusual
        if format == "CZI":
            stacks, close = _open_czi(path, library)
        else:
            stacks, close = _open_other(path, library, format, is_bgr=start == _ND2_MAGIC)
    if not stacks:
        close()
        raise ImageError("has no images.")
    return stacks, close


def _import_library(format: str) -> Any:
    # Version 1 of bioio-lif has readlif in place of liffile, and takes colours for pixels.
    names = {
        "CZI": ["pylibCZIrw", "pylibCZIrw.czi"],
        "ND2": ["nd2", "bioio_nd2"],
        "LIF": ["liffile", "bioio_lif"],
    }
    try:
        modules = [importlib.import_module(name) for name in names[format]]
    except ImportError:
        need = "other libraries" + ", and so Python 3.11 or later" * (format == "LIF")
        raise ConfigError(
            f"{format} files need {need}: pip install 'cbsn[bio]' (from a clone: '.[bio]')"
        ) from None
    # They log whatever metadata they miss, with a traceback, which Python prints if nobody else
    # wants it.
    for name in (*names[format], "bioio_czi"):
        if not logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(logging.NullHandler())
    return modules[-1]


@contextlib.contextmanager
def _errors_of(library: Any) -> Iterator[None]:
    """Turns errors of the libraries, which are of almost any class, into an ImageError."""
    try:
        yield
    except (CbsnError, MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        name = library.__name__.split(".")[0].replace("_", "-")
        raise ImageError(
            f"cannot be read by {name}, it may be damaged, cut off or of a kind that is not "
            f"supported ({plain_reason(error)})."
        ) from error


def _ome_xml(convert: Callable[[], Any], scenes: int) -> tuple[str | None, list[Facts]]:
    """Returns the metadata as OME-XML, and what they say of each scene.

    They are None if they cannot be had, or leave out scenes.
    """
    # Not all plugins convert them, and conversions fail in many ways.
    with contextlib.suppress(Exception):
        text = convert().to_xml()
        facts = read_facts(text)
        if len(facts) == scenes:
            return text, facts
    return None, [Facts("", {}, ())] * scenes


def _lost(format: str) -> str:
    """Returns a note for files whose metadata do not become OME-XML."""
    text = f"its metadata other than voxel size and channels are dropped: {format}'s"
    if format == "CZI" and importlib.util.find_spec("bioio_czi") is None:
        return f"{text} are kept if bioio-czi is installed (pip install bioio-czi)."
    return f"{text} could not be converted."


def _spacing(sizes: Mapping[str, float | None], interval: float | None) -> dict[str, Spacing]:
    """Returns the spacing for those of the sizes, in micrometers and seconds, that are known."""
    spacing = {}
    for axis, size in {**sizes, "T": interval}.items():
        # Negative in depth for a stack that was taken from top to bottom.
        if size and 0 < abs(size) < math.inf:
            unit = "second" if axis == "T" else "micrometer"
            # Files have meters: 0.1, rather than 0.09999999999999999.
            spacing[axis] = Spacing(float(f"{abs(size):.12g}"), unit)
    return spacing


def _stack(
    library: Any, layout: Mapping[str, Any], sizes: Mapping[str, int], plane: _Plane, is_bgr: bool
) -> Stack:
    """Returns a stack.

    Args:
        library: what reads it.
        layout: arguments of `Layout`, with `spacing` for any axis, without `axes` and `shape`.
        sizes: of all axes of the file.
        plane: reads a plane.
        is_bgr: whether the samples of a pixel are stored as blue, green, red.
    """
    for axis, size in sizes.items():
        if axis not in AXES and size > 1:
            raise ImageError(f"has {size} positions on an axis {axis}, which is none of {AXES}.")
    outer = "".join(axis for axis in sizes if axis in "TZC" and sizes[axis] > 1)
    axes = outer + "YX" + "S" * (sizes.get("S", 1) > 1)
    dropped = {axis: 0 for axis in sizes if axis not in axes}
    spacing = {axis: layout["spacing"][axis] for axis in axes if axis in layout["spacing"]}
    shape = tuple(int(sizes[axis]) for axis in axes)
    final = Layout(axes, shape, **{**layout, "spacing": spacing})

    def read(index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        with _errors_of(library):
            place = {**dropped, **dict(zip(outer, index, strict=True))}
            part = plane(place, rows, columns)
        return part[..., ::-1] if is_bgr and final.samples == 3 else part

    return Stack(final, read)


def _open_czi(path: Path, library: Any) -> _Opened:
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(library.open_czi(str(path)))
        scenes = _czi_scenes(file, path.stat().st_size)
        xml = ElementTree.Element("nothing")
        with contextlib.suppress(ElementTree.ParseError):
            xml = ElementTree.fromstring(file.raw_metadata)
        entries = xml.findall(f"./{_CZI_SIZES}/S/Scenes/Scene")
        names = {entry.get("Index"): entry.get("Name") for entry in entries}
        text, facts = _ome_xml(lambda: _czi_ome(file.raw_metadata), len(scenes))
        turn = threading.Lock()
        stacks = []
        for scene, fact in zip(scenes, facts, strict=True):
            name = names.get(str(scene.number)) or f"Scene {scene.number}"
            layout = {
                "dtype": np.dtype(_CZI_TYPES[scene.type]),
                "format": "CZI",
                "name": name if len(scenes) > 1 else "",
                "spacing": {**fact.spacing, **_czi_spacing(xml)},
                "channels": _czi_channels(xml, scene.spans.get("C", range(1))),
                "metadata": text,
                "lost": "" if text else _lost("CZI"),
                "lacks": scene.lacks,
            }
            plane = functools.partial(_read_czi, file, scene, turn)
            stacks.append(_stack(library, layout, scene.sizes, plane, is_bgr=True))
        return stacks, opened.pop_all().close


def _czi_ome(xml: str) -> Any:
    """Converts metadata with the style sheet of bioio-czi.

    Its function for this changes the folder in which the process works, for other threads, too.
    """
    import bioio_czi
    from lxml import etree
    from ome_types import OME

    path = Path(bioio_czi.__file__).parent / "czi-to-ome-xslt" / "xslt" / "czi-to-ome.xsl"
    convert = etree.XSLT(etree.parse(path))
    return OME.from_xml(str(convert(etree.fromstring(xml.encode()))))


@dataclasses.dataclass
class _Scene:
    """A scene of a CZI file: its number, positions on the axes, area, and the pixels' type.

    `planes` are those that it has as a whole, by their positions on the axes of `spans`.
    """

    number: int | None
    spans: dict[str, range]
    planes: set[tuple[int, ...]]
    rows: range
    columns: range
    type: str

    @property
    def sizes(self) -> dict[str, int]:
        sizes = {axis: len(span) for axis, span in self.spans.items()}
        samples = {"S": 3} if self.type.startswith("Bgr") else {}
        return {**sizes, "Y": len(self.rows), "X": len(self.columns), **samples}

    @property
    def lacks(self) -> frozenset[tuple[int, ...]]:
        """See `Layout.lacks`."""
        every = itertools.product(*self.spans.values())
        lacking = [each for each in every if each not in self.planes]
        spans = [(n, span) for n, span in enumerate(self.spans.values()) if len(span) > 1]
        return frozenset(tuple(each[n] - span.start for n, span in spans) for each in lacking)


def _czi_scenes(file: Any, size: int) -> list[_Scene]:
    """Returns the scenes of a CZI file of this size. Mosaics are stitched when they are read."""
    tiles: dict[int | None, list[Any]] = {}

    def add(_: int, tile: Any) -> bool:
        place = tile.coordinate.to_dict()
        box = tile.logicalRect
        entry = (place, box.x, box.y, box.x + box.w, box.y + box.h, tile.pixelType.name)
        tiles.setdefault(place.pop("S", None), []).append(entry)
        return True

    file.enumerate_subblocks_subset(add, only_layer0=True)
    scenes = []
    for number, entries in sorted(tiles.items(), key=lambda each: each[0] or 0):
        places, lefts, tops, rights, bottoms, types = zip(*entries, strict=True)
        spans = {}
        for axis in sorted(places[0], key="TCZ".find):
            numbers = {place[axis] for place in places}
            spans[axis] = range(min(numbers), max(numbers) + 1)
        planes = math.prod(map(len, spans.values()))
        if planes * _LEAST_BYTES > size:
            raise ImageError(f"claims to have {planes} planes: the file is damaged.")
        if len(set(types)) > 1 or types[0] not in _CZI_TYPES:
            kinds = " and ".join(sorted(set(types)))
            raise ImageError(f"has pixels of the type {kinds}, which is not supported.")
        rows, columns = range(min(tops), max(bottoms)), range(min(lefts), max(rights))
        boxes: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        for place, *box in zip(places, lefts, tops, rights, bottoms, strict=True):
            boxes.setdefault(tuple(place[axis] for axis in spans), set()).add(tuple(box))
        scenes.append(_Scene(number, spans, _whole_planes(boxes), rows, columns, types[0]))
    return scenes


def _whole_planes(
    boxes: Mapping[tuple[int, ...], set[tuple[int, ...]]],
) -> set[tuple[int, ...]]:
    """Returns the planes that have all tiles that others have.

    Args:
        boxes: by plane, the left, top, right and bottom of its tiles.
    """
    layouts = {frozenset(each) for each in boxes.values()}
    every = np.array(sorted(set().union(*layouts)))
    # A stage does not come back to the very same pixel, so the middle of a tile decides.
    x, y = (every[:, 0] + every[:, 2]) // 2, (every[:, 1] + every[:, 3]) // 2
    whole = set()
    for layout in layouts:
        left, top, right, bottom = np.array([*layout]).T[:, :, None]
        covers = (left <= x) & (x < right) & (top <= y) & (y < bottom)
        if covers.any(axis=0).all():
            whole.add(layout)
    return {plane for plane, each in boxes.items() if frozenset(each) in whole}


def _read_czi(
    file: Any,
    scene: _Scene,
    turn: threading.Lock,
    place: dict[str, int],
    rows: slice,
    columns: slice,
) -> np.ndarray:
    """Reads a part of a plane; black, where the file has nothing."""
    area_rows, area_columns = scene.rows[rows], scene.columns[columns]
    with turn:
        part = file.read(
            roi=(area_columns.start, area_rows.start, len(area_columns), len(area_rows)),
            plane={axis: span[place[axis]] for axis, span in scene.spans.items()},
            scene=scene.number,
            pixel_type=scene.type,
        )
    return part if part.shape[-1] > 1 else part[..., 0]


def _czi_spacing(xml: Any) -> dict[str, Spacing]:
    def number(place: str) -> float:
        with contextlib.suppress(ValueError):
            return float(xml.findtext(place, ""))
        return 0

    scaling = "./Metadata/Scaling/Items/Distance[@Id='{}']/Value"
    sizes = {axis: number(scaling.format(axis)) * 1e6 for axis in "ZYX"}  # of meters
    return _spacing(sizes, number(f"./{_CZI_SIZES}/T/Positions/Interval/Increment"))


def _czi_channels(xml: Any, numbers: range) -> tuple[Channel, ...]:
    # The metadata tell names in one place, and colours, as #AARRGGBB, in another.
    names = xml.findall(f"./{_CZI_SIZES}/Channels/Channel")
    colors = xml.findall("./Metadata/DisplaySetting/Channels/Channel")
    texts = [each.findtext("Color", "") for each in colors] if len(colors) == len(names) else []
    channels = []
    for each, text in zip(names, texts or [""] * len(names), strict=True):
        found = re.fullmatch("#(?:..)?([0-9a-fA-F]{6})", text)
        color = f"#{found[1].upper()}" if found else ""
        channels.append(Channel(each.get("Name") or each.get("Id", ""), color))
    if len(channels) != len(numbers):
        channels = channels[numbers.start : numbers.stop]
    return tuple(channels) if len(channels) == len(numbers) else ()


def _open_other(path: Path, plugin: Any, format: str, is_bgr: bool) -> _Opened:
    """Opens an ND2 or LIF file. The plugins open it anew for each plane."""
    # One plane is one chunk of dask's arrays. By default it is a stack in depth.
    options = {} if format == "ND2" else {"chunk_dims": ["Y", "X"]}
    first = plugin.Reader(path, **options)
    names = [*map(str, first.scenes)]
    text, facts = _ome_xml(lambda: first.ome_metadata, len(names))
    stacks = []
    for number, name in enumerate(names):
        reader = plugin.Reader(path, **options) if number else first
        reader.set_scene(number)
        sizes = dict(zip(reader.dims.order, reader.dims.shape, strict=True))
        if sizes.get("M", 1) > 1:
            raise ImageError(
                f"is a mosaic of {sizes['M']} tiles, which the microscope's software must stitch."
            )
        layout = {
            "dtype": np.dtype(reader.dtype),
            "format": format,
            "name": name if len(names) > 1 else "",
            "spacing": _other_spacing(format, reader, facts[number]),
            "channels": _channels(reader, sizes.get("C", 1), facts[number]),
            "metadata": text,
            "lost": "" if text else _lost(format),
        }
        stacks.append(_stack(plugin, layout, sizes, _plane_of(format, reader), is_bgr))
    return stacks, lambda: None


def _plane_of(format: str, reader: Any) -> _Plane:
    def plane(place: dict[str, int], rows: slice, columns: slice) -> np.ndarray:
        order = "YX" + "S" * ("S" in reader.dims.order and "S" not in place)
        if format == "ND2":
            return reader.get_image_data(order, **place)[rows, columns]
        # bioio-lif would read the whole stack, unless it is asked for dask's arrays.
        array = reader.get_image_dask_data(order, **place)
        return array[rows, columns].compute(scheduler="synchronous")

    return plane


def _other_spacing(format: str, reader: Any, facts: Facts) -> dict[str, Spacing]:
    """Returns the spacing of the axes for which it is known."""
    told, sizes, interval = dict(facts.spacing), {}, None
    with contextlib.suppress(Exception):  # missing metadata
        sizes = dict(zip("ZYX", reader.physical_pixel_sizes, strict=True))
    if format == "ND2" and sizes.get("Y") == sizes.get("X") == 1:  # not calibrated
        for axis in "YX":
            sizes.pop(axis)
            told.pop(axis, None)
    with contextlib.suppress(Exception):
        if format == "ND2":
            interval = reader.time_interval.total_seconds()
        else:
            first, second = dict(reader.xarray_dask_data.coords)["T"].values[:2]
            interval = second - first
    return {**told, **_spacing(sizes, interval)}


def _channels(reader: Any, count: int, facts: Facts) -> tuple[Channel, ...]:
    """Returns the channels, or none if nothing is known about them."""
    channels = facts.channels
    with contextlib.suppress(Exception):  # missing metadata
        if len(channels) != count:
            channels = tuple(Channel(str(name)) for name in reader.channel_names)
    return channels if len(channels) == count else ()
