"""What the results in a folder were made with, so that a later run adds none of another kind."""

import json
from typing import Any

from cbsn.errors import ConfigError
from cbsn.files import write_json
from cbsn.inference.beam.locations import local_copy, new_file

RECORD = "run.json"


def check_record(output: str, record: dict[str, Any]) -> None:
    """Compares the record of a folder's results with that of the run to come.

    Args:
        output: the folder, with a record.
        record: of the run to come: `model` (its `path`, which may differ, and `sha256`), and
            whatever else must not differ, by its name.

    Raises:
        ConfigError: if they differ, or the folder's cannot be read.
    """
    location = f"{output}/{RECORD}"
    try:
        with local_copy(location) as path:
            before = json.loads(path.read_text(encoding="utf-8"))
        changes = _differences(before, record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{location} cannot be read, so nobody knows how the results there were made. Give "
            f"another --output. ({error!r})"
        ) from error
    if changes:
        raise ConfigError(
            f"The results in {output} were made otherwise: {', '.join(changes)}. Give what was "
            "given then, or another --output."
        )


def write_record(output: str, record: dict[str, Any]) -> None:
    """Writes the record of a folder's results; the folder is made.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with new_file(f"{output}/{RECORD}") as path:
            write_json(path, record)
    except Exception as error:  # each file system has errors of its own
        raise ConfigError(f"{output} cannot be written: {error}. Give another --output.") from error


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Says of each difference what was and what is."""
    changes = []
    if before["model"]["sha256"] != now["model"]["sha256"]:
        was, this = (_describe(each["model"]) for each in (before, now))
        changes.append(f"model {was} (now {this})")
    for key in sorted({*before, *now} - {"model"}):
        if before.get(key) != now.get(key):
            changes.append(f"{key} {before.get(key)} (now {now.get(key)})")
    return changes


def _describe(model: dict[str, str]) -> str:
    return f"{model['path']}, SHA-256 {model['sha256'][:12]}"
