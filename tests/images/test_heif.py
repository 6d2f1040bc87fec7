"""HEIC and AVIF pictures.

The golden files are a gradient of 32 x 24 pixels, written by pillow-heif 1.8.1 (which has the
encoder that pi-heif lacks): quality 80, chroma 444, EXIF data and XMP of `samples`, and with 8 bits
its colour profile, with 10 bits the numbers of Display P3. They are stored turned, as the EXIF
orientation 6 asks for.
"""

import io
import sys

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from cbsn.errors import ImageError
from cbsn.images.exif import number_of, read_block
from cbsn.images.image_files import read_header, read_picture, write_picture
from cbsn.images.png import Chunks
from tests.images.samples import PROFILE, XMP, check_exif, exif


def gradient():
    """The pictures, as floats."""
    y, x = np.mgrid[:24, :32]
    return np.stack([x / 31, y / 23, (x + y) / 54], axis=-1)


@pytest.fixture
def heic(golden):
    pytest.importorskip("pi_heif")
    return lambda bits: golden(f"heic/gradient{bits}.heic")


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (10, np.uint16)])
def test_pixels_are_upright_and_keep_their_bits(heic, bits, dtype):
    path = heic(bits)
    picture = read_picture(path)
    assert picture.pixels.dtype == dtype and picture.value_range is None
    assert read_header(path) == (24, 32, picture.pixels.nbytes, picture.pixels.dtype)
    levels = picture.pixels / np.iinfo(dtype).max
    np.testing.assert_allclose(levels, np.rot90(gradient(), -1), atol=0.02)
    assert (levels.max(), picture.pixels.flags.writeable) == (1, True)
    # Of 10 bits, some are not multiples of 8 bits' steps.
    assert len(np.unique(picture.pixels)) > 2 ** (bits - 1)


@pytest.mark.parametrize("target", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("bits", [8, 10])
def test_metadata_stay_and_ask_for_no_other_turn(heic, tmp_path, bits, target):
    picture = read_picture(heic(bits))
    write_picture(tmp_path / f"out{target}", picture)
    back = read_picture(tmp_path / f"out{target}")
    assert (back.icc_profile, back.xmp) == (picture.icc_profile, XMP)
    if bits == 8:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(back.icc_profile))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
    tree = read_block(back.exif)
    assert number_of(tree.pop(274, None), 1) == 1
    expected = read_block(exif().tobytes().removeprefix(b"Exif\0\0"))
    assert tree == {code: value for code, value in expected.items() if code != 274}


def test_what_colours_without_a_profile_mean_stays_in_png(heic, tmp_path):
    picture = read_picture(heic(10))
    assert write_picture(tmp_path / "out.png", picture) == []
    stated = Chunks(((b"cICP", bytes([12, 13, 0, 1])),))
    assert picture.extras == read_picture(tmp_path / "out.png").extras == stated
    assert "what its colours mean" in write_picture(tmp_path / "out.tif", picture)[0]


def test_the_content_counts_not_the_name_nor_the_main_brand(heic, tmp_path):
    content = bytearray(heic(8).read_bytes())
    assert content[8:12] == b"heix"
    content[8:12] = b"mif1"
    (tmp_path / "photo.jpg").write_bytes(content)
    assert read_picture(tmp_path / "photo.jpg").format == "HEIF"


def test_the_extra_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(
        ImageError, match=r"photo\.heic: .* pip install 'cbsn\[heif\]' \(from a clone: .*\)$"
    ):
        read_picture(path)
    assert read_header(path) == (0, 0, 0, "uint8")


def test_damage_is_an_error(heic, tmp_path):
    content = heic(10).read_bytes()
    path = tmp_path / "cut.heic"
    for length in (12, 40, len(content) // 2, len(content) - 20):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError, match=r"cut\.heic: "):
            read_picture(path)


@pytest.mark.parametrize("name", [b"Exif", b"mime", b"application"])
def test_a_damaged_name_of_metadata_does_not_end_the_process(heic, tmp_path, name):
    """As it did with pi-heif 1.4.0."""
    content = heic(8).read_bytes()
    place = content.index(name)
    assert place < 400
    path = tmp_path / "damaged.heic"
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with pytest.raises(ImageError, match=r"damaged\.heic: cannot be read"):
        read_picture(path)
    assert read_header(path) == (0, 0, 0, "uint8")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_keeps_its_metadata(tmp_path):
    options = {"exif": exif(), "icc_profile": PROFILE, "xmp": XMP, "subsampling": "4:4:4"}
    Image.fromarray(np.uint8(gradient() * 255)).save(tmp_path / "a.avif", **options)
    picture = read_picture(tmp_path / "a.avif")
    assert (picture.format, picture.icc_profile, picture.xmp) == ("AVIF", PROFILE, XMP)
    np.testing.assert_allclose(picture.pixels / 255, gradient(), atol=0.05)
    check_exif(picture.exif)


@pytest.mark.skipif(not imagecodecs.AVIF.available, reason="this imagecodecs has no AVIF")
@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_than_8_bits_becomes_16_bits(tmp_path, bits):
    """Also a dark one, whose values do not show how many bits it has."""
    levels = np.rint(gradient() / 5 * (2**bits - 1)).astype(np.uint16)
    path = tmp_path / "a.avif"
    path.write_bytes(imagecodecs.avif_encode(levels, level=100, bitspersample=bits))
    picture = read_picture(path)
    assert picture.pixels.dtype == np.uint16 and picture.value_range is None
    np.testing.assert_allclose(picture.pixels / 65535, gradient() / 5, atol=0.005)
    write_picture(tmp_path / "a.png", picture)
    content = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(imagecodecs.png_decode(content), picture.pixels)
