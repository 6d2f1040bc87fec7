"""What the header of a picture file may claim of its pixels."""

from pathlib import Path

from cbsn.errors import ImageError

MAX_PIXELS = 2**30
"""Pictures of more pixels are refused: a small damaged file may claim any size."""

BOMB_BYTES = 2**28
BOMB_RATIO = 200
"""Pixels of more than so many bytes, and more than so many times those of the file, are refused:
noise cannot be compressed so far, while one colour can a thousand times."""


def refuse_claim(path: Path, width: int, height: int, pixel_bytes: int) -> None:
    """Refuses a file before its pixels are decoded, if they are too many, or a bomb's.

    Args:
        path: the file.
        width: int, its pixels in a row.
        height: int, its rows.
        pixel_bytes: int, what the pixels will take.

    Raises:
        ImageError: as said.
    """
    if width * height > MAX_PIXELS:
        raise ImageError(f"claims {width} x {height} pixels; cut it up.")
    size = path.stat().st_size
    if pixel_bytes > BOMB_BYTES and pixel_bytes > BOMB_RATIO * size:
        raise ImageError(
            f"claims {width} x {height} pixels in {size:,} bytes, which no noisy picture does: it "
            "is a decompression bomb, or damaged. If it is good, cut it up."
        )
