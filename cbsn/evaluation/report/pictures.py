"""Pictures before and after: what the report shows of them, and the sheet of them for a paper."""

import base64
import dataclasses
import io
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy.ndimage import uniform_filter

from cbsn import value_range
from cbsn.errors import in_one_line
from cbsn.files import atomic_path


@dataclasses.dataclass(frozen=True, eq=False)
class ReportPicture:
    """A picture before and after, [H, W, 1 or 3], uint8, uint16 or float, of which [0, 1] is shown.

    There is at least one method; the first decides which places are shown in detail.
    """

    name: str
    noisy: np.ndarray
    denoised: Mapping[str, np.ndarray]  # by method
    clean: np.ndarray | None
    captions: Mapping[str, str]  # of "noisy" and methods: short texts, such as "31.20 dB"

    @property
    def sides(self) -> dict[str, np.ndarray]:
        """What there is to see, by its label, in order."""
        clean = {} if self.clean is None else {"clean": self.clean}
        return {"noisy": self.noisy, **self.denoised, **clean}


LONGEST = 1024  # pixels a side of what is shown whole; a report has many pictures


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """Returns a picture as float32, 1.0 being white; NaN and −∞ become 0, ∞ becomes 1."""
    return np.nan_to_num(value_range.to_unit(pixels), copy=False, posinf=1, neginf=0)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Returns a picture [H, W, C], uint8, uint16 or float, as gray or RGB of 8 bits."""
    if pixels.dtype != np.uint8:
        pixels = value_range.from_unit(to_unit(pixels), np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def shrunk(image: Image.Image) -> Image.Image:
    """Returns an image whose longer side is at most `LONGEST`: itself if it is small enough."""
    longer = max(image.size)
    if longer <= LONGEST:
        return image
    width, height = (max(1, round(side * LONGEST / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def data_uri(image: Image.Image) -> str:
    """Returns an image as the data URI of a WebP, with its exact pixels."""
    buffer = io.BytesIO()
    # A quarter smaller than PNG, and no slower; more effort saves little more.
    image.save(buffer, "WEBP", lossless=True, method=1, quality=50)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def find_places(picture: ReportPicture, size: int, count: int) -> list[tuple[slice, slice]]:
    """Returns the places that show most of what the first method does wrong, the worst first.

    With a clean picture, these have the largest mean absolute error. Without, they are where it
    changed the most structure: noise leaves little in the mean of a few neighbours, so what is
    there of noisy − denoised was in the scene, or is noise of a low frequency. They are squares of
    `size` px at most and do not overlap, so there may be fewer than `count`, but at least one.
    """
    denoised = to_unit(next(iter(picture.denoised.values())))
    if picture.clean is not None:
        wrong = denoised - to_unit(picture.clean)
    else:
        removed = to_unit(picture.noisy) - denoised
        wrong = uniform_filter(removed, (9, 9, 1))
    badness = np.abs(wrong).mean(axis=-1)
    height, width = (min(size, side) for side in badness.shape)
    # `uniform_filter` centres its window; this is the mean of the window that begins at a pixel.
    means = uniform_filter(badness, (height, width))[height // 2 :, width // 2 :]
    means = means[: badness.shape[0] - height + 1, : badness.shape[1] - width + 1].copy()
    places: list[tuple[slice, slice]] = []
    while len(places) < count and np.isfinite(means).any():
        top, left = map(int, np.unravel_index(np.argmax(means), means.shape))
        places.append((slice(top, top + height), slice(left, left + width)))
        first_row, first_column = max(0, top - height + 1), max(0, left - width + 1)
        means[first_row : top + height, first_column : left + width] = -np.inf
    return places


HEAT = ("#000000", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
"""Colours of errors from none to the largest, at equal distances; about matplotlib's magma."""

_HEAT_LEVELS = 64  # fewer than a picture could have, for the sake of its size
_EXTREMES = 98  # percentile: the few pixels beyond it would leave all others dark
_RESIDUAL_LEVELS = 32  # halves the size of noise, and is not to be seen in it
_PEAKS = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200)
_GAINS = (16, 8, 4, 2, 1)


def error_maps(picture: ReportPicture) -> tuple[int, dict[str, Image.Image]]:
    """Draws |denoised − clean|, the mean over the channels, on one scale for all methods.

    Returns what the lightest colour means, in levels of 255, and the maps by method.
    """
    assert picture.clean is not None
    clean = to_unit(picture.clean)
    errors = {
        method: np.abs(to_unit(pixels) - clean).mean(axis=-1) * 255
        for method, pixels in picture.denoised.items()
    }
    extreme = max(np.percentile(error, _EXTREMES) for error in errors.values())
    # Float32 may make a little more than 50 of 50.
    peak = next((peak for peak in _PEAKS if extreme < peak + 0.01), 255)
    stops = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in HEAT])
    at = np.linspace(0, len(HEAT) - 1, _HEAT_LEVELS)
    palette = np.stack([np.interp(at, range(len(HEAT)), c) for c in stops.T], axis=-1)
    maps = {}
    for method, error in errors.items():
        levels = np.minimum(error / peak, 1) * (_HEAT_LEVELS - 1)
        maps[method] = shrunk(Image.fromarray(np.rint(levels).astype(np.uint8)))
        maps[method].putpalette(np.rint(palette).astype(np.uint8).tobytes())
    return peak, maps


def residual_maps(picture: ReportPicture) -> tuple[int, dict[str, Image.Image]]:
    """Draws noisy − denoised around a middle gray, amplified alike for all methods.

    Returns the factor, and the maps by method.
    """
    noisy = to_unit(picture.noisy)
    removed = {method: noisy - to_unit(pixels) for method, pixels in picture.denoised.items()}
    extreme = max(np.percentile(np.abs(each), _EXTREMES) for each in removed.values())
    gain = next((gain for gain in _GAINS if gain * extreme <= 0.5), 1)
    maps = {}
    for method, each in removed.items():
        levels = np.rint((0.5 + gain * each) * _RESIDUAL_LEVELS) / _RESIDUAL_LEVELS
        maps[method] = shrunk(to_image(levels))
    return gain, maps


TILE = 256  # pixels a side of what the sheet shows of a larger picture
_SMALLEST = 128
_MARGIN, _GAP, _LINE = 20, 12, 19
_FONT = ImageFont.load_default(size=14)
_BLACK, _GRAY = "#000000", "#606060"


def write_contact_sheet(path: str | os.PathLike, pictures: Sequence[ReportPicture]) -> None:
    """Writes a PNG with a row for each picture: noisy, each method, clean.

    Pictures larger than `TILE` are cut, not reduced, as their noise is to be seen: at the place
    that is the worst for the first method. Very small ones are enlarged. The pictures have the
    same sides.
    """
    tiles = [_tiles(picture) for picture in pictures]
    column = max(_SMALLEST, *(row["noisy"].width for row in tiles))
    lefts = {label: _MARGIN + i * (column + _GAP) for i, label in enumerate(tiles[0])}
    width = 2 * _MARGIN + len(lefts) * (column + _GAP) - _GAP
    heads = {label: _wrapped(label, column) for label in lefts}
    captions = [
        {label: _wrapped(picture.captions.get(label, ""), column) for label in lefts}
        for picture in pictures
    ]
    heights = [
        _GAP + _LINE + row["noisy"].height + max(map(len, texts.values())) * _LINE
        for row, texts in zip(tiles, captions, strict=True)
    ]
    top = _MARGIN + max(map(len, heads.values())) * _LINE
    sheet = Image.new("RGB", (width, top + sum(heights) + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for label, head in heads.items():
        # The last line of each stands right above the pictures.
        _write(draw, lefts[label], top - len(head) * _LINE, head, _BLACK)
    for picture, row, texts, height in zip(pictures, tiles, captions, heights, strict=True):
        y = top + _GAP // 2
        _write(draw, _MARGIN, y, _wrapped(picture.name, width - 2 * _MARGIN)[:1], _GRAY)
        for label, tile in row.items():
            sheet.paste(tile, (lefts[label], y + _LINE))
            _write(draw, lefts[label], y + _LINE + tile.height + 2, texts[label], _GRAY)
        top += height
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _tiles(picture: ReportPicture) -> dict[str, Image.Image]:
    rows, columns = find_places(picture, TILE, count=1)[0]
    tiles = {}
    for label, pixels in picture.sides.items():
        tile = to_image(pixels[rows, columns])
        zoom = max(1, _SMALLEST // max(tile.size))
        tiles[label] = ImageOps.scale(tile, zoom, Image.Resampling.NEAREST)
    return tiles


def _wrapped(text: str, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` px: after a space or a slash, if it can."""
    lines = [""]
    for piece in re.findall("[^ /]*[ /]?", in_one_line(" ".join(text.split()))):
        if _FONT.getlength(lines[-1] + piece.rstrip()) > width and lines[-1]:
            lines.append("")
        for character in piece:
            if _FONT.getlength(lines[-1] + character.rstrip()) > width and lines[-1]:
                lines.append("")
            lines[-1] += character
    return lines


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], color: str) -> None:
    for i, line in enumerate(lines):
        draw.text((x, y + i * _LINE), line, color, _FONT)
