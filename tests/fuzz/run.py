"""Runs cases in processes of their own, as damaged files may end one.

`python -m tests.fuzz.run KIND COUNT [FIRST]` runs COUNT cases of a kind (see `KINDS`), the first
number of them FIRST, and prints what came out. A case is a function of its kind and number.
"""

import collections
import contextlib
import faulthandler
import importlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

KINDS = {
    "pictures": ("tests.fuzz.pictures", "Pictures"),
    "preparations": ("tests.fuzz.pictures", "Preparations"),
    "records": ("tests.fuzz.data_sets", "Records"),
    "manifests": ("tests.fuzz.data_sets", "Manifests"),
    "mat": ("tests.fuzz.data_sets", "MatFiles"),
    "models": ("tests.fuzz.models", "Models"),
    "weights": ("tests.fuzz.models", "BareWeights"),
    "originals": ("tests.fuzz.models", "Originals"),
    "checkpoints": ("tests.fuzz.models", "TrainingCheckpoints"),
}

SECONDS = 20
"""Processor time of a case, at most."""

_MEMORY = 3 * 2**30
"""Bytes that a case may ask for; the largest sample has some thousands."""

_HANGS = 3600


def run_cases(cases: dict[str, int], first: int = 0):
    """Runs a number of cases of each kind.

    Args:
        cases: their number by kind; all are run in one process as long as that lives.
        first: number of each kind's first one.

    Returns:
        How many had which outcome, by (kind, outcome); and the faults in words, with their case.
    """
    counts, faults = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        todo = [[kind, first, first + count] for kind, count in cases.items() if count]
        while todo:
            journal = Path(folder, "journal")
            journal.touch()
            ended = subprocess.run(
                [sys.executable, "-m", "tests.fuzz.run", "--child", folder, json.dumps(todo)],
                cwd=ROOT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_HANGS,
            )
            last = None
            for line in journal.read_text().splitlines():
                kind, number, *outcome = json.loads(line)
                if outcome:
                    counts[kind, outcome[0]] += 1
                    faults += [f"{kind} {number}: {each}" for each in outcome[1:]]
                last = kind, number, bool(outcome)
            journal.unlink()
            if ended.returncode == 0:
                break
            errors = ended.stderr.decode(errors="replace")[-4000:]
            if last is None or last[2]:
                raise RuntimeError(f"No case could be run: {errors}")
            kind, number, _ = last
            name = signal.Signals(-ended.returncode).name if ended.returncode < 0 else "exit"
            why = f"took more than {SECONDS} s" if name == "SIGPROF" else f"{name}: {errors}"
            counts[kind, "fault"] += 1
            faults.append(f"{kind} {number}: {why}")
            while todo[0][0] != kind:
                del todo[0]
            todo[0][1] = number + 1
    return counts, faults


def _child(folder: Path, todo: list) -> None:
    """Runs cases, and writes into the journal what is begun and what has come of it."""
    faulthandler.enable()
    # What is on the disk after a crash of the machine is not tried here.
    os.fsync = lambda descriptor: None
    warnings.simplefilter("ignore")
    logging.disable()
    from cbsn.errors import CbsnError

    with Path(folder, "journal").open("a", buffering=1) as journal:
        for kind, first, end in todo:
            module, name = KINDS[kind]
            with _emptied(folder / kind) as place:
                run_case = getattr(importlib.import_module(module), name)(place)
            keep = {*place.iterdir()}
            _limit_memory()
            for number in range(first, end):
                print(json.dumps([kind, number]), file=journal)
                # Nobody handles its signal, so that it ends a decoder that is no Python, too.
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    outcome = [run_case(random.Random(f"{kind} {number}"))]
                except CbsnError as error:
                    outcome = ["fault", f"{type(error).__name__}: {error}\n{_where(error)}"]
                except (Exception, MemoryError) as error:
                    outcome = ["fault", f"{type(error).__name__}: {error}\n{_where(error)}"]
                signal.setitimer(signal.ITIMER_PROF, 0)
                left = [each for each in place.iterdir() if each not in keep]
                if any(each.name.startswith(".") for each in left):
                    outcome = ["fault", *outcome[1:], f"left over: {[each.name for each in left]}"]
                for each in left:
                    shutil.rmtree(each) if each.is_dir() else each.unlink()
                print(json.dumps([kind, number, *outcome]), file=journal)
            shutil.rmtree(place)


@contextlib.contextmanager
def _emptied(folder: Path):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder


def _limit_memory() -> None:
    """Lets a process take little more memory than it has: then what is claimed is an error."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY, resource.RLIM_INFINITY)
    )


def _where(error: BaseException) -> str:
    return "".join(traceback.format_tb(error.__traceback__)[-6:])


def main() -> None:
    """Runs what the command line says."""
    if sys.argv[1] == "--child":
        _child(Path(sys.argv[2]), json.loads(sys.argv[3]))
        return
    kind, count, *first = sys.argv[1:]
    counts, faults = run_cases({kind: int(count)}, int(first[0]) if first else 0)
    print(*faults, sep="\n\n")
    for (kind, outcome), number in sorted(counts.items()):
        print(f"{kind:14s}{outcome:32s}{number:8d}")


if __name__ == "__main__":
    main()
