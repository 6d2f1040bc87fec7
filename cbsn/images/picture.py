"""A picture in memory, and what the header of its file claims."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cbsn.errors import ImageError
from cbsn.value_range import ValueRange, value_range

MAX_PIXELS = 2**30  # those of more are refused: a small damaged file may claim any size
# Pixels of more bytes, and of more than this many times those of the file, are refused: noise
# cannot be compressed so far, while one colour can a thousand times.
_BOMB_BYTES = 2**28
_BOMB_RATIO = 200

INCH = 0.0254  # metres
EXIF_PREFIX = b"Exif\0\0"  # stands before an EXIF block in most files; `Picture.exif` is without


class Header(NamedTuple):
    """What a picture file says of itself, before its pixels are decoded."""

    width: int
    height: int
    pixel_bytes: int  # that the pixels will take
    dtype: str = "uint8"

    def check(self, path: Path) -> None:
        """Raises an ImageError for a file whose pixels are too many, or a decompression bomb's."""
        claim = f"claims {self.width} x {self.height} pixels"
        if self.width * self.height > MAX_PIXELS:
            raise ImageError(f"{claim}; cut it up.")
        size = path.stat().st_size
        if self.pixel_bytes > max(_BOMB_BYTES, _BOMB_RATIO * size):
            raise ImageError(
                f"{claim} in {size:,} bytes, which no noisy picture does: it is a decompression "
                "bomb, or damaged. If it is good, cut it up."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture with what has to travel with it.

    Args:
        pixels: [H, W, C] uint8, uint16 or float32; C is 1 (gray), 2 (gray and alpha), 3 (RGB) or
            4 (RGB and alpha). Colours use the whole range of the dtype, floats [0, 1], whatever
            the file's own range is; alpha is straight, not multiplied into the colour. As stored:
            the EXIF orientation is not applied.
        format: the kind of file, such as `PNG` or `TIFF`.
        icc_profile, xmp: the colour profile and the XMP packet.
        exif: the EXIF block without its `Exif` prefix, with the orientation.
        value_range: what black and white are in the file, to which `write_picture` scales the
            colours back; None if it is the whole range of the dtype.
        resolution: pixels per metre, horizontal and vertical.
        extras: what only some formats hold: `png.Chunks`, `tiff_metadata.Tags`, a comment (bytes).
    """

    pixels: np.ndarray
    format: str
    icc_profile: bytes | None = None
    exif: bytes | None = None
    value_range: ValueRange | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    extras: Any = None

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
        """What black and white are in the file."""
        return self.value_range or ValueRange(0.0, value_range(self.pixels.dtype))

    def with_pixels(self, pixels: np.ndarray) -> "Picture":
        """The same picture and metadata with other pixels [H, W, C]."""
        return dataclasses.replace(self, pixels=pixels)


def squeezed(pixels: np.ndarray) -> np.ndarray:
    """Pixels as encoders take them: those of one channel are [H, W]."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
