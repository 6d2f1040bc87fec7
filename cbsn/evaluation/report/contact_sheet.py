"""A sheet of pictures for a paper: noisy, denoised and clean in a row."""

import os
import re
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from cbsn.errors import in_one_line
from cbsn.evaluation.report.pictures import ReportPicture, find_places, to_image
from cbsn.files import atomic_path

TILE = 256
"""Height and width in px of what is shown of a larger picture."""

_SMALLEST = 128
_MARGIN = 20
_GAP = 12
_LINE = 19
_FONT = ImageFont.load_default(size=14)
_BLACK, _GRAY = "#000000", "#606060"


def write_contact_sheet(path: str | os.PathLike, pictures: Sequence[ReportPicture]) -> None:
    """Writes a PNG with a row for each picture: noisy, each method, clean.

    Pictures larger than `TILE` are cut, not reduced, as their noise is to be seen: at the place
    that is the worst for the first method. Very small ones are enlarged. A method that a picture
    lacks leaves a gap in its row.
    """
    if not pictures:
        raise ValueError("A contact sheet needs a picture. Received: none")
    labels = list(dict.fromkeys(label for picture in pictures for label in picture.sides))
    if "clean" in labels:
        labels.append(labels.pop(labels.index("clean")))
    tiles = [_tiles(picture) for picture in pictures]
    column = max(_SMALLEST, *(tile.width for row in tiles for tile in row.values()))
    lefts = {label: _MARGIN + i * (column + _GAP) for i, label in enumerate(labels)}
    heads = {label: _wrapped(label, column) for label in labels}
    captions = [
        {label: _wrapped(picture.captions.get(label, ""), column) for label in labels}
        for picture in pictures
    ]
    tallest = [max(tile.height for tile in row.values()) for row in tiles]
    longest = [max(map(len, row.values())) for row in captions]
    heights = [
        _GAP + _LINE + height + lines * _LINE
        for height, lines in zip(tallest, longest, strict=True)
    ]
    top = _MARGIN + max(map(len, heads.values())) * _LINE
    width = 2 * _MARGIN + len(labels) * (column + _GAP) - _GAP
    sheet = Image.new("RGB", (width, top + sum(heights) + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for label, head in heads.items():
        # The last line of each stands right above the pictures.
        _write(draw, lefts[label], top - len(head) * _LINE, head, _BLACK)
    for i, picture in enumerate(pictures):
        y = top + _GAP // 2
        _write(draw, _MARGIN, y, _wrapped(picture.name, width - 2 * _MARGIN)[:1], _GRAY)
        y += _LINE
        for label, tile in tiles[i].items():
            sheet.paste(tile, (lefts[label], y))
        for label, caption in captions[i].items():
            _write(draw, lefts[label], y + tallest[i] + 2, caption, _GRAY)
        top += heights[i]
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _tiles(picture: ReportPicture) -> dict[str, Image.Image]:
    rows, columns = find_places(picture, TILE, count=1)[0]
    tiles = {}
    for label, pixels in picture.sides.items():
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
