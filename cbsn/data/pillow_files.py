"""PNG, JPEG, WebP and BMP files from and to pictures; `cbsn.data.image_io` is the door to all."""

import contextlib
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from cbsn.data.claims import refuse_claim
from cbsn.data.picture import EXIF_PREFIX, Picture
from cbsn.errors import ImageError
from cbsn.value_range import row_blocks

_size_limit = threading.Lock()


def read_with_pillow(path: Path) -> Picture:
    """Reads a picture with all that travels with it.

    Raises:
        ImageError: the file holds what a `Picture` cannot, or is none of Pillow's here.
        Exception: of damaged bytes, whatever the decoder raises.
    """
    with _open(path) as image:
        image.verify()  # checksums and the end of a PNG, which load() skips
    picture = _load(path)
    if _is_deep_png(path):  # of the 16 bits Pillow has kept 8; they have made room by now
        picture = picture.with_pixels(_with_channels(imagecodecs.png_decode(path.read_bytes())))
    return picture


def pillow_pixel_bytes(path: Path) -> int:
    """How many bytes the pixels of a file will take, by its header alone."""
    with _open(path) as image:
        return _pixel_bytes(path, image)


def write_with_pillow(file: BinaryIO, picture: Picture, format: str) -> None:
    """Writes a picture of 8 bits as `JPEG`, `WEBP` or `BMP`."""
    options = {
        "JPEG": {"quality": 95, "subsampling": "4:4:4"},
        "WEBP": {"lossless": True, "exact": True},
        "BMP": {},
    }[format]
    if picture.exif:
        options["exif"] = EXIF_PREFIX + picture.exif
    if picture.icc_profile:
        options["icc_profile"] = picture.icc_profile
    Image.fromarray(_planes(picture.pixels)).save(file, format, **options)


def write_png(file: BinaryIO, picture: Picture) -> None:
    """Writes a picture of 8 or 16 bits.

    Pillow writes no 16-bit colour, imagecodecs no metadata: so its chunks are put in here.
    """
    png = memoryview(imagecodecs.png_encode(_planes(picture.pixels)))
    header = 33  # the signature and the IHDR chunk, which stands first in every PNG
    file.write(png[:header])
    if picture.icc_profile:
        profile = b"ICC Profile\0\0" + zlib.compress(picture.icc_profile)
        file.write(_png_chunk(b"iCCP", profile))
    if picture.exif:
        file.write(_png_chunk(b"eXIf", picture.exif))
    file.write(png[header:])


@contextlib.contextmanager
def _without_pillow_size_limit() -> Iterator[None]:
    """Pillow warns from 89 megapixels on, which are an ordinary panorama."""
    with _size_limit:  # one for all threads
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open(path: Path) -> Image.Image:
    try:
        with _without_pillow_size_limit():
            return Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP"))
    except Image.UnidentifiedImageError:
        empty = path.stat().st_size == 0
        kind = "is empty" if empty else "is not a PNG, JPEG, TIFF, WebP or BMP picture"
        raise ImageError(f"{kind}, or its header is damaged.") from None


def _pixel_bytes(path: Path, image: Image.Image) -> int:
    channels = 4 if image.mode == "P" else len(image.getbands())
    return image.width * image.height * channels * (2 if _is_deep_png(path) else 1)


def _is_deep_png(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(25)
    return start.startswith(b"\x89PNG") and start[24:] == b"\x10"  # the bit depth


def _load(path: Path) -> Picture:
    """The picture as Pillow has it; of a PNG file of 16 bits without the pixels."""
    with _open(path) as image:
        refuse_claim(path, image.width, image.height, _pixel_bytes(path, image))
        # The further frames of an MPO are previews or the other eye's view.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"is an animation of {image.n_frames} frames; save them one by one.")
        image.load()
        exif = image.info.get("exif")
        return Picture(
            pixels=np.empty((0, 0, 1), np.uint8) if _is_deep_png(path) else _pixels(image),
            format="JPEG" if image.format == "MPO" else image.format,
            icc_profile=image.info.get("icc_profile"),
            exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
        )


def _pixels(image: Image.Image) -> np.ndarray:
    transparent = "transparency" in image.info
    if image.mode == "P":
        image = image.convert("RGBA" if transparent else "RGB")
    elif image.mode == "1" or (image.mode == "L" and transparent):
        image = image.convert("LA" if transparent else "L")
    elif image.mode == "RGB" and transparent:
        image = image.convert("RGBA")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"is a {image.mode} picture; convert it to gray or RGB.")
    pixels = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for rows in row_blocks(pixels):  # all at once, Pillow would make two more copies on the way
        block = image.crop((0, rows.start, image.width, rows.stop))
        pixels[rows] = _with_channels(np.asarray(block))
    return pixels


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    """The pixels as pictures have them: gray is [H, W, 1]."""
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _planes(pixels: np.ndarray) -> np.ndarray:
    """The pixels as encoders want them: gray is [H, W]."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
