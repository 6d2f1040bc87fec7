"""Image layers as stacks: their planes, the one that is shown, and settings for results."""

import contextlib
import dataclasses
import math
from typing import Any

import numpy as np

from cbsn.errors import ImageError
from cbsn.images.stacks.scaling import count_missing, fill_missing
from cbsn.images.stacks.stack import Layout, Stack

_NOT_COPIED = ("name", "metadata", "visible", "multiscale", "locked_data_level", "auto_contrast")


class NotFiniteError(ImageError):
    """Raised for values that are not finite; each widget has its own advice."""


@dataclasses.dataclass(frozen=True, eq=False)
class LayerPlanes:
    """The planes of an image layer, which are read when they are needed.

    The last two axes, except for colours, are rows and columns; the others number the planes.

    Args:
        stack: the planes, along one axis T.
        outer_shape: the sizes of the layer's axes that number them.
        fill: whether values that are not finite are filled; else reading them is an error.
        z_axis: which of these axes is z, for models of volumes; None if none is.

    Example:
        >>> planes = layer_planes(viewer.layers[0])
        >>> first = planes.read(0)
    """

    stack: Stack
    outer_shape: tuple[int, ...]
    fill: bool
    z_axis: int | None = None

    @property
    def count(self) -> int:
        """The number of planes."""
        return self.stack.layout.planes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a plane."""
        return self.stack.layout.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of planes and of results."""
        return self.stack.layout.dtype

    def number(self, index: tuple[int, ...]) -> int:
        """Returns the number of the plane at an index on the outer axes."""
        return int(np.ravel_multi_index(index, self.outer_shape)) if index else 0

    def read(self, number: int) -> np.ndarray:
        """Returns a plane, [H, W] or [H, W, S], of finite values.

        Raises:
            ImageError: if some are not finite, and are not filled.
        """
        plane = self.stack.read((number,))
        return fill_missing(plane) if self.fill else plane


def layer_planes(layer: Any, *, fill: bool = False) -> LayerPlanes:
    """Returns the planes of an image layer; of several resolutions those of the finest.

    Integers of 64 bits and truth values become float32, as do results.

    Raises:
        ImageError: if it holds what cannot be denoised, such as complex numbers.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    inner = 3 if layer.rgb else 2
    outer_shape = tuple(map(int, data.shape[:-inner]))
    dtype = np.dtype(data.dtype)
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize > 4):
        dtype = np.dtype(np.float32)
    axes = "TYXS" if layer.rgb else "TYX"
    try:
        shape = (math.prod(outer_shape), *map(int, data.shape[-inner:]))
        if not all(shape):
            sizes = " × ".join(map(str, data.shape))
            raise ImageError(f"is empty, as it is of {sizes} values: choose another one.")
        layout = Layout(axes, shape, dtype, "napari")
    except ImageError as error:
        raise ImageError(f"The layer {error}") from None

    def read(index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        # Only this plane is read, where the data are lazy.
        place = np.unravel_index(index[0], outer_shape)
        plane = np.asarray(data[tuple(map(int, place))])[rows, columns]
        if not fill and count_missing(plane):
            raise NotFiniteError("The layer holds values that are not finite (NaN or infinity).")
        return plane.astype(layout.dtype, copy=False)

    return LayerPlanes(Stack(layout, read), outer_shape, fill, _z_axis(layer, len(outer_shape)))


def _z_axis(layer: Any, outer: int) -> int | None:
    """Returns which of the outer axes is z: the one of that name, or the last one without names."""
    names = [str(each).lower() for each in getattr(layer, "axis_labels", ())][:outer]
    if "z" in names:
        return names.index("z")
    # napari numbers axes that have no names, from the end.
    return None if any(name.isalpha() for name in names) or not outer else outer - 1


def current_index(viewer: Any, layer: Any) -> tuple[int, ...]:
    """Returns where a viewer's sliders stand on the layer's axes that number planes.

    Beyond the layer's ends, it is the nearest plane.
    """
    sizes = (layer.data[0] if layer.multiscale else layer.data).shape
    outer = layer.ndim - 2
    point = np.asarray(viewer.dims.point, float)[-layer.ndim :]
    units = getattr(viewer.dims, "units", None)
    if units is not None and len(units) >= layer.ndim:
        # A viewer has one unit for an axis, a layer may have another one.
        with contextlib.suppress(Exception):  # of units that do not fit each other
            pairs = zip(units[-layer.ndim :], layer.units, strict=True)
            point = point * [(1 * shown).to(own).magnitude for shown, own in pairs]
    place = np.rint(np.asarray(layer.world_to_data(point))[:outer])
    return tuple(
        int(np.clip(each, 0, size - 1)) for each, size in zip(place, sizes[:outer], strict=True)
    )


def settings_of_result(
    layer: Any, name: str, start: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """Returns the settings of a layer with a result, which lies where the source lies.

    Args:
        layer: the source.
        name: of the result.
        start: the plane of the source that is the result's only one. Default: the result has all.
    """
    settings = {k: v for k, v in layer.as_layer_data_tuple()[1].items() if k not in _NOT_COPIED}
    if start is not None:
        translate = np.array(settings["translate"], float)
        outer = len(start)
        translate[:outer] += np.multiply(settings["scale"][:outer], start)
        settings["translate"] = translate
    metadata = {**layer.metadata}
    return {**settings, "name": f"{layer.name} {name}", "metadata": metadata}
