"""Tests of `cbsn.images.stacks.stack`."""

import numpy as np
import pytest

from cbsn.errors import ConfigError, ImageError
from cbsn.images.stacks.stack import Channel, Layout, Stack, array_stack, parse_selection

ARRAY = np.arange(3 * 4 * 2 * 6 * 8, dtype=np.int16).reshape(3, 4, 2, 6, 8) - 500


@pytest.fixture
def stack():
    return array_stack(ARRAY, "TZCYX")


def test_planes_come_by_their_index(stack):
    layout = stack.layout
    assert (layout.outer, layout.outer_shape, layout.planes) == ("TZC", (3, 4, 2), 24)
    assert layout.nbytes == ARRAY.nbytes
    for index in layout.indices():
        np.testing.assert_array_equal(stack.read(index), ARRAY[index])
    np.testing.assert_array_equal(
        stack.read((1, 2, 0), slice(2, 5), slice(None, 3)), ARRAY[1, 2, 0, 2:5, :3]
    )
    assert layout.describe() == "T 3, Z 4, C 2, Y 6, X 8, int16"


@pytest.mark.parametrize("axes", ["YXTZC", "CTYZX", "XYTCZ"])
def test_axes_of_an_array_may_be_in_any_order(axes):
    array = ARRAY.transpose(["TZCYX".index(axis) for axis in axes])
    turned = array_stack(array, axes)
    where = dict(zip("TZC", (2, 3, 1), strict=True))
    index = tuple(where[axis] for axis in turned.layout.outer)
    np.testing.assert_array_equal(turned.read(index), ARRAY[2, 3, 1])


def test_samples_are_last():
    rgb = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)
    stack = array_stack(rgb, "TYXS")
    assert stack.layout.samples == 3
    np.testing.assert_array_equal(stack.read((1,), slice(1, 3), slice(2, 4)), rgb[1, 1:3, 2:4])


def test_a_selection_keeps_all_axes(stack):
    channels = (Channel("a"), Channel("b"))
    layout = Layout("TZCYX", ARRAY.shape, ARRAY.dtype, "array", channels=channels)
    stack = Stack(layout, lambda index, rows, columns: ARRAY[index][rows, columns])
    part = stack.selected({"T": slice(1, 3), "C": slice(-1, None), "Y": slice(2, 4)})
    assert part.layout.shape == (2, 4, 1, 2, 8)
    assert part.layout.channels == (Channel("b"),)
    np.testing.assert_array_equal(part.read((1, 3, 0)), ARRAY[2, 3, 1, 2:4])
    again = part.selected({"T": slice(1, 2), "Y": slice(1, 2), "X": slice(3, 5)})
    np.testing.assert_array_equal(again.read((0, 3, 0)), ARRAY[2, 3, 1, 3:4, 3:5])
    assert again.layout.taken["T"] == range(2, 3)


def test_what_cannot_be_selected_is_told(stack):
    with pytest.raises(ConfigError, match="no axis S"):
        stack.selected({"S": slice(0, 1)})
    with pytest.raises(ConfigError, match=r"T, which has 3 positions. Received: t=5:9"):
        stack.selected({"T": slice(5, 9)})
    with pytest.raises(ConfigError, match="no axis Z"):
        array_stack(ARRAY[:, 0, 0], "TYX").selected({"Z": slice(1, 2)})


def test_an_axis_that_is_not_there_has_one_position():
    """So that a command for series also takes a single frame."""
    stack = array_stack(ARRAY[0, :, 0], "ZYX")
    assert stack.selected({"T": slice(0, 1)}).layout.shape == stack.layout.shape


@pytest.mark.parametrize(
    ("axes", "shape", "dtype", "words"),
    [
        ("TZ", (1, 2), "uint8", "always with Y and X"),
        ("YXQ", (1, 2, 3), "uint8", "letters of TZCYXS"),
        ("YYX", (1, 2, 3), "uint8", "at most once"),
        ("YXT", (1, 2, 3), "uint8", "not the last axes"),
        ("YXS", (4, 4, 2), "uint8", "2 colour samples"),
        ("SYX", (3, 2, 2), "uint8", "not the last axes"),
        ("TYX", (2, 2), "uint8", "2 axes"),
        ("YX", (0, 2), "uint8", "damaged"),
        ("YX", (2**40, 2**40), "uint8", "damaged"),
        ("YX", (2, 2), "int64", "at most 32 bits"),
        ("YX", (2, 2), "complex64", "integers"),
        ("YX", (2, 2), "bool", "integers"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(axes, shape, dtype, words):
    with pytest.raises(ImageError, match=words):
        Layout(axes, shape, np.dtype(dtype), "TIFF")


def test_a_reader_that_returns_too_little_is_found_out():
    stack = Stack(
        Layout("YX", (4, 4), np.dtype("uint8"), "TIFF"), lambda *_: np.zeros((3, 4), np.uint8)
    )
    with pytest.raises(ImageError, match="damaged"):
        stack.read(())


def test_pixels_are_in_native_byte_order():
    stack = Stack(
        Layout("YX", (4, 4), np.dtype(">u2"), "TIFF"), lambda *_: np.full((4, 4), 258, ">u2")
    )
    found = stack.read(())
    assert found.dtype == np.uint16 and found.dtype.isnative and (found == 258).all()


def test_selections_are_parsed():
    assert parse_selection(None) == {}
    assert parse_selection("t=0:10,c=1") == {"T": slice(0, 10), "C": slice(1, 2)}
    assert parse_selection("Z=-1, t=3:") == {"Z": slice(-1, None), "T": slice(3, None)}
    assert parse_selection("c=-2", ":5,2:") == {
        "C": slice(-2, -1),
        "Y": slice(None, 5),
        "X": slice(2, None),
    }


@pytest.mark.parametrize("text", ["t", "t=", "t=a", "t=1:2:3", "q=1", "t=1;c=2", ","])
def test_a_selection_that_cannot_be_understood_is_refused(text):
    with pytest.raises(ConfigError, match="--select takes positions"):
        parse_selection(text)


def test_an_axis_is_named_once():
    with pytest.raises(ConfigError, match="names t twice"):
        parse_selection("t=0,t=1")
    with pytest.raises(ConfigError, match="both name y"):
        parse_selection("y=5:8", "0:10,0:10")


@pytest.mark.parametrize("text", ["1", "1:2", "1:2,3", "1:2,3:4,5:6", "a:b,c:d", "-1:2,0:3"])
def test_a_region_that_cannot_be_understood_is_refused(text):
    with pytest.raises(ConfigError, match="--roi takes rows and columns"):
        parse_selection(None, text)
