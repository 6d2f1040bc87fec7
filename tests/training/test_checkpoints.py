import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError, ModelError, TrainingError
from cbsn.files import write_checksums
from cbsn.models.folder import save_model
from cbsn.training.checkpoints import KEEP, Checkpoints, lock_run, open_run
from cbsn.training.trainer import Trainer


def _variables(trainer):
    models = (trainer.network, trainer.average)
    tensors = [*(w for m in models for w in m.weights), *trainer.optimizer.variables]
    scalars = (trainer.step, trainer.skipped, trainer.skipped_in_row, trainer.loss_scale)
    return [*tensors, *scalars]


def _state(trainer):
    return [variable.numpy() for variable in _variables(trainer)]


@pytest.fixture(scope="module")
def after_three_steps(recipe):
    """A trainer, and its state."""
    trainer = Trainer(recipe, ema=0.9, seed=1)
    batch = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3)).astype("uint8")
    for _ in range(3):
        trainer.train_step(batch)
    return trainer, _state(trainer)


@pytest.fixture
def trained(after_three_steps):
    """That trainer; tests may change it."""
    trainer, state = after_three_steps
    yield trainer
    for variable, value in zip(_variables(trainer), state, strict=True):
        variable.assign(value)


def test_everything_that_changes_comes_back(recipe, trained, tmp_path):
    trainer = trained
    trainer.loss_scale.assign(16.0)
    checkpoints = Checkpoints(tmp_path, trainer)
    checkpoints.best_score.assign(31.5)
    checkpoints.validated.assign(2)
    trainer.skipped_in_row.assign(1)
    checkpoints.save()

    again = Trainer(recipe, ema=0.9, seed=2)
    restored = Checkpoints(tmp_path, again)
    assert restored.restore() == 3
    assert restored.best_score.numpy() == np.float32(31.5)
    assert restored.validated.numpy() == 2
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
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"step-{step}" for step in range(3, KEEP + 3)]


@pytest.fixture(scope="module")
def two_saved_once(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = Trainer(recipe)
    checkpoints = Checkpoints(folder, trainer)
    for step in (9, 10):
        trainer.step.assign(step)
        checkpoints.save()
    return folder


@pytest.fixture
def two_saved(two_saved_once, tmp_path):
    """The folder of a run with checkpoints of steps 9 and 10."""
    return shutil.copytree(two_saved_once, tmp_path / "run")


def _cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (_cut, "state.index"),
        (_flip, "state.data-00000-of-00001"),
        (Path.unlink, "state.data-00000-of-00001"),
        (_flip, "SHA256SUMS"),
        (Path.unlink, "SHA256SUMS"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(
    recipe, two_saved, damage, name, capsys
):
    damage(two_saved / "checkpoints/step-10" / name)
    trainer = Trainer(recipe)
    checkpoints = Checkpoints(two_saved, trainer)
    assert checkpoints.restore() == trainer.step.numpy() == 9
    assert "The checkpoint of step 10 is damaged; using the one before" in capsys.readouterr().err
    # When the run comes there again, the damaged one is replaced.
    trainer.step.assign(10)
    checkpoints.save()
    assert Checkpoints(two_saved, Trainer(recipe)).restore() == 10


def test_damaged_checkpoints_make_way_for_whole_ones(recipe, two_saved):
    trainer = Trainer(recipe)
    checkpoints = Checkpoints(two_saved, trainer)
    for step in (11, 12):
        trainer.step.assign(step)
        checkpoints.save()
    for step in (11, 12):
        _cut(two_saved / f"checkpoints/step-{step}/state.index")
    again = Trainer(recipe)
    checkpoints = Checkpoints(two_saved, again)
    assert checkpoints.restore() == 10
    # The run saves at other steps this time.
    for step, expected in ((101, [10, 101]), (102, [10, 101, 102]), (103, [101, 102, 103])):
        again.step.assign(step)
        checkpoints.save()
        kept = sorted(int(path.name[5:]) for path in (two_saved / "checkpoints").iterdir())
        assert kept == expected


def test_damaged_checkpoints_do_not_start_a_run_anew(recipe, two_saved):
    for step in (9, 10):
        _cut(two_saved / f"checkpoints/step-{step}/state.index")
    with pytest.raises(ModelError, match=r"No checkpoint in .* is intact.*--no-resume"):
        Checkpoints(two_saved, Trainer(recipe)).restore()


@pytest.mark.parametrize(
    ("damage", "name"),
    [(_cut, "state.index"), (_flip, "state.index"), (_cut, "state.data-00000-of-00001")],
)
def test_damage_with_the_right_checksum_is_told_too(recipe, two_saved, damage, name, capsys):
    folder = two_saved / "checkpoints/step-10"
    damage(folder / name)
    (folder / "SHA256SUMS").unlink()
    write_checksums(folder)
    assert Checkpoints(two_saved, Trainer(recipe)).restore() == 9
    assert "The checkpoint of step 10 is damaged" in capsys.readouterr().err


def test_checkpoints_that_may_not_be_read_do_not_start_a_run_anew(recipe, two_saved, monkeypatch):
    trainer = Trainer(recipe)

    def denied(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("pathlib.Path.iterdir", denied)  # root may read everything
    with pytest.raises(ModelError, match=r"cannot be read.*Permission denied.*--no-resume"):
        Checkpoints(two_saved, trainer).restore()


@pytest.mark.parametrize("name", ["step-²", "step-", "step-x", "step--1"])
def test_other_names_are_no_checkpoints(recipe, two_saved, name):
    (two_saved / "checkpoints" / name).mkdir()
    assert Checkpoints(two_saved, Trainer(recipe)).restore() == 10


def test_what_a_killed_process_left_does_not_count(recipe, two_saved):
    half = two_saved / "checkpoints/.step-11.0a1b2c3d"
    half.mkdir()
    (half / "state.index").write_bytes(b"half")
    assert Checkpoints(two_saved, Trainer(recipe)).restore() == 10


def test_a_failed_save_leaves_the_earlier_ones(recipe, two_saved, monkeypatch):
    trainer = Trainer(recipe)
    checkpoints = Checkpoints(two_saved, trainer)
    trainer.step.assign(11)

    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cbsn.training.checkpoints.write_checksums", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save()
    assert sorted(path.name for path in (two_saved / "checkpoints").iterdir()) == [
        "step-10",
        "step-9",
    ]


@pytest.mark.parametrize("kind", ["network", "average", "optimizer"])
def test_values_that_are_not_finite_are_never_saved(trained, tmp_path, kind):
    variables = getattr(trained, kind).variables
    variables[-1].assign(variables[-1] * np.nan)
    with pytest.raises(
        TrainingError, match=rf"After step 3 the {kind}.*no checkpoint yet.*--learning_rate"
    ):
        Checkpoints(tmp_path, trained).save()
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_of_another_version_is_refused(recipe, tmp_path):
    older = tf.train.Checkpoint(step=tf.Variable(5, dtype=tf.int64))
    older.write(str(tmp_path / "checkpoints/step-5/state"))
    write_checksums(tmp_path / "checkpoints/step-5")
    with pytest.raises(ConfigError, match=r"step-5 was written by another version.*--no-resume"):
        Checkpoints(tmp_path, Trainer(recipe)).restore()


def test_a_run_of_an_earlier_version_is_not_started_anew(recipe, tmp_path):
    older = tf.train.Checkpoint(step=tf.Variable(5, dtype=tf.int64))
    tf.train.CheckpointManager(older, str(tmp_path / "checkpoints"), 3).save(5)
    with pytest.raises(ConfigError, match=r"by an earlier version.*--no-resume"):
        Checkpoints(tmp_path, Trainer(recipe)).restore()


def _open(folder, recipe, average, **options):
    open_run(folder, {**recipe.to_dict(), "average": average}, **options)


def test_a_run_is_opened_again(recipe, tmp_path, capsys):
    _open(tmp_path / "a", recipe, False)
    _open(tmp_path / "a", recipe, False)
    assert capsys.readouterr().out == ""
    _open(tmp_path / "a", recipe.lasting(10), False)
    assert "other settings: max_steps=100000 → max_steps=10" in capsys.readouterr().out
    assert json.loads((tmp_path / "a/run.json").read_text())["max_steps"] == 10


def test_only_what_differs_in_a_setting_is_told(recipe, tmp_path, capsys):
    facts = {**recipe.to_dict(), "average": False, "repair": None}
    open_run(tmp_path / "a", facts)
    changed = {**facts, "objective_config": {**recipe.objective_config, "lmbda": 7}}
    open_run(tmp_path / "a", {**changed, "repair": "pixels"})
    output = capsys.readouterr().out
    lmbda = recipe.objective_config.get("lmbda", "none")
    assert f"Continuing with other settings: lmbda={lmbda} → lmbda=7\n" in output
    assert "Continuing with other settings: repair=none → repair=pixels\n" in output


@pytest.mark.parametrize("change", ["network_config", "average"])
def test_another_network_cannot_go_on(recipe, tmp_path, change):
    _open(tmp_path / "a", recipe, False)
    other = dataclasses.replace(recipe, network_config={"filters": 4, "depth": 1})
    told = (
        "average=False" if change == "average" else f"filters={recipe.network_config['filters']}, "
    )
    with pytest.raises(ConfigError, match=rf"started with {told}.*--no-resume"):
        if change == "average":
            _open(tmp_path / "a", recipe, True)
        else:
            _open(tmp_path / "a", other, False)


def test_starting_over_deletes_nothing(recipe, tmp_path, capsys):
    for number in range(3):
        _open(tmp_path / "a", recipe, False, resume=False)
        (tmp_path / "a" / "mark").write_text(str(number))
    assert [(tmp_path / name / "mark").read_text() for name in ("a.1", "a.2", "a")] == [*"012"]
    assert "kept as" in capsys.readouterr().err


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_that_is_no_run_is_left_alone(recipe, tmp_path, resume):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/holiday.png").write_text("a picture")
    with pytest.raises(ConfigError, match=r"something else than a run, such as holiday\.png"):
        _open(tmp_path / "a", recipe, False, resume=resume)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "holiday.png"]


def test_a_file_is_no_folder(recipe, tmp_path):
    (tmp_path / "a").write_text("notes")
    with pytest.raises(ConfigError, match="a is a file"):
        _open(tmp_path / "a", recipe, False)


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_model_whose_checkpoints_are_gone_is_not_overwritten(recipe, tmp_path, name):
    run = tmp_path / "a"
    _open(run, recipe, False)
    save_model(run / name, recipe, recipe.build_network(), {"step": 5})
    with pytest.raises(ConfigError, match=rf"trained model, {name}, but no checkpoint.*--init"):
        _open(run, recipe, False)
    _open(run, recipe, False, resume=False)
    assert (tmp_path / "a.1" / name / "recipe.json").exists()


def test_a_run_that_has_more_steps_stays_as_it_is(recipe, tmp_path, capsys):
    run = tmp_path / "a"
    _open(run, recipe.lasting(9), False)
    before = (run / "run.json").read_text()
    (run / "checkpoints/step-9").mkdir(parents=True)
    _open(run, recipe.lasting(5), False)
    assert (run / "run.json").read_text() == before
    assert capsys.readouterr().out == ""
    _open(run, recipe.lasting(12), False)
    assert "max_steps=9 → max_steps=12" in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_not_called_damaged(recipe, tmp_path, capsys):
    Checkpoints(tmp_path, Trainer(recipe)).save()
    other = {**recipe.network_config, "filters": recipe.network_config["filters"] + 1}
    trainer = Trainer(dataclasses.replace(recipe, network_config=other))
    with pytest.raises(ConfigError, match=r"for another training.*the same flags"):
        Checkpoints(tmp_path, trainer).restore()
    assert "damaged" not in capsys.readouterr().err


def test_a_damaged_run_file_is_named(recipe, tmp_path):
    _open(tmp_path / "a", recipe, False)
    (tmp_path / "a/run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json cannot be read.*--no-resume"):
        _open(tmp_path / "a", recipe, False)


def test_what_a_killed_process_left_is_cleared_away(recipe, tmp_path):
    run = tmp_path / "a"
    for name in (".last", "checkpoints/.step-7"):
        (run / f"{name}.0a1b2c3d").mkdir(parents=True)
    # Killed between the two renames that replace a folder.
    (run / "checkpoints/.step-5.0a1b2c3d.old/step-5").mkdir(parents=True)
    _open(run, recipe, False)
    left = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert left == {"run.json", "checkpoints", "checkpoints/step-5"}


def test_names_may_be_as_long_as_the_system_has_them(recipe, tmp_path):
    run = tmp_path / ("n" * 255)
    for _ in range(2):
        with lock_run(run):
            _open(run, recipe, False, resume=False)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


@pytest.mark.slow
def test_a_run_is_locked_by_one_process_at_a_time(tmp_path, run_python):
    take = """
        from pathlib import Path
        from cbsn.errors import ConfigError
        from cbsn.training.checkpoints import lock_run
        try:
            with lock_run(Path("runs/a")):
                pass
        except ConfigError as error:
            print(error)
    """
    with lock_run(tmp_path / "runs/a"):
        refused = run_python(take).stdout
        assert f"runs/a is being trained by process {os.getpid()} on " in refused
        with lock_run(tmp_path / "runs/b"):
            pass
    with lock_run(tmp_path / "runs/a"):
        pass


@pytest.mark.slow
def test_a_dead_process_holds_no_lock(tmp_path, run_python):
    killed = run_python(
        """
        import os, signal
        from pathlib import Path
        from cbsn.training.checkpoints import lock_run
        with lock_run(Path("runs/a")):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert killed.returncode == -9
    with lock_run(tmp_path / "runs/a"):
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot be locked.*--out"),
        lock_run(tmp_path / "file/a"),
    ):
        pass
