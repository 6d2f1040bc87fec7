"""Tests of reading and writing TIFF stacks: `tiff_stacks`, `tiff_stack_writer` and `ome_xml`."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import skimage
import tifffile

from cbsn.errors import CbsnWarning, ImageError
from cbsn.images.stacks import tiff_stacks
from cbsn.images.stacks.opening import is_stack, open_stacks
from cbsn.images.stacks.stack import Channel, Layout, Spacing, array_stack
from cbsn.images.stacks.tiff_stack_writer import create_tiff_stack
from cbsn.inference.stack_options import StackOptions
from data_prep.stack_sources import ReadingOptions


def copied(source, target, selection=None, dtype=None):
    """Copies stacks, plane by plane in two parts; as denoising does."""
    with open_stacks(source) as stacks:
        stacks = [stack.selected(selection or {}) for stack in stacks]
        layouts = [stack.layout for stack in stacks]
        if dtype:
            layouts = [dataclasses.replace(each, dtype=np.dtype(dtype)) for each in layouts]
        file = create_tiff_stack(target, layouts, resume=False)
        for number, stack in enumerate(stacks):
            height, width = stack.layout.size("Y"), stack.layout.size("X")
            for index in stack.layout.indices():
                for rows in slice(0, 7), slice(7, height):
                    part = stack.read(index, rows, slice(0, width))
                    file.write(number, index, rows, slice(0, width), part)
        file.flush()
        file.close()
    return layouts


def test_a_copy_is_what_other_programs_expect(sample, tmp_path):
    assert is_stack(sample)
    copied(sample, tmp_path / "copy.tif")
    with tifffile.TiffFile(sample) as before, tifffile.TiffFile(tmp_path / "copy.tif") as after:
        assert (before.is_imagej, before.is_ome) == (after.is_imagej, after.is_ome)
        for one, two in zip(before.series, after.series, strict=True):
            expected, axes = one.asarray(), one.axes
            if "SYX" in axes:  # colours lie together in what is written
                expected, axes = np.moveaxis(expected, axes.index("S"), -1), axes.replace("S", "")
                axes += "S"
            assert axes == two.axes and one.dtype == two.dtype
            np.testing.assert_array_equal(two.asarray(), expected)
        if before.is_imagej:
            assert str(before.imagej_metadata) == str(after.imagej_metadata)
        first, second = before.pages.first, after.pages.first
        for code in 282, 283, 296:  # resolution
            assert first.tags.valueof(code) == second.tags.valueof(code)
        assert first.photometric == second.photometric


def test_plain_files_keep_their_description(write_sample, tmp_path):
    copied(write_sample("plain.tif"), tmp_path / "copy.tif")
    with tifffile.TiffFile(tmp_path / "copy.tif") as file:
        assert file.pages.first.description == "microscope A"


_ARTIST, _PRIVATE, _XMP = 315, 65000, 700


def _with_page_tags(path, byteorder="<"):
    """Writes a file as cameras of microscopes do, whose pages have descriptions of their own."""
    planes = np.arange(4 * 12 * 10, dtype=np.uint16).reshape(4, 12, 10)
    with tifffile.TiffWriter(path, byteorder=byteorder) as file:
        for number, plane in enumerate(planes):
            tags = [(_ARTIST, "s", 0, "A. Nyone", True), (_PRIVATE, "H", 2, (number, 7), True)]
            file.write(
                plane,
                metadata=None,
                description=f"frame {number}",
                software=False,
                datetime=f"2020:01:01 00:00:0{number}",
                contiguous=False,
                extratags=[*tags, (_XMP, "B", 6, b"<xmp/>", True)],
            )
    return planes


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize(
    ("selection", "taken"), [({}, range(4)), ({"T": slice(1, 4)}, range(1, 4))]
)
def test_each_page_keeps_its_own_tags(tmp_path, byteorder, selection, taken):
    planes = _with_page_tags(tmp_path / "a.tif", byteorder)
    layouts = copied(tmp_path / "a.tif", tmp_path / "b.tif", selection)
    again = create_tiff_stack(tmp_path / "b.tif", layouts, resume=True)
    planes[taken[1], 3:5, 2:4] = 9
    again.write(0, (1,), slice(3, 5), slice(2, 4), planes[taken[1], 3:5, 2:4])
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.asarray(), planes[[*taken]])
        for page, number in zip(file.pages, taken, strict=True):
            assert page.description == f"frame {number}"
            assert page.datetime.second == number
            assert page.tags.valueof(_PRIVATE) == (number, 7)
            assert page.tags.valueof(_ARTIST) == "A. Nyone"
            assert page.tags.valueof(_XMP) == b"<xmp/>"
            assert page.tags.valueof(305) is None


def test_tags_that_cannot_be_read_are_lost_alone(tmp_path, monkeypatch):
    planes = _with_page_tags(tmp_path / "a.tif")
    read = tifffile.TiffTag.astuple

    def fail(tag):
        if tag.code == _PRIVATE and tag.value[0] == 2:
            raise ValueError("damaged")
        return read(tag)

    monkeypatch.setattr(tifffile.TiffTag, "astuple", fail)
    copied(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.asarray(), planes)
        found = [page.tags.valueof(_PRIVATE) for page in file.pages]
    assert found == [(0, 7), (1, 7), None, (3, 7)]


def test_a_file_that_states_its_shape_keeps_its_description_too(tmp_path):
    facts = {"description": "hello", "software": "me", "datetime": "2020:01:01 00:00:00"}
    facts["photometric"] = "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 8, 9), np.uint16), metadata={}, **facts)
    copied(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_shaped and file.series[0].shape == (3, 8, 9)
        first = file.pages.first
        assert [first.description, first.software] == ["hello", "me"]
        assert first.tags.valueof(306) == facts["datetime"]


def _palette(path, table, **options):
    planes = np.arange(2 * 8 * 9, dtype=np.uint8).reshape(2, 8, 9)
    colors = (table * 257).astype(np.uint16)
    tifffile.imwrite(path, planes, photometric="palette", colormap=colors, **options)
    return planes, colors


_FALSE_COLORS = np.random.default_rng(1).integers(0, 256, (3, 256))


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (np.stack([np.arange(256), np.zeros(256), np.arange(256)]), {"metadata": None}),
        (_FALSE_COLORS, {"imagej": True}),
    ],
    ids=["from dark to bright", "ImageJ"],
)
def test_the_colours_of_values_stay(tmp_path, table, options):
    planes, colors = _palette(tmp_path / "a.tif", table, **options)
    copied(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        np.testing.assert_array_equal(file.asarray(), planes)
        np.testing.assert_array_equal(file.pages.first.colormap, colors)


def test_numbers_of_colours_are_no_stack(tmp_path):
    _palette(tmp_path / "a.tif", _FALSE_COLORS, metadata=None)
    with pytest.raises(ImageError, match="numbers of colours"), open_stacks(tmp_path / "a.tif"):
        pass


def test_ome_xml_stays_and_is_valid(sample, tmp_path):
    if ".ome." not in sample.name:
        pytest.skip("no OME-TIFF")
    ome_types = pytest.importorskip("ome_types")
    copied(sample, tmp_path / "copy.tif")
    texts = [tifffile.TiffFile(path).ome_metadata for path in (sample, tmp_path / "copy.tif")]
    before, after = (ome_types.from_xml(text, validate=True) for text in texts)
    for one, two in zip(before.images, after.images, strict=True):
        assert (one.name, one.id) == (two.name, two.id)
        for size in "physical_size_x", "physical_size_y", "physical_size_z", "time_increment":
            for name in size, f"{size}_unit":
                assert getattr(one.pixels, name) == getattr(two.pixels, name)
        assert one.pixels.channels == two.pixels.channels
        assert one.pixels.planes == two.pixels.planes
        for size in "xyzct":
            assert getattr(one.pixels, f"size_{size}") == getattr(two.pixels, f"size_{size}")


def test_what_ome_xml_says_of_a_selection(write_sample, tmp_path):
    ome_types = pytest.importorskip("ome_types")
    source = write_sample("ome.ome.tif")
    chosen = {"T": slice(1, 3), "C": slice(1, 2), "Y": slice(5, 18)}
    copied(source, tmp_path / "copy.tif", chosen)
    with tifffile.TiffFile(tmp_path / "copy.tif") as file:
        pixels = ome_types.from_xml(file.ome_metadata, validate=True).images[0].pixels
        np.testing.assert_array_equal(
            file.asarray().squeeze(), tifffile.imread(source)[1:3, :, 1, 5:18]
        )
    assert [channel.name for channel in pixels.channels] == ["GFP"]
    assert (pixels.size_t, pixels.size_c, pixels.size_y) == (2, 1, 13)
    places = {(plane.the_t, plane.the_z, plane.the_c) for plane in pixels.planes}
    assert places == {(t, z, 0) for t in range(2) for z in range(2)}
    assert all(plane.position_x == 1.5 for plane in pixels.planes)


def test_what_imagej_knows_of_a_selection(write_sample, tmp_path):
    source = write_sample("imagej.tif")
    copied(source, tmp_path / "copy.tif", {"T": slice(2, 3), "C": slice(1, 2)})
    with tifffile.TiffFile(source) as file:
        before = file.imagej_metadata
    with tifffile.TiffFile(tmp_path / "copy.tif") as file:
        after = file.imagej_metadata
        np.testing.assert_array_equal(file.asarray(), tifffile.imread(source)[2, :, 1])
    assert after["Labels"] == [before["Labels"][9], before["Labels"][11]]
    assert after["Ranges"] == before["Ranges"][2:]
    np.testing.assert_array_equal(after["LUTs"], before["LUTs"][1])
    assert after["Info"] == before["Info"] and after["spacing"] == before["spacing"]


@pytest.mark.parametrize("name", ["imagej.tif", "ome.ome.tif"])
def test_spacing_and_channels_are_read(write_sample, name):
    with open_stacks(write_sample(name)) as (stack,):
        layout = stack.layout
    y = 0.25 if name == "imagej.tif" else 250.0
    unit = "micrometer" if name == "imagej.tif" else "nanometer"
    expected = {"X": (0.2, "micrometer"), "Y": (y, unit), "Z": (1.5, "micrometer")}
    expected["T"] = (0.25 if name == "imagej.tif" else 0.1, "second")
    assert {axis: (each.size, each.unit) for axis, each in layout.spacing.items()} == expected
    colors = [channel.color for channel in layout.channels]
    if name == "imagej.tif":
        assert colors == ["#00FF00", "#00FF00"]
    else:
        assert colors == ["#0000FF", "#00FF00"]
        assert [channel.name for channel in layout.channels] == ["DAPI", "GFP"]


def test_real_files_of_another_package(tmp_path):
    for name, axes in ("multipage.tif", "TYX"), ("multipage_rgb.tif", "TYXS"):
        source = Path(skimage.__file__).parent / "data" / name
        if not source.exists():
            pytest.skip("this version of scikit-image does not ship it")
        (layout,) = copied(source, tmp_path / name)
        assert layout.axes == axes
        expected = tifffile.imread(source)
        if "S" in axes:  # its colours are separate
            expected = np.moveaxis(expected, 1, -1)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / name), expected)


@pytest.mark.parametrize("kind", ["plain", "imagej"])
def test_texts_may_be_more_than_ascii(tmp_path, kind):
    array = np.zeros((2, 8, 9), np.uint16)
    path = tmp_path / "a.tif"
    if kind == "plain":
        options = {"metadata": None, "description": "Zellkörper, 0.2 µm".encode()}
        tifffile.imwrite(path, array, photometric="minisblack", **options)
    else:
        metadata = {"axes": "ZYX", "unit": "xm", "spacing": 2.0}
        tifffile.imwrite(path, array, imagej=True, metadata=metadata)
        path.write_bytes(path.read_bytes().replace(b"unit=xm", b"unit=\xb5m"))
    copied(path, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_imagej == (kind == "imagej")
        text = file.pages.first.description
    assert ("Zellkörper, 0.2 µm" if kind == "plain" else "unit=\\u00B5m") in text


@pytest.mark.parametrize("damage", ['TheZ="a"', "<Pixels></Pixels>", 'SamplesPerPixel="999999999"'])
def test_ome_xml_that_cannot_be_kept_is_made_anew(write_sample, tmp_path, damage):
    path = write_sample("ome.ome.tif")
    with open_stacks(path) as (stack,):
        text = stack.layout.metadata.ome
    if damage.startswith("The"):
        text = text.replace('TheZ="0"', damage)
    elif damage.startswith("Samples"):  # as many channels would not fit into memory
        text = text.replace('SamplesPerPixel="1"', damage)
        assert damage in text
    else:
        text = text.replace("</Image>", damage + "</Image>")
    kept = dataclasses.replace(stack.layout.metadata, ome=text)
    layout = dataclasses.replace(stack.layout, metadata=kept)
    create_tiff_stack(tmp_path / "a.ome.tif", [layout], resume=False)
    with open_stacks(tmp_path / "a.ome.tif") as (found,):
        assert found.layout.axes == "TZCYX" and found.layout.spacing == layout.spacing


def test_told_axes_are_written(write_sample, tmp_path):
    with open_stacks(write_sample("plain.tif"), "ZYX") as (stack,):
        create_tiff_stack(tmp_path / "a.tif", [stack.layout], resume=False)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "ZYX"
    warned = pytest.warns(CbsnWarning, match="no axes in the order CTZYX: written as OME-TIFF")
    with open_stacks(write_sample("imagej.tif"), "CTZYX") as (stack,), warned:
        create_tiff_stack(tmp_path / "b.tif", [stack.layout], resume=False)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:  # ImageJ has only one order
        assert file.is_ome and file.series[0].axes == "CTZYX"


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_imagej_has_colours_of_eight_bits_only(write_sample, tmp_path, dtype):
    source = write_sample("imagej_rgb.tif")
    with pytest.warns(CbsnWarning, match=f"ImageJ's files hold no RGB of {dtype}: written as OME"):
        copied(source, tmp_path / "b.tif", dtype=dtype)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_ome and file.series[0].axes == "TYXS" and file.series[0].dtype == dtype
        np.testing.assert_array_equal(file.asarray(), tifffile.imread(source))


def _samples(path, array, planarconfig, photometric="minisblack", channels=1):
    """Writes an OME-TIFF of several samples for each pixel, [T, Y, X, S]."""
    metadata = {"axes": "TYXS", "Channel": {"Name": ["a"] * channels}}
    metadata |= {"Plane": {"DeltaT": [float(number) for number in range(len(array))]}}
    if planarconfig == "separate":
        array, metadata["axes"] = np.moveaxis(array, -1, 1), "TSYX"
    options = {"planarconfig": planarconfig, "photometric": photometric}
    tifffile.imwrite(path, array, metadata=metadata, **options)


def _stated(path):
    """Returns what the OME-XML of a file says of its only image, after checks that it is valid."""
    ome_types = pytest.importorskip("ome_types")
    with tifffile.TiffFile(path) as file:
        pixels = ome_types.from_xml(file.ome_metadata, validate=True).images[0].pixels
    identities = {channel.id for channel in pixels.channels}
    assert len(identities) == len(pixels.channels)
    assert pixels.size_c == sum(each.samples_per_pixel for each in pixels.channels)
    return pixels


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize(
    ("samples", "photometric", "axes", "selection"),
    [
        (2, "minisblack", None, {}),
        (5, "minisblack", None, {"C": slice(3, 5)}),
        (3, "rgb", "TYXC", {}),
        (3, "rgb", None, {}),
    ],
)
def test_samples_of_ome_tiff_stay_channels(
    tmp_path, random, planarconfig, samples, photometric, axes, selection
):
    array = random.integers(0, 999, (3, 20, 26, samples)).astype(np.uint16)
    _samples(tmp_path / "a.ome.tif", array, planarconfig, photometric)
    if axes and planarconfig == "separate":
        axes = "TCYX"
    with open_stacks(tmp_path / "a.ome.tif", axes) as (stack,):
        stack = stack.selected(selection)
        layout = stack.layout
        create_tiff_stack(tmp_path / "b.ome.tif", [layout], resume=False)
        with open_stacks(tmp_path / "b.ome.tif") as (found,):
            assert found.layout.axes == layout.axes and found.layout.shape == layout.shape
    pixels = _stated(tmp_path / "b.ome.tif")
    assert (pixels.size_t, pixels.size_c) == (3, layout.size("C") * layout.samples)
    assert [channel.name for channel in pixels.channels] == ["a"] * layout.size("C")
    if not selection:  # what is said of the planes of the only channel that there was
        assert [each.delta_t for each in pixels.planes] == [0, 1, 2]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("ZTCYX", {(t, z, c) for t in range(2) for z in range(3) for c in range(2)}),
        ("TCZYX", {(t, z, c) for t in range(3) for z in range(2) for c in range(2)}),
    ],
)
def test_planes_of_ome_xml_follow_told_axes(write_sample, tmp_path, axes, expected):
    source = write_sample("ome.ome.tif")  # TZCYX, 3 x 2 x 2
    with open_stacks(source) as (stack,):
        text = stack.layout.metadata.ome
    assert text.count("<Plane ") == 12
    with open_stacks(source, axes) as (stack,):
        create_tiff_stack(tmp_path / "a.ome.tif", [stack.layout], resume=False)
        part = stack.selected({"Z": slice(1, 2)}).layout
        create_tiff_stack(tmp_path / "b.ome.tif", [part], resume=False)
    for name in "a.ome.tif", "b.ome.tif":
        pixels = _stated(tmp_path / name)
        places = {(each.the_t, each.the_z, each.the_c) for each in pixels.planes}
        if name == "b.ome.tif":
            expected = {(t, 0, c) for t, z, c in expected if z == 1}
        assert places == expected
        with open_stacks(tmp_path / name) as (found,):
            assert [*found.layout.outer] == [a for a in axes[:3] if found.layout.size(a) > 1]


def test_channels_of_ome_xml_follow_told_axes(tmp_path):
    array = np.zeros((3, 2, 8, 9), np.uint16)
    metadata = {"axes": "TCYX", "Channel": {"Name": ["a", "b"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata=metadata)
    for axes, names in ("TZYX", [None]), ("CTYX", [None] * 3), ("ZCYX", ["a", "b"]):
        with open_stacks(tmp_path / "a.ome.tif", axes) as (stack,):
            create_tiff_stack(tmp_path / "b.ome.tif", [stack.layout], resume=False)
        with open_stacks(tmp_path / "b.ome.tif") as (found,):
            assert found.layout.axes == axes and found.layout.shape == array.shape
        assert [channel.name for channel in _stated(tmp_path / "b.ome.tif").channels] == names


def test_axes_can_be_told(write_sample):
    path = write_sample("plain.tif")
    with open_stacks(path) as (stack,):
        assert stack.layout.axes == "TYX"
    with open_stacks(path, "zyx") as (stack,):
        assert stack.layout.axes == "ZYX"
    for axes, words in ("TZYX", "3 axes"), ("TZX", "always with Y"), ("YYX", "at most once"):
        with pytest.raises(ImageError, match=words), open_stacks(path, axes):
            pass


def test_unknown_axes_are_asked_for(tmp_path):
    array = np.zeros((3, 4, 20, 26), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with pytest.raises(ImageError, match="--axes"), open_stacks(tmp_path / "a.tif"):
        pass
    with open_stacks(tmp_path / "a.tif", "TZYX") as (stack,):
        assert stack.layout.shape == (3, 4, 20, 26)


def test_samples_that_are_no_colours_are_channels(tmp_path):
    array = np.arange(2 * 20 * 26 * 5, dtype=np.uint16).reshape(2, 20, 26, 5)
    options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": {"axes": "TYXS"}}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    with open_stacks(tmp_path / "a.tif") as (stack,):
        assert stack.layout.axes == "TCYX" and stack.layout.shape == (2, 5, 20, 26)
        np.testing.assert_array_equal(stack.read((1, 3)), array[1, ..., 3])


@pytest.mark.parametrize("axes", ["SYX", "ZSYX", "SZYX", "ZYXS"])
def test_axes_may_be_named_in_the_order_of_the_file(tmp_path, random, axes):
    sizes = {"S": 3, "Z": 2, "Y": 20, "X": 26}
    array = random.integers(0, 999, [sizes[axis] for axis in axes]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with open_stacks(tmp_path / "a.tif", axes) as (stack,):
        assert stack.layout.axes == ("ZYXS" if "Z" in axes else "YXS")
        plane = array[axes.index("Z") * (slice(None),) + (1,)] if "Z" in axes else array
        found = stack.read((1,) if "Z" in axes else ())
        expected = plane if axes.endswith("S") else np.moveaxis(plane, 0, -1)
        np.testing.assert_array_equal(found, expected)
    for options in (StackOptions, ReadingOptions):
        assert options(axes=axes).axes == axes


@pytest.mark.parametrize("shape", [(3, 1, 40), (3, 40, 1), (3, 1, 1)])
def test_compressed_planes_of_one_row_or_column(tmp_path, random, shape):
    array = random.integers(0, 999, shape).astype(np.uint16)
    options = {"photometric": "minisblack", "compression": "zlib", "metadata": {"axes": "TYX"}}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    with open_stacks(tmp_path / "a.tif") as (stack,):
        assert stack.layout.shape == shape
        np.testing.assert_array_equal(stack.read((2,)), array[2])


def test_large_pages_of_several_channels_are_decoded_whole(tmp_path, random, monkeypatch):
    monkeypatch.setattr(tiff_stacks, "_WHOLE", 0)
    array = random.integers(0, 999, (2, 70, 64, 2)).astype(np.uint16)
    options = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": "TYXS"}, **options)
    with open_stacks(tmp_path / "a.tif") as (stack,):
        assert stack.layout.axes == "TCYX"
        part = stack.read((1, 0), slice(3, 30), slice(5, 60))
        np.testing.assert_array_equal(part, array[1, 3:30, 5:60, 0])


@pytest.mark.parametrize("kind", ["tiles", "strips"])
@pytest.mark.parametrize("samples", [1, 3])
def test_parts_of_large_pages_are_decoded(tmp_path, monkeypatch, kind, samples):
    monkeypatch.setattr(tiff_stacks, "_WHOLE", 0)
    random = np.random.default_rng(1)
    shape = (2, 70, 90, 3)[: 3 if samples == 1 else 4]
    array = random.integers(0, 999, shape).astype(np.uint16)
    options = {"tile": (32, 16)} if kind == "tiles" else {"rowsperstrip": 13}
    options["photometric"] = "minisblack" if samples == 1 else "rgb"
    options |= {"compression": "zlib", "predictor": True, "byteorder": ">"}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    monkeypatch.setattr(tiff_stacks, "_decoded", None)  # whole pages are not decoded
    with open_stacks(tmp_path / "a.tif") as (stack,):
        for rows, columns in ((0, 70), (0, 90)), ((33, 66), (5, 40)), ((69, 70), (89, 90)):
            found = stack.read((1,), slice(*rows), slice(*columns))
            np.testing.assert_array_equal(found, array[1, slice(*rows), slice(*columns)])


def test_other_stacks_become_ome_tiff(tmp_path):
    ome_types = pytest.importorskip("ome_types")
    array = np.arange(2 * 3 * 8 * 9, dtype=np.int16).reshape(2, 3, 8, 9)
    layout = dataclasses.replace(
        array_stack(array, "CZYX").layout,
        format="CZI",
        name="scene 1",
        spacing={"X": Spacing(0.5, "micrometer"), "Z": Spacing(2.0, "micrometer")},
        channels=(Channel("a", "#FF0000"), Channel("b", "#00FF80")),
    )
    file = create_tiff_stack(tmp_path / "a.ome.tif", [layout], resume=False)
    for index in layout.indices():
        file.write(0, index, slice(0, 8), slice(0, 9), array[index])
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.series[0].axes == "CZYX"
        np.testing.assert_array_equal(file.asarray(), array)
        ome_types.from_xml(file.ome_metadata, validate=True)
    with open_stacks(tmp_path / "a.ome.tif") as (stack,):
        found = stack.layout
    assert found.spacing == layout.spacing and found.channels == layout.channels


def test_what_ome_xml_lacks_is_added(write_sample, tmp_path):
    """A microscope's format may know more than the OME-XML that its reader makes."""
    source = write_sample("ome.ome.tif")
    with open_stacks(source) as (stack,):
        text = stack.layout.metadata.ome
    for attribute in (" TimeIncrement=", " TimeIncrementUnit=", " Color=", " Name="):
        text = re.sub(attribute + '"[^"]*"', "", text)
    layout = dataclasses.replace(stack.layout, format="CZI", metadata=text)
    create_tiff_stack(tmp_path / "a.ome.tif", [layout], resume=False)
    with open_stacks(tmp_path / "a.ome.tif") as (found,):
        assert found.layout.spacing == layout.spacing
        assert found.layout.channels == layout.channels


def test_ome_tiff_holds_no_half_floats(tmp_path):
    layout = Layout("YX", (4, 5), np.dtype(np.float16), "CZI")
    with pytest.raises(ImageError, match="--dtype float32"):
        create_tiff_stack(tmp_path / "a.ome.tif", [layout], resume=False)


def test_another_dtype_is_stated(write_sample, tmp_path):
    copied(write_sample("ome.ome.tif"), tmp_path / "a.tif", dtype="float32")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].dtype == np.float32 and 'Type="float"' in file.ome_metadata


def test_large_imagej_files_are_read_by_their_first_page(tmp_path, monkeypatch):
    """ImageJ lists only the first page of files above 4 GB; the rest follows it."""
    array = np.arange(5 * 20 * 26, dtype=np.uint16).reshape(5, 20, 26)
    options = {"imagej": True, "metadata": {"axes": "TYX"}, "truncate": True}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    monkeypatch.setattr("cbsn.images.stacks.tiff_stack_writer.CLASSIC_BYTES", 0)
    copied(tmp_path / "a.tif", tmp_path / "b.tif")
    for name in "a.tif", "b.tif":
        with tifffile.TiffFile(tmp_path / name) as file:
            assert len(file.pages) == 1 and file.is_imagej
            np.testing.assert_array_equal(file.asarray(), array)


# Bad files.


@pytest.mark.parametrize("sides", [(20, 30), (40, 20), (40, 20, 10)])
@pytest.mark.parametrize("count", [1, 2])
def test_pages_of_different_size_are_refused(tmp_path, sides, count):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for side in sides:
            for _ in range(count):
                file.write(np.zeros((side, side), np.uint16), metadata=None)
    with pytest.raises(ImageError, match="different sizes"), open_stacks(tmp_path / "a.tif"):
        pass


@pytest.mark.parametrize("below", [False, True])
def test_smaller_copies_are_no_pages(tmp_path, below):
    """In the list of pages they are marked as copies; those below a page need no mark."""
    planes = np.arange(2 * 40 * 40, dtype=np.uint16).reshape(2, 40, 40)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in planes:
            file.write(plane, metadata=None, subifds=1 if below else 0)
            if below:
                file.write(plane[::2, ::2], metadata=None)
        if not below:
            for plane in planes:
                file.write(plane[::2, ::2], metadata=None, subfiletype=1)
    with open_stacks(tmp_path / "a.tif") as (stack,):
        assert stack.layout.shape == (2, 40, 40)


def test_files_that_are_cut_off_are_refused(sample, tmp_path):
    """At each of some places, the whole is read, or an error says what is wrong."""
    content = sample.read_bytes()
    cut = tmp_path / f"cut{sample.name}"
    seen = 0
    with open_stacks(sample) as stacks:
        expected = [[stack.read(index) for index in stack.layout.indices()] for stack in stacks]
    for end in range(8, len(content), max(1, len(content) // 23)):
        cut.write_bytes(content[:end])
        try:
            with open_stacks(cut) as stacks:
                found = [[stack.read(i) for i in stack.layout.indices()] for stack in stacks]
        except ImageError as error:
            assert str(error).startswith(str(cut))
            seen += 1
        else:
            np.testing.assert_equal(found, expected)
    assert seen


def test_missing_planes_are_told(write_sample):
    path = write_sample("ome.ome.tif")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'SizeT="3"', b'SizeT="4"'))
    with pytest.raises(ImageError, match="lacks planes"), open_stacks(path) as (stack,):
        for index in stack.layout.indices():
            stack.read(index)


def test_damaged_pixels_are_told(write_sample):
    path = write_sample("float64.tif")
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    with open_stacks(path) as (stack,), pytest.raises(ImageError, match="damaged"):
        for index in stack.layout.indices():
            stack.read(index)


@pytest.mark.parametrize("name", ["none.tif", "folder", "text.tif"])
def test_what_is_no_stack_is_told(tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "text.tif":
        path.write_text("no picture")
    assert not is_stack(path)
    with pytest.raises(ImageError, match=name), open_stacks(path):
        pass


def test_pictures_are_no_stacks(tmp_path):
    for name, array in (
        ("gray.tif", np.zeros((9, 9), np.uint16)),
        ("rgb.tif", np.zeros((9, 9, 3), np.uint8)),
        ("float.tif", np.zeros((9, 9), np.float32)),
    ):
        tifffile.imwrite(tmp_path / name, array)
        assert not is_stack(tmp_path / name)
    array = np.zeros((9, 9, 2), np.uint16)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "alpha.tif", array, extrasamples=["unassalpha"], **options)
    assert not is_stack(tmp_path / "alpha.tif")
    tifffile.imwrite(tmp_path / "two.tif", array, **options)
    assert is_stack(tmp_path / "two.tif")
    with open_stacks(tmp_path / "two.tif") as (stack,):
        assert stack.layout.axes == "CYX"


@pytest.mark.parametrize(("axes", "planes"), [("ZYX", 4), ("TYX", 3), ("CYX", 3)])
def test_three_or_four_planes_with_a_name_are_a_stack(tmp_path, axes, planes):
    array = np.arange(planes * 320, dtype=np.uint16).reshape(planes, 16, 20)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, metadata={"axes": axes})
    with tifffile.TiffFile(path) as file:  # which is how programs write them
        assert file.pages.first.photometric.name == "RGB"
    assert is_stack(path)
    with open_stacks(path) as (stack,):
        assert stack.layout.axes == axes
        for number, plane in enumerate(array):
            assert np.array_equal(stack.read((number,)), plane)


@pytest.mark.parametrize("axes", [None, "SYX", "QYX"])
def test_three_planes_without_a_name_are_colours(tmp_path, axes):
    array = np.arange(960, dtype=np.uint16).reshape(3, 16, 20)
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": axes} if axes else {})
    assert not is_stack(tmp_path / "a.tif")


def test_a_pixels_colours_may_be_called_channels(tmp_path):
    array = np.arange(960, dtype=np.uint16).reshape(16, 20, 3)
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": "YXC"})
    assert not is_stack(tmp_path / "a.tif")
