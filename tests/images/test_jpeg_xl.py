import struct

import imagecodecs
import numpy as np
import pytest

from cbsn.images.exif import made_upright, number_of, orientation_of, read_block
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.jpeg_xl import jpeg_xl_metadata
from cbsn.images.png import Chunks
from tests.images.samples import XMP, exif

EXIF = exif().tobytes().removeprefix(b"Exif\0\0")
START = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl "

needs_decoder = pytest.mark.skipif(
    not imagecodecs.JPEGXL.available, reason="this imagecodecs has no JPEG XL"
)


def box(kind, content):
    return struct.pack(">I4s", len(content) + 8, kind) + content


def brob(kind, content):
    return box(b"brob", kind + imagecodecs.brotli_encode(content))


def codestream(*fields):
    """Returns the start of a codestream of 16 x 16 pixels: fields are pairs of value and bits."""
    bits = place = 0
    for value, count in [(1, 1), (1, 5), (1, 3), *fields]:
        bits |= value << place
        place += count
    return b"\xff\x0a" + bits.to_bytes(40, "little")


@needs_decoder
@pytest.mark.parametrize("make", [box, brob])
def test_exif_data_and_xmp_stay_and_ask_for_no_other_turn(tmp_path, rgb, make):
    if make is brob and not imagecodecs.BROTLI.available:
        pytest.skip("this imagecodecs has no Brotli")
    pixels = imagecodecs.jpegxl_encode(rgb, lossless=True, usecontainer=False)
    xmp = XMP.replace(b"<about/>", b'<about tiff:Orientation="6"/>')
    content = START + make(b"Exif", b"\0\0\0\2ab" + EXIF) + make(b"xml ", xmp)
    content += box(b"jxlp", b"\0\0\0\0" + pixels[:5]) + box(b"jxlp", b"\x80\0\0\1" + pixels[5:])
    (tmp_path / "in.jxl").write_bytes(content)
    picture = read_picture(tmp_path / "in.jxl")
    np.testing.assert_array_equal(picture.pixels, rgb)
    assert write_picture(tmp_path / "out.png", picture) == []
    for each in picture, read_picture(tmp_path / "out.png"):
        assert each.xmp == xmp.replace(b'"6"', b'"1"')
        tree, expected = read_block(each.exif), read_block(EXIF)
        assert (number_of(tree.pop(274), 0), number_of(expected.pop(274), 0)) == (1, 6)
        assert tree == expected


@needs_decoder
def test_what_else_a_container_holds_is_told(tmp_path, rgb):
    pixels = imagecodecs.jpegxl_encode(rgb, lossless=True, usecontainer=False)
    content = START + box(b"brob", b"Exif damaged") + box(b"jumb", b"...") + box(b"jbrd", b"...")
    (tmp_path / "in.jxl").write_bytes(content + box(b"jxlc", pixels))
    (loss,) = write_picture(tmp_path / "out.png", read_picture(tmp_path / "in.jxl"))
    names = "EXIF data, JUMBF data (such as content credentials)"
    assert loss == f"the file also held {names}: dropped"


@needs_decoder
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("lossless", [False, True])
def test_ordinary_colours_are_no_loss(random, channels, lossless):
    pixels = random.integers(0, 256, (16, 20, channels)).astype(np.uint8)
    found = jpeg_xl_metadata(imagecodecs.jpegxl_encode(pixels, lossless=lossless))
    assert found == {"extras": None, "others": ""}


@needs_decoder
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 4])
def test_linear_colours_are_stated(tmp_path, random, dtype, channels):
    """The encoder states them for all but 8 bits."""
    pixels = random.integers(0, 2, (16, 20, channels)).astype(dtype)
    (tmp_path / "in.jxl").write_bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))
    picture = read_picture(tmp_path / "in.jxl")
    write_picture(tmp_path / "out.png", picture)
    stated = Chunks(((b"cICP", bytes([1, 8, 0, 1])),))
    assert picture.extras == read_picture(tmp_path / "out.png").extras == stated


# Fields up to the number of further channels, and whether there are any.
_PLAIN = [(0, 1), (0, 1), (0, 1), (0, 2), (1, 1)]
_TURNED = [(0, 1), (1, 1), (5, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 2), (1, 1)]
_ALPHA_16 = [(1, 2), (0, 1), (0, 2), (0, 1), (3, 2), (15, 6), (0, 2), (0, 2), (0, 1)]
_RGB = [(0, 1), (0, 1), (0, 1), (0, 2), (1, 2)]  # no XYB, no profile; D65


@pytest.mark.parametrize("before", [[*_PLAIN, (0, 2)], [*_TURNED, (0, 2)], [*_PLAIN, *_ALPHA_16]])
@pytest.mark.parametrize(
    ("fields", "stated"),
    [
        ([(2, 2), (9, 4), (0, 1), (2, 2), (11, 4)], (12, 13)),  # Display P3
        ([(2, 2), (7, 4), (0, 1), (2, 2), (14, 4)], (9, 16)),  # BT.2100 PQ
        ([(2, 2), (7, 4), (0, 1), (3, 2), (0, 6)], (9, 18)),  # HLG
        ([(1, 2), (0, 1), (2, 2), (11, 4)], None),  # sRGB
    ],
)
def test_other_colours_are_stated(before, fields, stated):
    found = jpeg_xl_metadata(codestream(*before, *_RGB, *fields))
    assert found["extras"] == (Chunks(((b"cICP", bytes([*stated, 0, 1])),)) if stated else None)
    assert found["others"] == ""


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ([(0, 1), (0, 1), (1, 1)], "a colour profile"),
        ([*_RGB, (1, 2), (1, 1)], "a colour space that is not sRGB"),  # with a gamma
        ([*_RGB, (2, 2), (0, 4)], "a colour space that is not sRGB"),  # with primaries of its own
    ],
)
def test_colours_that_cannot_be_stated_are_told(fields, name):
    assert jpeg_xl_metadata(codestream(*_PLAIN, (0, 2), *fields))["others"] == name


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_block_is_made_upright_in_place(order):
    start = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    block = start + struct.pack(f"{order}HHHIHHI", 1, 274, 3, 1, 6, 0, 0) + b"rest"
    assert orientation_of(read_block(block)) == 6
    upright = made_upright(block)
    assert orientation_of(read_block(upright)) == 1
    assert (len(upright), upright[-4:]) == (len(block), b"rest")
    for damaged in (b"", block[:6], block[:15]):
        assert made_upright(damaged) == damaged
