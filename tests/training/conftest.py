import dataclasses
import signal

import numpy as np
import pytest

from cbsn.data.records import RecordWriter
from cbsn.recipes import RECIPES


def _small(name):
    config = dict(RECIPES[name].network_config)
    # The tails of the others are half as wide: with 4 channels they are easily dead.
    config["filters"] = 4 if name == "cbsn" else 8
    smallest = {"num_modules": 1, "num_attention": 1, "depth": 1}
    config.update({key: value for key, value in smallest.items() if key in config})
    # JPEG's blocks do not fit into 20 pixels.
    size = 20 if RECIPES[name].augmentation == "none" else 32
    changes = {"patch_size": size, "batch_size": 2, "learning_rate": 1e-3}
    if RECIPES[name].patch_depth > 1:
        changes |= {"patch_depth": 8, "normalization": "0-1"}  # as that of stacks
    return dataclasses.replace(RECIPES[name], network_config=config, **changes)


@pytest.fixture(scope="session")
def recipe():
    """A training small enough for a test, of a network that is traced in a short time."""
    return _small("dil-unet")


@pytest.fixture(
    params=[
        name if name == "n2n-resunet" else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(RECIPES)
    ]
)
def any_recipe(request):
    """Each recipe in turn, as small."""
    return _small(request.param)


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


@pytest.fixture
def signal_at(monkeypatch):
    """Sends this process a signal while a step, counted from now on, is being prepared."""

    def begin(step, number=signal.SIGTERM):
        calls = []

        def next_with_signal(batches):
            calls.append(None)
            if len(calls) == step:
                signal.raise_signal(number)
            return batches.__next__()

        monkeypatch.setattr("cbsn.training.loop.next", next_with_signal, raising=False)

    return begin
