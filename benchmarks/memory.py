"""Measures the peak memory of one side in a separate process, as a peak belongs to a process.

    python -m benchmarks.memory SUITE SPEC

makes the side that `benchmarks.SUITE.make(SPEC)` describes (SPEC in JSON), runs it twice (once if
it takes long), and prints the memory of the process before that and at its peak.
"""

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cbsn.cli.flags import run
from cbsn.cli.parser import new_parser
from cbsn.devices import peak_memory
from cbsn.errors import CbsnError

_LONG = 60.0
_ROOT = Path(__file__).resolve().parent.parent


def measure_memory(suite: str, spec: Mapping[str, Any]) -> dict[str, float]:
    """Returns a side's peak memory as `peak_gib`, and that before it was made as `start_gib`.

    Args:
        suite: the module of this package whose `make` makes the side.
        spec: the argument of `make`; fit for JSON.

    Raises:
        CbsnError: if the process fails, for instance for lack of memory.
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
    # The first run traces. The second one may need memory on top of what the first has kept. A
    # long run has many parts, so its later parts already show that.
    if measure()["seconds"] < _LONG:
        measure()
    print(json.dumps({"start_gib": start, "peak_gib": peak_memory()}))


if __name__ == "__main__":
    parser = new_parser("Measure the peak memory of one side.")
    parser.add_argument("suite")
    parser.add_argument("spec")
    run(_main, parser)
