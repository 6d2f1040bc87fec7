"""What becomes of all kinds of EXIF data."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from cbsn.images.exif import EXIF, GPS, Value, read_block, write_block
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Picture

POINTERS = (0x8769, 0x8825, 0xA005)
TRUNK = {
    270: "A description",
    271: "Make",
    272: "Model",
    274: 6,
    282: IFDRational(300),
    283: IFDRational(300),
    296: 2,
    305: "Firmware 1.0",
    306: "2024:01:02 03:04:05",
    315: "An artist",
    318: (IFDRational(3127, 10000), IFDRational(329, 1000)),
    33432: "(c) 2024",
    18246: 4,  # a rating
    40091: "Title\0".encode("utf-16-le"),
    40093: "Author\0".encode("utf-16-le"),
}
CAMERA = {
    "ExposureTime": IFDRational(1, 250),
    "FNumber": IFDRational(28, 10),
    "ISOSpeedRatings": 1600,
    "ExifVersion": b"0232",
    "DateTimeOriginal": "2024:01:02 03:04:05",
    "OffsetTime": "+02:00",
    "OffsetTimeOriginal": "+02:00",
    "SubsecTime": "12",
    "SubsecTimeOriginal": "345",
    "ExposureBiasValue": IFDRational(-1, 3),
    "Flash": 16,
    "FocalLength": IFDRational(50),
    "MakerNote": b"Apple iOS\0\0\1MM" + bytes(range(200)),
    "UserComment": b"ASCII\0\0\0a comment",
    "BodySerialNumber": "SN 123",
    "LensSpecification": (IFDRational(24), IFDRational(70), IFDRational(28, 10), IFDRational(4)),
    "LensModel": "Lens 24-70",
}
PLACE = {
    "GPSLatitudeRef": "N",
    "GPSLatitude": (IFDRational(48), IFDRational(8), IFDRational(305, 10)),
    "GPSAltitudeRef": b"\0",
    "GPSAltitude": IFDRational(5191, 10),
    "GPSDateStamp": "2024:01:02",
}
INTEROP = {1: "R98", 2: b"0100"}


def block(order=">", **camera):
    """An EXIF block with everything above."""
    exif = Image.Exif()
    exif.endian = order
    exif.update(TRUNK)
    by_name = {name: code for code, name in ExifTags.TAGS.items()}
    exif.get_ifd(EXIF).update(
        {by_name.get(name, name): each for name, each in (CAMERA | camera).items()}
    )
    exif.get_ifd(EXIF)[0xA005] = INTEROP
    by_name = {name: code for code, name in ExifTags.GPSTAGS.items()}
    exif.get_ifd(GPS).update({by_name[name]: value for name, value in PLACE.items()})
    return exif.tobytes().removeprefix(b"Exif\0\0")


def by_pillow(exif):
    """All tags of `Image.Exif`, by directory and code, but for pointers."""
    directories = {0: exif, **{code: exif.get_ifd(code) for code in POINTERS}}
    return {
        (directory, code): value
        for directory, tags in directories.items()
        for code, value in tags.items()
        if code not in POINTERS
    }


@pytest.fixture
def rich(tmp_path, rgb):
    """Reads a picture of a format whose EXIF data hold everything, by Pillow."""

    def make(suffix, order=">", **camera):
        path = tmp_path / f"rich{suffix}"
        Image.fromarray(rgb).save(path, exif=b"Exif\0\0" + block(order, **camera))
        return read_picture(path)

    return make


@pytest.mark.parametrize("target", [".tif", ".png", ".jpg", ".webp"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_tag_stays(tmp_path, rich, source, target, order):
    picture = rich(source, order)
    assert write_picture(tmp_path / f"out{target}", picture) == []
    with Image.open(tmp_path / f"rich{source}") as before:
        expected = by_pillow(before.getexif())
    assert len(expected) == len(TRUNK) + len(CAMERA) + len(PLACE) + len(INTEROP)
    with Image.open(tmp_path / f"out{target}") as after:
        found = by_pillow(after.getexif())
    assert {key: found.get(key) for key in expected} == expected
    again = Image.Exif()
    again.load(read_picture(tmp_path / f"out{target}").exif)
    assert by_pillow(again) == expected


def test_tifffile_reads_the_tags_of_a_tiff(tmp_path, rich):
    write_picture(tmp_path / "out.tif", rich(".jpg"))
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        tags = file.pages[0].tags
        camera, place = tags.valueof(EXIF), tags.valueof(GPS)
        texts = {code: value for code, value in TRUNK.items() if isinstance(value, str)}
        assert {code: tags.valueof(code) for code in texts} == texts
        assert [tags.valueof(code) for code in (274, 282, 296, 18246)] == [6, (300, 1), 2, 4]
        assert tags.valueof(318) == (3127, 10000, 329, 1000)
    for expected, found in ((CAMERA, camera), (PLACE, place)):
        texts = {name: value for name, value in expected.items() if isinstance(value, str)}
        assert {name: found[name] for name in texts} == texts
    assert (camera["ExposureTime"], camera["FNumber"]) == ((1, 250), (14, 5))
    assert camera["MakerNote"] == CAMERA["MakerNote"]
    assert place["GPSLatitude"] == (48, 1, 8, 1, 61, 2)


@pytest.mark.parametrize("target", [".tif", ".png", ".jpg", ".webp"])
def test_texts_stay_that_are_not_ascii(tmp_path, rgb, target):
    artist, owner = (Value(2, f"{text}\0".encode()) for text in ("Jürgen 写真", "Привет"))
    tree = {315: artist, EXIF: {0xA430: owner}}
    write_picture(tmp_path / "a.tif", Picture(rgb, "PNG", exif=write_block(tree)))
    write_picture(tmp_path / f"b{target}", read_picture(tmp_path / "a.tif"))
    assert read_block(read_picture(tmp_path / f"b{target}").exif) == tree


@pytest.mark.parametrize("start", [b"Apple iOS\0", b"Nikon\0\2", b"SONY DSC", b"\x2a\0\1\0"])
def test_camera_data_that_may_point_elsewhere_are_named(tmp_path, rich, start):
    picture = rich(".jpg", MakerNote=start + bytes(20))
    assert write_picture(tmp_path / "out.png", picture) == []  # the block stays as it is
    losses = write_picture(tmp_path / "out.tif", picture)
    assert ["MakerNote" in loss for loss in losses] == [True] * start.startswith((b"SONY", b"*"))
    assert write_picture(tmp_path / "out.jpg", read_picture(tmp_path / "out.tif")) == losses
    note = read_block(read_picture(tmp_path / "out.jpg").exif)[EXIF][0x927C]
    assert note.content == start + bytes(20)


def test_a_tiff_without_exif_data_has_no_block(tmp_path, rgb):
    tifffile.imwrite(tmp_path / "plain.tif", rgb, photometric="rgb", software=False)
    assert read_picture(tmp_path / "plain.tif").exif is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_damage_costs_only_what_is_damaged(order):
    whole = read_block(block(order))
    content = block(order)
    assert read_block(content[:-1])[271] == whole[271]
    entry = struct.pack(f"{order}HHI", 271, 2, 5)
    for damage in ((271, 2, 2**32 - 1), (271, 99, 5), (271, 2, 0)):
        damaged = content.replace(entry, struct.pack(f"{order}HHI", *damage))
        assert read_block(damaged) == {code: whole[code] for code in whole if code != 271}
    for nothing in (None, b"", b"II", b"II*\0\xff\xff\xff\xff", b"XX*\0\x08\0\0\0", bytes(99)):
        assert read_block(nothing) == {}


def test_no_damage_of_exif_data_stops_a_picture(tmp_path, rgb):
    random = np.random.default_rng(0)
    original = block()
    for _ in range(100):
        damaged = bytearray(original)
        for place in random.integers(min(600, len(damaged)), size=3):
            damaged[place] = random.integers(256)
        del damaged[random.integers(8, 4 * len(damaged)) :]
        write_picture(tmp_path / "a.tif", Picture(rgb, "JPEG", exif=bytes(damaged)))
        back = read_picture(tmp_path / "a.tif")
        write_picture(tmp_path / "a.png", back)
        before, after = (read_block(each) for each in (bytes(damaged), back.exif))
        assert [before.get(EXIF), before.get(GPS)] == [after.get(EXIF), after.get(GPS)]
