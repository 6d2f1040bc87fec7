import errno
import io
import itertools
import os
import unittest.mock
import warnings
from concurrent.futures import CancelledError
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from cbsn.devices import peak_memory, reset_peak_memory
from cbsn.errors import ImageError
from cbsn.images.finding import SUFFIX_OF_FORMAT, find_images
from cbsn.images.image_files import Picture, read_header, read_picture, write_picture
from tests.images.samples import GEO, PROFILE, XMP, check_exif, exif

EXIF = exif().tobytes().removeprefix(b"Exif\0\0")


def random_pixels(channels, dtype=np.uint8, size=(19, 26)):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    values = np.random.default_rng(channels).random((*size, channels))
    return (values * top).astype(dtype)


def smooth_rgb(height=300, width=400):
    small = Image.fromarray(random_pixels(3))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff_of(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.fixture
def full(tmp_path, rgb):
    """Makes a picture of a file with all the metadata that its format has."""

    def make(suffix=".jpg"):
        path = tmp_path / f"in{suffix}"
        if suffix == ".tif":  # Pillow writes no more than the trunk of the EXIF tree
            write_picture(path, make())
            return read_picture(path)
        options = {"exif": exif(), "icc_profile": PROFILE, "dpi": (300, 300), "xmp": XMP}
        if suffix == ".webp":
            options.pop("dpi")
        if suffix == ".png":
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode(), zip=True)
        Image.fromarray(rgb).save(path, **options)
        return read_picture(path)

    return make


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tif", np.uint8),
        (".tif", np.uint16),
        (".tif", np.float32),
    ],
)
def test_lossless_formats_return_everything(tmp_path, channels, suffix, dtype):
    profile = bytes(range(256)) * 3
    picture = Picture(random_pixels(channels, dtype), "PNG", profile, EXIF)
    assert write_picture(tmp_path / f"p{suffix}", picture) == []
    back = read_picture(tmp_path / f"p{suffix}")
    assert back.pixels.dtype == dtype
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    assert back.icc_profile == profile
    check_exif(back.exif)
    assert back.format == ("PNG" if suffix == ".png" else "TIFF")
    assert [p.name for p in tmp_path.iterdir()] == [f"p{suffix}"]


@pytest.mark.parametrize("channels", [3, 4])
def test_webp_is_lossless_even_under_transparency(tmp_path, channels):
    pixels = random_pixels(channels)
    pixels[:5, :, 3:] = 0
    write_picture(tmp_path / "p.webp", Picture(pixels, "PNG"))
    np.testing.assert_array_equal(read_picture(tmp_path / "p.webp").pixels, pixels)


def test_jpeg_is_near(tmp_path):
    pixels = np.array(smooth_rgb())
    write_picture(tmp_path / "p.jpg", Picture(pixels, "PNG"))
    assert np.abs(read_picture(tmp_path / "p.jpg").pixels.astype(int) - pixels).mean() < 2


def test_what_a_format_cannot_hold_is_said(tmp_path):
    deep = Picture(random_pixels(4, np.uint16), "PNG", PROFILE, EXIF)
    for suffix, words in (
        (".jpg", ["alpha", "8 bits"]),
        (".bmp", ["alpha", "8 bits", "orientation"]),
        (".webp", ["8 bits"]),
    ):
        losses = write_picture(tmp_path / f"p{suffix}", deep)
        assert len(losses) == len(words)
        assert all(word in loss for word, loss in zip(words, losses, strict=True))
        assert read_picture(tmp_path / f"p{suffix}").pixels.dtype == np.uint8
    expected = np.rint(deep.pixels / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.webp").pixels, expected)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.bmp").pixels, expected[..., :3])


def test_floats_become_16_bits_in_png(tmp_path):
    pixels = random_pixels(3, np.float32)
    assert "16 bits" in write_picture(tmp_path / "p.png", Picture(pixels, "TIFF"))[0]
    back = read_picture(tmp_path / "p.png").pixels
    np.testing.assert_array_equal(back, np.rint(pixels * 65535))


def test_gray_webp_is_rgb(tmp_path):
    pixels = random_pixels(2)
    write_picture(tmp_path / "p.webp", Picture(pixels, "PNG"))
    back = read_picture(tmp_path / "p.webp").pixels
    np.testing.assert_array_equal(back, pixels[..., [0, 0, 0, 1]])


def documented_table():
    """The rows of the guide's table of what each format keeps, by format and column."""
    text = (Path(__file__).parents[2] / "docs" / "guides" / "photographs.md").read_text(
        encoding="utf-8"
    )
    lines = text[text.index("| result | pixels |") :].splitlines()
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), lines)
    ]
    return {row[0].upper(): dict(zip(head[1:], row[1:], strict=True)) for row in rows}


TABLE = documented_table()


def test_the_table_has_all_formats():
    assert TABLE.keys() == SUFFIX_OF_FORMAT.keys()


@pytest.mark.parametrize("format", TABLE)
def test_which_pixels_and_tags_each_format_keeps(tmp_path, rgb, format):
    row = TABLE[format]
    path = tmp_path / f"out{SUFFIX_OF_FORMAT[format]}"
    alpha = np.concatenate([rgb, rgb[..., :1]], axis=-1)
    write_picture(path, Picture(alpha, "PNG"))
    back = read_picture(path)
    assert (back.alpha is not None) == (row["alpha"] == "yes")
    assert np.array_equal(back.color, rgb) == (row["pixels"] == "lossless")

    depths = {"8": rgb, "16": rgb.astype(np.uint16) * 257, "float": (rgb / 255).astype(np.float32)}
    bits = []
    for name, pixels in depths.items():
        losses = write_picture(path, Picture(pixels, "TIFF"))
        if read_picture(path).pixels.dtype == pixels.dtype:
            bits.append(name)
        else:
            assert losses
    assert ", ".join(bits) == row["bits"]

    tags = [*GEO, (270, "s", 0, "a description", True)]
    tifffile.imwrite(tmp_path / "geo.tif", rgb, photometric="rgb", extratags=tags, metadata=None)
    write_picture(path, read_picture(tmp_path / "geo.tif"))
    back = read_picture(path)
    trunk = Image.Exif()
    trunk.load(back.exif or b"")
    assert (trunk.get(270) == "a description") == (row["description"] == "yes")
    own = back.extras.entries if format == "TIFF" else ()
    assert ({code for code, *_ in GEO} <= {code for code, *_ in own}) == (row["geo tags"] == "yes")


def test_other_pictures_of_a_jpeg_are_told(tmp_path, rgb):
    """As of phones, which add previews and maps for HDR."""
    one = Image.fromarray(rgb)
    for count, told in (1, "another picture"), (3, "3 other pictures"):
        path = tmp_path / f"{count}.jpg"
        one.save(path, "MPO", save_all=True, append_images=[one.rotate(180)] * count)
        (loss,) = write_picture(tmp_path / "out.png", read_picture(path))
        assert loss.startswith(f"the file also held {told} (") and loss.endswith("): dropped")


@pytest.mark.parametrize("format", TABLE)
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
def test_which_metadata_each_format_keeps(tmp_path, full, source, format):
    picture = full(source)
    check_exif(picture.exif)
    assert (picture.icc_profile, picture.xmp) == (PROFILE, XMP)
    path = tmp_path / f"out{SUFFIX_OF_FORMAT[format]}"
    losses = " ".join(write_picture(path, picture))
    back = read_picture(path)
    keeps = {name for name, kept in TABLE[format].items() if kept == "yes"}
    if "EXIF" in keeps:
        check_exif(back.exif)
    assert ("EXIF" in losses) == ("EXIF" not in keeps)
    assert back.icc_profile == (PROFILE if "colour profile" in keeps else None)
    assert ("profile" in losses) == ("colour profile" not in keeps)
    assert back.xmp == (XMP if "XMP" in keeps else None)
    assert ("XMP" in losses) == ("XMP" not in keeps)
    if source != ".webp":
        if "resolution" in keeps:
            np.testing.assert_allclose(np.multiply(back.resolution, 0.0254), 300, atol=0.02)
        assert ("resolution" in losses) == ("resolution" not in keeps)


@pytest.mark.parametrize("target", SUFFIX_OF_FORMAT.values())
def test_strict_readers_read_the_results(tmp_path, full, target):
    picture = full()
    write_picture(tmp_path / f"out{target}", picture)
    content = (tmp_path / f"out{target}").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(io.BytesIO(content)) as image:
            if target != ".bmp":
                check_exif(image.getexif().tobytes().removeprefix(b"Exif\0\0"))
                assert image.info["icc_profile"] == PROFILE
            assert {*image.size} == {16, 20}  # Pillow turns a TIFF by its orientation
            image.load()
    decode = {".png": imagecodecs.png_decode, ".tif": imagecodecs.tiff_decode}.get(target)
    if decode:
        np.testing.assert_array_equal(decode(content), picture.pixels)


def test_a_comment_of_a_jpeg_goes_to_a_jpeg(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "in.jpg", comment=b"hello")
    picture = read_picture(tmp_path / "in.jpg")
    assert write_picture(tmp_path / "out.jpg", picture) == []
    assert read_picture(tmp_path / "out.jpg").extras.entries == (("COM", b"hello"),)
    assert "comment" in write_picture(tmp_path / "out.png", picture)[0]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.webp"
    path.write_bytes(b"old")
    too_wide = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(ImageError, match=r"p\.webp: cannot be written as WEBP"):
        write_picture(path, Picture(too_wide, "PNG"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIX_OF_FORMAT.values())
def test_a_cancelled_write_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(b"old")
    answers = iter([] if suffix == ".webp" else [False])  # WebP comes as one part
    with pytest.raises(CancelledError):
        write_picture(
            path,
            Picture(random_pixels(3, size=(200, 250)), "PNG"),
            cancelled=lambda: next(answers, True),
        )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_palette_bilevel_and_transparent_colour(tmp_path):
    rgb = smooth_rgb(24, 30)
    path = tmp_path / "p.png"
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(path)
    np.testing.assert_array_equal(read_picture(path).pixels, np.array(palette.convert("RGB")))
    palette.save(path, transparency=3)
    assert read_picture(path).pixels.shape == (24, 30, 4)
    rgb.convert("1").save(path)
    picture = read_picture(path)
    assert picture.pixels.shape == (24, 30, 1)
    assert set(np.unique(picture.pixels)) == {0, 255}
    rgb.convert("L").save(path, transparency=100)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.alpha == 0, picture.color == 100)


def test_other_kinds_are_read_where_a_library_does(tmp_path, rgb):
    Image.init()
    for format, suffix in (("GIF", ".gif"), ("AVIF", ".avif"), ("JPEG2000", ".jp2")):
        if format in Image.SAVE:
            Image.fromarray(rgb).save(tmp_path / f"a{suffix}", format)
    if imagecodecs.JPEGXL.available:
        (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(rgb, lossless=True))
    found = find_images(tmp_path)
    assert len(found) >= 2
    for path in found:
        picture = read_picture(path)
        assert picture.pixels.shape == rgb.shape, path
        assert write_picture(path.with_suffix(".png"), picture)[1:] == []


def test_more_than_8_bits_of_jpeg_2000_stay(tmp_path, random):
    if not imagecodecs.JPEG2K.available:
        pytest.skip("imagecodecs has no JPEG 2000")
    deep = random.integers(0, 1024, (64, 64, 3)).astype(np.uint16)
    deep[0, 0] = 1023
    content = imagecodecs.jpeg2k_encode(deep, bitspersample=10, reversible=True, level=0)
    (tmp_path / "a.bin").write_bytes(content)
    picture = read_picture(tmp_path / "a.bin")
    assert picture.pixels.dtype == np.uint16
    assert picture.value_range.white == 1023


def turned(format):
    image = smooth_rgb(9, 9)
    return encoded(image, format, save_all=True, append_images=[image.rotate(90)])


UNSUPPORTED = {
    "cmyk jpeg": (lambda: encoded(smooth_rgb(9, 9).convert("CMYK"), "JPEG"), "CMYK"),
    "cmyk tiff": (lambda: encoded(smooth_rgb(9, 9).convert("CMYK"), "TIFF"), "CMYK"),
    "pages": (lambda: tiff_of(np.zeros((2, 9, 9), np.uint8), photometric="minisblack"), "2 pages"),
    "complex": (lambda: tiff_of(np.zeros((9, 9), np.complex64)), "complex64"),
    "animation": (lambda: turned("PNG"), "animation of 2 frames"),
    "gif": (lambda: turned("GIF"), "animation of 2 frames"),
    "text": (lambda: b"not a picture at all", "not a PNG"),
    "empty": (lambda: b"", "is empty"),
    "cr2": (lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "raw file: develop it first"),
    "cr3": (lambda: b"\0\0\0\x18ftypcrx " + bytes(40), "raw file"),
    "raf": (lambda: b"FUJIFILMCCD-RAW 0201" + bytes(40), "raw file"),
    "orf": (lambda: b"IIRO\x08\0\0\0" + bytes(40), "raw file"),
    "rw2": (lambda: b"IIU\0\x18\0\0\0" + bytes(40), "raw file"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_files_say_why(tmp_path, kind):
    make, reason = UNSUPPORTED[kind]
    path = tmp_path / "picture.png"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=r"picture\.png: .*" + reason):
        read_picture(path)


def test_missing_file_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_picture(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused_unread(tmp_path):
    """A good picture of 270 MB in a file of 300 KB."""
    path = tmp_path / "bomb.png"
    Image.new("1", (16_500, 16_500)).save(path)
    reset_peak_memory()
    before = peak_memory()
    with pytest.raises(ImageError, match=r"bomb.png: claims 16500 x 16500 pixels in \S+ bytes"):
        read_picture(path)
    assert peak_memory() < before + 0.05


def test_a_header_that_claims_too_much_is_refused_unread(tmp_path):
    content = bytearray(encoded(smooth_rgb(9, 9), "BMP"))
    content[18:26] = (2**17).to_bytes(4, "little") * 2
    (tmp_path / "p.bmp").write_bytes(content)
    with pytest.raises(ImageError, match="131072 x 131072"):
        read_picture(tmp_path / "p.bmp")


def test_large_pictures_cause_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000_000)
    Image.new("1", (3000, 2000)).save(tmp_path / "p.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "p.png").pixels.shape == (2000, 3000, 1)
    assert Image.MAX_IMAGE_PIXELS == 5_000_000


TRUNCATABLE = {
    "jpeg": lambda: encoded(smooth_rgb(), "JPEG", quality=90),
    "progressive": lambda: encoded(smooth_rgb(), "JPEG", progressive=True),
    "png": lambda: encoded(smooth_rgb(), "PNG"),
    "png 16": lambda: imagecodecs.png_encode(np.array(smooth_rgb()).astype(np.uint16) * 257),
    "webp": lambda: encoded(smooth_rgb(), "WEBP"),
    "webp lossless": lambda: encoded(smooth_rgb(), "WEBP", lossless=True),
    "bmp": lambda: encoded(smooth_rgb(), "BMP"),
    "tiff": lambda: encoded(smooth_rgb(), "TIFF"),
    "tiff lzw": lambda: encoded(smooth_rgb(), "TIFF", compression="tiff_lzw"),
    "tiff tail": lambda: tiff_of(np.array(smooth_rgb()), photometric="rgb", compression="zlib"),
}


@pytest.mark.parametrize("kind", TRUNCATABLE)
def test_the_header_says_what_is_read_and_every_truncation_is_an_error(tmp_path, kind):
    content = TRUNCATABLE[kind]()
    path = tmp_path / "cut"
    path.write_bytes(content)
    pixels = read_picture(path).pixels
    assert pixels.shape == (300, 400, 3)
    assert read_header(path) == (400, 300, pixels.nbytes, pixels.dtype)
    size = len(content)
    # The last four bytes of a PNG are the checksum of its empty end mark.
    for length in (1, 10, 40, 100, size // 10, size // 2, size * 9 // 10, size - 20, size - 5):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError):
            read_picture(path)


def test_the_header_of_what_cannot_be_read_is_empty(tmp_path):
    (tmp_path / "p").write_bytes(b"broken")
    for name in ("p", "gone"):
        assert read_header(tmp_path / name)[:3] == (0, 0, 0)


@pytest.mark.parametrize("kind", ["png", "png 16"])
def test_damaged_png_is_an_error(tmp_path, kind):
    content = bytearray(TRUNCATABLE[kind]())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        read_picture(tmp_path / "p.png")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_the_system_does_not_give_is_not_called_damaged(monkeypatch, tmp_path, number):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(smooth_rgb(), "PNG"))
    error = OSError(number, os.strerror(number))
    monkeypatch.setattr(Path, "open", unittest.mock.Mock(side_effect=error))
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{path}: cannot be read ({os.strerror(number)})."
