"""Reading picture files into arrays: PNG, JPEG, TIFF, WebP and BMP, 8 and 16 bits."""

import contextlib
import dataclasses
import glob
import io
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from cbsn.errors import DataError, ImageError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
"""Suffixes, in lower case, of the files that a folder is searched for."""

MAX_PIXELS = 2**30
"""Pictures of more pixels are refused: a small damaged file may claim any size."""

ORIENTATION_TAG = 274
EXIF_PREFIX = b"Exif\0\0"
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture with what has to travel with it.

    Args:
        pixels: [H, W, C] uint8, uint16 or float32; C is 1 (gray), 2 (gray and alpha), 3 (RGB) or
            4 (RGB and alpha). Integers use their full range, floats [0, 1]; alpha is straight,
            not multiplied into the colour. As stored: the EXIF orientation is not applied.
        format: the kind of file it came from: `PNG`, `JPEG`, `TIFF`, `WEBP` or `BMP`.
        icc_profile: the colour profile, or None.
        exif: the EXIF block without its `Exif` prefix, with the orientation, or None.
    """

    pixels: np.ndarray
    format: str
    icc_profile: bytes | None = None
    exif: bytes | None = None

    @property
    def color(self) -> np.ndarray:
        """The picture without alpha, [H, W, 1] or [H, W, 3]."""
        return self.pixels[..., : 1 if self.pixels.shape[-1] < 3 else 3]

    @property
    def alpha(self) -> np.ndarray | None:
        """The alpha channel, [H, W, 1], or None."""
        return None if self.pixels.shape[-1] % 2 else self.pixels[..., -1:]

    def with_pixels(self, pixels: np.ndarray) -> "Picture":
        """The same picture, profile and EXIF, with other pixels [H, W, C]."""
        return dataclasses.replace(self, pixels=pixels)

    def with_color(self, color: np.ndarray) -> "Picture":
        """The same picture, alpha, profile and EXIF, with another color [H, W, 1 or 3]."""
        if self.alpha is None:
            return self.with_pixels(color)
        return self.with_pixels(np.concatenate([color, self.alpha], axis=-1))


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
        if content.startswith(_TIFF_MAGICS):
            return _read_tiff(content)
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
    """Pillow warns from 89 megapixels on; `_check_size` sets our own limit."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"claims {width} x {height} pixels, more than the {MAX_PIXELS} that are read. "
            "Cut it into parts."
        )


def _open_with_pillow(content: bytes) -> Image.Image:
    try:
        with _without_pillow_size_limit():
            return Image.open(io.BytesIO(content), formats=_PILLOW_FORMATS)
    except Image.UnidentifiedImageError:
        kind = "is empty" if not content else "is not a PNG, JPEG, TIFF, WebP or BMP picture"
        raise ImageError(f"{kind}, or its header is damaged.") from None


def _read_with_pillow(content: bytes) -> Picture:
    _open_with_pillow(content).verify()  # checksums and the end of a PNG, which load() skips
    image = _open_with_pillow(content)
    _check_size(*image.size)
    # The further frames of an MPO are previews or the other eye's view.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"is an animation of {image.n_frames} frames; save them one by one.")
    image.load()
    exif = image.info.get("exif")
    return Picture(
        pixels=_pillow_pixels(image, content),
        format="JPEG" if image.format == "MPO" else image.format,
        icc_profile=image.info.get("icc_profile"),
        exif=exif.removeprefix(EXIF_PREFIX) if exif else None,
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


def _read_tiff(content: bytes) -> Picture:
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        # A reduced picture beside the full one is its thumbnail.
        pages = [page for page in file.pages if not page.is_reduced]
        if not pages:
            raise ImageError("has no readable page: the file is damaged or cut off.")
        if len(pages) > 1:
            raise ImageError(f"holds {len(pages)} pages; save them one by one.")
        page = pages[0].aspage()
        _check_size(page.imagewidth, page.imagelength)
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > len(content):
            raise ImageError("ends before its pixels do: the file is cut off.")
        orientation = page.tags.valueof(ORIENTATION_TAG, 1)
        exif = None
        if orientation != 1:
            tags = Image.Exif()
            tags[ORIENTATION_TAG] = orientation
            exif = tags.tobytes().removeprefix(EXIF_PREFIX)
        return Picture(_tiff_pixels(page), "TIFF", page.iccprofile, exif)


def _tiff_pixels(page: tifffile.TiffPage) -> np.ndarray:
    photometric = page.photometric.name
    kinds = ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")
    jpeg_color = photometric == "YCBCR" and page.compression.name == "JPEG"  # decodes to RGB
    if photometric not in kinds and not jpeg_color:
        raise ImageError(f"is a {photometric} picture; convert it to gray or RGB.")
    depth = (page.dtype, page.bitspersample) if page.dtype is not None else None
    depths = [(np.dtype(d), np.dtype(d).itemsize * 8) for d in ("uint8", "uint16", "float32")]
    if depth not in [*depths, (np.dtype(bool), 1)]:
        raise ImageError(
            f"stores {page.bitspersample}-bit {page.dtype} samples; "
            "convert them to 8 or 16 bits, or to 32-bit float."
        )
    pixels = page.asarray()
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if photometric == "PALETTE":
        return (page.colormap[:, pixels].transpose(1, 2, 0) >> 8).astype(np.uint8)
    if page.axes == "YX":
        pixels = pixels[..., None]
    elif page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    elif page.axes != "YXS":
        raise ImageError(f"has the axes {page.axes}; one picture of rows and columns is read.")
    if pixels.shape[-1] > 4:
        raise ImageError(f"has {pixels.shape[-1]} channels; at most RGB and alpha are read.")
    if photometric == "MINISWHITE":
        pixels = np.iinfo(pixels.dtype).max - pixels
    if [sample.name for sample in page.extrasamples] == ["ASSOCALPHA"]:
        pixels = _straight_alpha(pixels)
    return pixels


def _straight_alpha(pixels: np.ndarray) -> np.ndarray:
    """Divides the alpha channel out of the colours it was multiplied into."""
    white = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    color, alpha = pixels[..., :-1], pixels[..., -1:]
    scale = np.divide(white, alpha, out=np.zeros(alpha.shape), where=alpha > 0)
    straight = np.minimum(color * scale, white)
    if pixels.dtype.kind != "f":
        straight = np.rint(straight)
    return np.concatenate([straight.astype(pixels.dtype), alpha], axis=-1)
