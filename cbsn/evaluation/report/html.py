"""A report as one file of HTML, which needs nothing else: no network, no other file."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from cbsn.evaluation.report.charts import VALIDATION, Chart, read_curves
from cbsn.evaluation.report.pictures import (
    ReportPicture,
    data_uri,
    find_places,
    shrunk,
    to_image,
    to_unit,
)
from cbsn.files import atomic_path


@dataclasses.dataclass(frozen=True, eq=False)
class ReportContent:
    """What a report shows, from its top to its end.

    Args:
        title: str.
        facts: lines that say what was compared, and how.
        table: rows of the scores, text by heading; all have the same headings. May be empty.
        notes: lines of plain words, by heading; one with line breaks, a table, is shown as it is.
        pictures: may be empty.
        curves: by method, the `metrics.jsonl` of the run that trained it.
    """

    title: str
    facts: Sequence[str]
    table: Sequence[Mapping[str, str]]
    notes: Mapping[str, Sequence[str]]
    pictures: Sequence[ReportPicture]
    curves: Mapping[str, Path]


_BETTER = {"PSNR": max, "SSIM": max, "LPIPS": min}
"""By the first word of a heading."""


class Cell(NamedTuple):
    """One cell.

    Args:
        text: str, as it was given.
        number: bool, whether its column is aligned as numbers are: all but the first.
        best: bool, whether no other row is better; never in a table of one row.
    """

    text: str
    number: bool
    best: bool


def mark_best(table: Sequence[Mapping[str, str]]) -> list[list[Cell]]:
    """Returns the rows of a table as cells.

    Args:
        table: text by heading, the same headings in all rows.
    """
    best = {heading: _best(heading, [row[heading] for row in table]) for heading in table[0]}
    return [
        [
            Cell(text, i > 0, best[heading] is not None and _number(text) == best[heading])
            for i, (heading, text) in enumerate(row.items())
        ]
        for row in table
    ]


def _best(heading: str, texts: Sequence[str]) -> float | None:
    better = _BETTER.get(heading.partition(" ")[0])
    numbers = [number for text in texts if (number := _number(text)) is not None]
    return better(numbers) if better and len(numbers) > 1 else None


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return None
    return None if math.isnan(number) else number


HEAT = ("#000000", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
"""Colours of errors from none to the largest, at equal distances; about matplotlib's magma."""

_HEAT_LEVELS = 64  # fewer than a picture could have, for the sake of its size
_EXTREMES = 98  # percentile: the few pixels beyond it would leave all others dark
_RESIDUAL_LEVELS = 32  # halves the size of noise, and is not to be seen in it
_PEAKS = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200)
_GAINS = (16, 8, 4, 2, 1)


def error_maps(picture: ReportPicture) -> tuple[int, dict[str, Image.Image]]:
    """Draws |denoised − clean|, the mean over the channels, on one scale for all methods.

    Args:
        picture: with a clean side.

    Returns:
        What the lightest colour means, in levels of 255; and the maps by method.
    """
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

    Args:
        picture: any.

    Returns:
        The factor, and the maps by method.
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


_CROP = 64
_CROPS = 3
_CROP_SHOWN = 256


def write_report(path: str | os.PathLike, content: ReportContent) -> None:
    """Writes a report, whole or not at all.

    Args:
        path: of the file; its folder must exist.
        content: what it shows.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if a picture is neither uint8, uint16 nor float.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["breakable"] = _breakable
    # The pictures are encoded one by one as they are written: all at once may take a GB.
    stream = environment.get_template("report.html.jinja").stream(
        content=content,
        rows=mark_best(content.table) if content.table else [],
        pictures=map(_picture, content.pictures),
        runs=_runs(content.curves),
        heat=HEAT,
        chart=Chart,
    )
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        stream.dump(file)


def _breakable(text: str) -> markupsafe.Markup:
    """Lets a line break after a slash, as names of models are long paths."""
    return markupsafe.escape(text).replace("/", markupsafe.Markup("/<wbr>"))


def _picture(picture: ReportPicture) -> dict[str, Any]:
    """What the template shows of a picture."""
    height, width = picture.noisy.shape[:2]
    shown = {label: shrunk(to_image(pixels)) for label, pixels in picture.sides}
    gain, residuals = residual_maps(picture)
    peak, errors = (None, {}) if picture.clean is None else error_maps(picture)
    return {
        "name": picture.name,
        "size": (width, height),
        "shown": shown["noisy"].size,
        "sides": [
            {"label": label, "caption": picture.captions.get(label, ""), "uri": data_uri(image)}
            for label, image in shown.items()
        ],
        "crops": [*_crops(picture)],
        "peak": peak,
        "gain": gain,
        "maps": [
            {
                "method": method,
                "error": data_uri(errors[method]) if errors else None,
                "residual": data_uri(residuals[method]),
            }
            for method in picture.denoised
        ],
    }


def _crops(picture: ReportPicture) -> Iterator[dict[str, Any]]:
    for rows, columns in find_places(picture, _CROP, _CROPS):
        width, height = columns.stop - columns.start, rows.stop - rows.start
        zoom = max(1, _CROP_SHOWN // max(width, height))
        yield {
            "at": (columns.start, rows.start),
            "size": (width, height),
            "zoom": zoom,
            "sides": [
                {"label": label, "uri": data_uri(to_image(pixels[rows, columns]))}
                for label, pixels in picture.sides
            ],
        }


def _runs(curves: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """What the template shows of each run."""
    for method, path in curves.items():
        try:
            losses = read_curves(path)
        except OSError as error:
            # Not worth the loss of the report.
            yield {"method": method, "charts": [], "reason": f"{path}: {error.strerror}"}
            continue
        steps = [step for points in losses.values() for step, _ in points]
        validation = losses.pop(VALIDATION, None)
        parts = {"loss": losses, "PSNR in dB": {"validation": validation} if validation else {}}
        yield {
            "method": method,
            "charts": [
                Chart.plot(label, part, (min(steps), max(steps)))
                for label, part in parts.items()
                if part
            ],
            "reason": f"{path} holds no values yet",
        }
