"""A report as one file of HTML, which needs nothing else: no network, no other file."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from cbsn.evaluation.report.charts import Chart, training_charts
from cbsn.evaluation.report.pictures import (
    HEAT,
    ReportPicture,
    data_uri,
    error_maps,
    find_places,
    residual_maps,
    shrunk,
    to_image,
)
from cbsn.files import atomic_path


@dataclasses.dataclass(frozen=True, eq=False)
class ReportContent:
    """What a report shows, from its top to its end; all but the title may be empty."""

    title: str
    facts: Sequence[str]  # what was compared, and how
    table: Sequence[Mapping[str, str]]  # rows of the scores, text by heading
    notes: Mapping[str, Sequence[str]]  # by heading; a line with breaks is shown as a table
    pictures: Sequence[ReportPicture]
    curves: Mapping[str, Path]  # by method, the `metrics.jsonl` of the run that trained it


def write_report(path: str | os.PathLike, content: ReportContent) -> None:
    """Writes a report, whole or not at all; raises OSError if it cannot be written."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"breakable": _breakable, "uri": data_uri}
    # The pictures are encoded one by one as they are written: all at once may take a GB.
    stream = environment.get_template("report.html.jinja").stream(
        content=content,
        rows=mark_best(content.table) if content.table else [],
        pictures=map(_picture, content.pictures),
        runs=_runs(content.curves),
        heat=HEAT,
        chart=Chart,
    )
    with atomic_path(path) as temporary:
        stream.dump(str(temporary), encoding="utf-8", errors="backslashreplace")


def _breakable(text: str) -> markupsafe.Markup:
    """Lets a line break after a slash, as names of models are long paths."""
    return markupsafe.escape(text).replace("/", markupsafe.Markup("/<wbr>"))


_BETTER = {"PSNR": max, "SSIM": max, "LPIPS": min}  # by the first word of a heading


def mark_best(table: Sequence[Mapping[str, str]]) -> list[list[tuple[str, bool]]]:
    """Returns the rows of a table: of each cell the text, and whether it is the best one."""
    best: dict[str, float] = {}
    for heading in table[0]:
        numbers = [n for row in table if not math.isnan(n := _number(row[heading]))]
        better = _BETTER.get(heading.partition(" ")[0])
        if better and len(numbers) > 1:
            best[heading] = better(numbers)
    return [
        [(text, head in best and _number(text) == best[head]) for head, text in row.items()]
        for row in table
    ]


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan


_CROPS, _CROP, _CROP_SHOWN = 3, 64, 256
"""Their number, and pixels a side, in the picture and on the page."""


def _picture(picture: ReportPicture) -> dict[str, Any]:
    """What the template shows of a picture."""
    height, width = picture.noisy.shape[:2]
    shown = {label: shrunk(to_image(pixels)) for label, pixels in picture.sides.items()}
    gain, residuals = residual_maps(picture)
    peak, errors = (None, {}) if picture.clean is None else error_maps(picture)
    return {
        "name": picture.name,
        "size": (width, height),
        "shown": shown["noisy"].size,
        "sides": [
            {"label": label, "caption": picture.captions.get(label, ""), "image": image}
            for label, image in shown.items()
        ],
        "crops": [_crop(picture, *place) for place in find_places(picture, _CROP, _CROPS)],
        "peak": peak,
        "gain": gain,
        "maps": [
            {"method": method, "error": errors.get(method), "residual": residual}
            for method, residual in residuals.items()
        ],
    }


def _crop(picture: ReportPicture, rows: slice, columns: slice) -> dict[str, Any]:
    width, height = columns.stop - columns.start, rows.stop - rows.start
    return {
        "at": (columns.start, rows.start),
        "size": (width, height),
        "zoom": max(1, _CROP_SHOWN // max(width, height)),
        "sides": {label: to_image(side[rows, columns]) for label, side in picture.sides.items()},
    }


def _runs(curves: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """What the template shows of each run."""
    for method, path in curves.items():
        charts, reason = [], f"{path} holds no values yet"
        try:
            charts = training_charts(path)
        except OSError as error:  # not worth the loss of the report
            reason = f"{path}: {error.strerror}"
        yield {"method": method, "charts": charts, "reason": reason}
