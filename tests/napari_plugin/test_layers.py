"""Tests of `cbsn.napari_plugin.layers`."""

import inspect
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
from napari.layers import Image

from cbsn.errors import ImageError
from cbsn.napari_plugin.layers import current_index, layer_planes, settings_of_result

VALUES = np.arange(3 * 4 * 6 * 8, dtype=np.uint16).reshape(3, 4, 6, 8)
KNOWS_UNITS = "units" in inspect.signature(Image.__init__).parameters


@pytest.mark.parametrize("make", [np.asarray, lambda array: dask.array.from_array(array, chunks=2)])
def test_planes_of_a_layer(make):
    planes = layer_planes(Image(make(VALUES)))
    assert (planes.count, planes.outer_shape, planes.shape) == (12, (3, 4), (6, 8))
    assert planes.dtype == np.uint16
    np.testing.assert_array_equal(planes.read(planes.number((2, 1))), VALUES[2, 1])


def test_lazy_planes_are_read_one_by_one():
    read = []

    def block(block_info):
        read.append(block_info[None]["chunk-location"][:2])
        return np.zeros((1, 1, 6, 8), np.uint16)

    chunks = ((1,) * 3, (1,) * 4, (6,), (8,))
    data = dask.array.map_blocks(block, chunks=chunks, dtype=np.uint16, meta=np.zeros(0, "u2"))
    planes = layer_planes(Image(data, contrast_limits=(0, 1)))
    read.clear()
    planes.read(5)
    assert read == [(1, 1)]


def test_a_picture_and_one_in_colour():
    planes = layer_planes(Image(VALUES[0, 0]))
    assert (planes.count, planes.outer_shape, planes.number(())) == (1, (), 0)
    np.testing.assert_array_equal(planes.read(0), VALUES[0, 0])
    colors = np.zeros((5, 6, 8, 3), np.uint8)
    planes = layer_planes(Image(colors, rgb=True))
    assert (planes.count, planes.shape) == (5, (6, 8, 3))


@pytest.mark.skipif(
    "axis_labels" not in inspect.signature(Image.__init__).parameters, reason="an older napari"
)
@pytest.mark.parametrize(
    ("shape", "labels", "expected"),
    [
        ((3, 4, 6, 8), None, 1),
        ((4, 6, 8), None, 0),
        ((6, 8), None, None),
        ((3, 4, 6, 8), "tzyx", 1),
        ((3, 4, 6, 8), "ZTYX", 0),
        ((3, 6, 8), "tyx", None),
    ],
)
def test_the_axis_along_which_planes_are_a_volume(shape, labels, expected):
    """The one of that name; or the last one, where axes have no names."""
    named = {} if labels is None else {"axis_labels": tuple(labels)}
    assert layer_planes(Image(np.zeros(shape, np.uint8), **named)).z_axis == expected


def test_the_finest_of_several_resolutions():
    planes = layer_planes(Image([VALUES, VALUES[..., ::2, ::2]], multiscale=True))
    np.testing.assert_array_equal(planes.read(11), VALUES[2, 3])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, bool])
def test_wide_integers_become_floats(dtype):
    planes = layer_planes(Image(VALUES.astype(dtype)))
    assert planes.dtype == planes.read(1).dtype == np.float32


def test_complex_numbers_are_refused():
    # Not all versions of napari can show them.
    layer = SimpleNamespace(data=np.zeros((2, 4, 4), np.complex64), multiscale=False, rgb=False)
    with pytest.raises(ImageError, match="The layer has complex64 values; convert"):
        layer_planes(layer)


def test_missing_values_are_refused_or_filled():
    values = np.ones((2, 4, 4), np.float32)
    values[1, 2, 2] = np.nan
    layer = Image(values)
    layer_planes(layer).read(0)
    with pytest.raises(ImageError, match="not finite"):
        layer_planes(layer).read(1)
    np.testing.assert_array_equal(layer_planes(layer, fill=True).read(1), np.ones((4, 4)))


def test_the_current_plane(viewer):
    layer = viewer.add_image(VALUES, scale=(5, 2, 0.1, 0.1), translate=(10, 0, 0, 0))
    viewer.add_image(np.zeros((40, 4, 6, 8)))
    viewer.dims.set_point((0, 1), (20, 6.2))
    assert current_index(viewer, layer) == (2, 3)
    viewer.dims.set_point(0, 0)
    assert current_index(viewer, layer) == (0, 3)  # the nearest one
    assert current_index(viewer, viewer.add_image(VALUES[0, 0])) == ()
    assert current_index(viewer, viewer.add_image(VALUES[0])) == (3,)


@pytest.mark.skipif(not KNOWS_UNITS, reason="this napari has no units")
def test_the_current_plane_of_a_layer_in_another_unit(viewer):
    layer = viewer.add_image(VALUES[0], scale=(1000, 100, 100), units=("nm",) * 3)
    viewer.add_image(VALUES[0], units=("um",) * 3)
    shown = str(viewer.dims.units[0])
    viewer.dims.set_point(0, 2000 if shown == "nanometer" else 2)
    assert current_index(viewer, layer) == (2,)


def test_a_result_lies_where_its_source_lies():
    more = {"units": ("s", "um", "um", "um")} if KNOWS_UNITS else {}
    layer = Image(
        VALUES,
        scale=(5, 2, 0.1, 0.2),
        translate=(1, 2, 3, 4),
        colormap="magenta",
        contrast_limits=(10, 50),
        blending="additive",
        metadata={"path": "cells.tif"},
        name="cells",
        gamma=0.7,
        **more,
    )
    result = Image(VALUES, **settings_of_result(layer, "denoised"))
    same = ["scale", "translate", "contrast_limits", "blending", "gamma", "metadata", "units"]
    for name in same[: None if KNOWS_UNITS else -1]:
        np.testing.assert_array_equal(getattr(result, name), getattr(layer, name))
    assert (result.name, result.colormap.name) == ("cells denoised", "magenta")
    assert result.metadata is not layer.metadata
    one = Image(VALUES[1:2, 3:], **settings_of_result(layer, "denoised", (1, 3)))
    np.testing.assert_allclose(one.translate, (6, 8, 3, 4))


@pytest.mark.parametrize("shape", [(0, 20, 20), (3, 0, 20, 20)])
def test_a_layer_without_values_is_refused(shape):
    sizes = " × ".join(map(str, shape))
    with pytest.raises(
        ImageError, match=f"^The layer is empty, as it is of {sizes} values: choose"
    ):
        layer_planes(Image(np.zeros(shape, np.uint8)))
