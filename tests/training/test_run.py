import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cbsn.data.picture_pairs import PicturePairs
from cbsn.data.records import RecordWriter
from cbsn.errors import ConfigError, DataError, TrainingError, TrainingStopped
from cbsn.models.loading import load_model
from cbsn.noise.synthetic import Noise
from cbsn.training.options import RunOptions
from cbsn.training.run import train
from cbsn.training.trainer import Trainer

TINY = {"filters": 4, "num_modules": 1, "patch_size": 20, "batch_size": 2, "max_steps": 6}
UNET = {"filters": 4, "depth": 1, "patch_size": 20, "batch_size": 2, "max_steps": 6}
"""Settings of `dil-unet`, for what is the same with any network: traced in half the time."""


@pytest.fixture(scope="module")
def finished(patches, tmp_path_factory):
    """The folder of a run that came to its end; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    return train("cbsn", TINY, RunOptions(name="a", dataset=str(patches), checkpoints=runs))


def _weights(folder):
    return load_model(folder / "last")[1].get_weights()


def _signal_at(monkeypatch, step, number):
    """Sends this process a signal while a step is being prepared."""
    calls = []

    def next_with_signal(batches):
        calls.append(None)
        if len(calls) == step:
            os.kill(os.getpid(), number)
        return batches.__next__()

    monkeypatch.setattr("cbsn.training.loop.next", next_with_signal, raising=False)


@pytest.mark.parametrize(("ema", "number"), [(0.0, signal.SIGINT), (0.9, signal.SIGTERM)])
def test_interrupted_and_resumed_equals_uninterrupted(
    finished, options, ema, number, monkeypatch, capsys
):
    whole = train("cbsn", TINY, RunOptions(name="whole", ema=ema, **options)) if ema else finished
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    _signal_at(monkeypatch, 4, number)
    with pytest.raises(TrainingStopped, match=rf"{number.name} stopped the run.*at step 4"):
        train("cbsn", TINY, RunOptions(name="parts", ema=ema, **options))
    monkeypatch.undo()
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    parts = train("cbsn", TINY, RunOptions(name="parts", ema=ema, **options))
    assert "steps 4 to 6" in capsys.readouterr().out
    for a, b in zip(_weights(whole), _weights(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_signal_in_the_last_step_does_not_matter(options, monkeypatch):
    _signal_at(monkeypatch, 6, signal.SIGTERM)
    train("dil-unet", UNET, RunOptions(name="a", **options))


def test_a_checkpoint_is_never_old(options, monkeypatch):
    monkeypatch.setattr("cbsn.training.loop._SAVE_SECONDS", -1.0)
    folder = train("dil-unet", UNET, RunOptions(name="a", **options))
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "step-4",
        "step-5",
        "step-6",
    }


@pytest.fixture
def pairs(tmp_path, random):
    """Flags for three pairs to validate on."""
    for kind in ("noisy", "clean"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            pixels = random.integers(0, 256, (30, 30, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    return {"val_noisy": str(tmp_path / "noisy"), "val_clean": str(tmp_path / "clean")}


@pytest.mark.parametrize("step", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_a_validation_cut_short_is_made_up_for(options, pairs, step, monkeypatch):
    every = {"val_every": 2, "save_every": 1, **pairs, **options}
    whole = train("dil-unet", UNET, RunOptions(name="whole", **every))

    read = PicturePairs.__iter__
    calls = []

    def read_until_told(self):
        calls.append(None)
        for i, pair in enumerate(read(self)):
            if len(calls) == step // 2 and i == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield pair

    monkeypatch.setattr(PicturePairs, "__iter__", read_until_told)
    monkeypatch.setattr(PicturePairs, "check", lambda self: None)  # reads them, too
    with pytest.raises(TrainingStopped, match=f"at step {step}"):
        train("dil-unet", UNET, RunOptions(name="parts", **every))
    parts = train("dil-unet", UNET, RunOptions(name="parts", **every))
    assert len(calls) == 4
    train("dil-unet", UNET, RunOptions(name="parts", **every))
    assert len(calls) == 4
    for name in ("best", "last"):
        facts = [json.loads((f / name / "recipe.json").read_text()) for f in (whole, parts)]
        assert facts[0]["training"] == facts[1]["training"]


def test_metrics_go_on_as_if_the_run_had_never_stopped(options, pairs, monkeypatch):
    flags = {"print_every": 2, "val_every": 4, "save_every": 3, **pairs, **options}
    _signal_at(monkeypatch, 5, signal.SIGTERM)
    with pytest.raises(TrainingStopped):
        train("dil-unet", UNET, RunOptions(name="a", **flags))
    monkeypatch.undo()
    shutil.rmtree(options["checkpoints"] / "a/checkpoints/step-5")
    folder = train("dil-unet", UNET, RunOptions(name="a", **flags))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert ["validation_psnr" in line for line in lines] == [False, True, True]
    names = ("total", "blind", "self", "invariance", "learning_rate", "steps_per_second")
    for name in (*names, "skipped_steps", "bad_records", "peak_memory_gib"):
        assert all(np.isfinite(line[name]) for line in lines), name


@pytest.fixture
def poisoned(tmp_path, random):
    """Patches of which every second one is not finite."""
    path = tmp_path / "poisoned.tfrecords"
    with RecordWriter(path) as writer:
        for i in range(4):
            writer.write(np.full((256, 256, 3), np.nan if i % 2 else 0.5, "float32"))
    return {"dataset": str(path), "checkpoints": tmp_path / "runs"}


@pytest.fixture(params=[False, True], ids=["at-once", "some-at-a-time"])
def looks_later(request, monkeypatch):
    """Whether the loop gives the device some steps before it looks at them, as it does a GPU."""
    monkeypatch.setattr("cbsn.training.loop.has_gpu", lambda: request.param)
    return request.param


def test_bad_steps_change_nothing_and_are_counted(poisoned, looks_later, capsys):
    one = {**UNET, "batch_size": 1, "max_steps": 8}
    every = 8 if looks_later else 1
    folder = train("dil-unet", one, RunOptions(name="a", print_every=every, **poisoned))
    out = capsys.readouterr().out
    told = [int(n) for n in re.findall(r"step (\d+): .* not finite, nothing changed", out)]
    assert len(told) == 4 and told == sorted(set(told))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(every, 9, every)]
    assert lines[-1]["skipped_steps"] == 4
    bad = [line["step"] for line in lines if line["total"] is None]
    assert bad == [step for step in told if step % every == 0]
    assert all(np.isfinite(weight).all() for weight in _weights(folder))


def test_too_many_bad_steps_in_a_row_end_the_run(poisoned, looks_later):
    all_four = {**UNET, "batch_size": 4}
    options = RunOptions(name="a", max_bad_steps=3, **poisoned)
    with pytest.raises(TrainingError) as error:
        train("dil-unet", all_four, options)
    message = str(error.value)
    assert "In 3 steps in a row, up to step 3" in message
    for number in (1, 3):
        assert f"record {number} of {poisoned['dataset']}, which holds" in message
    assert f"record 0 of {poisoned['dataset']}" not in message
    assert "There is no checkpoint yet" in message


def test_out_of_memory_is_said_once_and_the_run_goes_on(options, monkeypatch, capsys):
    step = Trainer._train_step

    def hungry(self, batch, stop=False):
        metrics = step(self, batch, stop)
        if self.accumulate == 1:
            petabytes = tf.fill([2**50 + tf.cast(self.step, tf.int64)], 0.0)
            metrics["total"] += tf.reduce_sum(petabytes)
        return metrics

    monkeypatch.setattr(Trainer, "_train_step", hungry)
    folder = train("dil-unet", UNET, RunOptions(name="a", **options))
    out = capsys.readouterr().out
    assert out.count("Out of memory: ") == 1
    assert "in 2 parts, with the same results; --accumulate 2 does so from the start" in out
    assert json.loads((folder / "last/recipe.json").read_text())["training"]["step"] == 6


def test_what_was_trained_before_a_damaged_record_is_saved(options, monkeypatch):
    def next_until_the_fourth(batches, calls=[]):  # noqa: B006, as it is to be kept
        calls.append(None)
        if len(calls) == 4:
            raise DataError("Record 2 is damaged.")
        return batches.__next__()

    monkeypatch.setattr("cbsn.training.loop.next", next_until_the_fourth, raising=False)
    with pytest.raises(DataError, match="Record 2"):
        train("dil-unet", UNET, RunOptions(name="a", **options))
    checkpoints = options["checkpoints"] / "a/checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-3"]


def test_a_damaged_record_ends_the_run_or_is_skipped_and_told(options, tmp_path, capsys):
    data = bytearray(Path(options["dataset"]).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "patches.tfrecords").write_bytes(data)
    options["dataset"] = str(tmp_path / "patches.tfrecords")
    with pytest.raises(DataError, match=r"Record 2 of .*patches\.tfrecords is damaged"):
        train("dil-unet", UNET, RunOptions(name="a", **options))
    assert not (options["checkpoints"] / "a/checkpoints").exists()
    folder = train("dil-unet", UNET, RunOptions(name="b", skip_bad_records=True, **options))
    errors = capsys.readouterr().err
    assert "skipped: Record 2 of" in errors
    assert "Damaged records skipped so far: 1." in errors
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["bad_records"] == 1


def test_a_finished_run_is_left_alone(finished, options, capsys):
    shutil.copytree(finished, options["checkpoints"] / "a")
    folder = train("cbsn", TINY, RunOptions(name="a", **options))
    assert "steps 6 to 6" in capsys.readouterr().out
    for a, b in zip(_weights(finished), _weights(folder), strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_are_passes_over_the_patches(options, capsys):
    changes = {key: value for key, value in UNET.items() if key != "max_steps"}
    train("dil-unet", changes, RunOptions(name="a", epochs=2, **options))
    # 5 patches in batches of 2 are 3 steps.
    assert "steps 0 to 6" in capsys.readouterr().out


@pytest.mark.parametrize("given", [{"epochs": 1}, {}])
def test_recipes_may_be_counted_in_epochs(options, capsys, given):
    small = {key: TINY[key] for key in ("filters", "num_modules", "patch_size", "batch_size")}
    folder = train("apbsn", small, RunOptions(name="a", **given, **options))
    epochs = given.get("epochs", 20)
    assert f"steps 0 to {3 * epochs}" in capsys.readouterr().out
    recipe = json.loads((folder / "last/recipe.json").read_text())["recipe"]
    # 8 of 20 epochs, rounded up.
    assert recipe["lr_decay_steps"] == -(-3 * epochs * 8 // 20)
    assert recipe["denoise_stride"] == 2


def test_both_lengths_are_refused(options):
    with pytest.raises(ConfigError, match="--epochs 1 --maxiter 6"):
        train("cbsn", TINY, RunOptions(name="a", epochs=1, **options))


def test_unknown_precisions_are_refused(options):
    with pytest.raises(ConfigError, match=r"--precision.*float64"):
        train("cbsn", TINY, RunOptions(name="a", precision="float64", **options))


def test_the_log_says_the_precision_and_why(options, capsys):
    train("dil-unet", UNET, RunOptions(name="a", precision="float32", accumulate=2, **options))
    line = "Precision float32: as asked for. Workers: 1, devices: 1, parts of a batch on each: 2."
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "--name"),
        ({"name": ".."}, "--name"),
        ({"ema": 1.0}, "--ema"),
        ({"val_noisy": "n"}, "give --val_clean along with --val_noisy"),
        ({"val_clean": "n"}, "give --val_noisy along with --val_clean"),
        ({"noise": Noise("gaussian", (5, 5)), "second_shots": "s"}, "--second_shots s"),
        ({"teacher": ["a", "b"], "second_shots": "s"}, "--teacher a b --second_shots s"),
        ({"own_noise": (1, 1)}, "of a --teacher.*Received: no --teacher"),
        (
            {"own_noise": (1, 1), "teacher": ["a"], "noise": Noise("gaussian", (5, 5))},
            "in place of any other. Received: --noise: gaussian noise, σ 5",
        ),
        ({"seed": -1}, "--seed"),
        ({"max_bad_steps": 0}, "--max_bad_steps"),
        ({"save_every": -5}, "--save_every"),
    ],
)
def test_bad_options_name_the_flag(change, message):
    with pytest.raises(ConfigError, match=message):
        RunOptions(**{"name": "a", "dataset": "d", **change})


def test_validation_with_noise_needs_clean_pictures_only(options, pairs, capsys):
    """The clean side of the pairs; the same figures each time."""
    lines = []
    for name in ("a", "b"):
        chosen = {
            **options,
            "noise": Noise.parse(None, "25", None),
            "val_clean": pairs["val_clean"],
        }
        folder = train("dil-unet", UNET, RunOptions(name=name, val_every=3, **chosen))
        lines.append([x for x in capsys.readouterr().out.splitlines() if "validation PSNR" in x])
    assert len(lines[0]) == 2
    assert lines[0] == lines[1]
    assert json.loads((folder / "run.json").read_text())["noise"] == "gaussian noise, σ 25"


def test_gray_pictures_get_a_gray_network(tmp_path, random, capsys):
    with RecordWriter(tmp_path / "gray.tfrecords") as writer:
        for _ in range(3):
            gray = random.integers(0, 256, (256, 256, 1)).astype("uint8")
            writer.write(np.repeat(gray, 3, axis=-1))
    options = {"dataset": str(tmp_path / "gray.tfrecords"), "checkpoints": tmp_path / "runs"}
    for gray, channels in ((None, 1), (False, 3)):
        folder = train("cbsn", TINY, RunOptions(name=f"run{channels}", gray=gray, **options))
        assert f"channels {channels}" in capsys.readouterr().out
        assert load_model(folder)[1].channels == channels


def test_intervals_are_the_authors_in_proportion():
    options = RunOptions(name="a", dataset="d")
    assert options.intervals(500_000) == (1000, 10_000, 10_000)
    assert options.intervals(50_000) == (100, 1000, 1000)
    assert options.intervals(100) == (20, 200, 200)
    given = RunOptions(name="a", dataset="d", print_every=1, val_every=2, save_every=3)
    assert given.intervals(100) == (1, 2, 3)
