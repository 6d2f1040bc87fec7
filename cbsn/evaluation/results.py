"""The files that an evaluation leaves: for programs, for spreadsheets, for papers, for the eye."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cbsn.errors import ConfigError
from cbsn.evaluation.report.contact_sheet import write_contact_sheet
from cbsn.evaluation.report.content import ReportContent
from cbsn.evaluation.report.html import write_report
from cbsn.evaluation.scores import Scores, markdown_table
from cbsn.files import expanded, write_json, write_text


def make_folder(path: Path) -> Path:
    """Makes the folder of the results before the work, rather than finding it amiss after it.

    Raises:
        ConfigError: if it cannot be made.
    """
    path = expanded(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"No folder can be made at {path}: {error.strerror}.") from error
    return path


def write_results(
    folder: Path,
    facts: dict[str, Any],
    scores: Sequence[Scores],
    content: ReportContent | None,
) -> list[Path]:
    """Writes `results.json`, `results.csv`, `results.md`, `report.html` and `contact_sheet.png`.

    Args:
        folder: where to.
        facts: what was compared, for the JSON.
        scores: of each method.
        content: what the report shows; None for no report, and no contact sheet.

    Returns:
        What was written.

    Raises:
        ConfigError: if a file cannot be written.
    """
    paths = [folder / f"results.{suffix}" for suffix in ("json", "csv", "md")]
    try:
        methods = [each.to_dict() for each in scores]
        write_json(paths[0], {**facts, "methods": methods})
        write_text(paths[1], _csv(scores))
        write_text(paths[2], markdown_table([each.cells() for each in scores]) + "\n")
        if content is not None:
            paths.append(folder / "report.html")
            write_report(paths[-1], content)
            if content.pictures:
                paths.append(folder / "contact_sheet.png")
                write_contact_sheet(paths[-1], content.pictures)
    except OSError as error:
        raise ConfigError(
            f"The results cannot be written to {folder}: {error.strerror or error}."
        ) from error
    return paths


def _csv(scores: Sequence[Scores]) -> str:
    """A line for each method and picture."""
    rows = [
        {"method": each.method, **each.of_picture(index)}
        for each in scores
        for index in range(len(each.names))
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
