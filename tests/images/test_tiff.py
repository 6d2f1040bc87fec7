import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.errors import ImageError
from cbsn.images import tiff
from cbsn.images.image_files import Picture, read_header, read_picture, write_picture

COMPRESSIONS = ("zlib", "lzw", "packbits", "zstd")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "p.tif"


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
def test_large_strips_are_decoded_in_place(
    path, pixels, large_strips, compression, predictor, byteorder
):
    options = {"compression": compression, "byteorder": byteorder}
    options["predictor"] = predictor and compression != "packbits"
    for expected in (pixels, (pixels // 257).astype(np.uint8)):
        for rows in (37, 10):
            write(path, expected, rowsperstrip=rows, **options)
            found = read_picture(path).pixels
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype and found.flags.writeable
        tifffile.imwrite(path, expected[..., 0], rowsperstrip=10, **options)
        np.testing.assert_array_equal(read_picture(path).pixels[..., 0], expected[..., 0])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_large_strip_that_is_damaged_is_an_error(path, pixels, large_strips, compression):
    write(path, pixels, compression=compression, rowsperstrip=37)
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages[0].tags["StripByteCounts"]
        tag.overwrite(tag.value[0] // 2)
    with pytest.raises(ImageError, match="damaged"):
        read_picture(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("pieces", [{}, {"rowsperstrip": 10}, {"tile": (16, 16)}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_separate_planes(path, pixels, compression, pieces, byteorder):
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    options = {"planarconfig": "separate", "compression": compression, "byteorder": byteorder}
    write(path, planes, **options, **pieces)
    found = read_picture(path).pixels
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.c_contiguous and found.flags.writeable and found.dtype.isnative


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">", "bigtiff": True},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True, "tile": (16, 16)},
    ],
)
def test_what_is_read_can_be_written_over(path, pixels, options):
    write(path, pixels, **options)
    found = read_picture(path).pixels
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.writeable and found.dtype.isnative


def test_few_bits_palettes_and_what_is_white_at_0(path, pixels):
    rgb = (pixels >> 8).astype(np.uint8)
    palette = Image.fromarray(rgb).convert("P")
    palette.save(path)
    np.testing.assert_array_equal(read_picture(path).pixels, np.array(palette.convert("RGB")))
    bilevel = palette.convert("1")
    bilevel.save(path, compression="group4")
    if tifffile.COMPRESSION.CCITT_T6 in tifffile.TIFF.DECOMPRESSORS:
        np.testing.assert_array_equal(read_picture(path).pixels[..., 0], np.array(bilevel) * 255)
    else:  # in the versions for Python 3.10
        with pytest.raises(ImageError, match="compression CCITT_T6"):
            read_picture(path)
    tifffile.imwrite(path, rgb[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(path).pixels, 255 - rgb[..., :1])
    tifffile.imwrite(path, rgb[..., 0] > 99, photometric="miniswhite")
    assert read_picture(path).pixels.flags.writeable


def test_an_unknown_compression_is_named(path, pixels):
    tifffile.imwrite(path, pixels)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(34676)
    with pytest.raises(ImageError, match=r"compression SGILOG, .* install -U tifffile"):
        read_picture(path)


def test_above_4_gb_it_is_bigtiff(path, pixels, monkeypatch):
    write_picture(path, Picture(pixels, "TIFF"))
    with tifffile.TiffFile(path) as file:
        assert not file.is_bigtiff
    # As much as a picture of 4 GB, of which a classic file's offsets reach the most.
    monkeypatch.setattr(tiff, "CLASSIC_BYTES", pixels.nbytes - 1)
    write_picture(path, Picture(pixels, "TIFF"))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
    np.testing.assert_array_equal(read_picture(path).pixels, pixels)


def test_size_by_the_header(path, pixels):
    write(path, pixels, compression="zlib")
    assert read_header(path) == (29, 37, pixels.nbytes, "uint16")
    tifffile.imwrite(path, pixels[..., 0] > 9, compression="packbits")
    assert read_header(path).pixel_bytes == read_picture(path).pixels.nbytes
    indices = (pixels[..., 0] % 256).astype(np.uint8)
    colors = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, indices, photometric="palette", colormap=colors)
    assert read_header(path).pixel_bytes == read_picture(path).pixels.nbytes
    path.write_bytes(path.read_bytes()[:30])
    assert read_header(path).pixel_bytes == 0


def test_multiplied_alpha_becomes_straight(path):
    straight = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [0, 0, 0, 0]]], np.uint8)
    multiplied = straight.copy()
    multiplied[..., :3] = np.rint(straight[..., :3] * (straight[..., 3:] / 255))
    write(path, multiplied, extrasamples=["assocalpha"])
    np.testing.assert_array_equal(read_picture(path).pixels, straight)


@pytest.mark.parametrize(
    ("channels", "photometric", "extra"),
    [
        (2, "minisblack", None),
        (4, "minisblack", None),
        (4, "rgb", ["unspecified"]),
        (5, "rgb", None),
        (5, "rgb", ["unassalpha", "unspecified"]),
    ],
)
def test_channels_that_are_no_alpha_are_refused(path, pixels, channels, photometric, extra):
    planes = np.concatenate([pixels, pixels], axis=-1)[..., :channels]
    options = {"photometric": photometric, "extrasamples": extra, "planarconfig": "contig"}
    tifffile.imwrite(path, planes, **options)
    with pytest.raises(ImageError, match=f"has {channels} channels"):
        read_picture(path)


@pytest.mark.parametrize(("channels", "photometric"), [(2, "minisblack"), (4, "rgb")])
def test_what_the_file_calls_alpha_is_alpha(path, pixels, channels, photometric):
    planes = np.concatenate([pixels, pixels], axis=-1)[..., :channels]
    options = {"photometric": photometric, "extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, planes, planarconfig="contig", **options)
    np.testing.assert_array_equal(read_picture(path).alpha, planes[..., -1:])


def test_a_second_reduced_page_is_a_thumbnail(path, pixels):
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, photometric="rgb")
        file.write(pixels[::4, ::4], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_picture(path).pixels, pixels)


def test_a_stack_with_one_page_is_no_picture(path, random):
    """As ImageJ writes stacks above 4 GB."""
    stack = random.integers(0, 65536, (3, 16, 20)).astype(np.uint16)
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX"})
    content = bytearray(path.read_bytes())
    order = "<" if content[:2] == b"II" else ">"
    start = struct.unpack(order + "I", content[4:8])[0]
    end = start + 2 + 12 * struct.unpack(order + "H", content[start : start + 2])[0]
    content[end : end + 4] = bytes(4)  # the chain of pages is cut
    path.write_bytes(content)
    assert len(tifffile.TiffFile(path).pages) == 1
    with pytest.raises(ImageError, match="holds 3 pages"):
        read_picture(path)


@pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength"])
def test_a_header_that_says_no_pixels_is_damaged(path, pixels, tag):
    write(path, pixels, metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[tag].overwrite(0)
    with pytest.raises(ImageError):
        read_picture(path)


def test_raw_files_are_told_by_their_tags(tmp_path, pixels):
    with tifffile.TiffWriter(tmp_path / "a.nef") as writer:
        write = {"metadata": None}
        writer.write(pixels[::4, ::4], photometric="rgb", subfiletype=1, subifds=1, **write)
        tags = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)]
        writer.write(pixels[..., 0], photometric=32803, subfiletype=0, extratags=tags, **write)
    version = [(50706, "B", 4, (1, 4, 0, 0), True)]
    tifffile.imwrite(tmp_path / "b.dng", pixels, extratags=version, photometric="rgb")
    for path in tmp_path.iterdir():
        with pytest.raises(ImageError, match="raw file: develop it first"):
            read_picture(path)
