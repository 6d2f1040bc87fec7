"""Pictures as a browser shows them: tiles of 8 bits at full size, 1/2, 1/4 and so on."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cbsn.evaluation.report.pictures import heat_palette
from cbsn.images.exif import orientation_of, read_block
from cbsn.images.picture import Picture
from cbsn.orientations import orient
from cbsn.value_range import from_unit, row_blocks, to_levels, to_unit

TILE = 512
"""Side of a tile in pixels."""

GAINS = (1, 2, 4, 8, 16)
"""Factors by which what was removed may be amplified."""

# The orientation of `cbsn.orientations` that turns a picture upright, by that of its EXIF data.
_UPRIGHT = {1: 0, 2: 4, 3: 2, 4: 6, 5: 7, 6: 3, 7: 5, 8: 1}
_HEAT_LEVELS = 256
_EXTREMES, _SAMPLED = 98, 2**20  # percentile of the heat map's end, and of how many pixels


class View:
    """A picture of 8 bits, upright, on the disk in levels that are each half as large.

    Args:
        folder: where its files are made.
        name: how they begin.
        pixels: [H, W, C], C from 1 to 4, of any dtype.
        orientation: as EXIF numbers them. Default 1, upright.
        show: function from some rows of the pixels to uint8 [h, W, C]. Default: of photographs.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        pixels: np.ndarray,
        orientation: int = 1,
        show: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        upright = orient(pixels, _UPRIGHT[orientation])
        show = show or eight_bits
        channels = show(upright[:1, :1]).shape[-1]
        height, width = upright.shape[:2]
        self.size = width, height
        self._paths: list[Path] = []
        level = self._make(folder, name, (height, width, channels))
        for rows in row_blocks(upright):
            level[rows] = show(upright[rows])
        while max(level.shape[:2]) > TILE:
            height, width = (-(-side // 2) for side in level.shape[:2])
            smaller = self._make(folder, name, (height, width, channels))
            _halve(level, smaller)
            level = smaller

    def _make(self, folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Makes the array of the next level, which is mapped only as long as it is written."""
        self._paths.append(folder / f"{name}-{len(self._paths)}.npy")
        return np.lib.format.open_memmap(self._paths[-1], "w+", np.uint8, shape)

    @property
    def levels(self) -> int:
        """The number of levels."""
        return len(self._paths)

    def tile(self, level: int, x: int, y: int) -> np.ndarray:
        """Returns the tile at a place, counted in tiles; KeyError if there is none any more."""
        if min(level, x, y) < 0 or level >= self.levels:
            raise KeyError(level, x, y)
        try:
            pixels = np.load(self._paths[level], mmap_mode="r")
        except FileNotFoundError:
            raise KeyError(level, x, y) from None
        tile = np.array(pixels[TILE * y : TILE * (y + 1), TILE * x : TILE * (x + 1)])
        if not tile.size:
            raise KeyError(level, x, y)
        return tile


def _halve(larger: np.ndarray, smaller: np.ndarray) -> None:
    """Writes means of 2 × 2 pixels; at odd edges, of those that there are."""
    for rows in row_blocks(smaller):
        block = larger[2 * rows.start : 2 * rows.stop].astype(np.uint16)
        odd = (block.shape[0] % 2, block.shape[1] % 2)
        if any(odd):
            block = np.pad(block, ((0, odd[0]), (0, odd[1]), (0, 0)), "edge")
        total = block[::2, ::2] + block[1::2, ::2] + block[::2, 1::2] + block[1::2, 1::2]
        smaller[rows] = (total + 2) // 4


def orientation_of_picture(picture: Picture) -> int:
    """Returns the orientation of a picture, as EXIF numbers them."""
    return orientation_of(read_block(picture.exif))


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Returns a picture of any dtype, in the whole range of it, as uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    return from_unit(np.nan_to_num(to_unit(pixels), posinf=1, neginf=0), np.uint8)


def removed_tile(noisy: np.ndarray, denoised: np.ndarray, gain: int) -> np.ndarray:
    """Returns noisy − denoised of two tiles, amplified, around middle gray; alpha stays."""
    difference = noisy.astype(np.int16) - denoised
    removed = np.clip(128 + gain * difference, 0, 255).astype(np.uint8)
    if removed.shape[-1] % 2 == 0:
        removed[..., -1] = noisy[..., -1]
    return removed


def heat_of(sigma: np.ndarray) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
    """Returns how standard deviations are shown: the largest, in levels of 255, and colours.

    Args:
        sigma: float32 [H, W, C] in units of [0, 1], of which the channels are averaged.
    """
    step = max(1, int((sigma.size / _SAMPLED) ** 0.5))
    some = to_levels(sigma[::step, ::step]).mean(axis=-1)
    peak = max(1.0, float(np.ceil(np.percentile(some, _EXTREMES))))
    palette = heat_palette(_HEAT_LEVELS)

    def show(rows: np.ndarray) -> np.ndarray:
        share = np.minimum(to_levels(rows).mean(axis=-1) / peak, 1)
        return palette[np.rint(share * (_HEAT_LEVELS - 1)).astype(np.intp)]

    return peak, show


def png(pixels: np.ndarray, icc_profile: bytes | None = None) -> bytes:
    """Returns a tile as a PNG file, in the colours of a profile."""
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(squeezed), modes[pixels.shape[-1]])
    buffer = io.BytesIO()
    # More effort would take longer than to send the bytes.
    image.save(buffer, "PNG", compress_level=1, icc_profile=icc_profile)
    return buffer.getvalue()
