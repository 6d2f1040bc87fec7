import numpy as np
import pytest
import tifffile

from cbsn.errors import ImageError
from cbsn.images import tiff
from cbsn.images.image_files import Picture, pixel_bytes, read_picture, write_picture

COMPRESSIONS = ("zlib", "lzw", "packbits", "zstd")


@pytest.fixture
def pixels(random):
    return random.integers(0, 60_000, (37, 29, 3)).astype(np.uint16)


@pytest.fixture
def large_strips(monkeypatch):
    """Makes every strip count as large; a decoder that is left to tifffile would fail."""
    monkeypatch.setattr(tiff, "_LARGE_STRIP_BYTES", 0)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("not in place"))


def write(path, pixels, **options):
    tifffile.imwrite(path, pixels, photometric="rgb", **options)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("rows", [37, 10])
def test_large_strips_are_decoded_in_place(
    tmp_path, pixels, large_strips, compression, predictor, byteorder, rows
):
    path = tmp_path / "p.tif"
    options = {"compression": compression, "byteorder": byteorder, "rowsperstrip": rows}
    predictor = predictor and compression != "packbits"
    for expected in (pixels, (pixels // 257).astype(np.uint8)):
        write(path, expected, predictor=predictor, **options)
        found = read_picture(path).pixels
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype and found.flags.writeable
        tifffile.imwrite(path, expected[..., 0], predictor=predictor, **options)
        np.testing.assert_array_equal(read_picture(path).pixels[..., 0], expected[..., 0])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_large_strip_that_is_damaged_is_an_error(tmp_path, pixels, large_strips, compression):
    path = tmp_path / "p.tif"
    write(path, pixels, compression=compression, rowsperstrip=37)
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages[0].tags["StripByteCounts"]
        tag.overwrite(tag.value[0] // 2)
    with pytest.raises(ImageError, match="damaged"):
        read_picture(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("pieces", [{}, {"rowsperstrip": 10}, {"tile": (16, 16)}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_separate_planes(tmp_path, pixels, compression, pieces, byteorder):
    path = tmp_path / "p.tif"
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    options = {"planarconfig": "separate", "compression": compression, "byteorder": byteorder}
    write(path, planes, **options, **pieces)
    found = read_picture(path).pixels
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.c_contiguous and found.flags.writeable and found.dtype.isnative


def test_what_is_read_can_be_written_over(tmp_path, pixels):
    path = tmp_path / "p.tif"
    for options in ({}, {"byteorder": ">"}, {"compression": "lzw"}, {"tile": (16, 16)}):
        write(path, pixels, **options)
        assert read_picture(path).pixels.flags.writeable
    tifffile.imwrite(path, pixels[..., 0] > 9, photometric="miniswhite")
    assert read_picture(path).pixels.flags.writeable


def test_above_4_gb_it_is_bigtiff(tmp_path, pixels, monkeypatch):
    path = tmp_path / "p.tif"
    write_picture(path, Picture(pixels, "TIFF"))
    with tifffile.TiffFile(path) as file:
        assert not file.is_bigtiff
    # As much as a picture of 4 GB, of which a classic file's offsets reach the most.
    monkeypatch.setattr(tiff, "CLASSIC_BYTES", pixels.nbytes - 1)
    write_picture(path, Picture(pixels, "TIFF"))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
    np.testing.assert_array_equal(read_picture(path).pixels, pixels)


def test_size_by_the_header(tmp_path, pixels):
    path = tmp_path / "p.tif"
    write(path, pixels, compression="zlib")
    assert pixel_bytes(path) == pixels.nbytes
    tifffile.imwrite(path, pixels[..., 0] > 9, compression="packbits")
    assert pixel_bytes(path) == read_picture(path).pixels.nbytes
    indices = (pixels[..., 0] % 256).astype(np.uint8)
    colors = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, indices, photometric="palette", colormap=colors)
    assert pixel_bytes(path) == read_picture(path).pixels.nbytes
    path.write_bytes(path.read_bytes()[:30])
    assert pixel_bytes(path) == 0


def test_multiplied_alpha_becomes_straight(tmp_path):
    straight = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [0, 0, 0, 0]]], np.uint8)
    multiplied = straight.copy()
    multiplied[..., :3] = np.rint(straight[..., :3] * (straight[..., 3:] / 255))
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, multiplied, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_array_equal(read_picture(path).pixels, straight)


def test_a_second_reduced_page_is_a_thumbnail(tmp_path, pixels):
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        file.write(pixels, photometric="rgb")
        file.write(pixels[::4, ::4], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.tif").pixels, pixels)
