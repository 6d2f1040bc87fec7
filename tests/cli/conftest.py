"""Trainings in processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cbsn.data.records import RecordWriter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a process in a folder with patches; returns it, its output coming through a pipe.

    Its arguments are a script or `-m` and a module, and flags. Those of a small training are
    added, of `cbsn` unless `small` holds others, and `--deterministic`; a flag given twice counts
    as given last. The process sees no GPU, on which several could not train.
    """
    folder = tmp_path_factory.mktemp("processes")
    random = np.random.default_rng(0)
    slope = np.linspace(40, 200, 256)[:, None, None]
    with RecordWriter(folder / "patches.tfrecords") as writer:
        for _ in range(20):
            pixels = slope + random.normal(0, 20, (256, 256, 3))
            writer.write(np.clip(pixels, 0, 255).astype("uint8"))
    small = (
        *("--dataset", "patches.tfrecords", "--channel", 4, "--block", 1, "--patchsize", 20),
        *("--batchsize", 8, "--maxiter", 20, "--ema", 0.9, "--precision", "float32"),
        *("--print_every", 5, "--save_every", 5, "--checkpoints", "runs"),
    )
    processes = []

    def begin(command, *flags, small=small, **options):
        (folder / "runs").mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, *command, *map(str, (*small, "--deterministic", *flags))],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        processes.append(process)
        return process

    begin.folder = folder
    begin.runs = folder / "runs"
    begin.train = (str(ROOT / "train.py"),)
    begin.small = small
    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def train_here(start, run_here):
    """Trains in the same folder, but in this process, which is to stay as it is.

    So it is not deterministic. Returns the status and the output.
    """

    def run(*flags):
        process = run_here("train.py", *start.small, *flags, folder=start.folder)
        return process.returncode, process.stdout + process.stderr

    return run


@pytest.fixture
def read_state():
    """Reads all values of the newest checkpoint of a run, by name."""

    def read(run):
        newest = max((run / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
        reader = tf.train.load_checkpoint(str(newest / "state"))
        names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
        return {name: reader.get_tensor(name) for name in names}

    return read
