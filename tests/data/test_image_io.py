import io
import warnings
from concurrent.futures import CancelledError

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.devices import peak_memory, reset_peak_memory
from cbsn.errors import DataError, ImageError
from cbsn.images.image_files import (
    Picture,
    find_images,
    format_of_suffix,
    pixel_bytes,
    read_picture,
    write_picture,
)

PROFILE = bytes(range(256)) * 3


def orientation_exif(value=6, maker="a camera"):
    exif = Image.Exif()
    exif[274] = value
    exif[271] = maker
    return exif.tobytes().removeprefix(b"Exif\0\0")


def orientation_of(picture):
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    return exif.get(274)


def random_pixels(channels, dtype=np.uint8, size=(19, 26)):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    values = np.random.default_rng(channels).random((*size, channels))
    return (values * top).astype(dtype)


def smooth_rgb(height=300, width=400):
    small = Image.fromarray(random_pixels(3))
    return small.resize((width, height), Image.Resampling.BICUBIC)


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
    picture = Picture(random_pixels(channels, dtype), "PNG", PROFILE, orientation_exif())
    assert write_picture(tmp_path / f"p{suffix}", picture) == []
    back = read_picture(tmp_path / f"p{suffix}")
    assert back.pixels.dtype == dtype
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    assert back.icc_profile == PROFILE
    assert orientation_of(back) == 6
    assert back.format == ("PNG" if suffix == ".png" else "TIFF")
    if suffix == ".png":
        assert back.exif == picture.exif
    assert [p.name for p in tmp_path.iterdir()] == [f"p{suffix}"]


@pytest.mark.parametrize("channels", [3, 4])
def test_webp_is_lossless_even_under_transparency(tmp_path, channels):
    pixels = random_pixels(channels)
    pixels[:5, :, 3:] = 0
    write_picture(tmp_path / "p.webp", Picture(pixels, "PNG", PROFILE, orientation_exif()))
    back = read_picture(tmp_path / "p.webp")
    np.testing.assert_array_equal(back.pixels, pixels)
    assert (back.icc_profile, orientation_of(back)) == (PROFILE, 6)


def test_jpeg_keeps_profile_and_orientation_and_is_near(tmp_path):
    pixels = np.array(smooth_rgb())
    write_picture(tmp_path / "p.jpg", Picture(pixels, "PNG", PROFILE, orientation_exif()))
    back = read_picture(tmp_path / "p.jpg")
    assert (back.icc_profile, back.exif) == (PROFILE, orientation_exif())
    assert np.abs(back.pixels.astype(int) - pixels).mean() < 2


def test_other_programs_find_what_was_written(tmp_path):
    picture = Picture(random_pixels(4, np.uint16), "PNG", PROFILE, orientation_exif())
    for name in ("p.png", "p.tif"):
        write_picture(tmp_path / name, picture)
    with Image.open(tmp_path / "p.png") as png:
        png.load()
        assert (png.mode, png.info["icc_profile"], png.getexif()[274]) == ("RGBA", PROFILE, 6)
    with Image.open(tmp_path / "p.tif") as tiff:
        assert (tiff.info["icc_profile"], tiff.getexif()[274]) == (PROFILE, 6)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p.tif"), picture.pixels)


def test_what_a_format_cannot_hold_is_said(tmp_path):
    deep = Picture(random_pixels(4, np.uint16), "PNG", PROFILE, orientation_exif())
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


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.webp"
    path.write_bytes(b"old")
    too_wide = np.zeros((1, 20_000, 3), np.uint8)
    with pytest.raises(ImageError, match=r"p\.webp: cannot be written as WEBP"):
        write_picture(path, Picture(too_wide, "PNG"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_a_cancelled_write_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(b"old")
    answers = iter([] if suffix == ".webp" else [False])  # WebP comes as one part
    with pytest.raises(CancelledError):
        write_picture(
            path,
            Picture(random_pixels(3, size=(400, 500)), "PNG"),
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
    gray = rgb.convert("L")
    gray.save(path, transparency=100)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.alpha == 0, picture.color == 100)


def test_tiff_kinds(tmp_path):
    path = tmp_path / "p.tif"
    rgb = random_pixels(3)
    image = Image.fromarray(rgb)
    image.save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(read_picture(path).pixels, rgb)
    palette = image.convert("P")
    palette.save(path)
    np.testing.assert_array_equal(read_picture(path).pixels, np.array(palette.convert("RGB")))
    bilevel = image.convert("1")
    bilevel.save(path, compression="group4")
    np.testing.assert_array_equal(read_picture(path).pixels[..., 0], np.array(bilevel) * 255)
    deep = random_pixels(3, np.uint16)
    options = {"photometric": "rgb", "compression": "lzw", "predictor": True, "tile": (16, 16)}
    tifffile.imwrite(path, deep, **options)
    np.testing.assert_array_equal(read_picture(path).pixels, deep)
    tifffile.imwrite(path, deep, photometric="rgb", byteorder=">", bigtiff=True)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, deep)
    assert picture.pixels.dtype == np.uint16 and picture.pixels.dtype.isnative
    tifffile.imwrite(path, np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_picture(path).pixels, rgb)
    tifffile.imwrite(path, rgb[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(path).pixels, 255 - rgb[..., :1])


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff_of(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


UNSUPPORTED = {
    "cmyk jpeg": (lambda: encoded(smooth_rgb(9, 9).convert("CMYK"), "JPEG"), "CMYK"),
    "cmyk tiff": (lambda: encoded(smooth_rgb(9, 9).convert("CMYK"), "TIFF"), "CMYK"),
    "pages": (lambda: tiff_of(np.zeros((2, 9, 9), np.uint8), photometric="minisblack"), "2 pages"),
    "complex": (lambda: tiff_of(np.zeros((9, 9), np.complex64)), "complex64"),
    "channels": (
        lambda: tiff_of(np.zeros((9, 9, 5), np.uint8), planarconfig="contig", photometric="rgb"),
        "5 channels",
    ),
    "animation": (
        lambda: encoded(
            smooth_rgb(9, 9), "PNG", save_all=True, append_images=[smooth_rgb(9, 9).rotate(90)]
        ),
        "animation of 2 frames",
    ),
    "gif": (
        lambda: encoded(
            smooth_rgb(9, 9), "GIF", save_all=True, append_images=[smooth_rgb(9, 9).rotate(90)]
        ),
        "animation of 2 frames",
    ),
    "text": (lambda: b"not a picture at all", "not a PNG"),
    "empty": (lambda: b"", "is empty"),
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
    """A good picture of 400 MB in a file of 400 KB."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    reset_peak_memory()
    before = peak_memory()
    with pytest.raises(ImageError, match=r"bomb.png: claims 20000 x 20000 pixels in \S+ bytes"):
        read_picture(path)
    assert peak_memory() < before + 0.05


def test_a_header_that_claims_too_much_is_refused_unread(tmp_path):
    content = bytearray(encoded(smooth_rgb(9, 9), "BMP"))
    content[18:26] = (2**17).to_bytes(4, "little") * 2
    (tmp_path / "p.bmp").write_bytes(content)
    with pytest.raises(ImageError, match="131072 x 131072"):
        read_picture(tmp_path / "p.bmp")


def test_large_pictures_cause_no_warning(tmp_path):
    with Image.new("1", (10_000, 9_000)) as image:
        image.save(tmp_path / "p.png")
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "p.png").pixels.shape == (9_000, 10_000, 1)
    assert limit == Image.MAX_IMAGE_PIXELS


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
def test_every_truncation_is_an_error(tmp_path, kind):
    content = TRUNCATABLE[kind]()
    path = tmp_path / "cut"
    path.write_bytes(content)
    assert read_picture(path).pixels.shape == (300, 400, 3)
    size = len(content)
    # The last four bytes of a PNG are the checksum of its empty end mark.
    for length in (1, 10, 40, 100, size // 10, size // 2, size * 9 // 10, size - 20, size - 5):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError):
            read_picture(path)


@pytest.mark.parametrize("kind", ["png", "png 16"])
def test_damaged_png_is_an_error(tmp_path, kind):
    content = bytearray(TRUNCATABLE[kind]())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        read_picture(tmp_path / "p.png")


@pytest.mark.parametrize("kind", TRUNCATABLE)
def test_pixel_bytes_are_those_that_are_read(tmp_path, kind):
    path = tmp_path / "p"
    path.write_bytes(TRUNCATABLE[kind]())
    assert pixel_bytes(path) == read_picture(path).pixels.nbytes
    path.write_bytes(b"broken")
    assert pixel_bytes(path) == pixel_bytes(tmp_path / "gone") == 0


def test_find_images(tmp_path, monkeypatch):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "sub/c.tiff", "sub/d.raw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in find_images(tmp_path)] == ["a.jpg", "b.PNG"]
    assert [p.name for p in find_images(f"{tmp_path}/*")] == ["a.jpg", "b.PNG", "notes.txt"]
    assert [p.name for p in find_images(f"{tmp_path}/**/*.tiff")] == ["c.tiff"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_images("~/a.jpg") == find_images(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]


def test_a_name_with_brackets_is_a_name_first(tmp_path):
    (tmp_path / "shot[1].png").touch()
    assert find_images(tmp_path / "shot[1].png") == [tmp_path / "shot[1].png"]


@pytest.mark.parametrize("pattern", ["", "*.png", "nothing.png"])
def test_nothing_found_says_where(tmp_path, pattern):
    with pytest.raises(DataError, match=str(tmp_path)):
        find_images(tmp_path / pattern)


def test_format_of_suffix():
    assert format_of_suffix(".JPEG") == "JPEG" and format_of_suffix(".tif") == "TIFF"
    with pytest.raises(ImageError, match=r"\.xyz"):
        format_of_suffix(".xyz")
