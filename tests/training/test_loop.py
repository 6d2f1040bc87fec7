import json
import re
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cbsn.data.pairs import PicturePairs
from cbsn.data.records import RecordWriter
from cbsn.errors import DataError, TrainingError, TrainingStopped
from cbsn.models.loading import load_model
from cbsn.signals import STOPPING
from cbsn.training.loop import StopSignals, TrainingLoop, validate
from cbsn.training.options import RunOptions
from cbsn.training.run import train
from cbsn.training.trainer import Trainer

UNET = {"filters": 4, "depth": 1, "patch_size": 20, "batch_size": 2, "max_steps": 4}
"""Settings of `n2v-unet`, for what is the same with any network: traced in half the time."""


@pytest.fixture(scope="module")
def finished(patches, tmp_path_factory):
    """The folder of a run that came to its end; not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    options = RunOptions(name="a", dataset=str(patches), checkpoints=runs, ema=0.9)
    return train("n2v-unet", UNET, options)


def _weights(folder):
    return load_model(folder / "last")[1].get_weights()


def test_interrupted_and_resumed_equals_uninterrupted(finished, options, signal_at, capsys):
    given = RunOptions(name="parts", ema=0.9, **options)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    signal_at(2, signal.SIGINT)
    with pytest.raises(TrainingStopped, match=r"SIGINT stopped the run.*at step 2"):
        train("n2v-unet", UNET, given)
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    signal_at(0)
    parts = train("n2v-unet", UNET, given)
    assert "steps 2 to 4" in capsys.readouterr().out
    for a, b in zip(_weights(finished), _weights(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_is_never_old_and_a_signal_in_the_last_step_does_not_matter(
    options, signal_at, monkeypatch
):
    monkeypatch.setattr("cbsn.training.loop._SAVE_SECONDS", -1.0)
    signal_at(4)
    folder = train("n2v-unet", UNET, RunOptions(name="a", **options))
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == {"step-2", "step-3", "step-4"}


@pytest.fixture
def pairs(tmp_path, random):
    """Flags for three pairs to validate on."""
    for kind in ("noisy", "clean"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            pixels = random.integers(0, 256, (30, 30, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    return {"val_noisy": str(tmp_path / "noisy"), "val_clean": str(tmp_path / "clean")}


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_a_validation_cut_short_is_made_up_for(options, pairs, step, monkeypatch):
    every = {"val_every": 2, "save_every": 1, **pairs, **options}
    monkeypatch.setattr(PicturePairs, "check", lambda self: None)  # reads them, too
    whole = train("n2v-unet", UNET, RunOptions(name="whole", **every))

    read = PicturePairs.__iter__
    calls = []

    def read_until_told(self):
        calls.append(None)
        for i, pair in enumerate(read(self)):
            if len(calls) == step // 2 and i == 1:
                signal.raise_signal(signal.SIGTERM)
            yield pair

    monkeypatch.setattr(PicturePairs, "__iter__", read_until_told)
    with pytest.raises(TrainingStopped, match=f"at step {step}"):
        train("n2v-unet", UNET, RunOptions(name="parts", **every))
    parts = train("n2v-unet", UNET, RunOptions(name="parts", **every))
    assert len(calls) == 3
    train("n2v-unet", UNET, RunOptions(name="parts", **every))
    assert len(calls) == 3
    for name in ("best", "last"):
        facts = [json.loads((f / name / "recipe.json").read_text()) for f in (whole, parts)]
        assert facts[0]["training"] == facts[1]["training"]


@pytest.mark.slow
def test_a_run_that_is_killed_after_its_first_best_model_goes_on(
    options, pairs, monkeypatch, capsys
):
    every = {"val_every": 2, "save_every": 100, **pairs, **options}

    def die(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(TrainingLoop, "_save", die)
        train("n2v-unet", UNET, RunOptions(name="a", **every))
    assert (options["checkpoints"] / "a/best/recipe.json").exists()
    train("n2v-unet", UNET, RunOptions(name="a", **every))
    assert f"steps 2 to {UNET['max_steps']};" in capsys.readouterr().out


@pytest.mark.slow
def test_other_pictures_to_validate_on_start_with_a_best_model_of_their_own(
    options, pairs, monkeypatch, capsys
):
    others = {"val_noisy": pairs["val_clean"], "val_clean": pairs["val_noisy"]}
    at_step = {}
    for step, (score, given) in enumerate([(30, pairs), (20, others), (10, others), (40, {})], 1):
        monkeypatch.setattr("cbsn.training.loop.validate", lambda *_, score=score: (score, []))
        chosen = RunOptions(name="a", val_every=1, **given, **options)
        folder = train("n2v-unet", {**UNET, "max_steps": step}, chosen)
        facts = json.loads((folder / "best/recipe.json").read_text())["training"]
        at_step[step] = facts["step"], facts["best_validation_psnr"], capsys.readouterr().out
    assert [each[:2] for each in at_step.values()] == [(1, 30), (2, 20), (2, 20), (2, 20)]
    assert ["starts anew" in each[2] for each in at_step.values()] == [False, True, False, False]
    (folder / "best/recipe.json").write_text("[")  # damaged, and no reason to stop
    train("n2v-unet", {**UNET, "max_steps": 4}, chosen)
    told = f"{folder}/best stays the model of step 2, which is the one that {folder} stands for"
    assert told in at_step[4][2] and "stays" not in at_step[3][2]


@pytest.mark.slow
def test_metrics_go_on_as_if_the_run_had_never_stopped(options, pairs, signal_at):
    flags = {"print_every": 2, "val_every": 4, "save_every": 3, **pairs, **options}
    six = {**UNET, "max_steps": 6}
    signal_at(5)
    with pytest.raises(TrainingStopped):
        train("n2v-unet", six, RunOptions(name="a", **flags))
    signal_at(0)
    shutil.rmtree(options["checkpoints"] / "a/checkpoints/step-5")
    folder = train("n2v-unet", six, RunOptions(name="a", **flags))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert ["validation_psnr" in line for line in lines] == [False, True, True]
    names = ("total", "blind", "learning_rate", "steps_per_second")
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
    folder = train("n2v-unet", one, RunOptions(name="a", print_every=every, **poisoned))
    out = capsys.readouterr().out
    told = [int(n) for n in re.findall(r"step (\d+): .* not finite, nothing changed", out)]
    assert len(told) == 4 and told == sorted(set(told))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(every, 9, every)]
    assert lines[-1]["skipped_steps"] == 4
    bad = [line["step"] for line in lines if line["total"] is None]
    assert bad == [step for step in told if step % every == 0]
    assert all(np.isfinite(weight).all() for weight in _weights(folder))


def test_too_many_bad_steps_in_a_row_end_the_run(poisoned):
    all_four = {**UNET, "batch_size": 4}
    options = RunOptions(name="a", max_bad_steps=3, **poisoned)
    with pytest.raises(TrainingError) as error:
        train("n2v-unet", all_four, options)
    message = str(error.value)
    assert "In 3 steps in a row, up to step 3" in message
    for number in (1, 3):
        assert f"record {number} of {poisoned['dataset']}, which holds" in message
    assert f"record 0 of {poisoned['dataset']}" not in message
    assert "There is no checkpoint yet" in message


def test_out_of_memory_is_said_once_and_the_run_goes_on(options, monkeypatch, capsys):
    step = Trainer._train_step

    def run_out():
        raise MemoryError

    def hungry(self, batch, stop=False):
        metrics = step(self, batch, stop)
        if self.accumulate == 1:
            metrics["total"] += tf.numpy_function(run_out, [], tf.float32)
        return metrics

    monkeypatch.setattr(Trainer, "_train_step", hungry)
    # XLA cannot compile it.
    folder = train("n2v-unet", UNET, RunOptions(name="a", xla=False, **options))
    out = capsys.readouterr().out
    assert out.count("Out of memory: ") == 1
    assert "in 2 parts, with the same results; --accumulate 2 does so from the start" in out
    assert json.loads((folder / "last/recipe.json").read_text())["training"]["step"] == 4


def test_what_was_trained_before_a_damaged_record_is_saved(options, monkeypatch):
    def next_until_the_third(batches, calls=[]):  # noqa: B006, as it is to be kept
        calls.append(None)
        if len(calls) == 3:
            raise DataError("Record 2 is damaged.")
        return batches.__next__()

    monkeypatch.setattr("cbsn.training.loop.next", next_until_the_third, raising=False)
    with pytest.raises(DataError, match="Record 2"):
        train("n2v-unet", UNET, RunOptions(name="a", **options))
    checkpoints = options["checkpoints"] / "a/checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-2"]


def test_a_damaged_record_ends_the_run_or_is_skipped_and_told(options, tmp_path, capsys):
    data = bytearray(Path(options["dataset"]).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "patches.tfrecords").write_bytes(data)
    options["dataset"] = str(tmp_path / "patches.tfrecords")
    with pytest.raises(DataError, match=r"Record 2 of .*patches\.tfrecords is damaged"):
        train("n2v-unet", UNET, RunOptions(name="a", **options))
    assert not (options["checkpoints"] / "a/checkpoints").exists()
    folder = train("n2v-unet", UNET, RunOptions(name="b", skip_bad_records=True, **options))
    errors = capsys.readouterr().err
    assert "skipped: Record 2 of" in errors
    assert "Damaged records skipped so far: 1." in errors
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["bad_records"] == 1


def test_a_finished_run_is_left_alone(finished, options, capsys):
    shutil.copytree(finished, options["checkpoints"] / "a")
    folder = train("n2v-unet", UNET, RunOptions(name="a", ema=0.9, **options))
    assert "steps 4 to 4" in capsys.readouterr().out
    for a, b in zip(_weights(finished), _weights(folder), strict=True):
        np.testing.assert_array_equal(a, b)


def test_validation_is_the_mean_of_the_pictures(tmp_path, random):
    for name in ("noisy", "clean"):
        (tmp_path / name).mkdir()
    for i in range(1, 6):
        clean = random.integers(50, 200, (8, 9, 3)).astype("uint8")
        Image.fromarray(clean).save(tmp_path / f"clean/{i}.png")
        Image.fromarray(clean + np.uint8(i)).save(tmp_path / f"noisy/{i}.png")
    pairs = PicturePairs(tmp_path / "noisy", tmp_path / "clean")
    psnr, triples = validate(pairs, lambda noisy, white: noisy, stop=lambda: False)
    assert psnr == pytest.approx(np.mean([20 * np.log10(255 / d) for d in range(1, 6)]))
    noisy, denoised, clean = triples[1]
    np.testing.assert_array_equal(noisy, denoised)
    np.testing.assert_array_equal(noisy, clean + 2)
    assert validate(pairs, lambda noisy, white: noisy, stop=lambda: True) is None


class Ended(BaseException):
    """Raised by what stands in for the default handlers, which would end the tests."""


@pytest.fixture
def before():
    """The handler of both signals before and after the block."""

    def end(number, frame):
        raise Ended(signal.Signals(number).name)

    found = {number: signal.signal(number, end) for number in STOPPING}
    yield end
    for number, handler in found.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_leaves_a_note(number, before, capfd):
    with StopSignals() as signals:
        assert signals.received == ""
        signal.raise_signal(number)
        assert signals.received == number.name
    assert signal.getsignal(number) == before
    assert f"{number.name}: finishing the step" in capfd.readouterr().err


def test_a_second_signal_acts_as_before(before):
    with pytest.raises(Ended, match="SIGINT"), StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert signals.received == "SIGTERM"


def test_ignored_signals_stay_ignored(before):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
    assert signals.received == ""
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_other_threads_get_none():
    seen = []

    def work():
        with StopSignals() as signals:
            seen.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [""]
