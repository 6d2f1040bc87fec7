"""Runs of several rounds, which learn from a teacher and then from themselves."""

import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from cbsn.data.records import RecordWriter
from cbsn.errors import ConfigError, DataError, TrainingStopped
from cbsn.inference.denoiser import Denoiser
from cbsn.models.folder import save_model
from cbsn.models.loading import load_model
from cbsn.noise.synthetic import Noise
from cbsn.recipes import customised
from cbsn.training.options import RunOptions
from cbsn.training.run import _rounds, train
from cbsn.training.trainer import Trainer

TINY = {"filters": 4, "depth": 1, "patch_size": 32, "batch_size": 2, "max_steps": 5}


def _noisy(random, channels=3):
    """A smooth picture with noise of σ 15."""
    slope = np.linspace(40, 200, 256)[:, None, None]
    return np.clip(slope + random.normal(0, 15, (256, 256, channels)), 0, 255).astype("uint8")


def _save_teacher(path):
    keras.utils.set_random_seed(1)
    recipe = customised("distill", filters=4, depth=1)
    save_model(path, recipe, recipe.build_network(), {})
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Options of a run on noisy patches, with a teacher of fresh weights."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    with RecordWriter(folder / "patches.tfrecords") as writer:
        for _ in range(3):
            writer.write(_noisy(random))
    teacher = _save_teacher(folder / "teacher")
    return {"dataset": str(folder / "patches.tfrecords"), "teacher": [str(teacher)]}


@pytest.fixture
def options(photos, tmp_path):
    return {**photos, "checkpoints": tmp_path / "runs"}


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """Options of a run of two rounds that came to its end, and the weights that it began with."""
    options = RunOptions(
        name="a", rounds=2, checkpoints=tmp_path_factory.mktemp("runs"), seed=3, **photos
    )
    begun = []
    with pytest.MonkeyPatch.context() as patch:
        initialize = Trainer.initialize
        patch.setattr(
            Trainer, "initialize", lambda *args: (begun.append(args[1]), initialize(*args))
        )
        train("photo", TINY, options)
    return options, begun


def _weights(folder):
    return load_model(folder / "last")[1].get_weights()


def _facts(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.slow
def test_a_round_goes_on_from_the_one_before(finished):
    """From its weights, with its pictures, for 0.4 times the steps and the rate."""
    options, begun = finished
    runs = options.checkpoints
    assert {path.name for path in runs.iterdir() if path.is_dir()} == {"a-round1", "a"}
    first, last = _facts(runs / "a-round1"), _facts(runs / "a")
    assert [first[key] for key in ("teacher", "init")] == [options.teacher, None]
    assert last["teacher"] == [last["init"]] == [str(runs / "a-round1")]
    assert (first["max_steps"], last["max_steps"]) == (5, 2)
    assert (first["learning_rate"], last["learning_rate"]) == (1e-3, pytest.approx(0.4e-3))
    # The averaged weights of the first, which are its model.
    assert len(begun) == 1
    for ours, theirs in zip(begun[0], _weights(runs / "a-round1"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, teacher in (("a-round1", options.teacher[0]), ("a", runs / "a-round1")):
        facts = json.loads((runs / name / "targets/teachers.json").read_text())
        assert facts["teachers"] == [Denoiser.load(teacher).sha256()]
        assert (runs / name / "targets/00000.tfrecords").is_file()
    assert any(
        (ours != theirs).any() for ours, theirs in zip(_weights(runs / "a"), begun[0], strict=True)
    )
    assert first["augmentation"] == "photo"
    assert first["average"] is True  # as the recipe has it
    assert re.fullmatch(
        r"noise as measured in [123] places?, 0.04 to 3 times as strong", first["noise"]
    )


@pytest.mark.slow
def test_a_finished_run_of_two_rounds_is_left_alone(finished, capsys):
    options, _ = finished
    kept = {
        path: path.stat().st_mtime_ns
        for name in ("a-round1", "a")
        for part in ("last", "checkpoints", "targets")
        for path in (options.checkpoints / name / part).rglob("*")
    }
    assert train("photo", TINY, options) == options.checkpoints / "a"
    output = capsys.readouterr().out
    assert "steps 5 to 5" in output and "steps 2 to 2" in output
    assert "Continuing with other settings" not in output
    assert output.count("Denoise with") == 1
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@pytest.mark.slow
def test_another_number_of_rounds_is_refused_before_any_work(finished):
    options, _ = finished
    for rounds in (1, 3):
        given = dataclasses.replace(options, rounds=rounds)
        with pytest.raises(ConfigError, match=rf"started with --rounds 2\..*--rounds {rounds}"):
            train("photo", TINY, given)
    assert not (options.checkpoints / "a-round2").exists()


@pytest.mark.slow
def test_stopped_in_each_round_it_ends_with_the_same_weights(finished, options, signal_at):
    whole, _ = finished
    given = RunOptions(name="a", rounds=2, seed=3, **options)
    # After step 3 of the first round, after its last step, and after the first of the second round.
    for call, message in ((3, "saved at step 3"), (2, "after round 1 of 2"), (1, "at step 1")):
        signal_at(call)
        with pytest.raises(TrainingStopped, match=message):
            train("photo", TINY, given)
        assert (given.checkpoints / "a").exists() == (call == 1)
    signal_at(0)
    folder = train("photo", TINY, given)
    for ours, theirs in zip(_weights(folder), _weights(whole.checkpoints / "a"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_starting_over_sets_all_rounds_aside(options, capsys):
    one = {**TINY, "max_steps": 1}
    for resume in (True, False):
        given = RunOptions(name="a", rounds=2, resume=resume, **options)
        train("photo", one, given)
        output = capsys.readouterr().out
        assert output.count("steps 0 to 1;") == 2
    kept = {path.name for path in given.checkpoints.iterdir() if path.is_dir()}
    assert kept == {"a", "a.1", "a-round1", "a-round1.1"}


def test_the_small_model_that_ships_teaches_by_default(options, monkeypatch):
    class ResolvedError(Exception):
        pass

    def resolve(recipe_name, changes, options, workers):
        raise ResolvedError(options.teacher)

    del options["teacher"]
    monkeypatch.setattr("cbsn.training.run.resolve", resolve)
    with pytest.raises(ResolvedError, match="photo'"):
        train("photo", TINY, RunOptions(name="a", **options))


@pytest.mark.slow
def test_denoised_pictures_can_stand_in_for_a_teacher(tmp_path, monkeypatch, capsys, random):
    """In the first round; after it, the run has a teacher of its own."""
    monkeypatch.chdir(tmp_path)
    for kind in ("noisy", "denoised"):
        Path(kind).mkdir()
        for number in range(2):
            picture = _noisy(random) if kind == "noisy" else np.full((256, 256, 3), 90, "uint8")
            Image.fromarray(picture).save(f"{kind}/{number}.png")
    options = RunOptions(name="a", dataset="noisy", second_shots="denoised", rounds=2)
    folder = train("photo", {**TINY, "max_steps": 1}, options)
    first, last = (_facts(path) for path in (Path("checkpoints/a-round1"), folder))
    assert (first["teacher"], first["second_shots"]) == ([], "denoised")
    assert (last["teacher"], last["second_shots"]) == (["checkpoints/a-round1"], None)
    assert not Path("checkpoints/a-round1/targets").exists()
    assert Path("checkpoints/a/targets/00000.tfrecords").is_file()
    assert "The student sees the teacher's pictures with noise as measured" in (
        capsys.readouterr().out
    )


@pytest.mark.slow
def test_gray_pictures_get_a_gray_network_in_all_rounds(tmp_path, photos, random):
    with RecordWriter(tmp_path / "gray.tfrecords") as writer:
        for _ in range(3):
            writer.write(np.repeat(_noisy(random, 1), 3, axis=-1))
    given = {"dataset": str(tmp_path / "gray.tfrecords"), "teacher": photos["teacher"]}
    options = RunOptions(name="a", rounds=2, checkpoints=tmp_path / "runs", **given)
    train("photo", {**TINY, "max_steps": 1}, options)
    for name in ("a-round1", "a"):
        assert load_model(tmp_path / "runs" / name)[1].channels == 1


@pytest.mark.slow
def test_damaged_patches_are_skipped(options, tmp_path, capsys):
    data = bytearray(Path(options["dataset"]).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "patches.tfrecords").write_bytes(data)
    options["dataset"] = str(tmp_path / "patches.tfrecords")
    with pytest.raises(DataError, match=r"[Rr]ecord 1 of .*patches\.tfrecords"):
        train("photo", TINY, RunOptions(name="a", **options))
    folder = train("photo", TINY, RunOptions(name="b", skip_bad_records=True, **options))
    assert "skipped: Record 1 of" in capsys.readouterr().err
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["bad_records"] == 1
    assert np.isfinite(line["total"])


def test_each_round_has_a_smaller_part(options):
    given = RunOptions(name="a", rounds=3, gray=True, **options)
    rounds = [*_rounds("photo", {"filters": 4, "learning_rate": 1e-2}, given)]
    assert [each.name for _, each in rounds] == ["a-round1", "a-round2", "a"]
    # Rounded up, each from the one before: 26,000 steps are the recipe's.
    assert [changes.get("max_steps") for changes, _ in rounds] == [None, 10_400, 4160]
    rates = [changes["learning_rate"] for changes, _ in rounds]
    assert rates == pytest.approx([1e-2, 4e-3, 1.6e-3])
    assert {changes["filters"] for changes, _ in rounds} == {4}
    before = [None, *(str(options["checkpoints"] / name) for name in ("a-round1", "a-round2"))]
    assert [each.init for _, each in rounds] == before
    assert [[*each.teacher] for _, each in rounds[1:]] == [[name] for name in before[1:]]
    # A gray network is gray by its weights.
    assert [each.gray for _, each in rounds] == [True, None, None]

    # The holes are those of the first teacher, which the next rounds do not have.
    holes = dataclasses.replace(given, teacher_holes=(1, 9), targets="one")
    taught = [(each.teacher_holes, each.targets) for _, each in _rounds("photo", {}, holes)]
    assert taught == [((1, 9), "one"), ((), "mean"), ((), "mean")]

    passes = dataclasses.replace(given, epochs=8, rounds=2)
    rounds = [*_rounds("photo", {}, passes)]
    assert [each.epochs for _, each in rounds] == [8, 4]
    assert [changes.get("max_steps") for changes, _ in rounds] == [None, None]


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("cbsn", {"rounds": 2}, "for the recipes photo and photo-large.*--rounds 2"),
        ("distill", {"rounds": 3}, "for the recipes photo and photo-large.*--rounds 3"),
        ("photo", {"noise": Noise("gaussian", (5, 5))}, "omit --noise.*gaussian noise, σ 5"),
        ("photo", {"own_noise": (0.5, 2.0)}, "omit --noise.*and --own_noise"),
        ("photo", {"patch_size": 40}, "use 32 or 48. Received: patch_size=40"),
        ("photo", {"patch_size": 272}, "holds patches of 256.*--patch_size 272"),
    ],
)
def test_what_does_not_fit_is_refused(options, recipe, change, message):
    changes = {"max_steps": 2, "patch_size": change.pop("patch_size", None)}
    with pytest.raises(ConfigError, match=message):
        train(recipe, changes, RunOptions(name="a", **{**options, **change}))
    assert not options["checkpoints"].exists()


def test_noise_that_cannot_be_measured_is_said_with_what_to_do(options, tmp_path):
    with RecordWriter(tmp_path / "flat.tfrecords") as writer:
        writer.write(np.full((256, 256, 3), 99, "uint8"))
    options["dataset"] = str(tmp_path / "flat.tfrecords")
    with pytest.raises(DataError, match="--recipe distill --noise camera"):
        train("photo", TINY, RunOptions(name="a", **options))
    assert not options["checkpoints"].exists()
