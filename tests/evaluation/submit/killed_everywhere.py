"""Run by test_killed.py, without TensorFlow, so that it can fork: `SOURCE`, `sidd` or `dnd`.

Submissions are killed at each moment at which they change their folder, and gone on with.
"""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from cbsn.evaluation.submit.benchmarks import DndSubmission, SiddSubmission

OUT = Path("out")


def denoise(noisy):
    return noisy if noisy.dtype == np.float32 else 255 - noisy


def content(folder):
    """All files that are the same every time, less the date in those of MATLAB."""
    return {
        str(path.relative_to(folder)): path.read_bytes()[116 if path.suffix == ".mat" else 0 :]
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("submission.json", "seconds.txt")
    }


def kill_at(moment):
    """Lets this process be killed before the n-th change of a folder."""
    count = 0

    def counted(change):
        def run(*arguments, **options):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return run

    for name in ("replace", "rename", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))


def main(source, kind):
    submission_class = {"sidd": SiddSubmission, "dnd": DndSubmission}[kind]
    os.fsync = lambda descriptor: None  # the disk's part, and most of the time
    whole = submission_class(source, "whole")
    whole.run(denoise)
    expected = content(Path("whole"))
    bundles = {name for name in expected if name.startswith(whole.BUNDLES)}
    moments = []
    for damaged in (False, True):
        for moment in itertools.count(1):
            shutil.rmtree(OUT, ignore_errors=True)
            if damaged:  # a finished one, of which a part has to be made again
                shutil.copytree("whole", OUT)
                min((OUT / whole.parts.name).iterdir()).write_bytes(b"")
            child = os.fork()
            if not child:
                kill_at(moment)
                submission_class(source, OUT, resume=True).run(denoise)
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
                break
            left = {n: data for n, data in content(OUT).items() if not n.startswith(".")}
            if left.keys() & bundles:
                assert bundles <= left.keys(), f"part of a bundle at moment {moment}"
            for name in left.keys() & expected.keys():
                assert left[name] in (expected[name], b"" if damaged else None), (moment, name)
            submission_class(source, OUT, resume=True).run(denoise)
            assert content(OUT) == expected, moment
        moments.append(moment - 1)
    print("moments:", *moments)


main(*sys.argv[1:])
