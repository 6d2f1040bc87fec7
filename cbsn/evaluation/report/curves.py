"""What a run wrote down of its training, read again."""

import json
import math
from pathlib import Path
from typing import Any

VALIDATION = "validation_psnr"

_NO_LOSSES = {
    "step",
    "learning_rate",
    "steps_per_second",
    "patches_per_second",
    "skipped_steps",
    "bad_records",
    "peak_memory_gib",
    "peak_gpu_memory_gib",
}
"""What `cbsn.training.reporter` writes beside the terms of the loss."""


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Reads a `metrics.jsonl`, even while it is being written.

    Args:
        path: the file. Lines that are incomplete, and values that are no finite numbers, are
            left out.

    Returns:
        (step, value) in the order of the steps, by name: the terms of the loss, and `VALIDATION`.
        The total is left out where it is the only term once more.

    Raises:
        OSError: if the file cannot be read.
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
