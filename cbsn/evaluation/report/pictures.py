"""The report's pictures: what is shown of them, and the contact sheet."""

import base64
import dataclasses
import io
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

from cbsn.errors import in_one_line
from cbsn.files import atomic_path
from cbsn.value_range import value_range


@dataclasses.dataclass(frozen=True, eq=False)
class ReportPicture:
    """A picture before and after.

    Args:
        name: str, for people.
        noisy: [H, W, C], uint8, uint16 or float, of which [0, 1] is shown; C is 1 or 3.
        denoised: by method, at least one; same shape and dtype. The first one decides which
            places are shown in detail.
        clean: same shape and dtype, or None where there is none.
        captions: short texts, such as "31.20 dB, SSIM .892", by "noisy" or method; it may lack
            some.
    """

    name: str
    noisy: np.ndarray
    denoised: Mapping[str, np.ndarray]
    clean: np.ndarray | None
    captions: Mapping[str, str]

    @property
    def sides(self) -> list[tuple[str, np.ndarray]]:
        """What there is to see, in order, each with its label: noisy, the methods', clean."""
        clean = [] if self.clean is None else [("clean", self.clean)]
        return [("noisy", self.noisy), *self.denoised.items(), *clean]


LONGEST = 1024
"""Pixels of the longer side of what is shown whole; a report has many pictures."""


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """Returns a picture as float32, 1.0 being white; values beyond [0, 1] stay.

    Args:
        pixels: [H, W, C], uint8, uint16 or float. NaN and −∞ become 0, ∞ becomes 1.

    Raises:
        TypeError: for any other dtype.
    """
    unit = pixels.astype(np.float32) / np.float32(value_range(pixels.dtype))
    return np.nan_to_num(unit, copy=False, posinf=1, neginf=0)


def to_8bit(pixels: np.ndarray) -> np.ndarray:
    """Returns a picture as uint8, [H, W, C]; floats are clipped to [0, 1].

    Args:
        pixels: as for `to_unit`.

    Raises:
        TypeError: likewise.
    """
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(np.clip(to_unit(pixels), 0, 1) * 255).astype(np.uint8)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Returns a Pillow image of a picture, gray or RGB.

    Args:
        pixels: as for `to_unit`.

    Raises:
        TypeError: likewise.
    """
    pixels = to_8bit(pixels)
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


_SMOOTHING = 9


def find_places(picture: ReportPicture, size: int, count: int) -> list[tuple[slice, slice]]:
    """Returns the places that show most of what the first method does wrong.

    With a clean picture, these have the largest mean absolute error. Without, they are where
    it changed the most structure: noise leaves little in the mean of a few neighbours, so what is
    there of noisy − denoised was in the scene, or is noise of a low frequency.

    Args:
        picture: of any size.
        size: int, height and width of a place in px; those of the picture where it is smaller.
        count: int, how many.

    Returns:
        Rows and columns of each place, the worst first. They do not overlap, so there may be
        fewer than `count`, but there is one at least.
    """
    badness = _badness(picture)
    height, width = (min(size, side) for side in badness.shape)
    # `uniform_filter` centres its window; this is the mean of the window that begins at a pixel.
    means = uniform_filter(badness, (height, width))
    means = means[height // 2 :, width // 2 :]
    means = means[: badness.shape[0] - height + 1, : badness.shape[1] - width + 1].copy()
    places = []
    while len(places) < count and np.isfinite(means).any():
        top, left = map(int, np.unravel_index(np.argmax(means), means.shape))
        places.append((slice(top, top + height), slice(left, left + width)))
        means[
            max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width
        ] = -np.inf
    return places


def _badness(picture: ReportPicture) -> np.ndarray:
    """Returns float32 [H, W] ≥ 0."""
    denoised = to_unit(next(iter(picture.denoised.values())))
    if picture.clean is not None:
        return np.abs(denoised - to_unit(picture.clean)).mean(axis=-1)
    removed = to_unit(picture.noisy) - denoised
    return np.abs(uniform_filter(removed, (_SMOOTHING, _SMOOTHING, 1))).mean(axis=-1)


TILE = 256
"""Height and width in px of what is shown of a larger picture."""

_SMALLEST = 128
_MARGIN = 20
_GAP = 12
_LINE = 19
_FONT = ImageFont.load_default(size=14)
_BLACK, _GRAY = "#000000", "#606060"


@dataclasses.dataclass(frozen=True)
class _Row:
    """A picture's row: by label, its tiles and the lines beneath them."""

    name: str
    tiles: dict[str, Image.Image]
    captions: dict[str, list[str]]

    @property
    def tile_height(self) -> int:
        return max(tile.height for tile in self.tiles.values())

    @property
    def height(self) -> int:
        lines = 1 + max(map(len, self.captions.values()))
        return _GAP + lines * _LINE + self.tile_height


def write_contact_sheet(path: str | os.PathLike, pictures: Sequence[ReportPicture]) -> None:
    """Writes a PNG with a row for each picture: noisy, each method, clean.

    Pictures larger than `TILE` are cut, not reduced, as their noise is to be seen: at the place
    that is the worst for the first method. Very small ones are enlarged.

    Args:
        path: of the file; its folder must exist.
        pictures: at least one. A method that a picture lacks leaves a gap in its row.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if a picture is neither uint8, uint16 nor float.
        ValueError: if there is no picture.
    """
    if not pictures:
        raise ValueError("A contact sheet needs a picture. Received: none")
    labels = list(dict.fromkeys(label for picture in pictures for label, _ in picture.sides))
    if "clean" in labels:
        labels.append(labels.pop(labels.index("clean")))
    tiles = [_tiles(picture) for picture in pictures]
    column = max(_SMALLEST, *(tile.width for row in tiles for tile in row.values()))
    rows = [
        _Row(
            picture.name,
            tiles_of_it,
            {label: _wrapped(picture.captions.get(label, ""), column) for label in labels},
        )
        for picture, tiles_of_it in zip(pictures, tiles, strict=True)
    ]
    heads = {label: _wrapped(label, column) for label in labels}
    top = _MARGIN + max(map(len, heads.values())) * _LINE
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + len(labels) * (column + _GAP) - _GAP,
            top + sum(row.height for row in rows) + _MARGIN,
        ),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    lefts = {label: _MARGIN + i * (column + _GAP) for i, label in enumerate(labels)}
    for label, lines in heads.items():
        # The last line of each stands right above the pictures.
        _write(draw, lefts[label], top - len(lines) * _LINE, lines, _BLACK)
    for row in rows:
        y = top + _GAP // 2
        _write(draw, _MARGIN, y, _wrapped(row.name, sheet.width - 2 * _MARGIN)[:1], _GRAY)
        y += _LINE
        for label, tile in row.tiles.items():
            sheet.paste(tile, (lefts[label], y))
        for label, lines in row.captions.items():
            _write(draw, lefts[label], y + row.tile_height + 2, lines, _GRAY)
        top += row.height
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _tiles(picture: ReportPicture) -> dict[str, Image.Image]:
    rows, columns = find_places(picture, TILE, count=1)[0]
    tiles = {}
    for label, pixels in picture.sides:
        tile = to_image(pixels[rows, columns])
        zoom = max(1, _SMALLEST // max(tile.size))
        size = (tile.width * zoom, tile.height * zoom)
        tiles[label] = tile.resize(size, Image.Resampling.NEAREST)
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
