"""Reading and writing files with Pillow; `cbsn.images.image_files` is the entry for all formats."""

import contextlib
import dataclasses
import threading
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from cbsn.errors import ImageError
from cbsn.images.boxes import avif_metadata, jpeg_2000_metadata
from cbsn.images.heif import to_16_bits
from cbsn.images.jpeg import COMMENT, Segments, bytes_after_end, jpeg_bits, sort_segments
from cbsn.images.jpeg_xl import JPEG_XL_STARTS, jpeg_xl_header, jpeg_xl_metadata
from cbsn.images.picture import EXIF_PREFIX, INCH, Header, Picture, squeezed
from cbsn.images.png import SIGNATURE, PngFile, inspect_png, png_header
from cbsn.value_range import ValueRange, row_blocks

# Formats that are read if the installed Pillow supports them.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000")
# Formats that may have more than 8 bits, of which Pillow keeps 8.
_DEEP_DECODERS = {"AVIF": "avif_decode", "JPEG2000": "jpeg2k_decode"}
_JPEG_HEADERS = 2**20  # bytes that reach the frame header of most JPEG files
_METRES = {1: INCH, 2: 0.01}  # of the units of JFIF
_ANIMATION = "is an animation of {} frames; save them one by one."

_size_limit = threading.Lock()


def read_with_pillow(path: Path, start: bytes) -> Picture:
    """Reads a file that starts with these 26 bytes; a damaged file may raise any error.

    Raises ImageError if it holds what a `Picture` cannot, or if no installed library reads it.
    """
    if start.startswith(JPEG_XL_STARTS):
        jpeg_xl_header(path).check(path)
        content = path.read_bytes()
        pixels = _checked(imagecodecs.jpegxl_decode(content))
        return Picture(pixels, "JPEG XL", **jpeg_xl_metadata(content))
    png = inspect_png(path) if start.startswith(b"\x89PNG") else None
    if png is None:
        with _open(path) as image:
            image.verify()
    picture = _load(path, png)
    # Pillow has released its memory by now.
    if png and png.depth == 16:
        content = png.pixels_only.getvalue() if png.pixels_only else path.read_bytes()
        return picture.with_pixels(np.atleast_3d(imagecodecs.png_decode(content)))
    if picture.format in _DEEP_DECODERS:
        content = path.read_bytes()
        if picture.format == "JPEG2000":
            picture = dataclasses.replace(picture, **jpeg_2000_metadata(content))
        elif not picture.icc_profile:
            picture = dataclasses.replace(picture, **avif_metadata(content))
        with contextlib.suppress(AttributeError, ValueError, RuntimeError):
            pixels = getattr(imagecodecs, _DEEP_DECODERS[picture.format])(content)
            if pixels.dtype == np.uint16:  # of JPEG 2000, the values show how many bits they have
                picture = picture.with_pixels(_checked(pixels))
                if picture.format == "AVIF":
                    is_12_bits = content[content.find(b"av1C") + 6] & 0x20
                    to_16_bits(picture.pixels, 12 if is_12_bits else 10)
                    picture = dataclasses.replace(picture, value_range=ValueRange(0.0, 65535.0))
    return picture


def pillow_header(path: Path, start: bytes) -> Header:
    """Returns the header of a file that starts with these 26 bytes."""
    if start.startswith(JPEG_XL_STARTS):
        return jpeg_xl_header(path)
    if start.startswith(SIGNATURE):  # Pillow reads all chunks, and may reject some
        return png_header(start)
    with _open(path) as image:
        return _header_of(image)


def write_with_pillow(file: BinaryIO, picture: Picture, *, jpeg_quality: int) -> None:
    """Writes an 8-bit picture whose format is `JPEG`, `WEBP` or `BMP`."""
    options: dict[str, Any] = {"icc_profile": picture.icc_profile, "xmp": picture.xmp}
    options["exif"] = picture.exif and EXIF_PREFIX + picture.exif
    options["dpi"] = picture.resolution and tuple(each * INCH for each in picture.resolution)
    if picture.format == "JPEG":
        options["extra"] = picture.extras and picture.extras.encode()
        options |= {"quality": jpeg_quality, "subsampling": "4:4:4"}
    if picture.format == "WEBP":
        options |= {"lossless": True, "exact": True}
    given = {name: value for name, value in options.items() if value}
    Image.fromarray(squeezed(picture.pixels)).save(file, picture.format, **given)


def _open(path: Path, content: BinaryIO | None = None) -> Image.Image:
    """Opens a file, or the given part of its content instead."""
    Image.init()
    formats = [format for format in _FORMATS if format in Image.OPEN]
    with _size_limit:  # Pillow warns above 89 megapixels, an ordinary panorama
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(content or path, formats=formats)
        except Image.UnidentifiedImageError:
            raise ImageError(_unknown(path)) from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _unknown(path: Path) -> str:
    """Returns the reason why a file cannot be read."""
    with path.open("rb") as file:
        start = file.read(_JPEG_HEADERS)
    if start.startswith(b"\xff\xd8") and (bits := jpeg_bits(start)) not in (None, 8):
        return f"is a JPEG picture of {bits} bits: convert it to a PNG or TIFF file of 16 bits."
    if start[4:12] in (b"ftypavif", b"ftypavis") and "AVIF" not in Image.OPEN:
        return "is an AVIF picture. To read these: pip install 'pillow>=11.3'"
    what = "is not a PNG, JPEG, TIFF, WebP or BMP picture" if start else "is empty"
    return f"{what}, or its header is damaged."


def _header_of(image: Image.Image, sample_bytes: int = 1) -> Header:
    channels = 4 if image.mode == "P" else len(image.getbands())
    return Header(*image.size, image.width * image.height * channels * sample_bytes)


def _load(path: Path, png: PngFile | None) -> Picture:
    """Loads a picture with Pillow; without the pixels if it is a 16-bit PNG file."""
    is_deep = png is not None and png.depth == 16
    with _open(path, png.pixels_only if png else None) as image:
        is_jpeg = image.format in ("JPEG", "MPO")
        _header_of(image, 2 if is_deep else 1).check(path)
        frames, others = getattr(image, "n_frames", 1), []
        if image.format == "MPO" and frames > 1:
            pictures = "another picture" if frames == 2 else f"{frames - 1} other pictures"
            others.append(f"{pictures} (a preview, a map for HDR, or another view)")
            frames = 1
        if frames > 1:
            raise ImageError(_ANIMATION.format(frames))
        image.load()
        info = image.info
        extras: Any = png.chunks if png else None
        if is_jpeg:
            if (rest := bytes_after_end(path)) is None:
                raise ImageError("is cut off: its end marker is missing.")
            extras, names = sort_segments(getattr(image, "applist", ()))
            others = [*names, *others]
            if rest:
                others.insert(0, f"{rest:,} bytes after its end (such as a video)")
        elif not png and info.get("comment"):
            extras = Segments(((COMMENT, info["comment"]),))
        if png and png.depth in (2, 4) and isinstance(info.get("transparency"), int):
            # Pillow scales the pixels to 8 bits, but not the transparent value.
            info["transparency"] *= 255 // (2**png.depth - 1)
        exif, xmp = info.get("exif"), info.get("xmp")
        return Picture(
            pixels=np.empty((0, 0, 1), np.uint8) if is_deep else _pixels(image),
            format="JPEG" if is_jpeg else str(image.format),
            icc_profile=info.get("icc_profile") or None,
            exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
            xmp=png.xmp if png else xmp if isinstance(xmp, bytes) and xmp else None,
            resolution=png.resolution if png else _resolution(info, is_jpeg),
            extras=extras,
            others=", ".join(others),
        )


def _resolution(info: dict[Any, Any], is_jpeg: bool) -> tuple[float, float] | None:
    """Returns the file's own pixels per metre; a resolution only in EXIF data stays there."""
    density = info.get("jfif_density" if is_jpeg else "dpi")
    metres = _METRES.get(info.get("jfif_unit", 0)) if is_jpeg else INCH
    if not density or not metres or not all(0 < each < 1e9 for each in density):
        return None
    return float(density[0]) / metres, float(density[1]) / metres


def _pixels(image: Image.Image) -> np.ndarray:
    mode = {"P": "RGB", "1": "L"}.get(image.mode, image.mode)
    if mode in ("L", "RGB") and "transparency" in image.info:
        mode += "A"
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"is a {mode} picture; convert it to gray or RGB.")
    if mode != image.mode:
        image = image.convert(mode)
    pixels = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for rows in row_blocks(pixels):  # all at once, Pillow would make two more copies
        block = image.crop((0, rows.start, image.width, rows.stop))
        pixels[rows] = np.atleast_3d(np.asarray(block))
    return pixels


def _checked(pixels: np.ndarray) -> np.ndarray:
    """Returns a decoder's array as a picture's pixels; ImageError if it cannot be one."""
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    if pixels.ndim == 4:
        raise ImageError(_ANIMATION.format(len(pixels)))
    if pixels.dtype not in (np.uint8, np.uint16, np.float32) or pixels.ndim not in (2, 3):
        raise ImageError(f"holds {pixels.dtype} values of shape {pixels.shape}; convert it.")
    pixels = np.atleast_3d(pixels)
    if not 1 <= pixels.shape[-1] <= 4:
        raise ImageError(f"has {pixels.shape[-1]} channels; at most RGB and alpha are supported.")
    return np.ascontiguousarray(pixels)
