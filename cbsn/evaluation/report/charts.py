"""Charts of a training: their geometry, which the template draws.

Matplotlib is an extra that a report must do without; to look like the page, it would take twice
the code.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

VALIDATION = "validation_psnr"

# What `cbsn.training.logging` writes besides the terms of the loss.
_NO_LOSSES = {"step", "learning_rate", "steps_per_second", "patches_per_second", "skipped_steps"}
_NO_LOSSES |= {"bad_records", "peak_memory_gib", "peak_gpu_memory_gib"}

_MOST_POINTS = 300
_LOG_FROM = 30


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of lines over steps, in the coordinates of a drawing of `WIDTH` × `HEIGHT`."""

    WIDTH = 480
    HEIGHT = 270
    LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 28, 10, HEIGHT - 44

    label: str  # of the vertical axis
    lines: dict[str, list[tuple[float, float]]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]

    @classmethod
    def plot(cls, label: str, curves: Mapping[str, list], steps: tuple[float, float]) -> "Chart":
        """Lays out curves of (step, value), none empty, from the first to the last of the steps.

        The vertical axis is logarithmic if the values are above 0 and far apart. Curves of many
        points are drawn by the means of equal runs of them.
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


def training_charts(path: Path) -> list[Chart]:
    """Returns the charts of a run's `metrics.jsonl`; none if it holds no values yet."""
    losses = read_curves(path)
    steps = [step for points in losses.values() for step, _ in points]
    validation = {"validation": losses.pop(VALIDATION)} if VALIDATION in losses else {}
    parts = {"loss": losses, "PSNR in dB": validation}
    return [
        Chart.plot(name, part, (min(steps), max(steps))) for name, part in parts.items() if part
    ]


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Reads the terms of the loss, and `VALIDATION`, even while the file is being written.

    A total that is the only term once more is left out, as are lines that are incomplete and values
    that are no finite numbers.
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
    """Adds a share of the length to both ends; some length if there is none."""
    room = (last - first) * margin or (0 if last > first else abs(first) * 0.1 or 1)
    return first - room, last + room


def _axis(first: float, last: float, start: float, end: float) -> Callable[[float], float]:
    """Maps [first, last] to [start, end] of the drawing."""
    return lambda value: round(start + (value - first) / (last - first) * (end - start), 1)


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers in [low, high]."""
    if low == high:
        return [low]
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(step for step in (1, 2, 5, 10) if step * power >= rough) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded, as 3 · 0.1 is a little more than 0.3.
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten in [low, high], with 2 and 5 times these if they are few."""
    digits = (1,) if high >= 1000 * low else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return [tick for tick in ticks if low <= tick <= high]
