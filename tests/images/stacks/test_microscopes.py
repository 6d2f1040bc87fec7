"""CZI, ND2 and LIF files.

Zeiss' own library writes the CZI files. What would write the other two is not to be had: the tests
put files together by hand, of just what the readers need. No file of a microscope is among them.
"""

import struct
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cbsn.data.stack_repair import StackRepair
from cbsn.errors import ConfigError, ImageError
from cbsn.images.stacks.microscopes import open_microscope_file
from cbsn.images.stacks.ome_xml import read_facts
from cbsn.images.stacks.scaling import measure_scaling
from cbsn.images.stacks.stack import Channel, Spacing
from cbsn.inference.stack_options import StackOptions, choose_scaling


def numbers(*shape, dtype=np.uint16):
    """An array of values that are all different, up to those that dtypes cannot hold."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def read_all(stack):
    layout = stack.layout
    planes = [stack.read(index) for index in layout.indices()]
    return np.stack(planes).reshape(layout.shape)


def open_one(path):
    (stack,), close = open_microscope_file(path)
    close()
    return stack


@pytest.mark.parametrize("name", ["a.czi", "a.nd2", "a.LIF"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, name):
    for module in ("pylibCZIrw", "bioio_nd2", "bioio_lif"):
        monkeypatch.setitem(sys.modules, module, None)
    format = name[2:].upper()
    with pytest.raises(ConfigError, match=rf"^{format} files need .*: pip install 'cbsn\[bio\]'"):
        open_microscope_file(tmp_path / name)


def test_the_old_library_for_lif_will_not_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioio_lif", sys)  # any module
    monkeypatch.setitem(sys.modules, "liffile", None)
    with pytest.raises(ConfigError, match=r"^LIF files need .* Python 3\.11"):
        open_microscope_file(tmp_path / "a.lif")


LIBRARIES = [("czi", "pylibCZIrw"), ("nd2", "bioio_nd2"), ("lif", "bioio_lif")]


@pytest.mark.parametrize(("format", "library"), LIBRARIES)
@pytest.mark.parametrize("content", [b"", b"text", b"\xda\xce\xbe\x0a" * 300])
def test_other_content_is_an_error(tmp_path, format, library, content):
    pytest.importorskip(library)
    path = tmp_path / f"a.{format}"
    path.write_bytes(content)
    name = library.replace("_", "-")
    with pytest.raises(ImageError, match=rf"^cannot be read by {name}, it may be damaged"):
        open_microscope_file(path)


@pytest.mark.parametrize(("format", "library"), LIBRARIES)
def test_a_missing_file_is_no_damaged_one(tmp_path, format, library):
    pytest.importorskip(library)
    with pytest.raises(FileNotFoundError):
        open_microscope_file(tmp_path / f"a.{format}")


# CZI


@pytest.fixture
def write_czi(tmp_path):
    """Writes a CZI file of (array, place) pairs, where a place has `plane`, and may have others."""
    czi = pytest.importorskip("pylibCZIrw.czi")

    def write(parts, edit=None, **metadata):
        path = tmp_path / "a.czi"
        with czi.create_czi(str(path)) as file:
            for array, place in parts:
                array = array if array.ndim == 3 else array[..., None]
                file.write(array, **{"plane": {"C": 0, "Z": 0, "T": 0}, **place})
            if metadata:
                file.write_metadata("document", **metadata)
        if edit:
            with czi.edit_czi(str(path)) as file:
                xml = edit(file.read_metadata_xml())
                with file.edit_session() as builder:
                    builder.set_xml(xml)
        return path

    return write


SCALES = {"scale_x": 0.1e-6, "scale_y": 0.2e-6, "scale_z": 0.5e-6}


def planes_of(array, **place):
    """Places of the planes of an array [C, Z, Y, X]."""
    for channel, stack in enumerate(array):
        for depth, plane in enumerate(stack):
            yield plane, {"plane": {"C": channel, "Z": depth, "T": 0}, **place}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_czi_has_all_planes_and_its_facts(write_czi, dtype):
    array = numbers(2, 3, 8, 10, dtype=dtype)
    path = write_czi(planes_of(array), channel_names={0: "DAPI", 1: "GFP"}, **SCALES)
    (stack,), close = open_microscope_file(path)
    layout = stack.layout
    assert (layout.axes, layout.dtype, layout.format, layout.name) == ("CZYX", dtype, "CZI", "")
    assert np.array_equal(read_all(stack), array)
    assert np.array_equal(stack.read((1, 2), slice(2, 5), slice(3, 9)), array[1, 2, 2:5, 3:9])
    sizes = {"Z": 0.5, "Y": 0.2, "X": 0.1}
    assert layout.spacing == {axis: Spacing(size, "micrometer") for axis, size in sizes.items()}
    assert layout.channels == (Channel("DAPI"), Channel("GFP"))
    close()


def test_czi_of_one_plane_has_two_axes(write_czi):
    array = numbers(8, 10)
    (stack,), _ = open_microscope_file(write_czi([(array, {})]))
    assert stack.layout.axes == "YX" and stack.layout.spacing == {}
    assert np.array_equal(read_all(stack), array)


def test_czi_colours_are_red_green_blue(write_czi):
    array = numbers(8, 10, 3, dtype=np.uint8)
    (stack,), _ = open_microscope_file(write_czi([(array, {})]))
    assert stack.layout.axes == "YXS"
    # The format has blue first.
    assert np.array_equal(read_all(stack), array[..., ::-1])


def test_czi_scenes_are_stacks(write_czi):
    arrays = [numbers(2, 2, 8, 10 + scene) + scene for scene in range(3)]
    parts = (
        part
        for scene, array in enumerate(arrays)
        for part in planes_of(array, scene=scene, location=(100 * scene, 0))
    )
    stacks, close = open_microscope_file(write_czi(parts))
    assert [stack.layout.name for stack in stacks] == ["Scene 0", "Scene 1", "Scene 2"]
    for stack, array in zip(stacks, arrays, strict=True):
        assert stack.layout.axes == "CZYX" and np.array_equal(read_all(stack), array)
    close()


def test_czi_scenes_of_other_files_are_left_out(write_czi):
    arrays = {0: numbers(8, 10), 2: numbers(9, 10)}
    parts = [
        (array, {"scene": scene, "location": (100 * scene, 0)}) for scene, array in arrays.items()
    ]
    stacks, _ = open_microscope_file(write_czi(parts))
    assert [stack.layout.name for stack in stacks] == ["Scene 0", "Scene 2"]
    assert np.array_equal(read_all(stacks[1]), arrays[2])


def test_czi_may_start_later(write_czi):
    array = numbers(3, 8, 10)
    parts = [
        (plane, {"plane": {"C": 1, "Z": 0, "T": 2 + time}}) for time, plane in enumerate(array)
    ]
    (stack,), _ = open_microscope_file(write_czi(parts, **SCALES))
    assert stack.layout.axes == "TYX" and np.array_equal(read_all(stack), array)
    assert stack.layout.spacing["X"] == Spacing(0.1, "micrometer")
    assert len(stack.layout.channels) == 1


@pytest.mark.parametrize("samples", [(), (3,)])
def test_czi_mosaics_are_stitched(write_czi, samples):
    array = numbers(16, 20, *samples, dtype=np.uint8)
    parts = [
        (array[top : top + 8, left : left + 10], {"location": (left - 5, top + 100)})
        for top in (0, 8)
        for left in (0, 10)
    ]
    (stack,), _ = open_microscope_file(write_czi(parts, **SCALES))
    expected = array[..., ::-1] if samples else array
    assert np.array_equal(read_all(stack), expected)
    part = stack.read((), slice(6, 12), slice(8, 19))
    assert np.array_equal(part, expected[6:12, 8:19])


def like_zen(xml):
    """Adds what ZEN writes, and the library that writes the tests' files does not."""
    names = "".join(f'<Scene Index="{number}" Name="P{number + 1}"/>' for number in range(2))
    xml = xml.replace("<Dimensions>", f"<Dimensions><S><Scenes>{names}</Scenes></S>")
    facts = "<AcquisitionMode>WideField</AcquisitionMode>"
    facts += "<IlluminationType>Epifluorescence</IlluminationType>"
    xml = xml.replace("<PixelType>", f"{facts}<PixelType>", 2)
    bits = "<ComponentBitCount>16</ComponentBitCount>"
    xml = xml.replace("</Dimensions>", f"</Dimensions>{bits}")
    colors = "".join(
        f'<Channel Id="Channel:{number}"><Color>{color}</Color></Channel>'
        for number, color in enumerate(["#FF0000FF", "#FF00FF5B"])
    )
    setting = f"<DisplaySetting><Channels>{colors}</Channels></DisplaySetting>"
    times = "<T><Positions><Interval><Increment>2.5</Increment></Interval></Positions></T>"
    xml = xml.replace("<Dimensions>", f"<Dimensions>{times}")
    return xml.replace("</Metadata>", f"{setting}</Metadata>")


def test_czi_metadata_of_zen(write_czi):
    pytest.importorskip("bioio_czi")
    array = numbers(2, 1, 8, 10)
    parts = [*planes_of(array), *planes_of(array, scene=1, location=(100, 0))]
    names = {0: "DAPI", 1: "GFP"}
    stacks, _ = open_microscope_file(write_czi(parts, like_zen, channel_names=names, **SCALES))
    assert [stack.layout.name for stack in stacks] == ["P1", "P2"]
    for stack in stacks:
        assert stack.layout.channels == (Channel("DAPI", "#0000FF"), Channel("GFP", "#00FF5B"))
    text = stacks[0].layout.metadata
    assert not stacks[0].layout.lost
    assert text and stacks[1].layout.metadata == text
    assert [facts.name for facts in read_facts(text)] == ["P1", "P2"]
    assert read_facts(text)[1].spacing["Y"] == Spacing(0.2, "micrometer")


def test_czi_is_read_without_the_converter_of_its_metadata(write_czi, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioio_czi", None)
    array = numbers(3, 8, 10)
    parts = [(plane, {"plane": {"C": 0, "Z": 0, "T": time}}) for time, plane in enumerate(array)]
    (stack,), _ = open_microscope_file(write_czi(parts, like_zen, **SCALES))
    assert stack.layout.spacing["T"] == Spacing(2.5, "second")
    assert stack.layout.metadata is None and np.array_equal(read_all(stack), array)
    assert "pip install bioio-czi" in stack.layout.lost
    assert stack.selected({"T": slice(1)}).layout.lost


def test_czi_colours_may_be_damaged(write_czi):
    array = numbers(2, 1, 8, 10)
    path = write_czi(
        planes_of(array), lambda xml: like_zen(xml).replace("#FF0000FF", "blue"), channel_names={}
    )
    (stack,), _ = open_microscope_file(path)
    assert [each.color for each in stack.layout.channels] == ["", "#00FF5B"]


def test_czi_without_a_plane_is_refused_there(write_czi):
    array = numbers(2, 2, 8, 10)
    parts = [*planes_of(array)]
    (stack,), _ = open_microscope_file(write_czi([*parts[:2], parts[3]]))
    assert np.array_equal(stack.read((1, 1)), array[1, 1])
    for refused in (lambda: stack.read((1, 0)), stack.layout.check_planes):
        with pytest.raises(
            ImageError, match=r"^lacks 1 of 4 planes, .* at C 1, Z 0.*--select, such as c=0:1\.$"
        ):
            refused()


def test_a_selection_without_the_planes_that_a_czi_lacks(write_czi):
    array = numbers(2, 3, 8, 10) + 500
    array[1, 1:] += 2000
    parts = [*planes_of(array)]
    (stack,), _ = open_microscope_file(write_czi([*parts[:3], *parts[4:]]))
    layout = stack.selected({"Z": slice(1, 3)}).layout
    layout.check_planes()
    with pytest.raises(ImageError, match=r"^lacks 1 of 2 planes, .* at C 1, Z 0.*--select\.$"):
        stack.selected({"Z": slice(0, 1), "C": slice(None, None, -1)}).layout.check_planes()
    # What is not there has no part in the scaling.
    assert [each.low > 500 for each in measure_scaling(stack, "range").channels] == [True, True]
    given = StackOptions(select="z=1:")
    assert choose_scaling(stack, [SimpleNamespace(scaling=None)], given, Path("a.czi"))
    with pytest.raises(ImageError, match="lacks 1 of 6 planes"):
        choose_scaling(stack, [SimpleNamespace(scaling=None)], StackOptions(), Path("a.czi"))
    assert not StackRepair(stack, "pixels").defects


def tiles_of(array):
    """Places of the two tiles of each plane of an array [Z, Y, X]; later ones lie 1 px lower."""
    half = array.shape[2] // 2
    for depth, plane in enumerate(array):
        for left in (0, half):
            place = {"plane": {"C": 0, "Z": depth, "T": 0}, "location": (left, depth)}
            yield plane[:, left : left + half], place


def test_czi_mosaics_may_move(write_czi):
    array = numbers(3, 8, 20) + 500
    (stack,), _ = open_microscope_file(write_czi(tiles_of(array)))
    stack.layout.check_planes()
    plane = stack.read((1,))
    assert np.array_equal(plane[1:9], array[1]) and not plane[[0, 9]].any()


def test_a_plane_that_lacks_a_tile_is_refused(write_czi):
    array = numbers(3, 8, 20) + 500
    (stack,), _ = open_microscope_file(write_czi([*tiles_of(array)][:-1]))
    with pytest.raises(ImageError, match=r"^lacks 1 of 3 planes, the first one at Z 2: leave"):
        stack.layout.check_planes()
    stack.selected({"Z": slice(0, 2)}).layout.check_planes()


def test_czi_of_two_cameras_is_an_error(write_czi):
    array = numbers(8, 10)
    parts = [(array.astype(np.uint8), {}), (array, {"plane": {"C": 1, "Z": 0, "T": 0}})]
    path = write_czi(parts)
    with pytest.raises(ImageError, match=r"^has pixels of the type Gray16 and Gray8, which is not"):
        open_microscope_file(path)


def test_czi_without_images_is_an_error(write_czi):
    with pytest.raises(ImageError, match=r"^has no images\.$"):
        open_microscope_file(write_czi([]))


def test_czi_that_claims_too_much_is_damaged(write_czi):
    path = write_czi(planes_of(numbers(1, 3, 8, 10)))
    content = path.read_bytes()
    before, after = (b"Z\0\0\0" + struct.pack("<i", depth) for depth in (2, 2**30))
    assert before in content
    path.write_bytes(content.replace(before, after))
    with pytest.raises(ImageError, match=r"^claims to have 1073741825 planes: the file is dam"):
        open_microscope_file(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_czi_that_is_cut_off_is_an_error(write_czi, share):
    path = write_czi(planes_of(numbers(2, 3, 32, 32)), **SCALES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=r"^cannot be read by pylibCZIrw, it may be damaged"):
        for stack in open_microscope_file(path)[0]:
            read_all(stack)


def test_czi_may_be_read_by_several_threads(write_czi):
    array = numbers(2, 8, 32, 32)
    (stack,), _ = open_microscope_file(write_czi(planes_of(array)))
    results = []
    threads = [threading.Thread(target=lambda: results.append(read_all(stack))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(each, array) for each in results)


# ND2


def variant(name, value):
    """Returns a value as ND2 files have metadata, with a name (CLX lite variant)."""
    text = (name + "\0").encode("utf-16-le")
    types = {bool: (1, "<B"), int: (3, "<I"), float: (6, "<d")}
    if type(value) in types:
        number, code = types[type(value)]
        return bytes([number, len(text) // 2]) + text + struct.pack(code, value)
    if isinstance(value, str):
        return bytes([8, len(text) // 2]) + text + (value + "\0").encode("utf-16-le")
    parts = [variant(key, each) for key, each in value.items()]
    head = bytes([11, len(text) // 2]) + text
    length = len(head) + 12 + sum(map(len, parts))
    places = bytes(8 * len(parts))  # nobody needs them
    return head + struct.pack("<IQ", len(parts), length) + b"".join(parts) + places


def write_nd2(path, frames, loops, names, size=0.25, components=1):
    """Writes an ND2 file, version 3.

    Args:
        frames: array [frame, Y, X, component].
        loops: what changes from frame to frame, the last one fastest.
        names: of the channels.
        size: of a pixel in micrometers.
        components: of a channel.
    """
    count, height, width, total = frames.shape
    bits = 8 * frames.itemsize
    attributes = {
        **{"uiWidth": width, "uiHeight": height, "uiComp": total, "uiSequenceCount": count},
        **{"uiWidthBytes": width * total * frames.itemsize, "eCompression": 2},
        **{"uiBpcInMemory": bits, "uiBpcSignificant": bits},
    }
    channel = {"uiCompCount": components, "pFluorescentProbe": {"m_sName": "dye"}}
    channels = {
        f"a{number}": {**channel, "sDescription": name, "uiColor": 0xFF << 8 * number}
        for number, name in enumerate(names)
    }
    metadata = {
        **{"bCalibrated": size > 0, "dCalibration": size, "dTimeAbsolute": 2459000.5},
        "sPicturePlanes": {"uiCount": len(names), "sPlaneNew": channels},
    }
    experiment = {}
    for kind, parameters in reversed(loops):
        inner = {"ppNextLevelEx": {"i0000000000": experiment}} if experiment else {}
        experiment = {"eType": kind, "uLoopPars": parameters, **inner}
    content, places = bytearray(), {}

    def add(name, data, reserved=4072):
        places[name] = len(content), len(data)
        head = struct.pack("<IIQ", 0x0ABECEDA, reserved, len(data))
        content.extend(head + name.ljust(reserved, b"\0") + data)

    add(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32)
    add(b"ImageAttributesLV!", variant("SLxImageAttributes", attributes))
    add(b"ImageMetadataSeqLV|0!", variant("SLxPictureMetadata", metadata))
    if experiment:
        add(b"ImageMetadataLV!", variant("SLxExperiment", experiment))
    for number, frame in enumerate(frames):
        add(b"ImageDataSeq|%d!" % number, bytes(8) + np.ascontiguousarray(frame).tobytes())
    add(b"CustomData|AcqTimesCache!", np.arange(count, dtype="<f8").tobytes())
    start = struct.pack("<Q", len(content))
    chunks = b"".join(name + struct.pack("<QQ", *place) for name, place in places.items())
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + start
    add(b"ND2 FILEMAP SIGNATURE NAME 0001!", chunks + end, 32)
    path.write_bytes(content)
    return path


def times(count, period=1500.0):
    return 1, {"uiCount": count, "dStart": 0.0, "dPeriod": period, "dDuration": period * count}


def depths(count, step=0.5):
    return 4, {"uiCount": count, "dZLow": 0.0, "dZHigh": step * (count - 1), "dZStep": step}


def positions(*names):
    points = {f"i{number:010}": {"dPosName": name} for number, name in enumerate(names)}
    return 2, {"Points": points}


@pytest.fixture
def nd2(tmp_path):
    pytest.importorskip("bioio_nd2")
    return tmp_path / "a.nd2"


def test_nd2_has_all_planes_and_its_facts(nd2):
    array = numbers(2, 3, 2, 8, 10)  # T, Z, C, Y, X
    frames = array.reshape(6, 2, 8, 10).transpose(0, 2, 3, 1)
    stack = open_one(write_nd2(nd2, frames, [times(2), depths(3)], ["DAPI", "GFP"]))
    layout = stack.layout
    assert (layout.axes, layout.dtype, layout.format) == ("TZCYX", np.uint16, "ND2")
    assert np.array_equal(read_all(stack), array)
    part = stack.read((1, 2, 1), slice(2, 5), slice(3, 9))
    assert np.array_equal(part, array[1, 2, 1, 2:5, 3:9])
    sizes = {"Z": 0.5, "Y": 0.25, "X": 0.25}
    expected = {axis: Spacing(size, "micrometer") for axis, size in sizes.items()}
    assert layout.spacing == {"T": Spacing(1.5, "second"), **expected}
    assert layout.channels == (Channel("DAPI", "#FF0000"), Channel("GFP", "#00FF00"))
    (facts,) = read_facts(layout.metadata)
    assert facts.channels == layout.channels


def test_nd2_positions_are_stacks(nd2):
    array = numbers(2, 3, 8, 10)  # P, T, Y, X
    write_nd2(nd2, array.reshape(6, 8, 10, 1), [positions("left", "right"), times(3)], ["BF"])
    stacks, _ = open_microscope_file(nd2)
    assert len(stacks) == 2
    for stack, expected in zip(stacks, array, strict=True):
        assert stack.layout.axes == "TYX" and np.array_equal(read_all(stack), expected)
    assert len({stack.layout.name for stack in stacks}) == 2
    assert len(read_facts(stacks[1].layout.metadata)) == 2


def test_nd2_of_one_frame(nd2):
    array = numbers(8, 10, dtype=np.uint8)
    stack = open_one(write_nd2(nd2, array[None, ..., None], [], ["BF"], size=0.0))
    assert stack.layout.axes == "YX" and np.array_equal(read_all(stack), array)
    assert stack.layout.spacing == {}  # not calibrated


def test_nd2_colours_are_red_green_blue(nd2):
    array = numbers(2, 8, 10, 3, dtype=np.uint8)
    stack = open_one(write_nd2(nd2, array, [times(2)], ["RGB"], components=3))
    assert stack.layout.axes == "TYXS"
    # The format has blue first, as others found out (Bio-Formats' pull request 4321).
    assert np.array_equal(read_all(stack), array[..., ::-1])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_nd2_that_is_cut_off_is_an_error(nd2, share):
    write_nd2(nd2, numbers(4, 32, 32, 1), [times(4)], ["BF"])
    content = nd2.read_bytes()
    nd2.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=r"^cannot be read by bioio-nd2, it may be damaged"):
        open_microscope_file(nd2)


# LIF

UNITS = {1: "m", 2: "m", 3: "m", 4: "s", 10: ""}  # X, Y, Z, T and tile


def write_lif(path, images):
    """Writes a LIF file.

    Args:
        images: of each, the name, the array [..., Y, X], for each of its axes the number of LIF (0
            for channels) and the length, and the channels' names.
    """
    elements, blocks = "", b""
    for number, (name, array, axes, channels) in enumerate(images):
        bits, strides = 8 * array.itemsize, array.strides
        place = [kind for kind, _ in axes].index(0) if len(channels) > 1 else None
        step = 0 if place is None else strides[place]
        described = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{bits}" '
            f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{each}" '
            f'IsLUTInverted="0" BytesInc="{step * index}" BitInc="0"/>'
            for index, each in enumerate(channels)
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{kind}" NumberOfElements="{size}" Origin="0" '
            f'Length="{length}" Unit="{UNITS[kind]}" BitInc="0" BytesInc="{stride}"/>'
            for (kind, length), size, stride in zip(axes, array.shape, strides, strict=True)
            if kind
        )
        elements += (
            f'<Element Name="{name}" UniqueID="{number}"><Data><Image><ImageDescription>'
            f"<Channels>{described}</Channels><Dimensions>{dimensions}</Dimensions>"
            f'</ImageDescription></Image></Data><Memory Size="{array.nbytes}" '
            f'MemoryBlockID="Block{number}"/><Children/></Element>'
        )
        identity = f"Block{number}"
        head = struct.pack("<IIBQBI", 0x70, 0, 0x2A, array.nbytes, 0x2A, len(identity))
        blocks += head + identity.encode("utf-16-le") + array.tobytes()
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project" UniqueID="p"><Data>'
        '<Experiment/></Data><Memory Size="0" MemoryBlockID="none"/><Children>'
        f"{elements}</Children></Element></LMSDataContainerHeader>"
    )
    start = struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml))
    path.write_bytes(start + xml.encode("utf-16-le") + blocks)
    return path


PLANE = [(2, 7 * 0.2e-6), (1, 9 * 0.1e-6)]  # 8 x 10


@pytest.fixture
def lif(tmp_path):
    pytest.importorskip("liffile")
    pytest.importorskip("bioio_lif")
    return tmp_path / "a.lif"


def test_lif_has_all_planes_and_its_facts(lif):
    array = numbers(2, 3, 2, 8, 10)  # T, Z, C, Y, X
    # Taken every three seconds, and downwards.
    axes = [(4, 3.0), (3, -2 * 0.5e-6), (0, 0), *PLANE]
    stack = open_one(write_lif(lif, [("cells", array, axes, ["Blue", "Green"])]))
    layout = stack.layout
    assert (layout.axes, layout.dtype, layout.format) == ("TCZYX", np.uint16, "LIF")
    expected = array.transpose(0, 2, 1, 3, 4)
    assert np.array_equal(read_all(stack), expected)
    part = stack.read((1, 1, 2), slice(2, 5), slice(3, 9))
    assert np.array_equal(part, expected[1, 1, 2, 2:5, 3:9])
    sizes = {"Z": 0.5, "Y": 0.2, "X": 0.1}
    expected = {axis: Spacing(size, "micrometer") for axis, size in sizes.items()}
    assert layout.spacing == {"T": Spacing(3.0, "second"), **expected}
    assert layout.channels == (Channel("Blue"), Channel("Green"))
    assert layout.metadata is None and "dropped" in layout.lost


def test_lif_images_are_stacks(lif):
    first, second = numbers(3, 8, 10), numbers(8, 10, dtype=np.uint8)
    images = [("first", first, [(4, 2.0), *PLANE], ["Gray"]), ("other", second, PLANE, ["Gray"])]
    stacks, _ = open_microscope_file(write_lif(lif, images))
    assert [stack.layout.name for stack in stacks] == ["first", "other"]
    assert [stack.layout.axes for stack in stacks] == ["TYX", "YX"]
    assert np.array_equal(read_all(stacks[0]), first)
    assert np.array_equal(read_all(stacks[1]), second)


def test_lif_mosaics_are_not_stitched(lif):
    array = numbers(4, 8, 10)
    write_lif(lif, [("tiles", array, [(10, 0), *PLANE], ["Gray"])])
    with pytest.raises(ImageError, match=r"^is a mosaic of 4 tiles"):
        open_microscope_file(lif)


def test_lif_colours_are_not_read(lif):
    array = numbers(8, 10, 3, dtype=np.uint8)
    write_lif(lif, [("histology", array, [*PLANE, (0, 0)], ["Red", "Green", "Blue"])])
    with pytest.raises(ImageError, match=r"^cannot be read by bioio-lif.*not supported"):
        open_microscope_file(lif)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_lif_that_is_cut_off_is_an_error(lif, share):
    array = numbers(4, 32, 32)
    write_lif(lif, [("cells", array, [(4, 3.0), (2, 1e-6), (1, 1e-6)], ["Gray"])])
    content = lif.read_bytes()
    lif.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=r"^cannot be read by bioio-lif, it may be damaged"):
        for stack in open_microscope_file(lif)[0]:
            read_all(stack)
