"""Trainings that take two pictures of each scene: two shots, or a teacher's."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from cbsn.data.picture_pairs import PicturePairs
from cbsn.errors import ConfigError, TrainingStopped
from cbsn.inference.denoiser import Denoiser
from cbsn.models.loading import load_model
from cbsn.noise.synthetic import Noise
from cbsn.training.distillation import with_low_frequencies
from cbsn.training.options import RunOptions
from cbsn.training.run import train

OWN_NOISE = {"filters": 4, "depth": 1, "patch_size": 32, "batch_size": 4, "max_steps": 4}


def _weights(folder):
    return load_model(folder / "last")[1].get_weights()


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("n2n-resunet", {}, "two noisy shots.*--second_shots FOLDER.*--noise_sigma"),
        ("n2n-resunet", {"teacher": ["cbsn"]}, "two noisy shots.*omit --teacher"),
        ("dil-unet", {"second_shots": "b"}, "takes one shot.*omit --second_shots"),
        ("dil-unet", {"teacher": ["cbsn"]}, "takes one shot.*omit --teacher"),
        ("distill", {}, "--teacher photo.*--second_shots FOLDER"),
        ("distill", {"noise": Noise("gaussian", (5, 5))}, "--teacher photo.*--second_shots"),
    ],
)
def test_shots_must_be_as_many_as_the_recipe_takes(options, recipe, change, message):
    with pytest.raises(ConfigError, match=message):
        train(recipe, {"max_steps": 2}, RunOptions(name="a", **{**options, **change}))


def test_a_student_learns_what_its_teacher_does(options, tmp_path, model, capsys):
    teacher = tmp_path / model
    changes = {"filters": 8, "depth": 1, "patch_size": 32, "batch_size": 4, "learning_rate": 3e-3}
    options = {**options, "precision": "float32", "teacher": [str(teacher)]}
    folders = [
        train("distill", {**changes, "max_steps": steps}, RunOptions(name=f"s{steps}", **options))
        for steps in (1, 150)
    ]
    # The second run's teacher had nothing to do with the first's.
    assert (folders[1] / "targets" / "00000.tfrecords").is_file()
    noisy = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype("uint8")
    taught = Denoiser.load(teacher, precision="float32", self_ensemble=True)(noisy)
    taught = with_low_frequencies(noisy / 255, taught / 255) * 255
    errors = [
        np.abs(Denoiser.load(folder, precision="float32")(noisy) - taught).mean()
        for folder in folders
    ]
    assert errors[1] < 0.7 * errors[0]
    capsys.readouterr()
    # Which goes on from there on other terms, and does not forget what it knows.
    again = train(
        "distill",
        {"patch_size": 32, "batch_size": 4, "learning_rate": 1e-5, "max_steps": 1},
        RunOptions(name="again", init=str(folders[1]), **options),
    )
    assert "filters 8, depth 1" in capsys.readouterr().out
    for ours, theirs in zip(_weights(again), _weights(folders[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_student_sees_its_teachers_pictures_with_their_own_noise(
    options, tmp_path, model, capsys
):
    chosen = {**options, "teacher": [str(tmp_path / model)], "own_noise": (0.5, 2.0)}
    folder = train("distill", OWN_NOISE, RunOptions(name="a", **chosen))
    facts = json.loads((folder / "run.json").read_text())
    assert facts["noise"] == "noise measured in 5 places, 0.5-2 times as strong"
    assert f"sees the teacher's pictures with {facts['noise']}" in capsys.readouterr().out


def test_their_own_noise_is_the_same_after_a_break(options, tmp_path, model, monkeypatch):
    chosen = {**options, "teacher": [str(tmp_path / model)], "own_noise": (0.5, 2.0)}
    whole = train("distill", OWN_NOISE, RunOptions(name="whole", **chosen))
    calls = []

    def next_with_signal(batches):
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return batches.__next__()

    monkeypatch.setattr("cbsn.training.loop.next", next_with_signal, raising=False)
    with pytest.raises(TrainingStopped, match="at step 2"):
        train("distill", OWN_NOISE, RunOptions(name="parts", **chosen))
    monkeypatch.undo()
    parts = train("distill", OWN_NOISE, RunOptions(name="parts", **chosen))
    for ours, theirs in zip(_weights(parts), _weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_two_shots_of_real_scenes(tmp_path, monkeypatch):
    """Noisy and clean photographs stand in for two shots: what is common to both is learnt."""
    shots = Path(__file__).resolve().parents[3] / "shared/data/cc15"
    if not shots.is_dir():
        pytest.skip("the photographs of shared/data/cc15 are not here")
    monkeypatch.chdir(tmp_path)
    for kind in ("noisy", "clean"):
        Path(kind).mkdir()
        for path in sorted((shots / kind).iterdir())[:2]:
            Path(kind, path.name).symlink_to(path)
    changes = {"filters": 8, "depth": 2, "patch_size": 32, "batch_size": 4, "max_steps": 200}
    options = RunOptions(name="a", dataset="noisy", second_shots="clean", precision="float32")
    folder = train("n2n-resunet", {**changes, "learning_rate": 2e-3}, options)
    pairs = PicturePairs("noisy", "clean")
    before, _ = pairs.measure(lambda noisy, white: noisy)
    after, _ = pairs.measure(Denoiser.load(folder))
    assert after > before + 0.05
