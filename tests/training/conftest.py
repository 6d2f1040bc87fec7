import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cbsn.data.records import RecordWriter
from cbsn.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]


def _small(name):
    config = dict(RECIPES[name].network_config)
    # The tails of the others are half as wide: with 4 channels they are easily dead.
    config["filters"] = 4 if name == "cbsn" else 8
    smallest = {"num_modules": 1, "num_attention": 1, "depth": 1}
    config.update({key: value for key, value in smallest.items() if key in config})
    # JPEG's blocks do not fit into 20 pixels.
    size = 20 if RECIPES[name].augmentation == "none" else 32
    return dataclasses.replace(
        RECIPES[name], network_config=config, patch_size=size, batch_size=2, learning_rate=1e-3
    )


@pytest.fixture(scope="session")
def recipe():
    """A training small enough for a test."""
    return _small("cbsn")


_SPECIAL = ("cbsn", "dil-unet", "n2n-resunet", "ssbsn")
"""Between them, these have all that is special in a recipe."""


@pytest.fixture(
    params=[
        name if name in _SPECIAL else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(RECIPES)
    ]
)
def any_recipe(request):
    """Each recipe in turn, as small."""
    return _small(request.param)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a process in a folder with patches; returns it, its output coming through a pipe.

    Its arguments are a script or `-m` and a module, and flags. Those of a small training are
    added, of `cbsn` unless `small` holds others, and `--deterministic`; a flag given twice counts
    as given last.
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
            env={**os.environ, "PYTHONPATH": str(ROOT)},
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


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "patches.tfrecords"
    random = np.random.default_rng(0)
    with RecordWriter(path) as writer:
        for _ in range(5):
            writer.write(random.integers(0, 256, (256, 256, 3)).astype("uint8"))
    return path


@pytest.fixture
def options(patches, tmp_path):
    return {"dataset": str(patches), "checkpoints": tmp_path / "runs"}
