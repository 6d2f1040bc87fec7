"""Reading and writing TIFF files; `cbsn.images.image_files` is the entry for all formats.

Pixels are decoded and encoded piece by piece: memory never holds a second copy of them.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile

from cbsn.errors import ImageError
from cbsn.images.picture import Header, Picture, squeezed
from cbsn.images.tiff_metadata import read_metadata, write_options
from cbsn.value_range import ValueRange, row_blocks, value_range

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RAW = (
    "is a camera's raw file: develop it first, with darktable, RawTherapee or the camera's own "
    "program, and save it as a TIFF of 16 bits."
)
_DNG_VERSION_TAG = 50706
_NODATA_TAG = 42113

# Pictures with more bytes are written as BigTIFF: 32-bit offsets might not reach their end.
CLASSIC_BYTES = 2**32 - 2**25
# Of the encoded file at a time; tifffile's defaults, 256 and 512 MB, are a lot next to a picture.
_BUFFER_BYTES = 2**24
_LARGE_STRIP_BYTES = 2**25
# The compressions whose codecs can decode into an existing array.
_INTO_MEMORY = ("LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "ZSTD")


def read_tiff(path: Path) -> Picture:
    """Reads a TIFF file with one picture; raises the same errors as `read_with_pillow`."""
    with tifffile.TiffFile(path) as file:
        refuse_raw(file)
        pages = [*whole_pages(file)]
        if not pages:
            raise ImageError("has no readable page: the file is damaged or cut off.")
        page = pages[0].aspage()
        count = max(len(pages), _planes(file, page))
        if count > 1:
            raise ImageError(f"holds {count} pages; save them one by one.")
        if not page.imagewidth * page.imagelength:
            raise ImageError("has no pixels: the file is damaged.")
        _header_of(page).check(path)
        _refuse_gaps(page)
        pixels = _pixels(page)
        _refuse_missing(page, pixels)
        return Picture(pixels, "TIFF", value_range=_stated_range(page), **read_metadata(path, page))


def tiff_header(path: Path) -> Header:
    """Returns the header of the first page that is not a thumbnail."""
    with tifffile.TiffFile(path) as file:
        return _header_of(next(whole_pages(file)).aspage())


def write_tiff(file: BinaryIO, picture: Picture) -> None:
    """Writes a picture with lossless compression, and its metadata except for EXIF branches."""
    # By default, tifffile assumes that every compressed picture is small.
    big = picture.pixels.nbytes > CLASSIC_BYTES
    tifffile.imwrite(
        file,
        squeezed(picture.pixels),
        bigtiff=big,
        photometric="minisblack" if picture.color.shape[-1] == 1 else "rgb",
        planarconfig="contig" if picture.pixels.shape[-1] > 1 else None,
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        metadata=None,
        software=False,
        iccprofile=picture.icc_profile,
        buffersize=_BUFFER_BYTES,
        **write_options(picture, big=big),
    )


def whole_pages(file: tifffile.TiffFile) -> Iterator[Any]:
    """Yields the pages that are not thumbnails; refuses lists that are circular or cut off."""
    pages: Any = file.pages
    seen, last = set(), None
    for page in pages:
        last = page.offset
        if last is not None and last in seen:
            raise ImageError("is damaged: its list of pages is circular.")
        seen.add(last)
        if not page.is_reduced:
            yield page
    if last is not None:  # tifffile is silent if the list continues beyond the file
        file.filehandle.seek(pages.next_page_offset)
        following = file.filehandle.read(file.tiff.offsetsize)
        if struct.unpack(file.tiff.offsetformat, following)[0] >= file.filehandle.size:
            raise ImageError("lists a page beyond its end: the file is cut off.")


def _header_of(page: Any) -> Header:
    size = page.nbytes * (3 if page.photometric.name == "PALETTE" else 1)
    return Header(page.imagewidth, page.imagelength, size, str(page.dtype))


def refuse_raw(file: tifffile.TiffFile) -> None:
    """Refuses cameras' raw files, many of which are TIFF files."""
    file.filehandle.seek(8)
    is_canon = file.filehandle.read(2) == b"CR"
    first = file.pages.first
    kinds = {each.photometric for each in (first, *(first.pages or ()))}
    # A colour filter array, or linear raw values.
    if is_canon or _DNG_VERSION_TAG in first.tags or kinds & {32803, 34892}:
        raise ImageError(RAW)


def _planes(file: tifffile.TiffFile, page: tifffile.TiffPage) -> int:
    """Counts the pictures in a one-page file; ImageJ and others write stacks above 4 GB so."""
    if file.is_imagej:  # a file that is cut off has fewer pages than this
        images = (file.imagej_metadata or {}).get("images", 1)
        if isinstance(images, int) and images > 1:
            return images
    if file.is_ome or not page.size:  # OME has a page per picture, maybe in other files
        return 1
    return file.series[0].size // page.size


def _stated_range(page: tifffile.TiffPage) -> ValueRange | None:
    """Returns the range that the file states, in SMaxSampleValue or MaxSampleValue."""
    for code in (341, 281):
        white = page.tags.valueof(code)
        white = max(white, default=None) if isinstance(white, tuple) else white
        if isinstance(white, int | float) and 0 < white < np.inf:
            return ValueRange(0.0, float(white), "file")
    return None


def _refuse_gaps(page: tifffile.TiffPage) -> None:
    """Refuses files that lack some strips or tiles, which tifffile would make black."""
    pieces = [*zip(page.dataoffsets, page.databytecounts, strict=True)]
    if max(map(sum, pieces), default=0) > page.parent.filehandle.size:
        raise ImageError("ends before its pixels do: the file is cut off.")
    if page.is_contiguous:
        return
    lacking = math.prod(page.chunked) - sum(map(all, pieces))
    if lacking > 0:
        raise ImageError(f"lacks {lacking} of its strips or tiles: it is damaged or incomplete.")


def _refuse_missing(page: tifffile.TiffPage, pixels: np.ndarray) -> None:
    """Refuses pictures with pixels without data, which GDAL marks by a value."""
    try:
        nodata = float(page.tags.valueof(_NODATA_TAG))
    except (TypeError, ValueError):
        return
    value = np.float32(nodata) if pixels.dtype.kind == "f" else nodata
    if (pixels == value).all(axis=-1).any():
        raise ImageError(f"has pixels without data (GDAL's nodata {value:g}): crop them away.")


def _pixels(page: Any) -> np.ndarray:
    _check(page)
    pixels, photometric = _decode(page), page.photometric.name
    if photometric == "PALETTE":
        return (page.colormap.T >> 8).astype(np.uint8)[pixels]
    if pixels.dtype == bool:
        pixels = pixels.view(np.uint8)
        pixels *= 255
    pixels = np.atleast_3d(pixels)
    white = pixels.dtype.type(value_range(pixels.dtype))
    if photometric == "MINISWHITE":
        np.subtract(white, pixels, out=pixels)
    if [sample.name for sample in page.extrasamples] == ["ASSOCALPHA"]:
        # Divides the colours by the alpha that they were multiplied by.
        for rows in row_blocks(pixels):
            color, alpha = pixels[rows, ..., :-1], pixels[rows, ..., -1:]
            scale = np.divide(white, alpha, out=np.zeros(alpha.shape), where=alpha > 0)
            straight = np.minimum(color * scale, white)
            color[:] = straight if pixels.dtype.kind == "f" else np.rint(straight)
    return pixels


def _check(page: Any) -> None:
    """Raises ImageError unless the page is one that a `Picture` can hold."""
    photometric = page.photometric.name
    kinds = ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")
    jpeg_color = photometric == "YCBCR" and page.compression.name == "JPEG"  # decodes to RGB
    if photometric not in kinds and not jpeg_color:
        name = "CMYK" if photometric == "SEPARATED" else photometric
        raise ImageError(f"is a {name} picture; convert it to gray or RGB.")
    samples = {"bool": 1, "uint8": 8, "uint16": 16, "float32": 32}
    if samples.get(str(page.dtype)) != page.bitspersample:
        raise ImageError(
            f"stores {page.bitspersample}-bit {page.dtype} samples; "
            "convert them to 8 or 16 bits, or to 32-bit float."
        )
    is_palette = photometric == "PALETTE"
    if page.axes not in (("YX",) if is_palette else ("YX", "YXS", "SYX")):
        raise ImageError(f"has the axes {page.axes}; only rows and columns are supported.")
    colors, kind = (1, "gray") if photometric.startswith("MINIS") else (3, "RGB")
    extra = [sample.name for sample in page.extrasamples]
    is_alpha = extra in ([], ["ASSOCALPHA"], ["UNASSALPHA"])
    if not is_palette and not (is_alpha and page.samplesperpixel == colors + len(extra)):
        raise ImageError(
            f"has {page.samplesperpixel} channels, which are not {kind} and alpha; save each "
            "channel as a gray picture (or mark the last one as alpha)."
        )
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        name = getattr(page.compression, "name", page.compression)
        raise ImageError(
            f"has the compression {name}, which this version of tifffile cannot decode: try pip "
            "install -U tifffile imagecodecs, or convert it."
        )


def _decode(page: Any) -> np.ndarray:
    """Decodes the page's samples into a new array [H, W] or [H, W, C], in native byte order."""
    if page.axes == "SYX":
        return _interleave(page)
    row_bytes = page.nbytes // page.imagelength
    if (
        min(page.rowsperstrip, page.imagelength) * row_bytes > _LARGE_STRIP_BYTES
        and not page.is_tiled
        and page.compression.name in _INTO_MEMORY
        and page.predictor in (1, 2)
        and page.fillorder == 1
        and page.bitspersample > 1
        and all(page.databytecounts)
    ):
        return _decode_large_strips(page)
    return page.asarray(buffersize=_BUFFER_BYTES)


def _interleave(page: tifffile.TiffPage) -> np.ndarray:
    """Decodes a page's separate planes straight into one array [H, W, C]."""
    pixels = np.empty((page.imagelength, page.imagewidth, page.samplesperpixel), page.dtype)
    segments = page.segments(buffersize=_BUFFER_BYTES)
    for piece, (plane, _, top, left, _), (_, height, width, _) in segments:
        target = pixels[top : top + height, left : left + width, plane]
        height, width = target.shape  # tiles may reach beyond the edge
        target[:] = page.nodata if piece is None else piece[0, :height, :width, 0]
    return pixels


def _decode_large_strips(page: tifffile.TiffPage) -> np.ndarray:
    """Decodes strips in place, often one for the whole picture; tifffile would copy each."""
    pixels = np.empty(page.shape, page.dtype)
    file = page.parent.filehandle
    decompress = tifffile.TIFF.DECOMPRESSORS[page.compression]
    native = np.dtype(f"{page.parent.byteorder}u2").isnative
    tops = range(0, page.imagelength, page.rowsperstrip)
    for top, offset, size in zip(tops, page.dataoffsets, page.databytecounts, strict=True):
        strip = pixels[top : top + page.rowsperstrip]
        file.seek(offset)
        decoded = decompress(file.read(size), out=strip.reshape(-1).view(np.uint8))
        if decoded.nbytes != strip.nbytes:
            raise ImageError("holds fewer pixels than it should: the file is damaged.")
        if not native:
            strip.byteswap(inplace=True)
        if page.predictor == 2:
            imagecodecs.delta_decode(strip, axis=1, out=strip)
    return pixels
