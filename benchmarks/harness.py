"""Measures the sides of a comparison in turns, A B A B, and compares them pair by pair.

So changes on the machine during a run affect all sides.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sample = Mapping[str, float]
"""The result of one measurement: `seconds`, and whatever else its suite reports."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        name: its name in the table.
        measure: function that takes one measurement.
        base: name of the side it is compared with; None for no comparison.
        facts: values known without measuring time, such as its peak memory.
    """

    name: str
    measure: Callable[[], Sample]
    base: str | None = None
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)


def timed(function: Callable[[], Any]) -> Callable[[], Sample]:
    """Returns a measurement of a function, which must not return before its work is done."""

    def measure() -> Sample:
        start = time.perf_counter()
        function()
        return {"seconds": time.perf_counter() - start}

    return measure


def timed_per_megapixel(function: Callable[[], Any], pixels: float) -> Callable[[], Sample]:
    """Returns a measurement of a function that denoises this many pixels; see `timed`."""
    clock, megapixels = timed(function), pixels / 1e6

    def measure() -> Sample:
        before = time.process_time()
        seconds = clock()["seconds"]
        cpu_seconds = time.process_time() - before
        return {
            "seconds": seconds,
            "seconds_per_megapixel": seconds / megapixels,
            "cpu_seconds_per_megapixel": cpu_seconds / megapixels,
        }

    return measure


def alternate(
    sides: Sequence[Side], repeats: int, *, warm_up: bool = True
) -> dict[str, list[Sample]]:
    """Measures the sides in turns.

    Args:
        sides: the sides, in the order of their turns.
        repeats: how often each side is measured.
        warm_up: whether each side first runs once without being counted: for tracing, and for
            what libraries prepare when they first see a shape.

    Returns:
        The samples of each side, by its name; samples with the same index belong together.
    """
    if warm_up:
        for side in sides:
            side.measure()
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    for _ in range(repeats):
        for side in sides:
            samples[side.name].append(side.measure())
    return samples


def paired_ratios(
    numerators: Sequence[Sample], denominators: Sequence[Sample], key: str = "seconds"
) -> list[float]:
    """Returns the ratio of each pair of samples taken in the same turn."""
    return [a[key] / b[key] for a, b in zip(numerators, denominators, strict=True)]


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns the median of each measured value, the minimum of the seconds, and the samples."""
    return {
        **{key: statistics.median(sample[key] for sample in samples) for key in samples[0]},
        "seconds_min": min(sample["seconds"] for sample in samples),
        "samples": [dict(sample) for sample in samples],
    }


def compare(
    case: str, sides: Sequence[Side], repeats: int, *, warm_up: bool = True
) -> dict[str, Any]:
    """Measures the sides of one case and returns its part of the results.

    In a side's row, `ratio` is its speed relative to its base: the median, over the turns, of the
    base's seconds divided by the side's own.
    """
    samples = alternate(sides, repeats, warm_up=warm_up)
    rows = []
    for side in sides:
        row = {"side": side.name, **side.facts, **summarise(samples[side.name])}
        if side.base is not None:
            row["base"] = side.base
            row["ratios"] = paired_ratios(samples[side.base], samples[side.name])
            row["ratio"] = statistics.median(row["ratios"])
        rows.append(row)
    return {"case": case, "sides": rows}
