"""Reading and writing picture files: PNG, JPEG, TIFF, WebP and BMP, 8 and 16 bits.

Whatever goes in comes out: 16 bits stay 16 bits, alpha, colour profile and EXIF orientation stay
with the pixels. Where a format cannot hold something, `write_picture` says what was lost.
"""

import contextlib
import glob
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from cbsn.data.picture import Picture
from cbsn.data.tiff import TIFF_MAGICS, decode_tiff, write_tiff
from cbsn.errors import DataError, ImageError
from cbsn.files import atomic_path

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
"""Suffixes, in lower case, of the files that a folder is searched for."""

SUFFIX_OF_FORMAT = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "BMP": ".bmp",
}
"""The formats that are read and written, with the suffix of the files of each."""

MAX_PIXELS = 2**30
"""Pictures of more pixels are refused: a small damaged file may claim any size."""

_EXIF_PREFIX = b"Exif\0\0"
_JPEG_EXIF_LIMIT = 65533 - len(_EXIF_PREFIX)


def find_images(pattern: str | Path) -> list[Path]:
    """The picture files that a folder, a glob or a single name stands for.

    Args:
        pattern: a folder (its files with one of `IMAGE_SUFFIXES`, not those of its sub-folders),
            a glob (every file it matches; `**` is any depth), or one file. `~` is expanded.

    Returns:
        At least one path, sorted.

    Raises:
        DataError: nothing was found.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [
            p
            for p in path.iterdir()
            if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
        ]
        sought = f"no {', '.join(sorted(IMAGE_SUFFIXES))} file in the folder {path}"
    else:
        matches = {Path(match) for match in glob.glob(str(path), recursive=True)}  # noqa: PTH207
        found = [match for match in matches if match.is_file()]
        sought = f"no file matches {path}"
    if not found:
        raise DataError(f"{sought}. Give a folder of pictures, a glob in quotes, or one file.")
    return sorted(found)


def read_picture(path: str | Path) -> Picture:
    """Reads a picture file; what it is, is told by its content, not its name.

    Palette and 1-bit pictures become RGB or gray; a transparent colour becomes an alpha channel.
    Of a TIFF file, the orientation is the one EXIF entry that is kept.

    Args:
        path: a PNG, JPEG, TIFF, WebP or BMP file with one picture.

    Returns:
        The decoded picture.

    Raises:
        ImageError: the file is missing, broken, cut off, of another kind, or holds what a
            denoiser of gray and RGB pictures has no use for (CMYK, several pages, …).
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(TIFF_MAGICS):
            return decode_tiff(content, MAX_PIXELS)
        return _read_with_pillow(content)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise ImageError(
            f"{path}: cannot be read, it may be damaged or cut off ({_reason(error)})."
        ) from error


def write_picture(path: str | Path, picture: Picture, format: str | None = None) -> list[str]:
    """Writes a picture with its colour profile and EXIF data; an unfinished file never shows.

    PNG, TIFF, BMP and WebP are written without loss, JPEG with quality 95 and full colour.
    TIFF takes of the EXIF data only the orientation.

    Args:
        path: the file to write or replace; its folder must exist.
        picture: what to write.
        format: a key of `SUFFIX_OF_FORMAT`. Default: the one of the path's suffix.

    Returns:
        What the format could not hold, in words: empty if nothing was lost.

    Raises:
        ImageError: the format is unknown or the file cannot be written.
    """
    path = Path(path)
    format = format or format_of_suffix(path.suffix)
    fitted, losses = _fit(picture, format)
    try:
        with atomic_path(path) as temporary:
            if format == "TIFF":
                write_tiff(temporary, fitted)
            elif format == "PNG":
                temporary.write_bytes(_encode_png(fitted))
            else:
                _write_with_pillow(temporary, fitted, format)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be written as {format} ({_reason(error)}).") from error
    return losses


def format_of_suffix(suffix: str) -> str:
    """The format, a key of `SUFFIX_OF_FORMAT`, that a file name's suffix (`.jpeg`) stands for."""
    by_suffix = {suffix: format for format, suffix in SUFFIX_OF_FORMAT.items()}
    by_suffix |= {".jpeg": "JPEG", ".tiff": "TIFF"}
    if suffix.lower() not in by_suffix:
        raise ImageError(f"No picture format has the suffix {suffix!r}; use {sorted(by_suffix)}.")
    return by_suffix[suffix.lower()]


def to_rgb(picture: Picture) -> np.ndarray:
    """The picture as [H, W, 3] of its own dtype: gray is repeated, alpha is dropped."""
    color = picture.color
    return np.broadcast_to(color, (*color.shape[:2], 3))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _without_pillow_size_limit() -> Iterator[None]:
    """Pillow warns from 89 megapixels on, which are an ordinary panorama."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _open_with_pillow(content: bytes) -> Image.Image:
    try:
        with _without_pillow_size_limit():
            return Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP", "BMP"))
    except Image.UnidentifiedImageError:
        kind = "is empty" if not content else "is not a PNG, JPEG, TIFF, WebP or BMP picture"
        raise ImageError(f"{kind}, or its header is damaged.") from None


def _read_with_pillow(content: bytes) -> Picture:
    _open_with_pillow(content).verify()  # checksums and the end of a PNG, which load() skips
    image = _open_with_pillow(content)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"claims {image.width} x {image.height} pixels; cut it up.")
    # The further frames of an MPO are previews or the other eye's view.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"is an animation of {image.n_frames} frames; save them one by one.")
    image.load()
    exif = image.info.get("exif")
    return Picture(
        pixels=_pillow_pixels(image, content),
        format="JPEG" if image.format == "MPO" else image.format,
        icc_profile=image.info.get("icc_profile"),
        exif=exif.removeprefix(_EXIF_PREFIX) if exif else None,
    )


def _pillow_pixels(image: Image.Image, content: bytes) -> np.ndarray:
    if image.format == "PNG" and content[24] == 16:  # the bit depth; Pillow would keep 8 of them
        pixels = imagecodecs.png_decode(content)
        return pixels if pixels.ndim == 3 else pixels[..., None]
    transparent = "transparency" in image.info
    if image.mode == "P":
        image = image.convert("RGBA" if transparent else "RGB")
    elif image.mode == "1" or (image.mode == "L" and transparent):
        image = image.convert("LA" if transparent else "L")
    elif image.mode == "RGB" and transparent:
        image = image.convert("RGBA")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"is a {image.mode} picture; convert it to gray or RGB.")
    pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _fit(picture: Picture, format: str) -> tuple[Picture, list[str]]:
    """What of a picture the format can hold, and in words what it cannot."""
    losses = []
    pixels = picture.pixels
    exif, icc_profile = picture.exif, picture.icc_profile
    if picture.alpha is not None and format in ("JPEG", "BMP"):
        pixels = picture.color
        losses.append(f"{format} holds no alpha channel: dropped")
    if pixels.dtype == np.float32 and format != "TIFF":
        pixels = np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)
        if format == "PNG":
            losses.append("PNG holds no floats: reduced to 16 bits")
    if pixels.dtype == np.uint16 and format not in ("PNG", "TIFF"):
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        losses.append(f"{format} holds 8 bits: reduced from {picture.pixels.dtype}")
    if format == "WEBP" and pixels.shape[-1] < 3:
        pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], axis=-1)
    if format == "BMP" and (exif or icc_profile):
        exif = icc_profile = None
        losses.append("BMP holds no EXIF data (orientation) and no colour profile: dropped")
    if format == "JPEG" and exif and len(exif) > _JPEG_EXIF_LIMIT:
        exif = None
        losses.append("JPEG holds 64 KB of EXIF data: dropped")
    return Picture(pixels, format, icc_profile, exif), losses


def _write_with_pillow(path: Path, picture: Picture, format: str) -> None:
    options = {
        "JPEG": {"quality": 95, "subsampling": "4:4:4"},
        "WEBP": {"lossless": True, "exact": True},
        "BMP": {},
    }[format]
    if picture.exif:
        options["exif"] = _EXIF_PREFIX + picture.exif
    if picture.icc_profile:
        options["icc_profile"] = picture.icc_profile
    Image.fromarray(_planes(picture.pixels)).save(path, format, **options)


def _encode_png(picture: Picture) -> bytes:
    """Pillow writes no 16-bit colour, imagecodecs no metadata: so its chunks are put in here."""
    png = imagecodecs.png_encode(_planes(picture.pixels))
    chunks = b""
    if picture.icc_profile:
        chunks += _png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(picture.icc_profile))
    if picture.exif:
        chunks += _png_chunk(b"eXIf", picture.exif)
    header = 33  # the signature and the IHDR chunk, which stands first in every PNG
    return png[:header] + chunks + png[header:]


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def _planes(pixels: np.ndarray) -> np.ndarray:
    """The pixels as encoders want them: gray is [H, W]."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
