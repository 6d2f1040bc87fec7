"""Metadata in the boxes of AVIF and JPEG 2000 files."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image, features

from cbsn.images.boxes import read_boxes
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.png import Chunks
from tests.images.samples import PROFILE, XMP, check_exif, exif

EXIF = exif().tobytes().removeprefix(b"Exif\0\0")
XMP_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def box(kind, content):
    return struct.pack(">I4s", len(content) + 8, kind) + content


def jpeg_2000(pixels, color, *more):
    """Returns a JP2 file with another box of its colours and more boxes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG2000")
    parts = dict(read_boxes(buffer.getvalue()))
    header = b"".join(box(k, bytes(c)) for k, c in read_boxes(parts[b"jp2h"]) if k != b"colr")
    start = box(b"jP  ", bytes(parts[b"jP  "])) + box(b"ftyp", bytes(parts[b"ftyp"]))
    start += box(b"jp2h", header + box(b"colr", color)) + b"".join(more)
    return start + box(b"jp2c", bytes(parts[b"jp2c"]))


def test_boxes_of_all_kinds_of_sizes_are_read_up_to_damage():
    long = struct.pack(">I4sQ", 1, b"long", 19) + b"abc"
    content = box(b"one ", b"1") + long + struct.pack(">I4s", 0, b"rest") + b"to the end"
    expected = [(b"one ", b"1"), (b"long", b"abc"), (b"rest", b"to the end")]
    assert [*read_boxes(content)] == expected
    for damaged in (struct.pack(">I4s", 7, b"size"), struct.pack(">I4s", 99, b"size"), b"\0\0\0"):
        assert [*read_boxes(box(b"one ", b"1") + damaged)] == expected[:1]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.skipif(not imagecodecs.AVIF.available, reason="this imagecodecs has no AVIF")
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("numbers", [(12, 13), (9, 16), (1, 13)])
def test_what_colours_of_avif_mean_stays_in_png(tmp_path, rgb, bits, numbers):
    pixels = rgb if bits == 8 else rgb.astype(np.uint16) * 4
    options = {"primaries": numbers[0], "transfer": numbers[1], "matrix": 6, "bitspersample": bits}
    (tmp_path / "in.avif").write_bytes(imagecodecs.avif_encode(pixels, level=90, **options))
    picture = read_picture(tmp_path / "in.avif")
    stated = Chunks(((b"cICP", bytes([*numbers, 0, 1])),)) if numbers != (1, 13) else None
    assert picture.extras == stated
    assert write_picture(tmp_path / "out.png", picture) == []
    assert read_picture(tmp_path / "out.png").extras == (stated or Chunks(()))
    losses = write_picture(tmp_path / "out.tif", picture)
    assert ["what its colours mean" in loss for loss in losses] == [True] * bool(stated)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
@pytest.mark.parametrize("method", [b"\2", b"\3"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_profile_and_metadata_of_jpeg_2000_stay(tmp_path, rgb, method, prefix):
    more = box(b"uuid", XMP_ID + XMP), box(b"uuid", b"JpgTiffExif->JP2" + prefix + EXIF)
    content = jpeg_2000(rgb, method + bytes(2) + PROFILE, *more)
    (tmp_path / "in.jp2").write_bytes(content)
    picture = read_picture(tmp_path / "in.jp2")
    assert write_picture(tmp_path / "out.png", picture) == []
    for each in picture, read_picture(tmp_path / "out.png"):
        np.testing.assert_array_equal(each.pixels, rgb)
        assert (each.icc_profile, each.xmp) == (PROFILE, XMP)
        check_exif(each.exif)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
def test_what_else_jpeg_2000_holds_is_told(tmp_path, rgb):
    geo = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
    more = box(b"uuid", geo + b"II*\0"), box(b"uuid", bytes(16)), box(b"xml ", b"<a/>")
    for space, told in (16, ""), (21, "a colour space that is not sRGB (number 21 of JPEG 2000), "):
        content = jpeg_2000(rgb, b"\1\0\0" + struct.pack(">I", space), *more)
        (tmp_path / "in.jp2").write_bytes(content)
        (loss,) = write_picture(tmp_path / "out.png", read_picture(tmp_path / "in.jp2"))
        names = f"{told}geo tags (GeoJP2), data of another program (UUID), XML"
        assert loss == f"the file also held {names}: dropped"
