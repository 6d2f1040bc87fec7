"""All that a report shows."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cbsn.evaluation.report.picture import ReportPicture


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
