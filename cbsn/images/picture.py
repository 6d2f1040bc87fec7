"""A picture in memory, and the header of its file."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cbsn.errors import ImageError
from cbsn.value_range import ValueRange, value_range

MAX_PIXELS = 2**30  # larger pictures are refused: a small damaged file may claim any size
# Pixels that take more bytes than this, and more than this many times the file's, are refused:
# noise cannot be compressed that far, but a single colour can a thousandfold.
_BOMB_BYTES = 2**28
_BOMB_RATIO = 200

INCH = 0.0254  # metres
EXIF_PREFIX = b"Exif\0\0"  # precedes the EXIF block in most files, not in `Picture.exif`


class Header(NamedTuple):
    """What a picture file's header says, before the pixels are decoded."""

    width: int
    height: int
    pixel_bytes: int  # the memory that the pixels will take
    dtype: str = "uint8"

    def check(self, path: Path) -> None:
        """Raises an ImageError if there are too many pixels, or it is a decompression bomb."""
        claim = f"claims {self.width} x {self.height} pixels"
        if self.width * self.height > MAX_PIXELS:
            raise ImageError(f"{claim}; split it into smaller pictures.")
        size = path.stat().st_size
        if self.pixel_bytes > max(_BOMB_BYTES, _BOMB_RATIO * size):
            raise ImageError(
                f"{claim} in {size:,} bytes; noise cannot be compressed that far, so it is a "
                "decompression bomb, or damaged. If it is genuine, split it into smaller pictures."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture with its metadata.

    Args:
        pixels: [H, W, C] uint8, uint16 or float32; C is 1 (gray), 2 (gray and alpha), 3 (RGB) or
            4 (RGB and alpha). Colours use the whole range of the dtype ([0, 1] for floats),
            whatever the file's own range. Alpha is straight, not multiplied into the colour. The
            EXIF orientation is not applied.
        format: the file format, such as `PNG` or `TIFF`.
        icc_profile, xmp: the colour profile and the XMP packet.
        exif: the EXIF block, including the orientation, without its `Exif` prefix.
        value_range: the values of black and white in the file, to which `write_picture` scales the
            colours back; None for the whole range of the dtype.
        resolution: pixels per metre, horizontal and vertical.
        extras: what only some formats hold: `png.Chunks`, `jpeg.Segments`, `tiff_metadata.Tags`.
        others: what else the file holds besides this picture, in words; empty for nothing.
    """

    pixels: np.ndarray
    format: str
    icc_profile: bytes | None = None
    exif: bytes | None = None
    value_range: ValueRange | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    extras: Any = None
    others: str = ""

    @property
    def color(self) -> np.ndarray:
        """The picture without alpha, [H, W, 1] or [H, W, 3]."""
        return self.pixels[..., : 1 if self.pixels.shape[-1] < 3 else 3]

    @property
    def alpha(self) -> np.ndarray | None:
        """The alpha channel, [H, W, 1], or None."""
        return None if self.pixels.shape[-1] % 2 else self.pixels[..., -1:]

    @property
    def range_in_file(self) -> ValueRange:
        """The values of black and white in the file."""
        return self.value_range or ValueRange(0.0, value_range(self.pixels.dtype))

    def with_pixels(self, pixels: np.ndarray) -> "Picture":
        """Returns the picture and its metadata with other pixels [H, W, C]."""
        return dataclasses.replace(self, pixels=pixels)


def squeezed(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels in the shape that encoders take: [H, W] for a single channel."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def picture_of(array: np.ndarray, *, white: float | None = None) -> Picture:
    """Returns an array as a picture, as if it had been read from a file; the array is copied.

    Args:
        array: [H, W] or [H, W, C] with C = 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and
            alpha); uint8, uint16 or float.
        white: float > 0, the value of white. Default: found by `ValueRange.of`.

    Raises:
        ImageError: if the array has another shape or dtype, or values that are not finite.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[-1] <= 4):
        raise ImageError(
            f"A picture is [H, W] or [H, W, C] with 1 to 4 channels. Received: shape {array.shape}"
        )
    native = array.dtype.newbyteorder("=")
    if native.kind != "f" and native not in (np.uint8, np.uint16):
        raise ImageError(f"A picture is uint8, uint16 or float. Received: dtype {array.dtype}")
    if array.size == 0:
        raise ImageError(f"A picture has at least one pixel. Received: shape {array.shape}")
    pixels = array.astype(native).reshape((*array.shape[:2], -1))
    picture = Picture(pixels, "PNG")
    found = ValueRange.of(picture.color, white=white)
    found.stretch(picture.color)
    return dataclasses.replace(picture, value_range=found)
