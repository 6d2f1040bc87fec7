import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.training.checkpoints import KEEP, Checkpoints, open_run
from cbsn.training.trainer import Trainer


@pytest.fixture
def batch(random):
    return random.integers(0, 256, (2, 20, 20, 3)).astype("uint8")


def _state(trainer):
    models = (trainer.network, trainer.average)
    tensors = [*(w for m in models for w in m.weights), *trainer.optimizer.variables]
    return [t.numpy() for t in tensors] + [
        v.numpy() for v in (trainer.step, trainer.skipped, trainer.loss_scale)
    ]


def test_everything_that_changes_comes_back(recipe, batch, tmp_path):
    trainer = Trainer(recipe, ema=0.9, seed=1)
    for _ in range(3):
        trainer.train_step(batch)
    trainer.loss_scale.assign(16.0)
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.best_psnr.assign(31.5)
    checkpoints.save()

    again = Trainer(recipe, ema=0.9, seed=2)
    restored = Checkpoints(tmp_path, again)
    assert restored.restore() == 3
    assert restored.best_psnr.numpy() == np.float32(31.5)
    for a, b in zip(_state(trainer), _state(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_checkpoint_a_run_starts_at_0(recipe, tmp_path):
    assert Checkpoints(tmp_path, Trainer(recipe)).restore() == 0


def test_only_the_newest_are_kept(recipe, tmp_path):
    trainer = Trainer(recipe)
    checkpoints = Checkpoints(tmp_path, trainer)
    for step in range(1, KEEP + 3):
        trainer.step.assign(step)
        checkpoints.save()
        checkpoints.save()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.index"))
    assert kept == [f"ckpt-{step}.index" for step in range(3, KEEP + 3)]


def test_a_run_is_opened_again(recipe, tmp_path, capsys):
    open_run(tmp_path / "a", recipe, {"average": False})
    open_run(tmp_path / "a", recipe, {"average": False})
    assert capsys.readouterr().out == ""
    open_run(tmp_path / "a", recipe.shortened(10), {"average": False})
    assert "another max_steps: 500000 → 10" in capsys.readouterr().out
    assert json.loads((tmp_path / "a/run.json").read_text())["max_steps"] == 10


@pytest.mark.parametrize("change", ["network_config", "average"])
def test_another_network_cannot_go_on(recipe, tmp_path, change):
    open_run(tmp_path / "a", recipe, {"average": False})
    other = dataclasses.replace(recipe, network_config={"filters": 8, "num_modules": 1})
    with pytest.raises(ConfigError, match=rf"started with {change}=.*--no-resume"):
        if change == "average":
            open_run(tmp_path / "a", recipe, {"average": True})
        else:
            open_run(tmp_path / "a", other, {"average": False})


def test_starting_over_deletes_nothing(recipe, tmp_path, capsys):
    for number in range(3):
        open_run(tmp_path / "a", recipe, {"average": False}, resume=False)
        (tmp_path / "a" / "mark").write_text(str(number))
    assert [(tmp_path / name / "mark").read_text() for name in ("a.1", "a.2", "a")] == [*"012"]
    assert "kept as" in capsys.readouterr().err


def test_a_checkpoint_of_another_version_is_refused(recipe, tmp_path):
    older = tf.train.Checkpoint(step=tf.Variable(5, dtype=tf.int64))
    tf.train.CheckpointManager(older, str(tmp_path / "checkpoints"), KEEP).save(5)
    with pytest.raises(ConfigError, match=r"ckpt-5 was written by another version.*--no-resume"):
        Checkpoints(tmp_path, Trainer(recipe)).restore()
