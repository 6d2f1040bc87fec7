import io
import struct

import pytest
from PIL import Image

from cbsn.errors import ImageError
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.jpeg import Segments

CAPTION = b"\x1c\x02\x78\0\x07caption"
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(CAPTION)) + CAPTION + b"\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + bytes(8) + b"<more/>"


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


@pytest.fixture
def jpeg(rgb):
    """The bytes of a JPEG file with these segments after its start."""

    def make(*segments):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG")
        content = buffer.getvalue()
        return content[:2] + b"".join(segments) + content[2:]

    return make


@pytest.mark.parametrize(
    ("segments", "name"),
    [
        ([(0xED, IPTC)], "IPTC data of JPEG"),
        ([(0xED, b"Photoshop 3.0\x008BIM\x04\x0d\0\0\0\0\0\x04\0\0\0\x1e")], "data of Photoshop"),
        ([(0xE1, EXTENDED_XMP), (0xE1, EXTENDED_XMP)], "extended XMP"),
        ([(0xFE, b"one"), (0xFE, b"two")], "comment"),
        ([(0xFE, b"one"), (0xED, IPTC)], "comment, IPTC data of JPEG"),
    ],
)
def test_what_describes_a_picture_goes_to_a_jpeg(tmp_path, jpeg, segments, name):
    content = jpeg(*(segment(*each) for each in segments))
    (tmp_path / "in.jpg").write_bytes(content)
    picture = read_picture(tmp_path / "in.jpg")
    assert write_picture(tmp_path / "out.jpg", picture) == []
    written = (tmp_path / "out.jpg").read_bytes()
    assert all(segment(*each) in written for each in segments)
    assert read_picture(tmp_path / "out.jpg").extras == picture.extras
    for suffix, format in ((".png", "PNG"), (".tif", "TIFF"), (".webp", "WEBP"), (".bmp", "BMP")):
        losses = write_picture(tmp_path / f"out{suffix}", picture)
        assert f"{format} holds no {name}: dropped" in losses


def test_what_no_result_holds_is_told(tmp_path, jpeg):
    content = jpeg(
        segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x08jumb"),
        segment(0xE5, b"private"),
        segment(0xEC, b"Ducky\0\1\0\4\0\0\0\x50\0\0"),  # the quality in Photoshop
    )
    (tmp_path / "in.jpg").write_bytes(content)
    losses = write_picture(tmp_path / "out.jpg", read_picture(tmp_path / "in.jpg"))
    names = "JUMBF data (such as content credentials), data in APP5"
    assert losses == [f"the file also held {names}: dropped"]


@pytest.mark.parametrize("frames", [1, 2])
def test_bytes_after_the_end_are_told_but_not_padding(tmp_path, rgb, frames):
    """As of motion photos, also such with a map for HDR."""
    path, image = tmp_path / "in.jpg", Image.fromarray(rgb)
    options = {"save_all": True, "append_images": [image]} if frames == 2 else {}
    image.save(path, "MPO" if options else "JPEG", **options)
    content = path.read_bytes()
    path.write_bytes(content + bytes(7))
    assert "after its end" not in read_picture(path).others
    path.write_bytes(content + bytes(7) + b"\0\0\0\x10ftypmp42" + b"\xff\xd9" * 600)
    (loss,) = write_picture(tmp_path / "out.jpg", read_picture(path))
    assert "1,209 bytes after its end (such as a video)" in loss
    assert ("another picture" in loss) == (frames == 2)


def test_a_missing_end_is_an_error_also_after_a_thumbnail(tmp_path, jpeg):
    content = jpeg(segment(0xE1, b"Exif\0\0" + b"\xff\xd8\xff\xd9"))
    (tmp_path / "in.jpg").write_bytes(content[:-2] + bytes(100))
    with pytest.raises(ImageError, match="its end marker is missing"):
        read_picture(tmp_path / "in.jpg")


def test_long_comments_of_other_formats_are_divided(tmp_path, rgb):
    text = bytes(range(32, 127)) * 800
    Image.fromarray(rgb).save(tmp_path / "in.gif", comment=text)
    picture = read_picture(tmp_path / "in.gif")
    assert picture.extras == Segments((("COM", text),))
    assert write_picture(tmp_path / "out.jpg", picture) == []
    back = read_picture(tmp_path / "out.jpg").extras
    assert b"".join(content for _, content in back.entries) == text


@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_files_of_more_than_8_bits_say_what_they_are(tmp_path, jpeg, bits):
    content = bytearray(jpeg(segment(0xE1, b"Exif\0\0" + b"\xff\xc0\0\x11\x08")))
    place = content.index(b"\xff\xc0\0\x11\x08\0")
    content[place + 4] = bits
    (tmp_path / "in.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=rf"in\.jpg: is a JPEG picture of {bits} bits: convert it"):
        read_picture(tmp_path / "in.jpg")
    (tmp_path / "in.jpg").write_bytes(content[:place])
    with pytest.raises(ImageError, match=r"header is damaged|cut off"):
        read_picture(tmp_path / "in.jpg")
