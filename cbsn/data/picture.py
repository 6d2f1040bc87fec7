"""What a picture file holds, decoded."""

import dataclasses
from collections.abc import Iterator

import numpy as np

EXIF_PREFIX = b"Exif\0\0"
"""What stands before an EXIF block in most files; `Picture.exif` is without."""

_BLOCK_BYTES = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture with what has to travel with it.

    Args:
        pixels: [H, W, C] uint8, uint16 or float32; C is 1 (gray), 2 (gray and alpha), 3 (RGB) or
            4 (RGB and alpha). Integers use their full range, floats [0, 1]; alpha is straight,
            not multiplied into the colour. As stored: the EXIF orientation is not applied.
        format: the kind of file: `PNG`, `JPEG`, `TIFF`, `WEBP` or `BMP`.
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


def row_blocks(pixels: np.ndarray) -> Iterator[slice]:
    """The rows of a picture, a few MB at a time.

    What is computed block by block needs no second array of the size of the picture, which may
    take hundreds of MB.
    """
    height = pixels.shape[0]
    rows = max(1, _BLOCK_BYTES * height // max(1, pixels.nbytes))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))
