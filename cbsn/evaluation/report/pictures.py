"""Pictures before and after denoising: the images in a report, and a contact sheet for a paper."""

import base64
import dataclasses
import io
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import scipy
from PIL import Image, ImageDraw, ImageFont, ImageOps

from cbsn import value_range
from cbsn.errors import in_one_line
from cbsn.files import atomic_path


@dataclasses.dataclass(frozen=True, eq=False)
class ReportPicture:
    """A picture before and after denoising, [H, W, 1 or 3], uint8, uint16 or float.

    Floats are shown from 0 to 1. The first of the methods, at least one, picks the detail views.
    """

    name: str
    noisy: np.ndarray
    denoised: Mapping[str, np.ndarray]  # by method
    clean: np.ndarray | None
    captions: Mapping[str, str]  # for "noisy" and methods: short texts, such as "31.20 dB"

    @property
    def sides(self) -> dict[str, np.ndarray]:
        """The images to show by label, in this order: noisy, each method, clean if there is one."""
        clean = {} if self.clean is None else {"clean": self.clean}
        return {"noisy": self.noisy, **self.denoised, **clean}


LONGEST = 1024  # longest side in pixels of a whole picture; a report has many


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """Returns a picture as float32, where 1.0 is white; NaN and −∞ become 0, ∞ becomes 1."""
    return np.nan_to_num(value_range.to_unit(pixels), copy=False, posinf=1, neginf=0)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Converts a picture [H, W, C], uint8, uint16 or float, to an 8-bit gray or RGB image."""
    if pixels.dtype != np.uint8:
        pixels = value_range.from_unit(to_unit(pixels), np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def shrunk(image: Image.Image) -> Image.Image:
    """Returns the image, scaled down if its longer side exceeds `LONGEST`."""
    longer = max(image.size)
    if longer <= LONGEST:
        return image
    width, height = (max(1, round(side * LONGEST / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def data_uri(image: Image.Image) -> str:
    """Returns an image as the data URI of a lossless WebP."""
    buffer = io.BytesIO()
    # A quarter smaller than PNG, and no slower; more effort saves little more.
    image.save(buffer, "WEBP", lossless=True, method=1, quality=50)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def find_places(picture: ReportPicture, size: int, count: int) -> list[tuple[slice, slice]]:
    """Returns the places where the first method does worst, in that order.

    With a clean picture, they have the largest mean absolute error. Without one, they are where
    the method changed the most structure: noise nearly cancels in the mean of neighbouring pixels,
    so what remains of noisy − denoised was in the scene or is low-frequency noise. Places are at
    most `size` px a side and do not overlap, so there may be fewer than `count`, but at least one.
    """
    denoised = to_unit(next(iter(picture.denoised.values())))
    if picture.clean is not None:
        wrong = denoised - to_unit(picture.clean)
    else:
        removed = to_unit(picture.noisy) - denoised
        wrong = scipy.ndimage.uniform_filter(removed, (9, 9, 1))
    badness = np.abs(wrong).mean(axis=-1)
    height, width = (min(size, side) for side in badness.shape)
    # `uniform_filter` centres its windows; shifted, each mean is of the window starting there.
    means = scipy.ndimage.uniform_filter(badness, (height, width))[height // 2 :, width // 2 :]
    means = means[: badness.shape[0] - height + 1, : badness.shape[1] - width + 1].copy()
    places: list[tuple[slice, slice]] = []
    while len(places) < count and np.isfinite(means).any():
        top, left = map(int, np.unravel_index(np.argmax(means), means.shape))
        places.append((slice(top, top + height), slice(left, left + width)))
        first_row, first_column = max(0, top - height + 1), max(0, left - width + 1)
        means[first_row : top + height, first_column : left + width] = -np.inf
    return places


HEAT = ("#000000", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
"""Evenly spaced colours, from no error to the largest; close to matplotlib's magma."""

_HEAT_LEVELS = 64  # fewer than a picture could have, to keep the file small
_EXTREMES = 98  # percentile; a scale up to the few pixels beyond would leave all others dark
_RESIDUAL_LEVELS = 32  # halves the file size of noise, and is invisible in it
_PEAKS = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200)
_GAINS = (16, 8, 4, 2, 1)


def heat_palette(levels: int) -> np.ndarray:
    """Returns the colours of `HEAT`, as many as there are levels, uint8 [levels, 3]."""
    stops = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in HEAT])
    at = np.linspace(0, len(HEAT) - 1, levels)
    palette = np.stack([np.interp(at, range(len(HEAT)), c) for c in stops.T], axis=-1)
    return np.rint(palette).astype(np.uint8)


def error_maps(picture: ReportPicture) -> tuple[int, dict[str, Image.Image]]:
    """Draws |denoised − clean|, averaged over the channels, on the same scale for all methods.

    Returns the error that the lightest colour stands for, in levels of 255, and maps by method.
    """
    assert picture.clean is not None
    clean = to_unit(picture.clean)
    errors = {
        method: np.abs(to_unit(pixels) - clean).mean(axis=-1) * 255
        for method, pixels in picture.denoised.items()
    }
    extreme = max(np.percentile(error, _EXTREMES) for error in errors.values())
    # In float32, an error of 50 may come out slightly above 50.
    peak = next((peak for peak in _PEAKS if extreme < peak + 0.01), 255)
    palette = heat_palette(_HEAT_LEVELS)
    maps = {}
    for method, error in errors.items():
        levels = np.minimum(error / peak, 1) * (_HEAT_LEVELS - 1)
        maps[method] = shrunk(Image.fromarray(np.rint(levels).astype(np.uint8)))
        maps[method].putpalette(palette.tobytes())
    return peak, maps


def residual_maps(picture: ReportPicture) -> tuple[int, dict[str, Image.Image]]:
    """Draws noisy − denoised around mid-gray, amplified by the same gain for all methods.

    Returns the gain, and the maps by method.
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


TILE = 256  # side in pixels of the crop that the sheet shows of a larger picture
_SMALLEST = 128
_MARGIN, _GAP, _LINE = 20, 12, 19
_FONT = ImageFont.load_default(size=14)
_BLACK, _GRAY = "#000000", "#606060"


def write_contact_sheet(path: str | os.PathLike, pictures: Sequence[ReportPicture]) -> None:
    """Writes a PNG with a row for each picture: noisy, each method, clean.

    Pictures larger than `TILE` are cropped, not scaled down, so that their noise stays visible.
    The crop is where the first method does worst. Very small pictures are enlarged. All pictures
    must have the same labels in `sides`.
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
        # Bottom-aligned: the last line of each heading is right above the pictures.
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
    """Breaks a text into lines of at most `width` px, after a space or a slash if possible."""
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
