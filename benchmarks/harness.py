"""Taking turns: the sides of a comparison are measured A B A B, and compared pair by pair.

So what changes on the machine meanwhile meets all of them.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sample = Mapping[str, float]
"""What one measurement gave: `seconds`, and whatever else its suite reports."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        name: what the table calls it.
        measure: takes one measurement.
        base: name of the side it is compared with; None compares it with nothing.
        facts: what is known of it without measuring time, such as its peak memory.
    """

    name: str
    measure: Callable[[], Sample]
    base: str | None = None
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)


def timed(function: Callable[[], Any]) -> Callable[[], Sample]:
    """Returns a measurement of a function, which must return when its work is done."""

    def measure() -> Sample:
        start = time.perf_counter()
        function()
        return {"seconds": time.perf_counter() - start}

    return measure


def alternate(
    sides: Sequence[Side], repeats: int, *, warm_up: bool = True
) -> dict[str, list[Sample]]:
    """Measures the sides in turns.

    Args:
        sides: who takes part, in this order.
        repeats: how often each one is measured.
        warm_up: whether each is run once before, which is not counted: for tracing, and for
            what libraries prepare when they first see a shape.

    Returns:
        The samples of each side, by its name; those of one index belong together.
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
    """Returns the ratio of each pair of samples that were taken in the same turn."""
    return [a[key] / b[key] for a, b in zip(numerators, denominators, strict=True)]


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns the medians of all that was measured, the least seconds, and the samples."""
    return {
        **{key: statistics.median(sample[key] for sample in samples) for key in samples[0]},
        "seconds_min": min(sample["seconds"] for sample in samples),
        "samples": [dict(sample) for sample in samples],
    }


def compare(
    case: str, sides: Sequence[Side], repeats: int, *, warm_up: bool = True
) -> dict[str, Any]:
    """Measures the sides of one case and returns its part of the results.

    In a side's row, `ratio` says how many times as fast as its base it is: the median, over the
    turns, of the base's seconds divided by its own.
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
