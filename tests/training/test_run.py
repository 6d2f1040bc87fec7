import numpy as np
import pytest

from cbsn.data.records import RecordWriter
from cbsn.errors import ConfigError
from cbsn.model_path import load_model
from cbsn.training.run import RunOptions, train

TINY = {"filters": 4, "num_modules": 1, "patch_size": 20, "batch_size": 2, "max_steps": 6}


@pytest.fixture
def options(tmp_path, random):
    patches = tmp_path / "patches.tfrecords"
    with RecordWriter(patches) as writer:
        for _ in range(5):
            writer.write(random.integers(0, 256, (256, 256, 3)).astype("uint8"))
    return {"dataset": str(patches), "checkpoints": tmp_path / "runs"}


def _weights(folder):
    return load_model(folder / "last")[1].get_weights()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_interrupted_and_resumed_equals_uninterrupted(options, ema, monkeypatch, capsys):
    whole = train("cbsn", TINY, RunOptions(name="whole", ema=ema, **options))

    calls = []

    def next_until_the_fourth(batches):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return batches.__next__()

    monkeypatch.setattr("cbsn.training.run.next", next_until_the_fourth, raising=False)
    with pytest.raises(KeyboardInterrupt):
        train("cbsn", TINY, RunOptions(name="parts", ema=ema, **options))
    assert "saved at step 3" in capsys.readouterr().out
    monkeypatch.undo()
    parts = train("cbsn", TINY, RunOptions(name="parts", ema=ema, **options))
    assert "steps 3 to 6" in capsys.readouterr().out
    for a, b in zip(_weights(whole), _weights(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_is_left_alone(options, capsys):
    folder = train("cbsn", TINY, RunOptions(name="a", **options))
    before = _weights(folder)
    train("cbsn", TINY, RunOptions(name="a", **options))
    assert "steps 6 to 6" in capsys.readouterr().out
    for a, b in zip(before, _weights(folder), strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_are_passes_over_the_patches(options, capsys):
    changes = {key: value for key, value in TINY.items() if key != "max_steps"}
    train("cbsn", changes, RunOptions(name="a", epochs=2, **options))
    # 5 patches in batches of 2 are 3 steps.
    assert "steps 0 to 6" in capsys.readouterr().out


def test_both_lengths_are_refused(options):
    with pytest.raises(ConfigError, match="--epochs 1 --maxiter 6"):
        train("cbsn", TINY, RunOptions(name="a", epochs=1, **options))


def test_unknown_precisions_are_refused(options):
    with pytest.raises(ConfigError, match=r"--precision.*float64"):
        train("cbsn", TINY, RunOptions(name="a", precision="float64", **options))


def test_the_log_says_the_precision_and_why(options, capsys):
    train("cbsn", TINY, RunOptions(name="a", precision="float32", accumulate=2, **options))
    line = "Precision float32: as asked for. Gradients in 2 parts."
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "--name"),
        ({"name": ".."}, "--name"),
        ({"ema": 1.0}, "--ema"),
        ({"val_noisy": "n"}, "give --val_clean along with --val_noisy"),
        ({"val_clean": "n"}, "give --val_noisy along with --val_clean"),
        ({"seed": -1}, "--seed"),
        ({"save_every": -5}, "--save_every"),
    ],
)
def test_bad_options_name_the_flag(change, message):
    with pytest.raises(ConfigError, match=message):
        RunOptions(**{"name": "a", "dataset": "d", **change})


def test_intervals_are_the_authors_in_proportion():
    options = RunOptions(name="a", dataset="d")
    assert options.intervals(500_000) == (1000, 10_000, 10_000)
    assert options.intervals(50_000) == (100, 1000, 1000)
    assert options.intervals(100) == (20, 200, 200)
    given = RunOptions(name="a", dataset="d", print_every=1, val_every=2, save_every=3)
    assert given.intervals(100) == (1, 2, 3)
