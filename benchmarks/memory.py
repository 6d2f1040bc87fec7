"""Peak memory of one side, in a process of its own, for a peak belongs to a process.

    python -m benchmarks.memory SUITE SPEC

makes the side that `benchmarks.SUITE.make(SPEC)` describes (SPEC in JSON), runs it twice, and
prints what memory the process had before and at most.
"""

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cbsn.cli import flags as cli
from cbsn.devices import peak_memory
from cbsn.errors import CbsnError

_LONG = 60.0
_ROOT = Path(__file__).resolve().parent.parent


def measure_memory(suite: str, spec: Mapping[str, Any]) -> dict[str, float]:
    """Returns `peak_gib` of a side's process, and `start_gib`, before the side was made.

    Args:
        suite: the module of this package whose `make` makes the side.
        spec: what `make` takes; fit for JSON.

    Raises:
        CbsnError: if the process fails, for want of memory for instance.
    """
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", suite, json.dumps(spec)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:]
        raise CbsnError(
            f"The process that measures the memory of {suite} {dict(spec)} ended with status "
            f"{process.returncode}; --no-memory does without it. {''.join(last)}"
        )
    return json.loads(process.stdout.splitlines()[-1])


def _main(flags: argparse.Namespace) -> None:
    start = peak_memory()
    measure = importlib.import_module(f"benchmarks.{flags.suite}").make(json.loads(flags.spec))
    # The first run traces, and the second one may find what the first has kept. What takes so
    # long has many parts, of which the later ones find that, too.
    if measure()["seconds"] < _LONG:
        measure()
    print(json.dumps({"start_gib": start, "peak_gib": peak_memory()}))


if __name__ == "__main__":
    parser = cli.new_parser("Measure the peak memory of one side.")
    parser.add_argument("suite")
    parser.add_argument("spec")
    cli.run(_main, parser)
