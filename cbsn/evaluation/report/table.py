"""The table of scores, with the best of each metric marked."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
