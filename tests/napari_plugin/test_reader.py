"""Tests of `cbsn.napari_plugin.reader`."""

import contextlib
import gc
import inspect

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Layer

from cbsn.images.stacks.ome_zarr_writer import create_ome_zarr
from cbsn.images.stacks.stack import Channel, Layout, Spacing
from cbsn.images.stacks.writing import partial_stack_file
from cbsn.napari_plugin import reader
from cbsn.napari_plugin.reader import get_reader, read_layers

VALUES = np.random.default_rng(4).integers(0, 4000, (3, 2, 2, 20, 26)).astype(np.uint16)  # TZCYX
SIZES = {"Z": 1.5, "Y": 0.25, "X": 0.2}
KNOWS_UNITS = "units" in inspect.signature(Image.__init__).parameters


def ome_tiff(path):
    metadata = {
        **{"axes": "TZCYX", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm"},
        **{"PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 1.5},
        **{"PhysicalSizeZUnit": "µm", "TimeIncrement": 2.0, "TimeIncrementUnit": "s"},
        "Channel": {"Name": ["DAPI", "GFP"], "Color": [65535, 16711935]},
    }
    tifffile.imwrite(path, VALUES, ome=True, metadata=metadata)
    return path


def ome_zarr(path):
    pytest.importorskip("zarr")
    spacing = {axis: Spacing(size, "micrometer") for axis, size in SIZES.items()}
    spacing["T"] = Spacing(2.0, "second")
    channels = (Channel("DAPI", "#0000FF"), Channel("GFP", "#00FF00"))
    facts = {"spacing": spacing, "channels": channels}
    # The order of the axes is NGFF's.
    layout = Layout("TCZYX", (3, 2, 2, 20, 26), np.dtype(np.uint16), "OME-Zarr", **facts)
    with partial_stack_file(path, create_ome_zarr, [layout], {}) as file:
        for index in layout.indices():
            frame, channel, depth = index
            file.write(0, index, slice(0, 20), slice(0, 26), VALUES[frame, depth, channel])
    return path


@pytest.mark.parametrize("make", [ome_tiff, ome_zarr])
def test_layers_of_a_stack_with_channels(make, tmp_path):
    path = make(tmp_path / ("cells.ome.tif" if make is ome_tiff else "cells.ome.zarr"))
    read = get_reader(str(path))
    layers = read(str(path))
    assert [settings["name"] for _, settings, _ in layers] == ["cells DAPI", "cells GFP"]
    for channel, (data, settings, kind) in enumerate(layers):
        assert kind == "image" and not settings["rgb"]
        assert data.chunksize == (1, 1, 20, 26)
        np.testing.assert_array_equal(np.asarray(data), VALUES[:, :, channel])
        assert settings["scale"] == [2.0, 1.5, 0.25, 0.2]
        assert settings["metadata"]["path"] == str(path)
        layer = Layer.create(data, settings, kind)
        if KNOWS_UNITS:
            assert [str(each) for each in layer.units] == ["second", *3 * ["micrometer"]]
            assert layer.axis_labels == ("t", "z", "y", "x")
    assert layers[1][1]["blending"] == "additive"
    if make is ome_zarr:
        np.testing.assert_allclose(layers[0][1]["colormap"].colors[-1, :3], [0, 0, 1])


def test_planes_are_read_when_they_are_shown(tmp_path, monkeypatch):
    path = ome_tiff(tmp_path / "cells.ome.tif")
    read = []
    monkeypatch.setattr(
        reader.Stack, "read", lambda self, index: read.append(index) or np.zeros((20, 26), "u2")
    )
    data, *_ = read_layers(str(path))[1]
    assert read == []
    np.asarray(data[2, 1])
    assert read == [(2, 1, 1)]


def test_the_file_is_open_as_long_as_a_layer_lives(tmp_path, monkeypatch):
    path = ome_tiff(tmp_path / "cells.ome.tif")
    events, original = [], reader.open_stacks

    @contextlib.contextmanager
    def watched(path):
        try:
            with original(path) as stacks:
                yield stacks
        finally:
            events.append("closed")

    monkeypatch.setattr(reader, "open_stacks", watched)
    layers = [Layer.create(*each) for each in read_layers(str(path))]
    kept = layers.pop()
    del layers
    gc.collect()
    np.testing.assert_array_equal(np.asarray(kept.data[2, 1]), VALUES[2, 1, 1])
    assert events == []
    del kept
    gc.collect()
    assert events == ["closed"]


def test_colours_are_rgb(tmp_path):
    values = np.random.default_rng(2).integers(0, 256, (3, 20, 26, 3)).astype(np.uint8)
    path = tmp_path / "colors.tif"
    tifffile.imwrite(path, values, imagej=True, metadata={"axes": "TYXS"})
    ((data, settings, _),) = read_layers(str(path))
    assert settings["rgb"] and len(settings["scale"]) == 3
    np.testing.assert_array_equal(np.asarray(data), values)
    assert Layer.create(data, settings, "image").rgb


def test_images_of_one_file_have_names(tmp_path):
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for name in ("one", "two"):
            file.write(VALUES[:, 0, 0], metadata={"axes": "TYX", "Name": name})
    assert [settings["name"] for _, settings, _ in read_layers(str(path))] == ["two one", "two two"]


def test_many_images_are_shown_in_part(tmp_path, monkeypatch, told):
    monkeypatch.setattr(reader, "_MOST", 1)
    test_path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(test_path, ome=True) as file:
        for name in ("one", "two"):
            file.write(VALUES[:, 0, 0], metadata={"axes": "TYX", "Name": name})
    assert len(read_layers(str(test_path))) == 1
    assert told == [("warning", "two.ome.tif has 2 images; the first 1 are shown.")]


def test_other_files_are_left_to_other_readers(tmp_path):
    picture, text = tmp_path / "picture.tif", tmp_path / "text.tif"
    tifffile.imwrite(picture, VALUES[0, 0, 0], metadata=None)
    text.write_text("nothing")
    for path in (picture, text, tmp_path, tmp_path / "missing.tif"):
        assert get_reader(str(path)) is None
    several = [str(ome_tiff(tmp_path / "cells.ome.tif")), str(picture)]
    assert get_reader(several) is None
    assert get_reader(several[:1]) is read_layers


@pytest.mark.parametrize("version", [2, 3])
def test_bare_zarr_arrays_are_left_to_napari(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "array.zarr"
    zarr.create_array(str(path), shape=(4, 4), dtype="u1", zarr_format=version)
    assert get_reader(str(path)) is None


def test_a_unit_that_nobody_knows():
    assert reader._unit("light hours / furlong²?") == "pixel"
    assert reader._unit("") == "pixel"
    assert reader._unit("micrometer") == "micrometer"
