"""Opens stacks as image layers, of which planes are read when they are shown."""

import contextlib
import inspect
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cbsn.images.stacks.opening import is_stack, open_stacks, suffix_of
from cbsn.images.stacks.stack import Layout, Spacing, Stack
from cbsn.napari_plugin.lazy_array import lazy_array

LayerData = tuple[Any, dict[str, Any], str]
"""A layer as napari takes it from plugins: the data, its settings, and the kind of layer."""

_MOST = 32  # images of one file that become layers: a plate may have thousands


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Returns a function that reads a path, or None if this is no stack.

    It is asked for every file that is dropped into napari, so it only looks at a file's start.

    Args:
        path: a file or an OME-Zarr folder. Several files at once are left to other readers.
    """
    paths = [path] if isinstance(path, str) else path
    if len(paths) == 1 and _is_readable(Path(paths[0])):
        return read_layers
    return None


def _is_readable(path: Path) -> bool:
    return is_stack(path) and not _is_bare_array(path)


def _is_bare_array(path: Path) -> bool:
    """Returns whether this is a Zarr array without an OME-Zarr image around it.

    Its axes are unknown, and napari opens it by itself.
    """
    if (path / ".zarray").is_file():
        return True
    with contextlib.suppress(OSError, ValueError, AttributeError):
        node = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return node.get("node_type") == "array"
    return False


def read_layers(path: str | list[str]) -> list[LayerData]:
    """Returns the layers of a stack's file or folder, one for each channel of each image.

    Raises:
        ConfigError: if a library for this format is missing.
        ImageError: if it is damaged.

    Example:
        >>> data, settings, kind = read_layers("cells.ome.tif")[0]
    """
    file = Path(path if isinstance(path, str) else path[0])
    # The file has to stay open as long as one of its layers lives, which nobody tells a reader. So
    # what reads the planes refers to this. When the last layer is gone, so is this, and Python
    # closes a context manager that nothing refers to any more.
    opened = contextlib.ExitStack()
    stacks = opened.enter_context(open_stacks(file))
    turn = threading.Lock()  # the libraries that read files share a position in them
    if len(stacks) > _MOST:
        from napari.utils.notifications import show_warning

        show_warning(f"{file.name} has {len(stacks)} images; the first {_MOST} are shown.")
    layers = []
    for stack in stacks[:_MOST]:
        base = " ".join(filter(None, (file.name.removesuffix(suffix_of(file)), stack.layout.name)))
        facts = {"path": str(file), "format": stack.layout.format, "image": stack.layout.name}
        for channel in range(stack.layout.size("C")):
            layers.append(_layer(stack, channel, base, facts, opened, turn))
    return layers


def _layer(
    stack: Stack, channel: int, base: str, facts: dict[str, Any], opened: Any, turn: Any
) -> LayerData:
    layout = stack.layout
    outer = layout.outer.replace("C", "")
    place = layout.outer.find("C")

    def read(index: tuple[int, ...], opened: Any = opened) -> Any:
        whole = index if place < 0 else (*index[:place], channel, *index[place:])
        return stack.read(whole)

    inner_shape: tuple[int, ...] = (layout.size("Y"), layout.size("X"))
    if "S" in layout.axes:
        inner_shape = (*inner_shape, layout.samples)
    data = lazy_array(read, tuple(map(layout.size, outer)), inner_shape, layout.dtype, turn=turn)
    settings: dict[str, Any] = {
        "name": base,
        "metadata": dict(facts),
        "rgb": "S" in layout.axes,
        **_world(layout, f"{outer}YX"),
    }
    if place >= 0:
        settings |= _channel(layout, channel, base)
    return data, settings, "image"


def _world(layout: Layout, axes: str) -> dict[str, Any]:
    """Returns the settings that say where the pixels are, as far as this napari knows them."""
    from napari.layers import Image

    known = inspect.signature(Image.__init__).parameters
    spacing = [layout.spacing.get(axis, Spacing(1.0)) for axis in axes]
    settings: dict[str, Any] = {"scale": [each.size for each in spacing]}
    if "axis_labels" in known:
        settings["axis_labels"] = tuple(axes.lower())
    if "units" in known:
        settings["units"] = tuple(_unit(each.unit) for each in spacing)
    return settings


def _unit(name: str) -> str:
    """Returns a unit that napari's library knows; `pixel` if there is none or it does not."""
    import pint

    try:
        pint.get_application_registry().Unit(name)
    except Exception:  # it raises errors of many classes for names that it cannot parse
        return "pixel"
    return name or "pixel"


def _channel(layout: Layout, channel: int, base: str) -> dict[str, Any]:
    """Returns the settings of one channel of several."""
    from napari.utils import Colormap
    from napari.utils.colormaps import CMYBGR, MAGENTA_GREEN

    count = layout.size("C")
    known = layout.channels[channel] if layout.channels else None
    name = known.name if known and known.name else f"channel {channel}"
    colormap: Any = "gray"
    if known and known.color:
        red, green, blue = (int(known.color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        colormap = Colormap([[0, 0, 0], [red, green, blue]], name=known.color)
    elif count > 1:  # as napari chooses them
        defaults = MAGENTA_GREEN if count == 2 else CMYBGR
        colormap = defaults[channel % len(defaults)]
    blending = "additive" if channel else "translucent_no_depth"
    return {"name": f"{base} {name}", "colormap": colormap, "blending": blending}
