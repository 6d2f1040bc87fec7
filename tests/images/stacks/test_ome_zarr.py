"""OME-Zarr: read what ome-zarr-py writes, and have it read what cbsn writes."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from cbsn.errors import ConfigError, ImageError
from cbsn.images.stacks import ome_zarr as module
from cbsn.images.stacks.ome_zarr import is_ome_zarr, open_ome_zarr
from cbsn.images.stacks.ome_zarr_attributes import find_foreign
from cbsn.images.stacks.ome_zarr_writer import create_ome_zarr
from cbsn.images.stacks.stack import Channel, Layout, Spacing, array_stack
from cbsn.images.stacks.writing import partial_stack_file

zarr = pytest.importorskip("zarr", minversion="3")

VERSIONS = {"0.4": 2, "0.5": 3}
DTYPES = ["int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32", "float64"]
CHANNELS = (Channel("GFP", "#00FF00"), Channel("DAPI", "#0000FF"))


def random(shape, dtype="uint16", seed=0):
    values = np.random.default_rng(seed).uniform(0, 120, shape)
    return (values - 60 if np.dtype(dtype).kind != "u" else values).astype(dtype)


def layout_of(array, axes, **more):
    return Layout(axes, array.shape, array.dtype, "test", **more)


def from_version(version, **attributes):
    """What the layout of an image of this version keeps for the writer."""
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", **attributes}}
    return module.OmeZarrFacts(attributes, VERSIONS[version], {}, {})


def write(path, arrays, layouts, *, side=512, resume=False):
    """Writes stacks in parts of this side."""
    file = create_ome_zarr(path, layouts, resume=resume)
    for number, (array, layout) in enumerate(zip(arrays, layouts, strict=True)):
        stack = array_stack(array, layout.axes)
        for index in layout.indices():
            for top in range(0, layout.size("Y"), side):
                for left in range(0, layout.size("X"), side):
                    rows = slice(top, min(top + side, layout.size("Y")))
                    columns = slice(left, min(left + side, layout.size("X")))
                    file.write(number, index, rows, columns, stack.read(index, rows, columns))
    file.close()


def pixels(stack):
    """All planes, with the axes Y and X last."""
    layout = stack.layout
    planes = [stack.read(index) for index in layout.indices()]
    return np.stack(planes).reshape(*layout.outer_shape, *planes[0].shape)


def attributes_of(folder):
    if (folder / "zarr.json").exists():
        return json.loads((folder / "zarr.json").read_text())["attributes"]["ome"]
    return json.loads((folder / ".zattrs").read_text())


def change(folder, function):
    """Changes the attributes of a group."""
    file = folder / "zarr.json"
    if file.exists():
        node = json.loads(file.read_text())
        function(node["attributes"]["ome"])
        file.write_text(json.dumps(node))
    else:
        attributes = attributes_of(folder)
        function(attributes)
        (folder / ".zattrs").write_text(json.dumps(attributes))


def half(plane):
    """The means of 2 x 2 pixels, one by one."""
    height, width = (-(-size // 2) for size in plane.shape)
    result = np.empty((height, width), plane.dtype)
    for y in range(height):
        for x in range(width):
            mean = plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(dtype=np.float64)
            result[y, x] = mean if plane.dtype.kind == "f" else np.rint(mean)
    return result


def foreign(path):
    """What ome-zarr-py reads: the levels and the metadata of the first image."""
    pytest.importorskip("ome_zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    node = next(iter(Reader(parse_url(str(path)))()))
    return [np.asarray(level) for level in node.data], node.metadata


def write_foreign(path, array, version, **options):
    writer = pytest.importorskip("ome_zarr.writer")
    from ome_zarr import format

    kind = {"0.4": format.FormatV04, "0.5": format.FormatV05}[version]
    group = zarr.open_group(str(path), mode="w", zarr_format=VERSIONS[version])
    writer.write_image(array, group, fmt=kind(), scale_factors=[2], **options)


# Round trips


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_come_back(tmp_path, version, dtype):
    array = random((2, 9, 13), dtype)
    layout = layout_of(array, "CYX", metadata=from_version(version))
    write(tmp_path / "a.zarr", [array], [layout])
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    back = stack.layout
    assert (back.axes, back.shape, back.dtype, back.format) == (
        "CYX",
        array.shape,
        array.dtype,
        "OME-Zarr",
    )
    assert back.metadata.zarr_format == VERSIONS[version]
    np.testing.assert_array_equal(pixels(stack), array)
    np.testing.assert_array_equal(stack.read((1,), slice(2, 5), slice(3, 9)), array[1, 2:5, 3:9])
    levels, _ = foreign(tmp_path / "a.zarr")
    np.testing.assert_array_equal(levels[0], array)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("axes", "written"),
    [("YX", "yx"), ("ZYX", "zyx"), ("TCZYX", "tczyx"), ("TZCYX", "tczyx")],
)
def test_axes_are_written_in_the_order_of_the_format(tmp_path, version, axes, written):
    array = random([2, 3, 4, 7, 5][-len(axes) :])
    layout = layout_of(array, axes, metadata=from_version(version))
    write(tmp_path / "a.zarr", [array], [layout])
    ordered = array.transpose([axes.index(axis.upper()) for axis in written])
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    assert stack.layout.axes == written.upper()
    np.testing.assert_array_equal(pixels(stack), ordered)
    levels, metadata = foreign(tmp_path / "a.zarr")
    np.testing.assert_array_equal(levels[0], ordered)
    assert [axis["name"] for axis in metadata["axes"]] == list(written)
    if version == "0.5":
        names = zarr.open_array(str(tmp_path / "a.zarr" / "0"), mode="r").metadata.dimension_names
        assert names == tuple(written)


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_come_back(tmp_path, version):
    array = random((2, 3, 2, 300, 600))
    spacing = {
        "T": Spacing(1.5, "second"),
        "Z": Spacing(2.0, "micrometer"),
        "Y": Spacing(0.25, "micrometer"),
        "X": Spacing(0.5, "micrometer"),
    }
    facts = from_version(version)
    layout = layout_of(
        array, "TZCYX", name="cells", spacing=spacing, channels=CHANNELS, metadata=facts
    )
    write(tmp_path / "a.zarr", [array], [layout])
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    assert (dict(stack.layout.spacing), stack.layout.channels) == (spacing, CHANNELS)
    levels, metadata = foreign(tmp_path / "a.zarr")
    assert [level.shape[-2:] for level in levels] == [(300, 600), (150, 300), (75, 150)]
    assert metadata["channel_names"] == ["GFP", "DAPI"]
    assert metadata["coordinateTransformations"][1] == [
        {"type": "scale", "scale": [1.5, 1.0, 2.0, 0.5, 1.0]},
        {"type": "translation", "translation": [0.0, 0.0, 0.0, 0.125, 0.25]},
    ]
    assert [axis.get("unit") for axis in metadata["axes"]] == [
        "second",
        None,
        "micrometer",
        "micrometer",
        "micrometer",
    ]
    (multiscales,) = attributes_of(tmp_path / "a.zarr")["multiscales"]
    assert (multiscales["name"], multiscales["type"]) == ("cells", "mean")


@pytest.mark.parametrize("version", VERSIONS)
def test_output_fits_the_specification(tmp_path, version):
    pytest.importorskip("ome_zarr_models")
    import ome_zarr_models.v04
    import ome_zarr_models.v05

    models = ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05
    array = random((2, 2, 300, 20))
    spacing = {"X": Spacing(0.5, "micrometer")}
    more = {"channels": CHANNELS, "spacing": spacing, "metadata": from_version(version)}
    layout = layout_of(array, "TCYX", **more)
    write(tmp_path / "a.zarr", [array], [layout])
    models.Image.from_zarr(zarr.open_group(str(tmp_path / "a.zarr"), mode="r"))
    write(tmp_path / "b.zarr", [array, array], [layout, layout])
    models.BioFormats2Raw.from_zarr(zarr.open_group(str(tmp_path / "b.zarr"), mode="r"))
    models.Image.from_zarr(zarr.open_group(str(tmp_path / "b.zarr" / "1"), mode="r"))


def test_rgb_becomes_channels(tmp_path):
    array = random((2, 300, 9, 3), "uint8")
    write(tmp_path / "a.zarr", [array], [layout_of(array, "ZYXS")])
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    assert stack.layout.axes == "CZYX"
    assert stack.layout.channels == (
        Channel("Red", "#FF0000"),
        Channel("Green", "#00FF00"),
        Channel("Blue", "#0000FF"),
    )
    np.testing.assert_array_equal(pixels(stack), np.moveaxis(array, -1, 0))
    level = zarr.open_array(str(tmp_path / "a.zarr" / "1"), mode="r")
    np.testing.assert_array_equal(level[2, 1], half(array[1, ..., 2]))
    windows = [
        channel["window"] for channel in attributes_of(tmp_path / "a.zarr")["omero"]["channels"]
    ]
    assert windows == [{"min": 0, "max": 255, "start": 0, "end": 255}] * 3


def test_rgb_in_channels_is_refused(tmp_path):
    layout = Layout("CYXS", (2, 4, 4, 3), np.dtype("uint8"), "test")
    with pytest.raises(ImageError, match="RGB colours in several channels"):
        create_ome_zarr(tmp_path / "a.zarr", [layout], resume=False)
    # With one channel, there is no doubt.
    array = random((1, 4, 5, 3), "uint8")
    write(tmp_path / "b.zarr", [array], [layout_of(array, "CYXS")])
    (stack,) = open_ome_zarr(tmp_path / "b.zarr")
    np.testing.assert_array_equal(pixels(stack), np.moveaxis(array[0], -1, 0))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_viewers_are_told_the_range_of_values(tmp_path, dtype):
    array = random((2, 6, 6), dtype)
    array[1] *= 3
    if dtype == "float32":
        array[1, 0, 0] = np.nan
    layout = layout_of(array, "CYX", channels=(Channel("a"), Channel("b")))
    path = tmp_path / "a.zarr"
    file = create_ome_zarr(path, [layout], resume=False)
    whole = slice(0, 6), slice(0, 6)
    file.write(0, (0,), *whole, array[0])
    file.flush()
    file = create_ome_zarr(path, [layout], resume=True)  # after the process has died
    file.write(0, (1,), *whole, array[1])
    file.close()
    channels = attributes_of(path)["omero"]["channels"]
    for channel, plane in zip(channels, array, strict=True):
        ends = channel["window"]["start"], channel["window"]["end"]
        assert ends == (np.nanmin(plane), np.nanmax(plane))
    assert [channel["color"] for channel in channels] == ["00FF00", "FF00FF"]


# The pyramid


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float32"])
@pytest.mark.parametrize("shape", [(523, 130), (1, 515), (256, 256), (257, 3)])
def test_levels_are_means(tmp_path, dtype, shape):
    array = random(shape, dtype)
    if dtype == "uint32":
        array += np.uint32(2**32 - 200)
    write(tmp_path / "a.zarr", [array], [layout_of(array, "YX")])
    paths = [
        each["path"] for each in attributes_of(tmp_path / "a.zarr")["multiscales"][0]["datasets"]
    ]
    expected = array
    for path in paths:
        level = zarr.open_array(str(tmp_path / "a.zarr" / path), mode="r")[:]
        np.testing.assert_allclose(level, expected, rtol=1e-6 if dtype == "float32" else 0)
        last, expected = expected, half(expected)
    assert max(last.shape) <= 256 and len(paths) == 1 + sum(max(shape) > 256 * 2**i for i in (0, 1))


def test_the_largest_values_do_not_overflow(tmp_path):
    array = np.full((300, 2), np.finfo("float16").max)
    write(tmp_path / "a.zarr", [array], [layout_of(array, "YX")])
    assert (zarr.open_array(str(tmp_path / "a.zarr" / "1"), mode="r")[:] == array[0, 0]).all()


def test_there_are_at_most_eight_levels(tmp_path):
    layout = Layout("YX", (40_000, 90_000), np.dtype("uint8"), "test")
    create_ome_zarr(tmp_path / "a.zarr", [layout], resume=False)
    datasets = attributes_of(tmp_path / "a.zarr")["multiscales"][0]["datasets"]
    assert [each["path"] for each in datasets] == list("01234567")
    assert datasets[7]["coordinateTransformations"] == [
        {"type": "scale", "scale": [128.0, 128.0]},
        {"type": "translation", "translation": [63.5, 63.5]},
    ]


def files(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_parts_give_the_same_as_whole_planes(tmp_path, version):
    array = random((2, 1111, 1300), "uint8")
    layout = layout_of(array, "TYX", metadata=from_version(version))
    write(tmp_path / "whole.zarr", [array], [layout], side=4096)
    write(tmp_path / "parts.zarr", [array], [layout])
    assert files(tmp_path / "parts.zarr") == files(tmp_path / "whole.zarr")
    write(tmp_path / "parts.zarr", [array], [layout], resume=True)  # again
    assert files(tmp_path / "parts.zarr") == files(tmp_path / "whole.zarr")


def test_parts_off_the_grid_are_a_mistake_of_the_caller(tmp_path):
    layout = Layout("YX", (600, 600), np.dtype("uint8"), "test")
    file = create_ome_zarr(tmp_path / "a.zarr", [layout], resume=False)
    with pytest.raises(ValueError, match="multiples of 4"):
        file.write(0, (), slice(0, 8), slice(2, 8), np.zeros((8, 6), np.uint8))


# Resuming


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [1, 2])
def test_an_interrupted_file_goes_on(tmp_path, version, count):
    array = random((3, 20, 30))
    layout = layout_of(array, "TYX", channels=CHANNELS[:1], metadata=from_version(version))
    layouts, target = [layout] * count, tmp_path / "a.zarr"
    whole = slice(0, 20), slice(0, 30)
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with partial_stack_file(target, create_ome_zarr, layouts, {}) as file:
            file.write(count - 1, (0,), *whole, array[0])
            file.count(1)
            raise KeyboardInterrupt
    with partial_stack_file(target, create_ome_zarr, layouts, {}) as file:
        assert file.done == 1
        for number in (1, 2):
            file.write(count - 1, (number,), *whole, array[number])
    stacks = open_ome_zarr(target)
    assert len(stacks) == count and [each.name for each in tmp_path.iterdir()] == ["a.zarr"]
    np.testing.assert_array_equal(pixels(stacks[-1]), array)


def test_only_what_fits_is_resumed(tmp_path):
    array = random((2, 300, 30))
    layout = layout_of(array, "TYX")
    write(tmp_path / "a.zarr", [array], [layout])
    create_ome_zarr(tmp_path / "a.zarr", [layout], resume=True)
    for change in (
        {"shape": (3, 300, 30)},
        {"dtype": np.dtype("int16")},
        {"axes": "ZYX"},
        {"spacing": {"X": Spacing(2.0)}},
        {"metadata": from_version("0.4")},
    ):
        with pytest.raises(Exception, match=r"settings|exist|find|found"):
            create_ome_zarr(
                tmp_path / "a.zarr", [dataclasses.replace(layout, **change)], resume=True
            )
    with pytest.raises(FileNotFoundError):
        create_ome_zarr(tmp_path / "none.zarr", [layout], resume=True)


# Files of others


@pytest.mark.parametrize(
    ("version", "dtype"),
    [("0.4", "uint16"), ("0.4", ">u2"), ("0.4", "float32"), ("0.5", "uint16"), ("0.5", "float32")],
)
def test_files_of_ome_zarr_py(tmp_path, version, dtype):
    array = random((2, 3, 33, 44), dtype)
    omero = {
        "channels": [
            {"label": "GFP", "color": "00ff00", "window": {"start": 1, "end": 9}, "active": True},
            {"label": "DAPI", "color": "0000FF", "window": {"start": 2, "end": 8}},
        ],
        "rdefs": {"defaultZ": 2, "model": "color"},
    }
    write_foreign(
        tmp_path / "a.zarr",
        array,
        version,
        axes="czyx",
        scale={"z": 2.0, "y": 0.5, "x": 0.5},
        axes_units={"z": "micrometer", "y": "micrometer", "x": "micrometer"},
        name="cells",
    )
    change(tmp_path / "a.zarr", lambda ome: ome.update(omero=omero))
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    layout = stack.layout
    assert (layout.axes, layout.shape, layout.name) == ("CZYX", array.shape, "")
    assert layout.dtype == np.dtype(dtype).newbyteorder("=")
    assert layout.spacing == {
        "Z": Spacing(2.0, "micrometer"),
        "Y": Spacing(0.5, "micrometer"),
        "X": Spacing(0.5, "micrometer"),
    }
    assert pixels(stack).dtype.isnative
    np.testing.assert_array_equal(pixels(stack), array)
    assert layout.channels == CHANNELS
    # A part of it is written in the same version, with the same metadata.
    chosen = stack.selected({"C": slice(1, 2), "Z": slice(1, 3), "X": slice(4, 40)})
    write(tmp_path / "b.zarr", [pixels(chosen)], [chosen.layout])
    (back,) = open_ome_zarr(tmp_path / "b.zarr")
    np.testing.assert_array_equal(pixels(back), array[1:, 1:, :, 4:40])
    assert back.layout.channels == CHANNELS[1:]
    assert back.layout.spacing == layout.spacing
    assert back.layout.metadata.zarr_format == VERSIONS[version]
    assert back.layout.metadata.origin == {"C": 0.0, "Z": 2.0, "Y": 0.0, "X": 2.0}
    assert back.layout.metadata.ome["multiscales"][0]["name"] == "cells"
    assert back.layout.metadata.ome["omero"] == {
        "channels": omero["channels"][1:],
        "rdefs": {"model": "color"},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_sample_data_of_ome_zarr_py(tmp_path, version):
    data = pytest.importorskip("ome_zarr.data")
    from ome_zarr import format

    kind = {"0.4": format.FormatV04, "0.5": format.FormatV05}[version]
    try:
        image = data.coins()[0][0]
    except Exception as error:  # scikit-image downloads some of its pictures
        pytest.skip(f"no picture: {error}")
    data.create_zarr(str(tmp_path / "a.zarr"), fmt=kind())
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")  # and no labels
    assert stack.layout.axes == "YX"
    np.testing.assert_array_equal(stack.read(()), image)
    assert stack.layout.channels == (Channel("", "#FF0000"),)


@pytest.mark.parametrize("version", VERSIONS)
def test_other_attributes_survive(tmp_path, version):
    array = random((8, 8))
    write(tmp_path / "a.zarr", [array], [layout_of(array, "YX", metadata=from_version(version))])
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r+")
    group.attrs["experiment"] = {"number": 7}
    change(tmp_path / "a.zarr", lambda ome: ome.update(_creator={"name": "x"}))
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr", [array], [stack.layout])
    kept = zarr.open_group(str(tmp_path / "b.zarr"), mode="r").attrs
    assert kept["experiment"] == {"number": 7}
    assert attributes_of(tmp_path / "b.zarr")["_creator"] == {"name": "x"}
    assert (
        attributes_of(tmp_path / "b.zarr")["multiscales"]
        == (attributes_of(tmp_path / "a.zarr")["multiscales"])
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_left_out_is_known(tmp_path, version):
    array = random((8, 8))
    path = tmp_path / "a.zarr"
    write(path, [array], [layout_of(array, "YX", metadata=from_version(version))])
    assert open_ome_zarr(path)[0].layout.metadata.left_out == ()
    entry = dict(attributes_of(path)["multiscales"][0], name="second")
    change(path, lambda ome: ome["multiscales"].append(entry))
    labels = {"labels": ["cells", "nuclei"]}
    attributes = labels if version == "0.4" else {"ome": labels}
    options = {"zarr_format": VERSIONS[version], "overwrite": True}
    zarr.create_group(str(path / "labels"), attributes=attributes, **options)
    (path / "OME").mkdir()
    (path / "OME" / "METADATA.ome.xml").touch()
    assert open_ome_zarr(path)[0].layout.metadata.left_out == (
        "labels (cells, nuclei)",
        "1 other multiscale image (second)",
        "OME/METADATA.ome.xml",
    )
    change(path / "labels", lambda ome: ome.update(labels=[7]))  # damaged
    assert open_ome_zarr(path)[0].layout.metadata.left_out[0] == "labels"


def image(path, array, axes, zarr_format=3, multiscales=None, ome=None, **options):
    """Writes an image with any metadata."""
    entry = {
        "axes": [{"name": axis} for axis in axes],
        "datasets": [{"path": "full"}],
        **(multiscales or {}),
    }
    entry = {key: value for key, value in entry.items() if value is not None}
    attributes = {"multiscales": [entry], **(ome or {})}
    attributes = {"ome": attributes} if zarr_format == 3 else attributes
    group = zarr.create_group(
        str(path), zarr_format=zarr_format, attributes=attributes, overwrite=True
    )
    stored = group.create_array("full", shape=array.shape, dtype=array.dtype, **options)
    stored[...] = array


@pytest.mark.parametrize("endian", ["little", "big"])
def test_sharded_arrays(tmp_path, endian):
    array = random((5, 40, 50))
    image(
        tmp_path / "a.zarr",
        array,
        "ZYX",
        chunks=(2, 8, 16),
        shards=(4, 16, 32),
        serializer=zarr.codecs.BytesCodec(endian=endian),
    )
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pixels(stack), array)
    np.testing.assert_array_equal(stack.read((4,), slice(7, 9), slice(15, 50)), array[4, 7:9, 15:])


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("codec", ["Blosc", "GZip", "Zstd", "Zlib", None])
def test_compressions_and_separators(tmp_path, separator, codec):
    numcodecs = pytest.importorskip("numcodecs")
    array = random((3, 20, 30), ">i2")
    image(
        tmp_path / "a.zarr",
        array,
        "TYX",
        zarr_format=2,
        chunks=(1, 16, 16),
        compressors=getattr(numcodecs, codec)() if codec else None,
        chunk_key_encoding={"name": "v2", "separator": separator},
    )
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pixels(stack), array)


@pytest.mark.parametrize("axes", [None, list("tczyx")], ids=["0.1", "0.3"])
def test_older_versions(tmp_path, axes):
    array = random((2, 1, 3, 8, 9))
    image(tmp_path / "a.zarr", array, "", zarr_format=2, multiscales={"axes": axes})
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    assert stack.layout.axes == "TCZYX"
    np.testing.assert_array_equal(pixels(stack), array)
    write(tmp_path / "b.zarr", [array], [stack.layout])
    assert attributes_of(tmp_path / "b.zarr")["multiscales"][0]["version"] == "0.4"


@pytest.mark.parametrize("axes", ["xyz", "zcxy", "YXT"])
def test_axes_of_any_order_and_case(tmp_path, axes):
    array = random((2, 3, 4, 5)[: len(axes)])
    image(tmp_path / "a.zarr", array, axes, chunks=(2,) * len(axes))
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    outer = "".join(axis for axis in axes.upper() if axis not in "YX")
    assert stack.layout.axes == outer + "YX"
    order = [axes.upper().index(axis) for axis in stack.layout.axes]
    np.testing.assert_array_equal(pixels(stack), array.transpose(order))


def test_transformations_of_both_places_count(tmp_path):
    dataset = {
        "path": "full",
        "coordinateTransformations": [
            {"type": "scale", "scale": [2, 0.5, 1.0]},
            {"type": "translation", "translation": [1, 2, 3]},
        ],
    }
    multiscales = {
        "axes": [{"name": "t"}, {"name": "y", "unit": "micrometer"}, {"name": "x"}],
        "datasets": [dataset],
        "coordinateTransformations": [{"type": "scale", "scale": [10, 2.0, 1.0]}],
    }
    array = random((2, 4, 4))
    image(tmp_path / "a.zarr", array, "", multiscales=multiscales)
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    # A scale of 1 without a unit says nothing.
    assert stack.layout.spacing == {"T": Spacing(20.0), "Y": Spacing(1.0, "micrometer")}
    assert stack.layout.metadata.origin == {"T": 10.0, "Y": 4.0, "X": 3.0}
    write(tmp_path / "b.zarr", [array], [stack.layout])
    (entry,) = attributes_of(tmp_path / "b.zarr")["multiscales"]
    assert "coordinateTransformations" not in entry
    (back,) = open_ome_zarr(tmp_path / "b.zarr")
    assert back.layout.spacing == stack.layout.spacing
    assert back.layout.metadata.origin == stack.layout.metadata.origin


@pytest.mark.parametrize(
    "transformations",
    [
        None,
        7,
        [7, {"type": "identity"}],
        [{"type": "scale", "scale": [1, 2, 3]}],
        [{"type": "scale", "scale": ["a", None]}],
        [{"type": "scale", "scale": [0, -1]}],
        [{"type": "scale", "scale": [float("nan"), 2]}],
        [{"type": "scale", "scale": [10**400, 2]}],
        [{"type": "scale", "path": "elsewhere"}],
    ],
)
def test_damaged_scales_are_no_spacing(tmp_path, transformations):
    datasets = [{"path": "full", "coordinateTransformations": transformations}]
    image(tmp_path / "a.zarr", random((4, 4)), "yx", multiscales={"datasets": datasets})
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    assert stack.layout.spacing == {}


@pytest.mark.parametrize(
    ("omero", "channels"),
    [
        (None, ()),
        ({"channels": 7}, ()),
        ({"channels": [{}]}, ()),  # of two
        ({"channels": [{}, 7]}, (Channel(), Channel())),
        (
            {"channels": [{"label": 7, "color": "#ff0000"}, {"label": "b", "color": "red"}]},
            (Channel("", "#FF0000"), Channel("b")),
        ),
    ],
)
def test_damaged_channels(tmp_path, omero, channels):
    array = random((2, 4, 4))
    image(tmp_path / "a.zarr", array, "cyx", ome={"omero": omero})
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    assert stack.layout.channels == channels
    write(tmp_path / "b.zarr", [array], [stack.layout])
    (back,) = open_ome_zarr(tmp_path / "b.zarr")
    assert back.layout.channels == channels


def test_chunks_of_several_planes_are_decoded_once(tmp_path, monkeypatch):
    array = random((7, 2, 20, 20))
    image(tmp_path / "a.zarr", array, "zcyx", chunks=(4, 2, 8, 8))
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    decoded = []
    original = module._Reader._decoded
    monkeypatch.setattr(
        module._Reader, "_decoded", lambda *all: decoded.append(all[1]) or original(*all)
    )
    for index in stack.layout.indices():
        plane = stack.read(index)
        np.testing.assert_array_equal(plane, array[index])
        plane[:] = 0  # the caller's own
    assert len(decoded) == 2
    monkeypatch.setattr(module, "_SLAB_BYTES", 100)
    np.testing.assert_array_equal(pixels(stack), array)


@pytest.mark.parametrize(("side", "kept"), [(64, 512), (256, 256), (300, 512)])
def test_chunks_keep_their_sides_if_parts_fit_them(tmp_path, side, kept):
    array = random((2, 600, 3))
    image(tmp_path / "a.zarr", array, "zyx", chunks=(2, side, 3))
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr", [array], [stack.layout])
    (back,) = open_ome_zarr(tmp_path / "b.zarr")
    assert back.layout.metadata.chunks == {"Z": 1, "Y": kept, "X": 3}


def test_only_the_requested_chunks_are_read(tmp_path):
    array = random((32, 32))
    image(tmp_path / "a.zarr", array, "yx", chunks=(16, 16))
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "full" / "c" / "1" / "1").write_bytes(b"damaged")
    np.testing.assert_array_equal(stack.read((), slice(0, 16)), array[:16])
    np.testing.assert_array_equal(stack.read((), columns=slice(0, 16)), array[:, :16])
    with pytest.raises(ImageError, match=r"^has an array full that cannot be decoded"):
        stack.read((), slice(15, 17))
    (tmp_path / "a.zarr" / "full" / "c" / "1" / "1").unlink()
    assert (stack.read(())[16:, 16:] == 0).all()  # the fill value


# Collections


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("has_series", [True, False])
def test_collections(tmp_path, version, has_series):
    arrays = [random((5, 6)), random((2, 7, 8), "float32")]
    facts = from_version(version)
    layouts = [
        layout_of(arrays[0], "YX", name="first", metadata=facts),
        layout_of(arrays[1], "CYX", metadata=facts),
    ]
    path = tmp_path / "a.zarr"
    write(path, arrays, layouts)
    assert attributes_of(path)["bioformats2raw.layout"] == 3
    assert attributes_of(path / "OME")["series"] == ["0", "1"]
    if not has_series:
        change(path / "OME", lambda ome: ome.pop("series"))
    stacks = open_ome_zarr(path)
    assert [stack.layout.name for stack in stacks] == ["first", "1"]
    for stack, array in zip(stacks, arrays, strict=True):
        np.testing.assert_array_equal(pixels(stack), array)
    write(tmp_path / "b.zarr", arrays, [stack.layout for stack in stacks])
    for stack, array in zip(open_ome_zarr(tmp_path / "b.zarr"), arrays, strict=True):
        np.testing.assert_array_equal(pixels(stack), array)
        assert stack.layout.metadata.zarr_format == VERSIONS[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_plates(tmp_path, version):
    writer = pytest.importorskip("ome_zarr.writer")
    from ome_zarr import format

    kind = {"0.4": format.FormatV04, "0.5": format.FormatV05}[version]()
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=VERSIONS[version])
    writer.write_plate_metadata(root, ["A", "B"], ["1", "2"], ["A/1", "B/2"], fmt=kind)
    arrays = {}
    for well in ("A/1", "B/2"):
        group = root.require_group(well)
        writer.write_well_metadata(group, ["0", "1"], fmt=kind)
        for field in ("0", "1"):
            arrays[f"{well}/{field}"] = random((6, 7), seed=len(arrays))
            write_foreign(
                tmp_path / "a.zarr" / well / field, arrays[f"{well}/{field}"], version, axes="yx"
            )
    stacks = open_ome_zarr(tmp_path / "a.zarr")
    assert [stack.layout.name for stack in stacks] == [*arrays]
    for stack, array in zip(stacks, arrays.values(), strict=True):
        np.testing.assert_array_equal(pixels(stack), array)
    assert len(open_ome_zarr(tmp_path / "a.zarr" / "A" / "1")) == 2
    write(tmp_path / "b.zarr", [*arrays.values()], [stack.layout for stack in stacks])
    back = open_ome_zarr(tmp_path / "b.zarr")
    assert [stack.layout.name for stack in back] == [*arrays]
    for stack, array in zip(back, arrays.values(), strict=True):
        np.testing.assert_array_equal(pixels(stack), array)
    for group in ("", "A/1", "B/2"):
        assert _without_mark(tmp_path / "b.zarr" / group) == attributes_of(
            tmp_path / "a.zarr" / group
        )
    assert find_foreign(tmp_path / "b.zarr") is None
    names = (".zattrs", "zarr.json")
    for name in names:
        (tmp_path / "a.zarr" / "B" / "2" / "1" / name).unlink(missing_ok=True)
    with pytest.raises(ImageError, match=r"^has an image B/2/1, which has no (multiscales|Zarr)"):
        open_ome_zarr(tmp_path / "a.zarr")
    change(tmp_path / "a.zarr" / "A" / "1", lambda ome: ome["well"].pop("images"))
    with pytest.raises(ImageError, match=r"^has a well A/1, which has damaged metadata: .* images"):
        open_ome_zarr(tmp_path / "a.zarr")


def _without_mark(folder):
    return {name: value for name, value in attributes_of(folder).items() if name != "cbsn"}


def plate(path, wells, zarr_format=3):
    """Writes a plate with an image in each of these wells, and no metadata of rows."""
    placed = (lambda ome: {"ome": ome}) if zarr_format == 3 else dict
    attributes = {"plate": {"name": "assay", "wells": [{"path": well} for well in wells]}}
    zarr.create_group(str(path), zarr_format=zarr_format, attributes=placed(attributes))
    for number, well in enumerate(wells):
        attributes = placed({"well": {"images": [{"path": "0"}]}})
        zarr.create_group(str(path / well), zarr_format=zarr_format, attributes=attributes)
        array = random((4, 5), seed=number)
        image(path / well / "0", array, "yx", zarr_format, {"name": "image"})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plate_fits_the_specification(tmp_path, version):
    pytest.importorskip("ome_zarr_models")
    import ome_zarr_models.v04
    import ome_zarr_models.v05

    models = ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05
    writer = pytest.importorskip("ome_zarr.writer")
    from ome_zarr import format

    kind = {"0.4": format.FormatV04, "0.5": format.FormatV05}[version]()
    plate(tmp_path / "a.zarr", ["A/1"], VERSIONS[version])
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="r+")
    root.require_group("A")
    writer.write_plate_metadata(root, ["A"], ["1"], ["A/1"], fmt=kind)
    writer.write_well_metadata(root["A/1"], ["0"], fmt=kind)
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr", [pixels(stack)], [stack.layout])
    models.HCS.from_zarr(zarr.open_group(str(tmp_path / "b.zarr"), mode="r"))


def test_a_well_stays_a_well(tmp_path):
    plate(tmp_path / "a.zarr", ["A/1"])
    (stack,) = open_ome_zarr(tmp_path / "a.zarr" / "A" / "1")
    write(tmp_path / "b.zarr", [pixels(stack)], [stack.layout])
    assert attributes_of(tmp_path / "b.zarr")["well"] == {"images": [{"path": "0"}]}
    (back,) = open_ome_zarr(tmp_path / "b.zarr")
    np.testing.assert_array_equal(pixels(back), pixels(stack))


@pytest.mark.parametrize("wells", [["A/1", "B/2"], ["A/1/x", "A/1"], ["A/1", "A/1"]])
def test_images_of_an_unusual_plate_keep_their_places_as_names(tmp_path, wells):
    """Here, rows have no metadata, wells are in each other, or are named twice."""
    path = tmp_path / "a.zarr"
    plate(path, [*dict.fromkeys(wells)])
    entries = [{"path": well} for well in wells]
    change(path, lambda ome: ome["plate"].update(wells=entries))
    stacks = open_ome_zarr(path)
    write(tmp_path / "b.zarr", [*map(pixels, stacks)], [stack.layout for stack in stacks])
    back = open_ome_zarr(tmp_path / "b.zarr")
    assert [stack.layout.name for stack in back] == [f"{well}/0" for well in wells]
    for one, other in zip(stacks, back, strict=True):
        np.testing.assert_array_equal(pixels(one), pixels(other))


# What cannot be read


@pytest.mark.parametrize("name", ["zarr.json", ".zgroup", ".zattrs", ".zarray"])
def test_what_is_zarr(tmp_path, name):
    (tmp_path / "a.zarr").mkdir()
    assert not is_ome_zarr(tmp_path / "a.zarr") and not is_ome_zarr(tmp_path / "b.zarr")
    (tmp_path / "a.zarr" / name).write_text("{}")
    assert is_ome_zarr(tmp_path / "a.zarr") and not is_ome_zarr(tmp_path / "a.zarr" / name)
    with pytest.raises(ImageError, match=r"multiscales|bare"):
        open_ome_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("multiscales", "message"),
    [
        ({"axes": None}, r"has no axes .* up to version 0.5. Received: version 0.6"),
        ({"axes": []}, "has no axes"),
        ({"axes": "yx"}, "has no axes"),
        ({"axes": [{"name": "angle"}, {"name": "x"}]}, r"has an axis 'angle'; only t, c, z, y and"),
        ({"axes": [{"name": 7}, {"name": "x"}]}, "has an axis 7"),
        ({"axes": [7, "x"]}, "has an axis None"),
        (
            {"axes": [{"name": "y", "type": "time"}, {"name": "x"}]},
            "has an axis y of the type 'time'; only 'space'",
        ),
        ({"axes": ["x", "x"]}, "has the axes XX"),
        ({"axes": ["z", "x"]}, "has the axes ZX"),
        ({"axes": ["z", "y", "x"]}, r"has the axes ZYX, but its array full the shape \(4, 5\)"),
        ({"datasets": []}, "damaged metadata: None is no path"),
        ({"datasets": None}, "damaged metadata: None is no path"),
        ({"datasets": [{"path": "../a.zarr/full"}]}, "is no path inside"),
        ({"datasets": [{"path": "/full"}]}, "is no path inside"),
        ({"datasets": [{"path": "C:full"}]}, "is no path inside"),
        ({"datasets": [{"path": ""}]}, "is no path inside"),
        ({"datasets": [{"path": "0"}]}, "has no array 0, which its metadata name"),
        ({"datasets": [{"path": "."}]}, "has an array . that cannot be opened"),
    ],
)
def test_damaged_metadata(tmp_path, multiscales, message):
    image(tmp_path / "a.zarr", random((4, 5)), "yx", 3, multiscales, {"version": "0.6"})
    with pytest.raises(ImageError, match=f"^{message}" if message.startswith("has") else message):
        open_ome_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "has no multiscales metadata: it is not an OME-Zarr image"),
        ({"ome": 7}, "has no multiscales metadata"),
        ({"ome": {"multiscales": []}}, "has no multiscales metadata"),
        ({"ome": {"multiscales": {}}}, "has no multiscales metadata"),
        ({"ome": {"multiscales": [7]}}, "damaged metadata"),
        ({"ome": {"plate": 7}}, "damaged metadata: it lists no wells"),
        ({"ome": {"plate": {"wells": []}}}, "collection without images"),
        ({"ome": {"plate": {"wells": [{"path": "A/1"}]}}}, "has a well A/1, which has no Zarr"),
        ({"ome": {"plate": {"wells": [{}]}}}, "None is no path"),
        ({"ome": {"well": {"images": [{"path": "0"}]}}}, "has an image 0, which has no Zarr"),
        ({"ome": {"bioformats2raw.layout": 3}}, "collection without images"),
    ],
)
def test_groups_that_are_no_images(tmp_path, attributes, message):
    zarr.create_group(str(tmp_path / "a.zarr"), attributes=attributes)
    with pytest.raises(ImageError, match=message):
        open_ome_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_bare_arrays(tmp_path, zarr_format):
    zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(4, 4), dtype="uint8", zarr_format=zarr_format
    )
    with pytest.raises(ImageError, match=r"^is a bare Zarr array, not an OME-Zarr image"):
        open_ome_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_that_are_no_json(tmp_path, zarr_format, content):
    image(tmp_path / "a.zarr", random((4, 4)), "yx", zarr_format)
    name = "zarr.json" if zarr_format == 3 else ".zattrs"
    (tmp_path / "a.zarr" / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"^has damaged metadata: its {name} is no JSON object"):
        open_ome_zarr(tmp_path / "a.zarr")
    image(tmp_path / "b.zarr", random((4, 4)), "yx", zarr_format)
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    (tmp_path / "b.zarr" / "full" / name).write_bytes(content)
    with pytest.raises(ImageError, match=r"^has an array full that cannot be opened"):
        open_ome_zarr(tmp_path / "b.zarr")


def change_array(path, zarr_format, **changes):
    file = path / "full" / ("zarr.json" if zarr_format == 3 else ".zarray")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([2**40, 2**40], "^claims to have the shape"),
        ([0, 4], "^claims to have the shape"),
        ([-4, 4], "opened|claims"),
        ("4", "opened"),
        ([4], "opened|shape"),
    ],
)
def test_absurd_shapes(tmp_path, zarr_format, shape, message):
    image(tmp_path / "a.zarr", random((4, 4)), "yx", zarr_format)
    change_array(tmp_path / "a.zarr", zarr_format, shape=shape)
    with pytest.raises(ImageError, match=message):
        open_ome_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("chunks", [[0, 4], [2**40, 2**40], [2**62, 2**62], [4]])
def test_absurd_chunks(tmp_path, chunks):
    image(tmp_path / "a.zarr", random((4, 4)), "yx", 2)
    change_array(tmp_path / "a.zarr", 2, chunks=chunks)
    with pytest.raises(ImageError, match=r"opened|decoded"):
        open_ome_zarr(tmp_path / "a.zarr")[0].read(())


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_other_dtypes(tmp_path, dtype):
    image(tmp_path / "a.zarr", np.zeros((4, 4), dtype), "yx")
    with pytest.raises(ImageError, match=f"has {dtype} values; convert"):
        open_ome_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", [b"", b"damaged", b"\xff" * 1000])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["zstd", "blosc", "gzip", "none"])
def test_damaged_chunks(tmp_path, zarr_format, codec, content):
    codecs = pytest.importorskip("numcodecs")
    if zarr_format == 2:
        kinds = {"zstd": codecs.Zstd, "blosc": codecs.Blosc, "gzip": codecs.GZip}
    else:
        kinds = {
            "zstd": zarr.codecs.ZstdCodec,
            "blosc": zarr.codecs.BloscCodec,
            "gzip": zarr.codecs.GzipCodec,
        }
    compressors = None if codec == "none" else kinds[codec]()
    image(tmp_path / "a.zarr", random((9, 9)), "yx", zarr_format, compressors=compressors)
    chunk = ("c", "0", "0") if zarr_format == 3 else ("0.0",)
    file = tmp_path.joinpath("a.zarr", "full", *chunk)
    assert file.is_file()
    file.write_bytes(content)
    (stack,) = open_ome_zarr(tmp_path / "a.zarr")
    with pytest.raises(
        ImageError, match=r"^has an array full that cannot be decoded, it is damaged"
    ):
        stack.read(())


@pytest.mark.parametrize("has_old_version", [False, True])
def test_a_missing_library_is_named(tmp_path, monkeypatch, has_old_version):
    layout = Layout("YX", (4, 4), np.dtype("uint8"), "test")
    if has_old_version:
        monkeypatch.setattr(zarr, "__version__", "2.18.3")
    else:
        monkeypatch.setitem(sys.modules, "zarr", None)
    for call in (
        lambda: open_ome_zarr(tmp_path),
        lambda: create_ome_zarr(tmp_path / "a.zarr", [layout], resume=False),
    ):
        with pytest.raises(ConfigError, match=r"'cbsn\[zarr\]' \(from a clone: .*Python 3.11 or"):
            call()
