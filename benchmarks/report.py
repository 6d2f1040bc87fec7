"""Results as tables: aligned plain text, or Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

TEXT, MARKDOWN = "text", "markdown"


class Column(NamedTuple):
    """A column: the key of its value in a side's row, its heading and its format."""

    key: str
    heading: str
    format: str = ".3g"


def header(machine: Mapping[str, Any], layout: str) -> str:
    """Returns the lines that describe the machine."""
    lines = [f"{name}: {value}" for name, value in machine.items()]
    return "\n".join(f"- {line}" for line in lines) if layout == MARKDOWN else "\n".join(lines)


def table(
    title: str, columns: Sequence[Column], cases: Sequence[Mapping[str, Any]], layout: str
) -> str:
    """Returns the table of a suite.

    Args:
        title: title above the table.
        columns: columns after case and side; a column without any value is omitted.
        cases: results of `benchmarks.harness.compare`.
        layout: `TEXT` or `MARKDOWN`.
    """
    sides = [side for case in cases for side in case["sides"]]
    columns = [column for column in columns if any(column.key in side for side in sides)]
    rows = [["case", "side", *(column.heading for column in columns)]]
    for case in cases:
        name = case["case"]
        for side in case["sides"]:
            rows.append([name, side["side"], *(_cell(column, side) for column in columns)])
            # Text is easier to read if a case is named once; Markdown may be cut up and moved.
            name = "" if layout == TEXT else name
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [_line(row, widths, layout) for row in rows]
    if layout == MARKDOWN:
        rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
        return "\n".join([f"**{title}**", "", lines[0], f"| {' | '.join(rule)} |", *lines[1:]])
    return "\n".join([title, lines[0], "-" * sum(widths, 2 * len(widths) - 2), *lines[1:]])


def _cell(column: Column, side: Mapping[str, Any]) -> str:
    value = side.get(column.key)
    if value is None:
        return ""
    if column.key == "ratio" and side["base"] == side["side"]:
        return "base"
    return format(value, column.format)


def _line(cells: Sequence[str], widths: Sequence[int], layout: str) -> str:
    padded = [
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |" if layout == MARKDOWN else "  ".join(padded).rstrip()
