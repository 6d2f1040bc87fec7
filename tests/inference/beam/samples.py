"""Pictures that are denoised, and pictures that cannot be."""

import struct
import zlib

import numpy as np
from PIL import Image

from cbsn.images.image_files import Picture, write_picture

PROFILE = bytes(range(256)) * 3

GOOD = ("alpha.png", "deep.png", "gray.tif", "photo.jpg", "rgb.png", "sub/rgb.png")
"""What `save_good` saves."""

REASONS = {
    "bomb.png": "its pixels would take 2,700 MB, and the limit is 300 MB",
    "cmyk.jpg": "is a CMYK picture",
    "cut.png": "is cut off: its IEND chunk is missing",
    "empty.png": "is empty",
    "nan.tif": "holds values that are not finite",
    "text.png": "is not a PNG, JPEG, TIFF, WebP or BMP picture",
}
"""What `save_bad` saves, and what is said of each."""


def save_good(folder):
    (folder / "sub").mkdir()
    random = np.random.default_rng(0)

    def save(name, channels, dtype=np.uint8):
        pixels = random.integers(np.iinfo(dtype).max, size=(17, 23, channels), dtype=dtype)
        write_picture(folder / name, Picture(pixels, "", PROFILE, exif()))

    save("rgb.png", 3)
    save("sub/rgb.png", 3)
    save("alpha.png", 4)
    save("deep.png", 3, np.uint16)
    save("gray.tif", 1, np.uint16)
    save("photo.jpg", 3)


def exif():
    tags = Image.Exif()
    tags[274] = 6
    return tags.tobytes().removeprefix(b"Exif\0\0")


def save_bad(folder):
    whole = (folder / "rgb.png").read_bytes()
    (folder / "bomb.png").write_bytes(decompression_bomb())
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    Image.new("CMYK", (8, 8)).save(folder / "cmyk.jpg")
    floats = np.full((8, 8, 1), 0.5, np.float32)
    floats[3, 3] = np.nan
    write_picture(folder / "nan.tif", Picture(floats, "TIFF"))


def decompression_bomb():
    """A PNG file of some bytes that claims 900 megapixels."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
