"""Trainings that fit a noise model on their way."""

import json
import signal

import numpy as np
import pytest
import tifffile

from cbsn.errors import ConfigError, DataError, TrainingStopped
from cbsn.inference.denoiser import Denoiser
from cbsn.models.loading import load_model
from cbsn.training.adaptation import adapt
from cbsn.training.distribution import Workers, make_strategy
from cbsn.training.options import RunOptions
from cbsn.training.run import train
from cbsn.training.trainer import Trainer

NAME = "pn2v-unet"
UNET = {"filters": 4, "depth": 1, "patch_size": 20, "batch_size": 2, "max_steps": 4, "samples": 4}
UNET |= {"bootstrap_steps": 2}
EVERY = {"val_every": 4, "save_every": 1, "print_every": 1}


@pytest.fixture(scope="module")
def finished(patches, tmp_path_factory):
    """The folder of a run that came to its end; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    options = RunOptions(name="a", dataset=str(patches), checkpoints=runs, ema=0.9, **EVERY)
    return train(NAME, UNET, options)


def _weights(folder):
    return load_model(folder / "last")[1].get_weights()


def _assert_same(a, b):
    for one, other in zip(_weights(a), _weights(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_noise_model_is_fitted_once_and_used(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert (line["total"] == line["nll"]) == (line["step"] > 2)
    _, network = load_model(finished / "last")
    assert float(network.noise.known) == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3])
def test_interrupted_before_at_or_after_the_fit_equals_uninterrupted(
    finished, options, signal_at, step, capsys
):
    given = RunOptions(name="parts", ema=0.9, **EVERY, **options)
    signal_at(step, signal.SIGINT)
    with pytest.raises(TrainingStopped, match=f"at step {step}"):
        train(NAME, UNET, given)
    signal_at(0)
    parts = train(NAME, UNET, given)
    assert ("step 2: The noise model is fitted to " in capsys.readouterr().out) or step == 3
    _assert_same(parts, finished)


@pytest.mark.slow
def test_a_fit_that_fails_is_made_up_for(finished, options, monkeypatch):
    """What was trained before is saved; so the step of the fit may be there without it."""
    given = RunOptions(name="parts", ema=0.9, **EVERY, **options)
    fit = Trainer.fit

    def damaged(self, batches):
        raise DataError("Record 2 is damaged.")

    monkeypatch.setattr(Trainer, "fit", damaged)
    with pytest.raises(DataError):
        train(NAME, UNET, given)
    checkpoints = {path.name for path in (given.folder / "checkpoints").iterdir()}
    assert "step-2" in checkpoints
    monkeypatch.setattr(Trainer, "fit", fit)
    _assert_same(train(NAME, UNET, given), finished)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_training_has_a_noise_model(options, steps):
    short = {**UNET, "max_steps": steps, "bootstrap_steps": None}
    folder = train(NAME, short, RunOptions(name="a", **options))
    _, network = load_model(folder / "last")
    assert float(network.noise.known) == 1


@pytest.mark.slow
def test_a_noise_model_can_be_kept(finished, options):
    keep = {**UNET, "bootstrap_steps": 0}
    init = str(finished / "last")
    folder = train(NAME, keep, RunOptions(name="a", init=init, **options))
    before, after = (load_model(each / "last")[1].noise for each in (finished, folder))
    for old, new in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ConfigError, match=r"--init MODEL\. Received: --bootstrap_steps 0"):
        train(NAME, keep, RunOptions(name="b", **options))


@pytest.mark.slow
def test_stacks_choose_the_best_model_by_a_positive_loss(tmp_path, random):
    clean = np.tile(np.linspace(5, 50, 64), (6, 64, 1))
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, random.poisson(clean).astype("uint16"), metadata={"axes": "TYX"})
    given = RunOptions(
        name="a", dataset=str(path), checkpoints=tmp_path / "runs", hold_out=0.2, **EVERY
    )
    folder = train(NAME, {**UNET, "max_steps": 8}, given)
    recipe, _ = load_model(folder / "last")
    assert recipe.scaling["method"] == "deviation"
    facts = json.loads((folder / "best" / "recipe.json").read_text())["training"]
    assert facts["best_held_out_loss"] > 0
    assert "best_validation_psnr" not in facts


@pytest.mark.slow
def test_adapted_models_keep_their_noise_model(finished, random):
    model = Denoiser(*load_model(finished / "last"))
    pictures = [random.integers(0, 256, (64, 64, 3)).astype("uint8") for _ in range(2)]
    adapted = adapt(pictures, model, 5, max_steps=2, learning_rate=1e-3)
    before, after = (each.noise.get_weights() for each in (model.network, adapted.network))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert adapted.recipe.objective_config["bootstrap_steps"] == 0 or not adapted.facts["adapted"]


def test_alone_a_process_has_its_own_arrays():
    values = [np.arange(3, dtype="float32")]
    assert Workers(make_strategy()).of_chief(values) is values
