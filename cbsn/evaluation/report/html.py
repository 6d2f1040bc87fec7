"""Writes a report as one self-contained HTML file, which needs no network and no other file."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np

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

VALIDATION = "validation_psnr"

# What `cbsn.training.logging` writes besides the terms of the loss.
_NO_LOSSES = {"step", "learning_rate", "steps_per_second", "patches_per_second", "skipped_steps"}
_NO_LOSSES |= {"bad_records", "peak_memory_gib", "peak_gpu_memory_gib"}

_MOST_POINTS = 300
_LOG_FROM = 30


@dataclasses.dataclass(frozen=True)
class Chart:
    """A line chart over steps, in the coordinates of a `WIDTH` × `HEIGHT` drawing."""

    WIDTH = 480
    HEIGHT = 270
    LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 28, 10, HEIGHT - 44

    label: str  # of the vertical axis
    lines: dict[str, list[tuple[float, float]]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]

    @classmethod
    def plot(cls, label: str, curves: Mapping[str, list], steps: tuple[float, float]) -> "Chart":
        """Lays out curves of (step, value) points, none empty, over the range `steps`.

        The vertical axis is logarithmic if the values are above 0 and span a factor of 30 or more.
        A curve of more than 300 points is reduced to 300 by averaging runs of about equal length.
        """
        thin = {}
        for name, points in curves.items():
            parts = np.array_split(np.array(points, float), min(len(points), _MOST_POINTS))
            thin[name] = np.array([part.mean(axis=0) for part in parts])
        values = np.concatenate([points[:, 1] for points in thin.values()])
        low, high = values.min(), values.max()
        logarithmic = low > 0 and high >= _LOG_FROM * low
        scale = math.log10 if logarithmic else float
        first, last = _with_margin(scale(low), scale(high), 0.06)
        x_axis = _axis(*_with_margin(*steps, 0), cls.LEFT, cls.RIGHT)
        y_axis = _axis(first, last, cls.BOTTOM, cls.TOP)
        y_values = _log_ticks(low, high) if logarithmic else _ticks(first, last)
        return cls(
            f"{label}, log scale" if logarithmic else label,
            {
                name: [(x_axis(step), y_axis(scale(value))) for step, value in points]
                for name, points in thin.items()
            },
            [(x_axis(step), f"{step:,.0f}") for step in _ticks(*steps) if step == int(step)],
            [(y_axis(scale(value)), f"{value:g}") for value in y_values],
        )


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


def _with_margin(first: float, last: float, margin: float) -> tuple[float, float]:
    """Widens a range at both ends by a share of its length, or by a default if it is empty."""
    room = (last - first) * margin or (0 if last > first else abs(first) * 0.1 or 1)
    return first - room, last + room


def _axis(first: float, last: float, start: float, end: float) -> Callable[[float], float]:
    """Returns a function that maps [first, last] to [start, end] in the drawing."""
    return lambda value: round(start + (value - first) / (last - first) * (end - start), 1)


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers in [low, high]."""
    if low == high:
        return [low]
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(step for step in (1, 2, 5, 10) if step * power >= rough) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded, because 3 · 0.1 is slightly more than 0.3.
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns the powers of ten in [low, high], and 2 and 5 times them below three decades."""
    digits = (1,) if high >= 1000 * low else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [tick for tick in ticks if low <= tick <= high]


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
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"breakable": _breakable, "uri": data_uri}
    # Encodes the pictures one by one while writing: all at once may take a gigabyte.
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
    """Allows line breaks after slashes, because model names are long paths."""
    return markupsafe.escape(text).replace("/", markupsafe.Markup("/<wbr>"))


_BETTER = {"PSNR": max, "SSIM": max, "LPIPS": min}  # by first word of the heading


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
        charts = [
            Chart.plot(label, part, (min(steps), max(steps)))
            for label, part in parts.items()
            if part
        ]
        yield {"method": method, "charts": charts, "reason": reason}
