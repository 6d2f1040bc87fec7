"""TIFF files from and to pictures; `cbsn.data.image_io` is the door to all kinds of files."""

import io
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cbsn.data.picture import Picture
from cbsn.errors import ImageError

ORIENTATION_TAG = 274
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode_tiff(content: bytes, max_pixels: int) -> Picture:
    """Decodes a TIFF file of one picture; of its tags the orientation and profile are kept.

    Raises:
        ImageError: the file holds what a `Picture` cannot, or is cut off.
        Exception: of damaged bytes, whatever the decoder raises.
    """
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        # A reduced picture beside the full one is its thumbnail.
        pages = [page for page in file.pages if not page.is_reduced]
        if not pages:
            raise ImageError("has no readable page: the file is damaged or cut off.")
        if len(pages) > 1:
            raise ImageError(f"holds {len(pages)} pages; save them one by one.")
        page = pages[0].aspage()
        if page.imagewidth * page.imagelength > max_pixels:
            raise ImageError(f"claims {page.imagewidth} x {page.imagelength} pixels; cut it up.")
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > len(content):
            raise ImageError("ends before its pixels do: the file is cut off.")
        orientation = page.tags.valueof(ORIENTATION_TAG, 1)
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        return Picture(
            pixels=_pixels(page),
            format="TIFF",
            icc_profile=page.iccprofile,
            exif=exif.tobytes().removeprefix(b"Exif\0\0") if orientation != 1 else None,
        )


def write_tiff(path: Path, picture: Picture) -> None:
    """Writes a picture, its profile and its orientation, compressed without loss."""
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    orientation = exif.get(ORIENTATION_TAG, 1)
    tifffile.imwrite(
        path,
        # One plane is [H, W] in TIFF.
        picture.pixels[..., 0] if picture.pixels.shape[-1] == 1 else picture.pixels,
        photometric="minisblack" if picture.color.shape[-1] == 1 else "rgb",
        planarconfig="contig" if picture.pixels.shape[-1] > 1 else None,
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        metadata=None,
        software=False,
        iccprofile=picture.icc_profile,
        extratags=[(ORIENTATION_TAG, "H", 1, orientation, True)],
    )


def _pixels(page: tifffile.TiffPage) -> np.ndarray:
    photometric = page.photometric.name
    kinds = ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")
    jpeg_color = photometric == "YCBCR" and page.compression.name == "JPEG"  # decodes to RGB
    if photometric not in kinds and not jpeg_color:
        raise ImageError(f"is a {photometric} picture; convert it to gray or RGB.")
    if (str(page.dtype), page.bitspersample) not in (
        ("bool", 1),
        ("uint8", 8),
        ("uint16", 16),
        ("float32", 32),
    ):
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
        pixels = _white(pixels.dtype) - pixels
    if [sample.name for sample in page.extrasamples] == ["ASSOCALPHA"]:
        pixels = _straight_alpha(pixels)
    return pixels


def _white(dtype: np.dtype) -> np.generic:
    return dtype.type(1 if dtype.kind == "f" else np.iinfo(dtype).max)


def _straight_alpha(pixels: np.ndarray) -> np.ndarray:
    """Divides the alpha channel out of the colours it was multiplied into."""
    white = _white(pixels.dtype)
    color, alpha = pixels[..., :-1], pixels[..., -1:]
    scale = np.divide(white, alpha, out=np.zeros(alpha.shape), where=alpha > 0)
    straight = np.minimum(color * scale, white)
    if pixels.dtype.kind != "f":
        straight = np.rint(straight)
    return np.concatenate([straight.astype(pixels.dtype), alpha], axis=-1)
