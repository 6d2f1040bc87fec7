"""Writes a report as one self-contained HTML file, which needs no network and no other file."""

import base64
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe
import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

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
from cbsn.evaluation.report.templates import templates
from cbsn.files import atomic_path

VALIDATION = "validation_psnr"

# What `cbsn.training.logging` writes besides the terms of the loss.
_NO_LOSSES = {"step", "learning_rate", "steps_per_second", "patches_per_second", "skipped_steps"}
_NO_LOSSES |= {"bad_records", "peak_memory_gib", "peak_gpu_memory_gib"}

_MOST_POINTS = 300
_GRAY = "#7d8692"  # this and the lines' colours can be seen on light and on dark pages
_LINES = ("#3d85e0", "#e0622f", "#3f9e54", "#b05cc7", "#b8962a", "#1fa0ad")
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _GRAY),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), _GRAY),
    "text.parse_math": False,  # a dollar sign is one
    # Terms that are nearly equal cover each other; the one beneath shows in the gaps.
    "axes.prop_cycle": cycler(color=_LINES, linestyle=("-", "-", "--", "-", "-", "-")),
}


def draw_chart(label: str, curves: Mapping[str, list], steps: tuple[float, float]) -> Figure:
    """Draws curves of (step, value) points, none of them empty, over the range `steps`.

    The vertical axis is logarithmic if the values are above 0 and span a factor of 30 or more.
    A curve of more than 300 points is reduced to 300 by averaging runs of about equal length.
    """
    values = [value for points in curves.values() for _, value in points]
    low, high = min(values), max(values)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, points in curves.items():
            parts = np.array_split(np.array(points, float), min(len(points), _MOST_POINTS))
            means = [part.mean(axis=0) for part in parts]
            marker = "o" if len(means) == 1 else ""
            axes.plot(*zip(*means, strict=True), marker=marker, label=name)
        if low > 0 and high >= 30 * low:
            label += ", log scale"
            axes.set_yscale("log")
            digits = (1,) if high >= 1000 * low else (1, 2, 5)
            axes.yaxis.set_major_locator(LogLocator(subs=digits))
            axes.yaxis.set_minor_locator(NullLocator())
        if steps[0] < steps[1]:
            axes.set_xlim(steps)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        else:
            axes.set_xticks(steps[:1])
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def _svg_uri(figure: Figure) -> str:
    """Returns a figure as the data URI of an SVG without a background."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Reads the loss terms and `VALIDATION` of a run, even while the file is being written.

    Skips incomplete lines, values that are not finite numbers, and a total that only repeats
    another curve.
    """
    curves: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line, parse_int=float)
        except (ValueError, RecursionError):
            continue
        if not isinstance(values, dict) or not _is_number(values.get("step")):
            continue
        for name, value in values.items():
            if name not in _NO_LOSSES and _is_number(value):
                curves.setdefault(name, {})[values["step"]] = value
    total = curves.pop("total", None)
    if total and total not in curves.values():
        curves = {"total": total, **curves}
    return {name: sorted(points.items()) for name, points in curves.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


@dataclasses.dataclass(frozen=True, eq=False)
class ReportContent:
    """What a report shows, from top to bottom; all but the title may be empty."""

    title: str
    facts: Sequence[str]  # what was compared, and how
    table: Sequence[Mapping[str, str]]  # rows of scores, each a mapping from heading to text
    notes: Mapping[str, Sequence[str]]  # lines by heading; one with line breaks is preformatted
    pictures: Sequence[ReportPicture]
    curves: Mapping[str, Path]  # by method, the `metrics.jsonl` of its training run


def write_report(path: str | os.PathLike, content: ReportContent) -> None:
    """Writes a report atomically; raises OSError if it cannot be written."""
    environment = templates(Path(__file__).parent)
    environment.filters |= {"breakable": _breakable, "uri": data_uri}
    # Encodes the pictures one by one while writing: all at once may take a gigabyte.
    stream = environment.get_template("report.html.jinja").stream(
        content=content,
        rows=mark_best(content.table) if content.table else [],
        pictures=map(_picture, content.pictures),
        runs=_runs(content.curves),
        heat=HEAT,
    )
    with atomic_path(path) as temporary:
        stream.dump(str(temporary), encoding="utf-8", errors="backslashreplace")


def _breakable(text: str) -> markupsafe.Markup:
    """Allows line breaks after slashes, because model names are long paths."""
    return markupsafe.escape(text).replace("/", markupsafe.Markup("/<wbr>"))


# By first word of the heading.
_BETTER = {"PSNR": max, "SSIM": max, "SI-PSNR": max, "MicroSSIM": max, "LPIPS": min}


def mark_best(table: Sequence[Mapping[str, str]]) -> list[list[tuple[str, bool]]]:
    """Returns the rows of a table, each cell as its text and whether it is its column's best."""
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


_CROPS, _CROP = 3, 64  # number, and side in pixels


def _picture(picture: ReportPicture) -> dict[str, Any]:
    """Returns what the template shows of a picture."""
    height, width = picture.noisy.shape[:2]
    gain, residuals = residual_maps(picture)
    peak, errors = (None, {}) if picture.clean is None else error_maps(picture)
    maps = {"error": errors, "residual": residuals} if errors else {"residual": residuals}
    return {
        "name": picture.name,
        "size": (width, height),
        "sides": {label: shrunk(to_image(pixels)) for label, pixels in picture.sides.items()},
        "captions": picture.captions,
        "crops": [
            {
                "at": (columns.start, rows.start),
                "sides": {label: to_image(p[rows, columns]) for label, p in picture.sides.items()},
            }
            for rows, columns in find_places(picture, _CROP, _CROPS)
        ],
        "peak": peak,
        "gain": gain,
        "maps": {m: {kind: each[m] for kind, each in maps.items()} for m in picture.denoised},
    }


def _runs(curves: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Yields what the template shows of each run."""
    for method, path in curves.items():
        losses, reason = {}, f"{path} holds no values yet"
        try:
            losses = read_curves(path)
        except OSError as error:  # not worth losing the report for
            reason = f"{path}: {error.strerror}"
        steps = [step for points in losses.values() for step, _ in points]
        validation = {"validation": losses.pop(VALIDATION)} if VALIDATION in losses else {}
        parts = {"loss": losses, "PSNR in dB": validation}
        charts = {
            label: _svg_uri(draw_chart(label, part, (min(steps), max(steps))))
            for label, part in parts.items()
            if part
        }
        yield {"method": method, "charts": charts, "reason": reason}
