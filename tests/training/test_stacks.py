"""Trainings from stacks, from the file to the saved model."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from scipy.ndimage import uniform_filter

import cbsn
from cbsn.data.pipeline import PatchPipeline
from cbsn.data.stack_records import NextFrames, Subset
from cbsn.errors import ConfigError, DataError, TrainingStopped
from cbsn.models.loading import load_model
from cbsn.recipes import RECIPES
from cbsn.training.dataset import open_records, some_patches
from cbsn.training.distribution import Workers
from cbsn.training.held_out import HeldOutLoss
from cbsn.training.options import RunOptions, parse_settings
from cbsn.training.run import resolve, train
from cbsn.training.stacks import default_method
from cbsn.training.trainer import Trainer
from data_prep.prepare import prepare

UNET = {"filters": 4, "depth": 1, "patch_size": 16, "batch_size": 2, "max_steps": 4}
CBSN = {"filters": 4, "num_modules": 1, "patch_size": 20, "batch_size": 2, "max_steps": 2}
SIZES = {"cbsn": CBSN, "dil-unet": UNET, "n2v-unet": UNET, "n2n-resunet": UNET}


@pytest.fixture
def prepare_stack(tmp_path):
    """Prepares an array as a stack, in this process; returns the folder of its patches."""

    def begin(array, axes="TYX", name="cells", **flags):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, array, ome=True, metadata={"axes": axes})
        prepare(path, out=tmp_path / name, patch_size=32, **flags)
        return str(tmp_path / name)

    return begin


@pytest.fixture
def series(random):
    return (random.gamma(2, 50, (10, 32, 48)) + 300).astype("uint16")


@pytest.fixture
def settings(tmp_path):
    """Resolves the settings of a run in this process alone."""

    def begin(recipe, dataset, changes=None, **given):
        run = RunOptions(name="a", dataset=dataset, checkpoints=tmp_path / "runs", **given)
        workers = Workers(tf.distribute.get_strategy())
        return resolve(recipe, SIZES[recipe] if changes is None else changes, run, workers)

    return begin


def _train(recipe, dataset, tmp_path, name="a", **given):
    options = RunOptions(
        name=name,
        dataset=dataset,
        checkpoints=tmp_path / "runs",
        **{"val_every": 2, "print_every": 2, **given},
    )
    return train(recipe, SIZES[recipe], options)


def _recipe(folder, model="last"):
    return json.loads((folder / model / "recipe.json").read_text())["recipe"]


def _metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_series_is_trained_on(prepare_stack, series, tmp_path, capsys):
    dataset = prepare_stack(series)
    folder = _train("n2v-unet", dataset, tmp_path)
    recipe = _recipe(folder)
    assert recipe["normalization"] == "0-1"
    assert recipe["network_config"]["channels"] == 1
    (scale,) = recipe["scaling"]["channels"]
    expected = {"mean": series.mean(), "deviation": series.std(), "low": series.mean()}
    expected["high"] = series.mean() + series.std()
    assert {name: scale[name] for name in expected} == pytest.approx(expected)
    assert scale["least"] < series.min() and series.max() < scale["most"]
    printed = capsys.readouterr().out
    words = f"scaled by mean {series.mean():.5g} and deviation {series.std():.5g}"
    assert f"cells.tif: T 10, Y 32, X 48, uint16; {words}\n" in printed
    assert "Held out for validation: 1 of 10 planes.\n" in printed
    assert "; 18 patches of 32 px, float32, of which crops of 16 px are taken; " in printed
    losses = [line["held_out_loss"] for line in _metrics(folder)]
    assert len(losses) == 2 and np.isfinite(losses).all()
    for step, loss in zip((2, 4), losses, strict=True):
        assert f"step {step}: held-out loss {loss:.5f}\n" in printed
    facts = json.loads((folder / "best/recipe.json").read_text())["training"]
    assert facts["best_held_out_loss"] == round(min(losses), 6)
    assert facts["step"] == 2 * (1 + int(np.argmin(losses)))
    events = [
        value.tag
        for path in (folder / "events").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert events.count("validation/held_out_loss") == 2
    assert events.count("training") == 2


@pytest.mark.parametrize("recipe", ["n2v-unet", "dil-unet", "cbsn"])
@pytest.mark.parametrize(
    ("dtype", "mean", "spread"),
    [
        ("int16", -9000, 800),
        ("int32", 2_000_000, 5000),
        ("float32", 1e6, 1e4),
        ("float64", 0, 1e-6),
    ],
)
def test_any_values_are_trained_on(prepare_stack, random, settings, recipe, dtype, mean, spread):
    """The network sees them with a mean of 0 and a deviation of 1; the gradients are finite."""
    values = random.normal(mean, spread, (6, 32, 32)).astype(dtype)
    resolved = settings(recipe, prepare_stack(values))
    batch = PatchPipeline(resolved.records, resolved.recipe.patch_size, 2, channels=1).batch(0)
    assert abs(batch.mean()) < 0.3 and 0.7 < batch.std() < 1.3
    (scale,) = resolved.recipe.scaling["channels"]
    assert (scale["mean"], scale["deviation"]) == pytest.approx(
        (values.astype(float).mean(), values.astype(float).std())
    )
    if dtype == "int16":
        trainer = Trainer(resolved.recipe)
        before = trainer.network.get_weights()
        metrics = trainer.train_step(tf.constant(batch))
        assert not metrics["skipped"]
        assert any(
            (a != b).any() for a, b in zip(before, trainer.network.get_weights(), strict=True)
        )


def test_one_channel_has_its_scale_alone(prepare_stack, random, settings):
    values = random.normal([[[[0]], [[500]], [[90]]]], 5, (6, 3, 32, 32)).astype("float32")
    every = settings("n2v-unet", prepare_stack(values, "TCYX")).recipe.scaling
    one = settings("n2v-unet", prepare_stack(values, "TCYX", "one", select="c=1")).recipe.scaling
    assert one["channels"] == every["channels"][1:2]
    assert len(every["channels"]) == 3


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_scaling_suits_the_recipe(recipe):
    by_deviation = RECIPES[recipe].normalization == "standardize" or recipe == "pn2v-unet"
    expected = "deviation" if by_deviation else "range"
    assert default_method(RECIPES[recipe]) == expected


def test_rgb_stacks_have_a_network_in_colour(prepare_stack, random, settings, tmp_path):
    values = random.integers(0, 256, (6, 32, 32, 3)).astype("uint8")
    tifffile.imwrite(tmp_path / "rgb.tif", values, photometric="rgb")
    prepare(tmp_path / "rgb.tif", out=tmp_path / "rgb", patch_size=32)
    for gray, channels in ((None, 3), (True, 1)):
        resolved = settings("n2v-unet", str(tmp_path / "rgb"), gray=gray)
        assert resolved.recipe.network_config["channels"] == channels


@pytest.mark.slow
def test_neighbouring_frames_are_two_shots(prepare_stack, series, tmp_path, capsys):
    dataset = prepare_stack(series, normalize="range")
    folder = _train("n2n-resunet", dataset, tmp_path, second_shots="next")
    assert _recipe(folder)["normalization"] == "0-1"
    assert _recipe(folder)["scaling"]["method"] == "range"
    printed = capsys.readouterr().out
    assert "Neighbouring frames are the two shots of each other.\n" in printed
    assert "held-out loss" in printed


def test_the_pairs_are_those_of_the_stack(prepare_stack, series, settings):
    resolved = settings("n2n-resunet", prepare_stack(series), second_shots="next", hold_out=0)
    assert isinstance(resolved.records, NextFrames)
    assert resolved.held_out is None
    assert len(resolved.records) == 2 * 9 * 2  # both orders, and two patches of a plane
    held = settings("n2n-resunet", prepare_stack(series), second_shots="next")
    assert isinstance(held.records, Subset)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_held_out_loss_changes_nothing(prepare_stack, series, settings, average):
    """It is the same for the same weights, and of those that denoise."""
    resolved = settings("n2v-unet", prepare_stack(series))
    trainer = Trainer(resolved.recipe, ema=average)
    loss = HeldOutLoss(trainer, resolved.held_out, 0)
    pipeline = PatchPipeline(resolved.records, 16, 2, channels=1)
    state = [*trainer.network.get_weights(), *trainer.optimizer.variables]
    before = [np.array(value) for value in state]
    first = loss()
    assert loss() == first
    for a, b in zip(before, [*trainer.network.get_weights(), *state[len(before) :]], strict=False):
        np.testing.assert_array_equal(a, b)
    assert trainer.step.numpy() == 0
    trainer.train_step(tf.constant(pipeline.batch(0)))
    assert loss() != first
    if average:
        trainer.network.set_weights([0 * each for each in trainer.network.get_weights()])
        after = loss()
        trainer.average.set_weights([0 * each for each in trainer.average.get_weights()])
        assert loss() != after


def test_the_held_out_loss_has_full_weights_from_the_start(prepare_stack, series, settings):
    """The ramp of the invariance term would make the later losses higher."""
    resolved = settings("dil-unet", prepare_stack(series))
    trainer = Trainer(resolved.recipe)
    loss = HeldOutLoss(trainer, resolved.held_out, 0)
    first = loss()
    trainer.step.assign(resolved.recipe.max_steps)
    assert loss() == first


def test_at_most_64_patches_of_all_are_taken(prepare_stack, random, settings):
    values = random.random((60, 64, 64)).astype("float32")
    resolved = settings("n2v-unet", prepare_stack(values, name="many"), hold_out=0.5)
    assert len(resolved.held_out) == 30 * 4
    trainer = Trainer(resolved.recipe)
    assert HeldOutLoss(trainer, resolved.held_out, 0).patches == 64
    few = Subset(resolved.held_out, np.arange(5))
    assert HeldOutLoss(trainer, few, 0).patches == 4  # in parts of 2


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_weights(prepare_stack, series, tmp_path, signal_at):
    dataset = prepare_stack(series)
    whole = _train("n2v-unet", dataset, tmp_path, "whole", precision="float32")
    signal_at(2)
    with pytest.raises(TrainingStopped):
        _train("n2v-unet", dataset, tmp_path, "parts", precision="float32")
    parts = _train("n2v-unet", dataset, tmp_path, "parts", precision="float32")
    for model in ("last", "best"):
        weights = [load_model(folder / model)[1].get_weights() for folder in (whole, parts)]
        for a, b in zip(*weights, strict=True):
            np.testing.assert_array_equal(a, b)
    assert [line["held_out_loss"] for line in _metrics(whole)] == [
        line["held_out_loss"] for line in _metrics(parts)
    ]


def test_without_planes_held_out_there_is_no_best(prepare_stack, series, tmp_path):
    folder = _train("n2v-unet", prepare_stack(series), tmp_path, hold_out=0.0)
    assert not (folder / "best").exists()
    assert all("held_out_loss" not in line for line in _metrics(folder))


def test_strides_are_chosen_by_the_noise(random, settings, tmp_path):
    """Whatever the range of the values."""
    smooth = np.linspace(0.25, 0.75, 256)[:, None]
    noise = uniform_filter(random.normal(size=(8, 256, 256)), (0, 3, 3)) / 4
    strides = set()
    for number, (factor, offset) in enumerate([(1, 0), (1e6, -9e6), (1e-5, 0)]):
        pixels = ((smooth + noise) * factor + offset).astype("float32")
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels)
        prepare(tmp_path / f"{number}.tif", out=tmp_path / str(number))
        changes = {**CBSN, "stride_b": "auto", "patch_size": 30}
        resolved = settings("cbsn", str(tmp_path / str(number)), changes)
        strides.add(resolved.recipe.objective_config["stride_b"])
        for patch in some_patches(resolved.records, gray=True):
            assert patch.shape == (128, 128, 1)
            assert patch.min() > -0.5 and patch.max() < 1.5
    assert len(strides) == 1 and strides <= {3, 5, 6}  # at least 3, and a part of 30


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        ("photo", {}, "Teachers are for photographs.*--recipe photo"),
        ("photo-large", {}, "Teachers are for photographs"),
        ("distill", {}, "Teachers are for photographs.*--recipe distill"),
        ("distill", {"teacher": ("photo",)}, "Teachers are for photographs.*--teacher"),
        ("n2v-unet", {"teacher": ("photo",)}, "Teachers are for photographs"),
        ("n2v-unet", {"noise_sigma": 25}, "Noise can be added to pictures only"),
        ("distill", {"teacher": ("photo",), "own_noise": 1}, "Teachers are for photographs"),
        ("n2v-unet", {"val_noisy": "a", "val_clean": "b"}, "cbsn evaluate"),
        ("n2v-unet", {"white": 4095}, "--normalize 0,4095: omit --white"),
        ("n2n-resunet", {}, "--second_shots next"),
        ("n2v-unet", {"second_shots": "next"}, "one noisy shot"),
        ("n2v-unet", {"gray": False, "patch_size": 16}, "omit --no-gray"),
        ("n2v-unet", {"select": "c=1"}, "prepared with another --select: None"),
        ("n2v-unet", {"normalize": "range"}, "prepared with another --normalize: deviation"),
        ("n2v-unet", {"axes": "ZYX"}, "prepared with another --axes: None"),
        ("n2v-unet", {"hold_out": 0.6}, "--hold_out 0.6"),
        ("n2v-unet", {"hold_out": -1}, "--hold_out -1"),
        ("n2v-unet", {"nan": "keep"}, "--nan keep"),
    ],
)
def test_what_stacks_cannot_is_refused(prepare_stack, series, tmp_path, recipe, given, message):
    dataset = prepare_stack(series)
    with pytest.raises(ConfigError, match=message):
        cbsn.train(dataset, recipe, out=tmp_path / "runs/a", steps=2, **given)
    assert not (tmp_path / "runs").exists()


def test_next_frames_need_stacks_with_time(prepare_stack, series, options, settings, tmp_path):
    with pytest.raises(ConfigError, match="takes the next frame of stacks"):
        train("n2n-resunet", UNET, RunOptions(name="a", second_shots="next", **options))
    with pytest.raises(ConfigError, match="needs stacks with the axis T"):
        settings("n2n-resunet", prepare_stack(series, "ZYX", "depth"), second_shots="next")


def test_flags_for_stacks_are_refused_with_pictures(options, settings):
    with pytest.raises(ConfigError, match="are for stacks: omit"):
        settings("n2v-unet", options["dataset"], select="t=1")


def test_stacks_that_are_not_prepared(series, tmp_path, monkeypatch):
    """The folder is that of `cbsn prepare`, with the recipe's scaling."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    tifffile.imwrite("exp/a.tif", series, ome=True, metadata={"axes": "TYX"})
    monkeypatch.setattr(
        "cbsn.training.dataset.prepare",
        lambda dataset, *, workers, **given: prepare(dataset, **given),
    )
    for recipe, method in (("n2v-unet", "deviation"), ("n2n-resunet", "range")):
        options = RunOptions(name="a", dataset="exp", second_shots=None)
        normalize = default_method(RECIPES[recipe])
        records = open_records(options, normalize=normalize)
        assert records.manifest.normalize == method
        again = open_records(options, convert=False, normalize=normalize)
        assert again.paths == records.paths
    prepare("exp/a.tif", out="own", select="t=0:6")
    records = open_records(RunOptions(name="a", dataset="own"), normalize="range")
    assert records.manifest.select == "t=0:6"
    assert records.manifest.normalize == "deviation"


def test_settings_come_from_the_flags():
    values = {"name": "a", "dataset": "b", "axes": "tyx", "select": "c=1", "normalize": "range"}
    _, options = parse_settings({**values, "nan": "fill", "hold_out": 0.2})
    assert options.stacks.settings == {"axes": "TYX", "select": "c=1", "normalize": "range"}
    assert (options.stacks.nan, options.hold_out) == ("fill", 0.2)


@pytest.mark.slow
def test_a_model_of_stacks_is_a_start_for_other_stacks(prepare_stack, series, tmp_path, random):
    first = _train("n2v-unet", prepare_stack(series), tmp_path)
    other = prepare_stack(2 * series, name="brighter")
    size = {"patch_size": 16, "batch_size": 2, "max_steps": 2}
    options = {"checkpoints": tmp_path / "runs", "init": str(first)}
    again = train("n2v-unet", size, RunOptions(name="b", dataset=other, **options))
    scale = _recipe(again)["scaling"]["channels"][0]
    assert scale["mean"] == pytest.approx(2 * series.mean())
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    tifffile.imwrite(pictures / "a.tif", random.integers(0, 255, (32, 48)).astype("uint8"))
    prepare(pictures, out=tmp_path / "patches", patch_size=32)
    run = RunOptions(name="c", dataset=str(tmp_path / "patches"), **options)
    with pytest.raises(ConfigError, match="trained on stacks"):
        train("n2v-unet", size, run)


def test_a_finished_run_says_that_nothing_is_left_to_train(prepare_stack, series, tmp_path, capsys):
    dataset = prepare_stack(series)
    _train("n2v-unet", dataset, tmp_path)
    assert "nothing is left to train" not in capsys.readouterr().out
    other = prepare_stack(series[::-1], name="others")
    _train("n2v-unet", other, tmp_path)
    output = capsys.readouterr().out
    assert f"Continuing with other settings: dataset={dataset} → dataset={other}" in output
    assert "already has 4 steps, so nothing is left to train" in output


def test_what_is_read_otherwise_is_told(series, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("cells.tif", series, ome=True, metadata={"axes": "TYX"})
    for repair in (None, "rows"):
        _train("n2v-unet", "cells.tif", tmp_path, repair=repair)
    output = capsys.readouterr().out
    assert "Continuing with other settings: repair=none → repair=rows" in output


def test_equal_values_are_nothing_to_learn_from(prepare_stack, series, tmp_path):
    dataset = prepare_stack(np.full_like(series, 7))
    with pytest.raises(DataError, match=r"nothing to learn.*values are 7"):
        _train("n2v-unet", dataset, tmp_path)


def test_few_planes_are_not_held_out_and_that_is_said(prepare_stack, series, tmp_path, capsys):
    _train("n2v-unet", prepare_stack(series[:2]), tmp_path)
    output = capsys.readouterr().out
    assert "None is held out for validation: there are too few." in output
    assert "of 32 px, float32, of which crops of 16 px are taken; steps" in output


def test_files_that_are_no_pictures_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.tif").write_text("not a picture")
    with pytest.raises(DataError, match=r"Nothing in notes\.tif can be trained on"):
        _train("n2v-unet", "notes.tif", tmp_path)
