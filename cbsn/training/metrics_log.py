"""`metrics.jsonl`: what a script reads to follow a run."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from cbsn.files import write_text

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends a line of JSON for each logged step.

    Args:
        path: the file. Lines of an earlier run of it are kept up to the step at which it goes on;
            those after it will come again.
        start: int, that step.
    """

    def __init__(self, path: Path, start: int):
        self._path = path
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step(line) <= start]
            if kept != lines:
                write_text(path, "".join(f"{line}\n" for line in kept))

    def write(self, values: Mapping[str, float]) -> None:
        """Appends a line; values that are not finite become null.

        Args:
            values: by name, `step` among them.
        """
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")


def _step(line: str) -> float:
    """The step of a line; infinite where the line is incomplete, as after a crash."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf
