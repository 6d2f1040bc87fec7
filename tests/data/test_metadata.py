"""What describes a picture goes with it; what the result's format cannot hold is said."""

import io
import itertools
import struct
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.images.image_files import (
    SUFFIX_OF_FORMAT,
    Picture,
    find_images,
    read_picture,
    write_picture,
)

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><about/></x:xmpmeta>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
    '2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
    'SizeX="20" SizeY="16" SizeZ="1" SizeC="1" SizeT="1" PhysicalSizeX="0.108" '
    'PhysicalSizeXUnit="µm"><Channel ID="Channel:0:0"/><TiffData/></Pixels></Image></OME>'
)
GEO = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
    (42112, "s", 0, "<GDALMetadata/>", True),
]


@pytest.fixture
def rgb(random):
    return random.integers(0, 256, (16, 20, 3)).astype(np.uint8)


def exif_block():
    exif = Image.Exif()
    exif[274] = 6
    exif[271] = "Cam"
    exif[306] = "2024:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.Exif).update({0x829A: 0.01, 0x8827: 1600, 0x9286: b"ASCII\0\0\0hi"})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 8.0, 30.0)})
    return exif


def check_exif(block):
    exif = Image.Exif()
    exif.load(block)
    assert (exif[274], exif[271], exif[306]) == (6, "Cam", "2024:01:02 03:04:05")
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    assert (float(camera[0x829A]), camera[0x8827], camera[0x9286]) == (0.01, 1600, b"ASCII\0\0\0hi")
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert (place[1], [float(each) for each in place[2]]) == ("N", [48, 8, 30])


def save(path, rgb):
    """Writes a picture with all the metadata that its format has, by Pillow where that can."""
    if path.suffix == ".tif":  # Pillow writes no more than the trunk of the EXIF tree
        save(path.with_suffix(".jpg"), rgb)
        write_picture(path, read_picture(path.with_suffix(".jpg")))
        return
    options = {"exif": exif_block(), "icc_profile": PROFILE, "dpi": (300, 300), "xmp": XMP}
    if path.suffix == ".webp":
        options.pop("dpi")
    if path.suffix == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode(), zip=True)
    Image.fromarray(rgb).save(path, **options)


def chunks_of(path):
    content, place, found = path.read_bytes(), 8, {}
    while place < len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        found[kind.decode()] = content[place + 8 : place + 8 + size]
        place += 12 + size
    return found


def png_with(rgb, *chunks):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    png = buffer.getvalue()
    extra = b""
    for kind, content, *wrong in chunks:
        checksum = zlib.crc32(kind + content) ^ (1 if wrong else 0)
        extra += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    return png[:33] + extra + png[33:]


# The table "What each format keeps" of the README, a row for each format of the result.
KEEPS = {
    ".png": {"exif", "profile", "xmp", "resolution"},
    ".tif": {"exif", "profile", "xmp", "resolution"},
    ".jpg": {"exif", "profile", "xmp", "resolution"},
    ".webp": {"exif", "profile", "xmp"},
    ".bmp": {"resolution"},
}


@pytest.mark.parametrize("target", KEEPS)
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
def test_what_each_format_keeps(tmp_path, rgb, source, target):
    save(tmp_path / f"in{source}", rgb)
    picture = read_picture(tmp_path / f"in{source}")
    check_exif(picture.exif)
    assert (picture.icc_profile, picture.xmp) == (PROFILE, XMP)
    losses = " ".join(write_picture(tmp_path / f"out{target}", picture))
    back = read_picture(tmp_path / f"out{target}")
    keeps = KEEPS[target]
    if "exif" in keeps:
        check_exif(back.exif)
    assert ("EXIF" in losses) == ("exif" not in keeps)
    assert back.icc_profile == (PROFILE if "profile" in keeps else None)
    assert ("profile" in losses) == ("profile" not in keeps)
    assert back.xmp == (XMP if "xmp" in keeps else None)
    assert ("XMP" in losses) == ("xmp" not in keeps)
    if source != ".webp":
        if "resolution" in keeps:
            np.testing.assert_allclose(np.multiply(back.resolution, 0.0254), 300, atol=0.02)
        assert ("resolution" in losses) == ("resolution" not in keeps)


@pytest.mark.parametrize("target", [".png", ".tif", ".jpg", ".webp", ".bmp"])
def test_strict_readers_read_the_results(tmp_path, rgb, target):
    save(tmp_path / "in.jpg", rgb)
    picture = read_picture(tmp_path / "in.jpg")
    write_picture(tmp_path / f"out{target}", picture)
    content = (tmp_path / f"out{target}").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(io.BytesIO(content)) as image:
            if target != ".bmp":
                check_exif(image.getexif().tobytes().removeprefix(b"Exif\0\0"))
            assert {*image.size} == {16, 20}  # Pillow turns a TIFF by its orientation
            image.load()
    if target == ".png":
        np.testing.assert_array_equal(imagecodecs.png_decode(content), picture.pixels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tags_of_a_tiff_stay(tmp_path, rgb, byteorder, big):
    options = {"byteorder": byteorder, "bigtiff": big, "photometric": "rgb", "metadata": None}
    tags = [*GEO, (271, "s", 0, "Cam", True), (700, "B", len(XMP), XMP, True)]
    tifffile.imwrite(
        tmp_path / "in.tif",
        rgb,
        description="a description",
        resolution=((231, 25), (462, 25)),
        resolutionunit=3,
        extratags=tags,
        **options,
    )
    picture = read_picture(tmp_path / "in.tif")
    assert write_picture(tmp_path / "out.tif", picture) == []
    for name in ("in.tif", "out.tif"):
        found = tifffile.TiffFile(tmp_path / name).pages[0].tags
        assert found.valueof(270) == "a description"
        assert (found.valueof(282), found.valueof(283)) == ((231, 25), (462, 25))
        assert found.valueof(296) == 3
        assert found.valueof(271) == "Cam"
        assert found.valueof(700) == XMP
        for code, _, _, value, _ in GEO:
            assert found.valueof(code) == value
    losses = write_picture(tmp_path / "out.png", picture)
    assert len(losses) == 1 and "ModelPixelScaleTag" in losses[0] and "Make" not in losses[0]
    np.testing.assert_array_equal(read_picture(tmp_path / "out.png").resolution, (924, 1848))


def test_descriptions_of_microscopes_stay(tmp_path, random):
    gray = random.integers(0, 65536, (16, 20)).astype(np.uint16)
    options = {"resolution": (9.24, 9.24), "metadata": {"unit": "um", "axes": "YX"}}
    tifffile.imwrite(tmp_path / "imagej.tif", gray, imagej=True, **options)
    tifffile.imwrite(tmp_path / "ome.tif", gray, description=OME.encode(), metadata=None)
    for name in ("imagej.tif", "ome.tif"):
        write_picture(tmp_path / f"out_{name}", read_picture(tmp_path / name))
        before, after = (tifffile.TiffFile(tmp_path / each) for each in (name, f"out_{name}"))
        assert after.pages[0].description == before.pages[0].description
        assert after.is_imagej == before.is_imagej and after.is_ome == before.is_ome
        assert after.pages[0].tags.valueof(282) == before.pages[0].tags.valueof(282)
        np.testing.assert_array_equal(after.asarray(), gray)


def test_tifffiles_own_description_does_not_outlive_the_layout(tmp_path, rgb):
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    tifffile.imwrite(tmp_path / "in.tif", planes, photometric="rgb", planarconfig="separate")
    write_picture(tmp_path / "out.tif", read_picture(tmp_path / "in.tif"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), rgb)


def test_what_the_colours_of_a_png_mean_stays(tmp_path, rgb):
    chunks = {
        b"gAMA": struct.pack(">I", 100000),
        b"cHRM": struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600),
        b"cICP": bytes([9, 16, 0, 1]),
        b"pHYs": struct.pack(">IIB", 11811, 5906, 1),
        b"tEXt": b"Author\0me",
    }
    (tmp_path / "in.png").write_bytes(png_with(rgb, *chunks.items()))
    picture = read_picture(tmp_path / "in.png")
    assert write_picture(tmp_path / "out.png", picture) == []
    found = chunks_of(tmp_path / "out.png")
    assert {kind.encode(): found[kind] for kind in found if kind.encode() in chunks} == chunks
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
    (tmp_path / "in.png").write_bytes(png_with(rgb, (kind, b"comment\0hello", "wrong")))
    with pytest.warns(CbsnWarning, match=rf"in\.png: its chunk {kind.decode()} is damaged"):
        picture = read_picture(tmp_path / "in.png")
    np.testing.assert_array_equal(picture.pixels, rgb)


def test_a_damaged_chunk_that_pixels_need_is_an_error(tmp_path, rgb):
    content = bytearray(png_with(rgb))
    content[-14] ^= 1  # the checksum of IDAT
    (tmp_path / "in.png").write_bytes(content)
    with pytest.raises(ImageError, match="IDAT"):
        read_picture(tmp_path / "in.png")


def test_a_comment_of_a_jpeg_goes_to_a_jpeg(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "in.jpg", comment=b"hello")
    picture = read_picture(tmp_path / "in.jpg")
    assert write_picture(tmp_path / "out.jpg", picture) == []
    assert read_picture(tmp_path / "out.jpg").extras == b"hello"
    assert "comment" in write_picture(tmp_path / "out.png", picture)[0]


def other_kinds(rgb):
    image = Image.fromarray(rgb)
    kinds = {"GIF": ".gif", "AVIF": ".avif", "JPEG2000": ".jp2"}
    Image.init()
    for format, suffix in kinds.items():
        if format in Image.SAVE:
            buffer = io.BytesIO()
            image.save(buffer, format)
            yield suffix, buffer.getvalue()
    if imagecodecs.JPEGXL.available:
        yield ".jxl", imagecodecs.jpegxl_encode(rgb, lossless=True)


def test_other_kinds_are_read_where_a_library_does(tmp_path, rgb):
    for suffix, content in other_kinds(rgb):
        (tmp_path / f"a{suffix}").write_bytes(content)
    found = find_images(tmp_path)
    assert len(found) >= 2
    for path in found:
        picture = read_picture(path)
        assert picture.pixels.shape == rgb.shape, path
        assert write_picture(path.with_suffix(".png"), picture)[1:] == []


@pytest.mark.parametrize("kind", ["jpeg2k", "avif"])
def test_more_than_8_bits_of_other_kinds_stay(tmp_path, random, kind):
    if not getattr(imagecodecs, kind.upper()).available:
        pytest.skip(f"imagecodecs has no {kind}")
    deep = random.integers(0, 1024, (64, 64, 3)).astype(np.uint16)
    deep[0, 0] = 1023
    encode = getattr(imagecodecs, f"{kind}_encode")
    options = {"bitspersample": 10} | ({} if kind == "avif" else {"reversible": True, "level": 0})
    (tmp_path / "a.bin").write_bytes(encode(deep, **options))
    picture = read_picture(tmp_path / "a.bin")
    assert picture.pixels.dtype == np.uint16
    assert picture.value_range.white == 1023


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".jif", ".JPG", ".heic", ".avif"])
def test_a_folder_is_searched_for_pictures_by_any_name(tmp_path, rgb, suffix):
    Image.fromarray(rgb).save(tmp_path / f"a{suffix}", "JPEG")
    assert find_images(tmp_path) == [tmp_path / f"a{suffix}"]


def test_other_pictures_in_a_folder_are_named(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for name in ("b.CR2", "c.psd", "d.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(CbsnWarning, match=r"2 files of other kinds, such as b\.CR2 \(a raw"):
        assert find_images(tmp_path) == [tmp_path / "a.png"]


def test_what_no_library_reads_is_named_by_its_kind(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(ImageError, match="is a HEIC picture"):
        read_picture(tmp_path / "a.heic")


def dng(path, rgb):
    with tifffile.TiffWriter(path) as writer:
        writer.write(rgb[::4, ::4], photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        tags = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)]
        writer.write(rgb[..., 0], photometric=32803, subfiletype=0, metadata=None, extratags=tags)


def test_raw_files_are_told_by_their_content(tmp_path, rgb):
    dng(tmp_path / "a.nef", rgb)
    version = [(50706, "B", 4, (1, 4, 0, 0), True)]
    tifffile.imwrite(tmp_path / "b.dng", rgb, extratags=version, photometric="rgb")
    starts = {
        "c.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
        "d.cr3": b"\0\0\0\x18ftypcrx " + bytes(40),
        "e.raf": b"FUJIFILMCCD-RAW 0201" + bytes(40),
        "f.orf": b"IIRO\x08\0\0\0" + bytes(40),
        "g.rw2": b"IIU\0\x18\0\0\0" + bytes(40),
    }
    for name, content in starts.items():
        (tmp_path / name).write_bytes(content)
    for path in tmp_path.iterdir():
        with pytest.raises(ImageError, match="raw file: develop it first"):
            read_picture(path)


def test_globs_below_folders_with_brackets(tmp_path, rgb):
    folder = tmp_path / "photos [2023]" / "a*b"
    folder.mkdir(parents=True)
    Image.fromarray(rgb).save(folder / "a.png")
    for pattern in ("*.png", "a.*", "[a-c].png", "**/*.png"):
        assert find_images(folder / pattern) == [folder / "a.png"]
    assert find_images(tmp_path / "photos [2023]" / "**" / "*.png") == [folder / "a.png"]


@pytest.mark.parametrize("method", ["iterdir", "is_file"])
def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch, method):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path." + method, refuse)
    for pattern in (tmp_path, tmp_path / "*.png"):
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
            find_images(pattern)


def test_names_of_any_length(tmp_path):
    with pytest.raises(DataError):
        find_images(tmp_path / ("a" * 5000))


def planes_of(rgb, count):
    return np.concatenate([rgb, rgb], axis=-1)[..., :count]


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (2, {"photometric": "minisblack", "planarconfig": "contig"}),
        (4, {"photometric": "minisblack", "planarconfig": "contig"}),
        (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (5, {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}),
    ],
)
def test_channels_that_are_no_alpha_are_refused(tmp_path, rgb, channels, options):
    tifffile.imwrite(tmp_path / "a.tif", planes_of(rgb, channels), **options)
    with pytest.raises(ImageError, match=f"has {channels} channels"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
)
def test_what_the_file_calls_alpha_is_alpha(tmp_path, rgb, channels, options):
    pixels = planes_of(rgb, channels)
    tifffile.imwrite(tmp_path / "a.tif", pixels, planarconfig="contig", **options)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").alpha, pixels[..., -1:])


def test_a_stack_with_one_page_is_no_picture(tmp_path, random):
    """As ImageJ writes stacks above 4 GB."""
    stack = random.integers(0, 65536, (3, 16, 20)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    content = bytearray((tmp_path / "a.tif").read_bytes())
    order = "<" if content[:2] == b"II" else ">"
    start = struct.unpack(order + "I", content[4:8])[0]
    end = start + 2 + 12 * struct.unpack(order + "H", content[start : start + 2])[0]
    content[end : end + 4] = bytes(4)  # the chain of pages is cut
    (tmp_path / "a.tif").write_bytes(content)
    assert len(tifffile.TiffFile(tmp_path / "a.tif").pages) == 1
    with pytest.raises(ImageError, match="holds 3 pages"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength"])
def test_a_header_that_says_no_pixels_is_damaged(tmp_path, rgb, tag):
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags[tag].overwrite(0)
    with pytest.raises(ImageError):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("white", [3, 15, 63, 255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_values_of_fewer_bits_are_stretched_and_come_back(tmp_path, random, white, suffix):
    values = random.integers(0, white + 1, (16, 20, 4)).astype(np.uint16)
    values[0, 0, :3] = white
    values[..., 3] = 65535
    picture = Picture(values, "TIFF")
    write_picture(tmp_path / f"in{suffix}", picture)
    picture = read_picture(tmp_path / f"in{suffix}")
    assert picture.color.max() == 65535
    assert (picture.alpha == 65535).all()
    assert (picture.value_range is None) == (white == 65535)
    write_picture(tmp_path / f"out{suffix}", picture)
    assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"in{suffix}").read_bytes()
    # 8 bits are those of the range.
    write_picture(tmp_path / "out.bmp", picture)
    expected = np.rint(values[..., :3] / white * 255)
    found = read_picture(tmp_path / "out.bmp").pixels
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(("low", "high"), [(0, 300), (-20, 300), (0, 1 / 64), (0, 1e30), (5, 9)])
def test_floats_of_any_range_are_stretched_and_come_back(tmp_path, random, low, high):
    values = (low + (high - low) * random.random((16, 20, 3))).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb")
    picture = read_picture(tmp_path / "in.tif")
    assert picture.pixels.min() >= 0 and picture.pixels.max() == 1
    write_picture(tmp_path / "out.tif", picture)
    found = read_picture(tmp_path / "out.tif", white=max(high, 1.0))
    scale = found.value_range.white if found.value_range else 1.0
    np.testing.assert_allclose(found.pixels * scale, values, atol=2e-7 * max(-low, high))


def test_floats_in_the_unit_range_are_as_they_are(tmp_path, random):
    values = random.random((16, 20, 3)).astype(np.float32)
    values[0, 0] = 255 / np.float32(254.9999)  # 1.0000004
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb")
    picture = read_picture(tmp_path / "in.tif")
    assert picture.value_range is None
    np.testing.assert_array_equal(picture.pixels, values)


@pytest.mark.parametrize("code", [281, 341])
def test_a_file_may_say_what_white_is(tmp_path, random, code):
    values = random.integers(0, 900, (16, 20)).astype(np.uint16)
    tags = [(code, "H", 1, 4095, True)]
    tifffile.imwrite(tmp_path / "in.tif", values, extratags=tags, metadata=None)
    assert read_picture(tmp_path / "in.tif").value_range.white == 4095
    assert read_picture(tmp_path / "in.tif", white=16383).value_range.white == 16383
    tags = [(code, "H", 1, 100, True)]  # it is wrong
    tifffile.imwrite(tmp_path / "in.tif", values, extratags=tags, metadata=None)
    assert read_picture(tmp_path / "in.tif").value_range.white == 1023


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_faulty_pixels_are_named_and_white_cuts_them_off(tmp_path, random, dtype):
    values = random.integers(0, 4096, (60, 70)).astype(dtype)
    values[3, 4] = 4095
    clean = values.copy()
    values[10, 10] = 65535
    tifffile.imwrite(tmp_path / "in.tif", values)
    with pytest.warns(CbsnWarning, match=r"1 of 4200 values .*: --white 4095 if they are faulty"):
        read_picture(tmp_path / "in.tif")
    with pytest.warns(CbsnWarning, match="1 values are beyond --white 4095, and are cut off"):
        picture = read_picture(tmp_path / "in.tif", white=4095)
    whole = 65535 if dtype is np.uint16 else 1
    rest = np.ones(values.shape, bool)
    rest[10, 10] = False
    expected = clean / 4095 * whole
    np.testing.assert_allclose(
        picture.color[rest, 0], expected[rest], atol=0.5 if whole > 1 else 1e-6
    )
    assert picture.color[10, 10, 0] == whole * (1 if whole > 1 else 1.5)


def test_noise_beyond_black_and_white_is_not_cut_off(tmp_path, random):
    values = (random.random((60, 70)) * 1.4 - 0.2).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_picture(tmp_path / "in.tif", white=1)
    np.testing.assert_array_equal(picture.color[..., 0], values)


def test_hidden_colours_do_not_decide_the_range(tmp_path, random):
    values = random.integers(0, 4096, (16, 20, 4)).astype(np.uint16)
    values[0, 0, :3] = 4095
    values[..., 3] = 65535
    values[8:, :, :] = [65535, 65535, 65535, 0]
    write_picture(tmp_path / "in.tif", Picture(values, "TIFF"))
    assert read_picture(tmp_path / "in.tif").value_range.white == 4095


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, random, value):
    values = random.random((16, 20)).astype(np.float32)
    values[3, 4] = value
    tifffile.imwrite(tmp_path / "in.tif", values)
    with pytest.raises(ImageError, match="not finite"):
        read_picture(tmp_path / "in.tif")


@pytest.mark.parametrize(("dtype", "nodata"), [(np.float32, -9999), (np.uint16, 65535)])
def test_pixels_without_data_are_refused(tmp_path, random, dtype, nodata):
    values = random.integers(1, 900, (16, 20)).astype(dtype)
    values[3, 4] = nodata
    tags = [(42113, "s", 0, str(nodata), True)]
    tifffile.imwrite(tmp_path / "in.tif", values, extratags=tags, metadata=None)
    with pytest.raises(ImageError, match="without data"):
        read_picture(tmp_path / "in.tif")


def test_the_largest_float_stands_for_no_data(tmp_path, random):
    values = random.random((16, 20)).astype(np.float32)
    values[3, 4] = -np.finfo(np.float32).max
    tifffile.imwrite(tmp_path / "in.tif", values)
    with pytest.raises(ImageError, match="without data"):
        read_picture(tmp_path / "in.tif")


def table_of_the_readme():
    """The rows of "Files, and what they keep", by format and column."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = text[text.index("| result | pixels |") :].splitlines()
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), lines)
    ]
    return {row[0].upper(): dict(zip(head[1:], row[1:], strict=True)) for row in rows}


TABLE = table_of_the_readme()


def test_the_readme_has_all_formats():
    assert TABLE.keys() == SUFFIX_OF_FORMAT.keys()


@pytest.mark.parametrize("format", TABLE)
def test_what_the_readme_says_of_formats(tmp_path, rgb, format):
    row = TABLE[format]
    path = tmp_path / f"out{SUFFIX_OF_FORMAT[format]}"
    save(tmp_path / "full.jpg", rgb)
    tags = [*GEO, (270, "s", 0, "a description", True)]
    tifffile.imwrite(tmp_path / "geo.tif", rgb, photometric="rgb", extratags=tags, metadata=None)
    full, geo = read_picture(tmp_path / "full.jpg"), read_picture(tmp_path / "geo.tif")

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

    write_picture(path, full)
    back = read_picture(path)
    found = {
        "colour profile": back.icc_profile == PROFILE,
        "EXIF": bool(back.exif),
        "XMP": back.xmp == XMP,
        "resolution": back.resolution is not None,
    }
    write_picture(path, geo)
    back = read_picture(path)
    exif = Image.Exif()
    exif.load(back.exif or b"")
    found["description"] = exif.get(270) == "a description"
    own = back.extras.entries if format == "TIFF" else ()
    found["geo tags"] = {code for code, *_ in GEO} <= {code for code, *_ in own}
    assert {name: "yes" if kept else "no" for name, kept in found.items()} == {
        name: row[name] for name in found
    }


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_gray_of_few_bits_is_transparent(tmp_path, random, bits):
    """As a decoder that knows nothing of Pillow has it."""
    levels = random.integers(0, 2**bits, (8, 16))
    levels[0] = 1
    rows = b"".join(b"\0" + _packed(row, bits) for row in levels)
    header = struct.pack(">IIBBBBB", 16, 8, bits, 0, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(">H", 1)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        checksum = zlib.crc32(kind + data)
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    (tmp_path / "a.png").write_bytes(content)
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.color[..., 0], levels * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(picture.alpha[..., 0] == 0, levels == 1)


def _packed(row, bits):
    digits = "".join(format(level, f"0{bits}b") for level in row)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_below_the_values_is_refused(tmp_path, random, dtype):
    values = random.integers(0, 60000, (16, 20)).astype(dtype)
    tifffile.imwrite(tmp_path / "in.tif", values)
    with pytest.raises(ImageError, match=r"do not fit\. Received: --white 4095"):
        read_picture(tmp_path / "in.tif", white=4095)
