import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from cbsn.errors import CbsnWarning, ImageError
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.images.png import encode_png
from tests.fuzz.mutate import png_chunks, png_of
from tests.images.samples import PROFILE


def with_chunks(rgb, *chunks):
    """A PNG file with chunks behind its first."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    first, *rest = png_chunks(file.getvalue())
    return png_of([first, *chunks, *rest])


def test_what_the_colours_of_a_png_mean_stays(tmp_path, rgb):
    chunks = [
        (b"gAMA", struct.pack(">I", 100000)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600)),
        (b"cICP", bytes([9, 16, 0, 1])),
        (b"pHYs", struct.pack(">IIB", 11811, 5906, 1)),
        (b"tEXt", b"Author\0me"),
    ]
    (tmp_path / "in.png").write_bytes(with_chunks(rgb, *chunks))
    picture = read_picture(tmp_path / "in.png")
    assert write_picture(tmp_path / "out.png", picture) == []
    found = png_chunks((tmp_path / "out.png").read_bytes())
    assert [each for each in found if each in chunks] == chunks
    losses = write_picture(tmp_path / "out.tif", picture)
    assert len(losses) == 1 and "gAMA, cHRM, cICP, texts" in losses[0]


def test_a_profile_for_colour_does_not_go_with_a_gray_png(tmp_path, rgb):
    Image.fromarray(rgb[..., 0]).save(tmp_path / "in.jpg", icc_profile=PROFILE)
    picture = read_picture(tmp_path / "in.jpg")
    losses = write_picture(tmp_path / "out.png", picture)
    assert len(losses) == 1 and "colour profile for a gray picture" in losses[0]
    found = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())  # is strict
    np.testing.assert_array_equal(found, picture.pixels[..., 0])


@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"gAMA", b"prVt"])
def test_a_damaged_chunk_that_no_pixel_needs_is_left_out(tmp_path, rgb, kind):
    content = with_chunks(rgb, (kind, b"comment\0hello"))
    (tmp_path / "in.png").write_bytes(content.replace(b"hello", b"hallo"))
    with pytest.warns(CbsnWarning, match=rf"in\.png: its chunk {kind.decode()} is damaged"):
        picture = read_picture(tmp_path / "in.png")
    np.testing.assert_array_equal(picture.pixels, rgb)


def test_a_damaged_chunk_that_pixels_need_is_an_error(tmp_path, rgb):
    content = bytearray(with_chunks(rgb))
    content[-14] ^= 1  # the checksum of IDAT
    (tmp_path / "in.png").write_bytes(content)
    with pytest.raises(ImageError, match="IDAT"):
        read_picture(tmp_path / "in.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_gray_of_few_bits_is_transparent(tmp_path, random, bits):
    """As a decoder that knows nothing of Pillow has it."""
    levels = random.integers(0, 2**bits, (8, 16))
    levels[0] = 1
    digits = ["".join(format(level, f"0{bits}b") for level in row) for row in levels]
    rows = b"".join(b"\0" + int(each, 2).to_bytes(len(each) // 8, "big") for each in digits)
    header = struct.pack(">IIBBBBB", 16, 8, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(png_of(chunks))
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.color[..., 0], levels * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(picture.alpha[..., 0] == 0, levels == 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_narrow_pictures_are_encoded(random, dtype, channels):
    """Noise, which cannot be compressed: a file is larger than its pixels."""
    for height, width in ((1, 1), (1, 3000), (300, 1), (3000, 2), (9000, 1)):
        pixels = random.integers(np.iinfo(dtype).max, size=(height, width, channels), dtype=dtype)
        found = imagecodecs.png_decode(encode_png(pixels)).reshape(pixels.shape)
        np.testing.assert_array_equal(found, pixels, strict=True)


def test_a_narrow_picture_is_written(random, tmp_path):
    pixels = random.integers(256, size=(300, 1, 1), dtype=np.uint8)
    write_picture(tmp_path / "a.png", Picture(pixels, "PNG"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, pixels)


def test_a_text_that_is_called_comment_stays_a_text(tmp_path, rgb):
    chunk = (b"tEXt", b"comment\0hello")
    (tmp_path / "in.png").write_bytes(with_chunks(rgb, chunk))
    picture = read_picture(tmp_path / "in.png")
    assert write_picture(tmp_path / "out.png", picture) == []
    assert read_picture(tmp_path / "out.png").extras.entries == (chunk,)
