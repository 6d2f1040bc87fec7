"""Faults that the fuzzer has found, each made anew."""

import dataclasses
import io
import json
import struct

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.benchmark_files import open_dnd
from cbsn.data.manifest import Manifest, Shard
from cbsn.data.records import PatchRecords
from cbsn.errors import DataError, ImageError
from cbsn.images.image_files import Picture, read_header, read_picture, write_picture
from tests.fuzz.mutate import png_chunks, png_of

GRAY = np.random.default_rng(0).integers(0, 2**16, (12, 9)).astype(np.uint16)


def with_tag(path, code, kind, count):
    """Alters type and count of an entry of a little-endian TIFF's first directory."""
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags[code].offset
    content = bytearray(path.read_bytes())
    struct.pack_into("<HI", content, place + 2, kind, count)
    path.write_bytes(content)


def next_pages(path):
    """Places in a TIFF's bytes that say where its pages' next ones are."""
    with tifffile.TiffFile(path) as file:
        return [(page.offset, page.offset + 2 + 12 * len(page.tags)) for page in file.pages]


@pytest.mark.parametrize("reduced", [False, True])
def test_pages_in_a_circle(tmp_path, reduced):
    """Tifffile follows them for ever."""
    path = tmp_path / "p.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(2):
            file.write(GRAY, subfiletype=int(reduced), metadata=None)
    content = bytearray(path.read_bytes())
    offset, place = next_pages(path)[1]
    struct.pack_into("<I", content, place, offset)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="is circular"):
        read_picture(path)
    assert read_header(path).pixel_bytes == (0 if reduced else GRAY.nbytes)


@pytest.mark.parametrize("imagej", [False, True])
def test_a_stack_that_is_cut_off_is_no_picture(tmp_path, imagej):
    """Its first page was taken for all of it."""
    path = tmp_path / "p.tif"
    if imagej:
        tifffile.imwrite(path, np.stack([GRAY, GRAY]), imagej=True)
        path.write_bytes(path.read_bytes()[: -GRAY.nbytes // 2])
    else:
        with tifffile.TiffWriter(path) as file:
            file.write(GRAY, metadata=None)
            file.write(GRAY, metadata=None)
        path.write_bytes(path.read_bytes()[: next_pages(path)[1][0]])
    with pytest.raises(ImageError, match=r"2 pages|cut off"):
        read_picture(path)


def test_a_profile_that_is_no_bytes_is_none(tmp_path):
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, GRAY, iccprofile=b"12345678", metadata=None)
    assert read_picture(path).icc_profile == b"12345678"
    with_tag(path, 34675, kind=3, count=1)
    assert read_picture(path).icc_profile is None


@pytest.mark.parametrize("alpha", [np.nan, np.inf, -1, 300])
def test_alpha_beyond_its_range(tmp_path, alpha):
    path = tmp_path / "p.tif"
    pixels = np.full((5, 6, 4), 0.5, np.float32)
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, pixels, **options)
    assert read_picture(path).alpha.max() == 0.5
    pixels[2, 3, 3] = alpha
    tifffile.imwrite(path, pixels, **options)
    with pytest.raises(ImageError, match="alpha channel with values from"):
        read_picture(path)


def test_a_png_begins_with_its_header(tmp_path):
    """What stood in the place of the bits was taken for them."""
    path = tmp_path / "p.png"
    chunks = png_chunks(imagecodecs.png_encode(GRAY))
    path.write_bytes(png_of([(b"tEXt", b"a\0b"), *chunks]))
    with pytest.raises(ImageError, match="not begin with an IHDR chunk"):
        read_picture(path)
    assert read_header(path).pixel_bytes == 0


def test_what_a_png_takes_whatever_its_texts_are(tmp_path):
    path = tmp_path / "p.png"
    chunks = png_chunks(imagecodecs.png_encode(GRAY))
    path.write_bytes(png_of([chunks[0], (b"iCCP", b"a\0\0damaged"), *chunks[1:]]))
    assert read_header(path).pixel_bytes == read_picture(path).pixels.nbytes


def test_a_small_jpeg_whose_end_is_zeros(tmp_path):
    """The zeros were read as pixels."""
    path = tmp_path / "p.jpg"
    exif = Image.Exif()
    exif[271] = "a camera \xff\xd9"
    file = io.BytesIO()
    Image.fromarray((GRAY >> 8).astype(np.uint8)).save(file, "JPEG", exif=exif, quality=95)
    content = file.getvalue()
    path.write_bytes(content + bytes(300))
    assert read_picture(path).pixels.shape == (12, 9, 1)
    path.write_bytes(content[:-20] + bytes(320))
    with pytest.raises(ImageError, match="is cut off"):
        read_picture(path)


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (18, 13), (64, 64), (16, 24), (90, 160), (300, 211)])
def test_the_size_of_a_jpeg_xl(tmp_path, size, container):
    path = tmp_path / "p.jxl"
    pixels = np.zeros((*size, 3), np.uint8)
    path.write_bytes(imagecodecs.jpegxl_encode(pixels, usecontainer=container))
    assert read_header(path)[:3] == (*size[::-1], size[0] * size[1] * 4)


def test_a_jpeg_xl_that_claims_too_much(tmp_path):
    """Its decoder takes the memory at once."""
    path = tmp_path / "p.jxl"
    side = 2**20 - 1  # in 30 bits
    bits = (3 << 1) | (side << 3) | (1 << 33)  # not small; the height; square
    path.write_bytes(b"\xff\x0a" + bits.to_bytes(8, "little") + bytes(40))
    with pytest.raises(ImageError, match="claims 1048576 x 1048576 pixels"):
        read_picture(path)
    path.write_bytes(b"\xff\x0a")
    with pytest.raises(ImageError, match="has no pixels"):
        read_picture(path)


def test_a_box_that_claims_too_much(tmp_path):
    """Pillow asks for the memory, which is there on no machine."""
    path = tmp_path / "p.jp2"
    file = io.BytesIO()
    Image.fromarray((GRAY >> 8).astype(np.uint8)).save(file, "JPEG2000")
    content = file.getvalue()
    place = content.index(b"jp2h") - 4
    large = struct.pack(">I4sQ", 1, b"jp2h", 2**62)
    path.write_bytes(content[:place] + large + content[place + 8 :])
    with pytest.raises(ImageError, match="damaged"):
        read_picture(path)


def test_an_empty_part_of_an_hdf5_file(tmp_path):
    """HDF5 ends the process where a filter is to undo it."""
    values = np.zeros((3, 6, 6), np.float32)
    for name, options in (("good", {"compression": "gzip"}), ("sum", {"fletcher32": True})):
        with h5py.File(tmp_path / f"{name}.mat", "w") as file:
            file.create_dataset("InoisySRGB", data=values, chunks=(3, 3, 3), **options)
    with open_dnd(tmp_path / "good.mat") as noisy:
        assert noisy[()].shape == (3, 6, 6)
    with pytest.raises(ImageError, match="MATLAB never uses"), open_dnd(tmp_path / "sum.mat"):
        pass
    with h5py.File(tmp_path / "good.mat") as file:
        size = file["InoisySRGB"].id.get_chunk_info(0).size
    content = (tmp_path / "good.mat").read_bytes()
    entry = struct.pack("<II", size, 0) + bytes(32)  # with the filters left out, and the place
    assert content.count(entry) == 1
    (tmp_path / "good.mat").write_bytes(content.replace(entry, bytes(len(entry))))
    with pytest.raises(ImageError, match="no readable"), open_dnd(tmp_path / "good.mat"):
        pass


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("pieces", [{"rowsperstrip": 3}, {"tile": (16, 16)}])
@pytest.mark.parametrize("what", ["Offsets", "ByteCounts", "ImageLength"])
def test_a_tiff_without_some_of_its_pieces(tmp_path, compression, pieces, what):
    """Tifffile took what is not there for black."""
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, np.tile(GRAY, (3, 3)), compression=compression, **pieces)
    assert read_picture(path).pixels.shape == (36, 27, 1)
    with tifffile.TiffFile(path, mode="r+") as file:
        kind = "Tile" if "tile" in pieces else "Strip"
        tag = file.pages[0].tags[what if what == "ImageLength" else kind + what]
        tag.overwrite(90 if what == "ImageLength" else (0, *tag.value[1:]))
    with pytest.raises(ImageError, match=r"lacks \d+ of its strips or tiles"):
        read_picture(path)


def test_a_png_whose_first_bytes_are_damaged(tmp_path):
    """They were mended where there were texts, and else not."""
    chunks = png_chunks(imagecodecs.png_encode(GRAY))
    content = png_of([chunks[0], (b"tEXt", b"a\0b"), *chunks[1:]])
    (tmp_path / "p.png").write_bytes(content.replace(b"\r\n", b"\n", 1))
    with pytest.raises(ImageError, match="as binary data"):
        read_picture(tmp_path / "p.png")
    (tmp_path / "p.png").write_bytes(content.replace(b"\r\n\x1a", b"\n\n\x1a", 1))
    with pytest.raises(ImageError, match="as binary data"):
        read_picture(tmp_path / "p.png")


def test_a_png_with_two_headers(tmp_path):
    """Of these one decoder takes the first, and another one the last."""
    header, *chunks = png_chunks(imagecodecs.png_encode(GRAY))
    (tmp_path / "p.png").write_bytes(png_of([header, header, *chunks]))
    with pytest.raises(ImageError, match="two IHDR chunks"):
        read_picture(tmp_path / "p.png")


@pytest.mark.parametrize(("suffix", "most"), [(".jpg", 2.58e6), (".bmp", 2.14e9)])
def test_a_resolution_that_a_format_cannot_hold(tmp_path, suffix, most):
    """Microscopes have such; Pillow fails, or writes another one."""
    path = tmp_path / f"p{suffix}"
    pixels = (GRAY[..., None] >> 8).astype(np.uint8)
    for resolution, is_lost in ((most, False), (1.01 * most, True)):
        losses = write_picture(path, Picture(pixels, "PNG", resolution=(100.0, resolution)))
        assert ["resolution" in loss for loss in losses] == [True] * is_lost
        found = read_picture(path).resolution
        assert is_lost or found[1] == pytest.approx(resolution, rel=1e-3)


def test_damaged_exif_data_do_not_stop_a_picture(tmp_path):
    """Data that Pillow reads but cannot write made the whole picture fail."""
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 30.0)})
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    text = struct.pack(">HHI", 1, 2, 2)
    assert block.count(text) == 1
    damaged = block.replace(text, struct.pack(">HHI", 0, 2, 2))  # a text for a version
    path = tmp_path / "p.tif"
    write_picture(path, Picture(GRAY[..., None], "TIFF", exif=damaged))
    found = Image.Exif()
    found.load(read_picture(path).exif)
    assert found.get_ifd(0x8825) == {0: "N", 2: (48, 8, 30)}


def test_what_an_encoder_refuses_is_an_image_error(tmp_path):
    """Libpng's largest pictures have a million rows."""
    picture = Picture(np.zeros((1_000_001, 1, 1), np.uint8), "TIFF")
    with pytest.raises(ImageError, match="cannot be written as PNG"):
        write_picture(tmp_path / "p.png", picture)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("fields", [{"patch_size": 2**31}, {"shard": "\ud800"}, {"shard": "a\0"}])
def test_a_manifest_that_no_file_system_has(tmp_path, fields):
    """Sizes of records that have no number, and names that have no bytes."""
    shard = Shard(fields.get("shard", "a.tfrecords"), 0, 0, "", 0)
    manifest = Manifest("folder", ".", fields.get("patch_size", 8), 8, 0, "uint8", (), (shard,))
    content = json.dumps({"format": "cbsn-patches", "version": 1, **dataclasses.asdict(manifest)})
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"its (patch_size|name) is"):
        PatchRecords.open(tmp_path)
