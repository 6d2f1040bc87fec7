"""Reading stacks of microscopes' own formats, CZI, ND2 and LIF; the extra `bio` installs what for.

The plugins of bioio (https://bioio-devs.github.io/bioio) read them.
"""

import contextlib
import importlib
import logging
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.errors import CbsnError, ConfigError, ImageError, plain_reason
from cbsn.images.stacks.ome_xml import Facts, read_facts
from cbsn.images.stacks.stack import AXES, Channel, Layout, Spacing, Stack

SUFFIXES = {".czi": "CZI", ".nd2": "ND2", ".lif": "LIF"}

_ND2_MAGIC = b"\xda\xce\xbe\x0a"  # legacy ND2 files are JPEG 2000
_LEAST_BYTES = 256  # that a plane of a CZI file takes: less than its header
_CZI_TYPES = {
    **{"gray8": np.uint8, "gray16": np.uint16, "gray32": np.uint32, "gray32float": np.float32},
    **{"bgr24": np.uint8, "bgr48": np.uint16},
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
    plugin = _import_plugin(format)
    with path.open("rb") as file:
        start = file.read(len(_ND2_MAGIC))
    with _errors_of(format), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata that are missing or unusual
        if format == "CZI":
            return _open_czi(path, plugin)
        return _open_other(path, plugin, format, is_bgr=start == _ND2_MAGIC)


def _import_plugin(format: str) -> Any:
    name = f"bioio_{format.lower()}"
    try:
        plugin = importlib.import_module(name)
        if format == "LIF":
            # Version 1 of its plugin has readlif instead, which takes colours for pixels.
            importlib.import_module("liffile")
    except ImportError:
        need = "other libraries" + ", and so Python 3.11 or later" * (format == "LIF")
        raise ConfigError(f"{format} files need {need}: pip install 'cbsn[bio]'") from None
    # They log whatever metadata they miss, with a traceback, which Python prints if nobody else
    # wants it.
    for each in (name, "nd2", "liffile"):
        if not logging.getLogger(each).handlers:
            logging.getLogger(each).addHandler(logging.NullHandler())
    return plugin


@contextlib.contextmanager
def _errors_of(format: str) -> Iterator[None]:
    """Turns errors of the libraries, which are of almost any class, into an ImageError."""
    try:
        yield
    except (CbsnError, MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise ImageError(
            f"cannot be read by bioio-{format.lower()}, it may be damaged, cut off or of a kind "
            f"that is not supported ({plain_reason(error)})."
        ) from error


def _ome_xml(reader: Any, scenes: int) -> tuple[str | None, list[Facts]]:
    """Returns the metadata as OME-XML, unless they cannot be had, and what they say of a scene."""
    # Not all plugins have them, and conversions fail in many ways.
    with contextlib.suppress(Exception):
        text = reader.ome_metadata.to_xml()
        facts = read_facts(text)
        if len(facts) == scenes:
            return text, facts
    return None, [Facts("", {}, ())] * scenes


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
    layout: Mapping[str, Any], sizes: Mapping[str, int], plane: _Plane, *, is_bgr: bool
) -> Stack:
    """Returns a stack.

    Args:
        layout: arguments of `Layout`, with `spacing` for any axis, without `axes` and `shape`.
        sizes: of all axes of the file.
        plane: reads it.
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
        with _errors_of(final.format):
            place = {**dropped, **dict(zip(outer, index, strict=True))}
            part = plane(place, rows, columns)
        if part.dtype.newbyteorder("=") != final.dtype:  # of channels with different cameras
            raise ImageError(f"holds {part.dtype} values besides {final.dtype} values.")
        return part[..., ::-1] if is_bgr and final.samples == 3 else part

    return Stack(final, read)


def _open_czi(path: Path, plugin: Any) -> _Opened:
    """Opens a CZI file with the library of bioio-czi.

    Version 3.0 of bioio-czi itself knows only scenes that the metadata list, and takes the last
    position on an axis for its size.
    """
    from aicspylibczi import CziFile

    opened = path.open("rb")
    try:
        file, reader = CziFile(opened), plugin.Reader(path)
        scenes, every = [], file.get_dims_shape()
        for spans in every:
            if "S" not in spans and len(every) > 1:
                continue  # a scene that another file has
            counts = (stop - start for axis, (start, stop) in spans.items() if axis not in "YXA")
            if (planes := math.prod(counts)) * _LEAST_BYTES > path.stat().st_size:
                # The reader would prepare to read each of them.
                raise ImageError(f"claims to have {planes} planes: the file is damaged.")
            scenes += [(number, spans) for number in range(*spans.get("S", (0, 1)))]
        text, facts = _ome_xml(reader, len(scenes))
        names = [*map(str, reader.scenes)]
        if len(names) != len(scenes):
            names = [f"Scene {number}" for number, _ in scenes]
        if file.pixel_type not in _CZI_TYPES:
            raise ImageError(f"has pixels of the type {file.pixel_type}, which are not supported.")
        stacks = []
        for place, (number, spans) in enumerate(scenes):
            sizes, plane = _czi_planes(file, number, spans)
            interval = None
            with contextlib.suppress(Exception):  # missing metadata
                reader.set_scene(place)
                interval = reader.time_interval.total_seconds()
            layout = {
                "dtype": np.dtype(_CZI_TYPES[file.pixel_type]),
                "format": "CZI",
                "name": names[place] if len(names) > 1 else "",
                "spacing": {**facts[place].spacing, **_spacing(_czi_sizes(file.meta), interval)},
                "channels": _czi_channels(file.meta, range(*spans.get("C", (0, 1)))),
                "metadata": text,
            }
            stacks.append(_stack(layout, sizes, plane, is_bgr=True))
    except BaseException:
        opened.close()
        raise
    return stacks, opened.close


def _czi_planes(
    file: Any, scene: int, spans: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, int], _Plane]:
    """Returns the sizes of a scene's axes, and what reads its planes; mosaics are stitched."""
    order = sorted(set(spans) - {"A", "B", "M", "S"}, key=f"TCZYX{''.join(sorted(spans))}".index)
    sizes = {axis: spans[axis][1] - spans[axis][0] for axis in order}
    if "A" in spans:
        sizes["S"] = spans["A"][1] - spans["A"][0]
    is_mosaic = spans.get("M", (0, 1))[1] > 1
    if is_mosaic:
        box = file.get_mosaic_scene_bounding_box(index=scene)
        sizes.update({"Y": box.h, "X": box.w})
    tail = [sizes["S"]] if "S" in sizes else []
    turn = threading.Lock()

    def plane(place: dict[str, int], rows: slice, columns: slice) -> np.ndarray:
        index = {axis: spans[axis][0] + place[axis] for axis in order if axis not in "YX"}
        with turn:
            if is_mosaic:
                height, width = rows.stop - rows.start, columns.stop - columns.start
                region = (box.x + columns.start, box.y + rows.start, width, height)
                part = file.read_mosaic(region=region, scale_factor=1.0, **index)
                return part.reshape(height, width, *tail)
            index.update({axis: spans[axis][0] for axis in spans if axis == "M"})
            whole, _ = file.read_image(S=scene, cores=1, **index)
        return whole.reshape(whole.shape[-2 - len(tail) :])[rows, columns]

    return sizes, plane


def _czi_sizes(xml: Any) -> dict[str, float]:
    """Returns the sizes of pixels in micrometers."""
    sizes = {}
    for axis in "ZYX":
        with contextlib.suppress(TypeError, ValueError):
            text = xml.findtext(f"./Metadata/Scaling/Items/Distance[@Id='{axis}']/Value")
            sizes[axis] = float(text) * 1e6
    return sizes


def _czi_channels(xml: Any, numbers: range) -> tuple[Channel, ...]:
    # The metadata tell names in one place, and colours, as #AARRGGBB, in another.
    names = xml.findall("./Metadata/Information/Image/Dimensions/Channels/Channel")
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


def _open_other(path: Path, plugin: Any, format: str, *, is_bgr: bool) -> _Opened:
    """Opens an ND2 or LIF file. The plugins open it anew for each plane."""
    # One plane is one chunk of dask's arrays. By default it is a stack in depth.
    options = {} if format == "ND2" else {"chunk_dims": ["Y", "X"]}
    reader = plugin.Reader(path, **options)
    names = [*map(str, reader.scenes)]
    text, facts = _ome_xml(reader, len(names))
    stacks = []
    for number, name in enumerate(names):
        if number:
            reader = plugin.Reader(path, **options)
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
        }
        stacks.append(_stack(layout, sizes, _plane_of(format, reader), is_bgr=is_bgr))
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
