"""Trainings in three dimensions, from the file to the saved model."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tifffile

import cbsn
from cbsn import precision
from cbsn.data.pipeline import PatchPipeline
from cbsn.errors import ConfigError, TrainingError
from cbsn.inference.denoiser import Denoiser
from cbsn.models.loading import load_model
from cbsn.recipes import RECIPES, customised
from cbsn.training.adaptation import adapt
from cbsn.training.dataset import open_records, some_patches
from cbsn.training.distribution import Workers
from cbsn.training.held_out import HeldOutLoss
from cbsn.training.options import RunOptions
from cbsn.training.run import _pipeline, _turned_for, resolve, train
from cbsn.training.trainer import Trainer
from data_prep.prepare import prepare
from tests import rounding

NAME = "n2v-unet-3d"
SMALL = {"filters": 4, "depth": 1, "z_halvings": 1}
SIZES = {**SMALL, "patch_size": 16, "patch_depth": 8, "batch_size": 2, "max_steps": 4}


@pytest.fixture
def volume(random):
    return (random.gamma(2, 50, (20, 32, 48)) + 300).astype("uint16")


@pytest.fixture
def prepare_volume(tmp_path):
    """Prepares an array as a stack, in this process; returns the folder of its patches."""

    def begin(array, axes="ZYX", name="cells", **flags):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, array, ome=True, metadata={"axes": axes})
        flags = {"patch_size": 16, "patch_depth": 8, **flags}
        prepare(path, out=tmp_path / name, **flags)
        return str(tmp_path / name)

    return begin


def _train(dataset, tmp_path, name="a", changes=SIZES, **given):
    given = {"val_every": 2, "print_every": 2, "save_every": 2, **given}
    options = RunOptions(name=name, dataset=dataset, checkpoints=tmp_path / "runs", **given)
    return train(NAME, changes, options)


def _settings(dataset, tmp_path, changes=SIZES, **given):
    run = RunOptions(name="a", dataset=dataset, checkpoints=tmp_path / "runs", **given)
    return resolve(NAME, changes, run, Workers(tf.distribute.get_strategy()))


def _weights(folder, model="last"):
    return load_model(folder / model)[1].get_weights()


@pytest.mark.slow
def test_a_volume_is_trained_on(prepare_volume, volume, tmp_path, capsys):
    folder = _train(prepare_volume(volume), tmp_path)
    recipe = json.loads((folder / "last/recipe.json").read_text())["recipe"]
    assert (recipe["patch_depth"], recipe["network_config"]["dimensions"]) == (8, 3)
    assert recipe["normalization"] == "0-1"
    (scale,) = recipe["scaling"]["channels"]
    assert scale["mean"] == pytest.approx(volume.mean())
    printed = capsys.readouterr().out
    assert "Held out for validation: 2 of 18 patches." in printed
    assert " patches of 8 × 16 × 16 voxels, float32; " in printed
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line[name] for line in lines for name in ("total", "held_out_loss")]
    assert len(losses) == 4 and np.isfinite(losses).all()
    assert (folder / "best").is_dir()
    images = [
        value
        for path in (folder / "events").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "training"
    ]
    assert len(images) == 2
    shown = tf.image.decode_png(images[0].tensor.string_val[2])
    assert shown.shape[:2] == (16, 2 * 16)  # a plane of a patch, and of the denoised one


@pytest.mark.slow
def test_training_goes_on_and_is_the_same_bit_for_bit(prepare_volume, volume, tmp_path, run_python):
    """In a process of its own, which stays deterministic."""
    dataset = prepare_volume(volume)
    result = run_python(
        f"""
        import signal
        from pathlib import Path
        from cbsn.errors import TrainingStopped
        from cbsn.training import loop
        from cbsn.training.options import RunOptions
        from cbsn.training.run import train

        def begin(name):
            every = dict(val_every=2, print_every=2, save_every=2)
            how = dict(deterministic=True, precision="float32", checkpoints=Path("runs"), **every)
            return train({NAME!r}, {SIZES!r}, RunOptions(name=name, dataset={dataset!r}, **how))

        begin("whole")
        begin("again")
        calls = []

        def next_with_signal(batches):
            calls.append(None)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
            return batches.__next__()

        loop.next = next_with_signal
        try:
            begin("parts")
        except TrainingStopped as error:
            print(error)
        begin("parts")
        """
    )
    assert result.returncode == 0, result.stderr
    assert "it is saved at step 2" in result.stdout
    for model in ("last", "best"):
        whole, *others = (
            _weights(tmp_path / "runs" / n, model) for n in ("whole", "again", "parts")
        )
        for other in others:
            for a, b in zip(whole, other, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mask", ["point", "x:1", "1,0,0"])
def test_patches_are_turned_as_the_mask_allows(prepare_volume, mask, tmp_path):
    """Values grow along z, y and x, and most along z, so differences tell how a crop lies."""
    z, y, x = np.ogrid[:20, :32, :48]
    volume = (10000 * z + 100 * y + x).astype("float32")
    changes = {**SIZES, "mask_shape": mask, "batch_size": 100}
    settings = _settings(prepare_volume(volume), tmp_path, changes)
    trainer = Trainer(settings.recipe)
    pipeline = _pipeline(settings, Workers(tf.distribute.get_strategy()))
    crops = _turned_for(trainer.network, pipeline).batch(0)
    held_out = HeldOutLoss(trainer, settings.records, 0)._pipeline.batch(0)
    for batch in (crops, held_out):
        along_z = {np.sign(crop[1, 0, 0, 0] - crop[0, 0, 0, 0]) for crop in batch}
        planes = batch[:, 0, :, :, 0]
        down, across = planes[:, 1, 0] - planes[:, 0, 0], planes[:, 0, 1] - planes[:, 0, 0]
        stays = abs(down) > abs(across)
        assert along_z == ({1} if mask == "1,0,0" else {-1, 1})
        assert {*stays} == ({True} if mask == "x:1" else {True, False})


def test_parts_of_a_batch_give_the_step_of_the_whole(prepare_volume, volume, tmp_path):
    """Up to the order of sums, see `tests.rounding`."""
    settings = _settings(prepare_volume(volume), tmp_path, {**SIZES, "batch_size": 4})
    pipeline = PatchPipeline(settings.records, 16, 4, channels=1, patch_depth=8)
    batch = tf.constant(pipeline.batch(0))
    found = []
    for parts in (1, 2, 4):
        trainer = Trainer(settings.recipe, accumulate=parts)
        terms, gradients, _ = trainer._gradients(batch)
        found.append((float(terms["total"]), np.concatenate([np.ravel(g) for g in gradients])))
    error = rounding.of_gradients(trainer.network, batch.shape[0] * 8 * 16**2)
    (loss, whole), *others = found
    for other_loss, parts in others:
        assert other_loss == pytest.approx(loss, rel=error)
        assert np.linalg.norm(parts - whole) <= error * np.linalg.norm(whole)


def test_memory_counts_all_planes(monkeypatch):
    """A patch of N planes takes N times the memory of one, so as many parts are needed."""
    monkeypatch.setattr("cbsn.training.trainer.has_gpu", lambda: False)
    recipe = customised(NAME, **{**SIZES, "batch_size": 16})
    for depth, expected in ((8, 4), (16, 8), (32, 16)):
        outputs = sum(
            kernel.shape[-1] for kernel in recipe.build_network().weights if kernel.ndim == 5
        )
        monkeypatch.setattr("cbsn.training.trainer._FEATURE_BYTES", 4 * 2 * outputs * 8 * 16**2 * 4)
        deeper = dataclasses.replace(recipe, patch_depth=depth)
        assert Trainer(deeper, xla=False).accumulate == expected


def test_running_out_of_memory_names_the_flags(monkeypatch):
    trainer = Trainer(customised(NAME, **{**SIZES, "batch_size": 1}))
    error = MemoryError("no more")
    with pytest.raises(TrainingError, match=r"8 × 16 × 16 voxels .*--patch_size, --patch_depth"):
        trainer._split_further(error)


def test_stacks_are_prepared_with_room_for_crops(volume, tmp_path, monkeypatch):
    """Deeper than the recipe's patches, so that crops begin at any plane."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    tifffile.imwrite("exp/a.tif", volume, ome=True, metadata={"axes": "ZYX"})
    monkeypatch.setattr(
        "cbsn.training.dataset.prepare",
        lambda dataset, *, workers, **given: prepare(dataset, **given),
    )
    options = RunOptions(name="a", dataset="exp")
    records = open_records(options, patch_depth=8)
    assert records.patch_depth == 16 and records.paths[0].parent.name == "exp16x128"
    again = open_records(options, patch_depth=8, convert=False)
    assert again.paths == records.paths
    assert open_records(options, patch_depth=12).patch_depth == 20
    assert open_records(options).patch_depth == 1
    found = [*some_patches(records, gray=True)]
    assert {patch.shape for patch in found} == {(128, 128, 1)}
    assert len(found) == len(records) * 16  # all planes, as there are few


def test_channels_and_colours(prepare_volume, random, tmp_path):
    values = random.normal(9, 1, (8, 2, 32, 32)).astype("float32")
    settings = _settings(prepare_volume(values, "ZCYX", "two"), tmp_path)
    assert settings.recipe.network_config["channels"] == 1
    assert len(settings.recipe.scaling["channels"]) == 2
    pixels = random.integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    tifffile.imwrite(tmp_path / "rgb.tif", pixels, photometric="rgb")
    flags = {"axes": "ZYXS", "patch_size": 16, "patch_depth": 8}
    prepare(tmp_path / "rgb.tif", out=tmp_path / "rgb", **flags)
    assert _settings(str(tmp_path / "rgb"), tmp_path).recipe.network_config["channels"] == 3


def test_nothing_is_held_out_of_few_patches(prepare_volume, volume, tmp_path):
    settings = _settings(prepare_volume(volume[:9, :24, :24]), tmp_path)
    assert settings.held_out is None
    assert "None is held out for validation" in settings.about_stacks[-1]
    dataset = prepare_volume(volume[:9, :24], name="other")
    with_all = _settings(dataset, tmp_path, hold_out=0.0)
    assert not any("held out" in line for line in with_all.about_stacks)


def test_what_does_not_fit_three_dimensions_is_refused(
    prepare_volume, volume, patches, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    volumes = prepare_volume(volume)
    planes = prepare_volume(volume, name="planes", patch_depth=1)
    tifffile.imwrite(tmp_path / "series.tif", volume, ome=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "picture.tif", volume[0])
    cases = [
        (NAME, planes, {}, r"patches of 16 px: cut .*--patch_depth 8"),
        (NAME, str(patches), {}, r"patches of 256 px: cut .*--patch_depth 8"),
        (NAME, volumes, {"patch_depth": 16}, r"use --patch_depth 8 or less"),
        ("n2v-unet", volumes, {}, r"train one in three, such as --recipe n2v-unet-3d"),
        (NAME, "series.tif", {}, r"series.tif: has no axis Z.*--axes ZYX"),
        (NAME, "picture.tif", {}, "pictures, which have no depth.*Received: crops of"),
    ]
    for recipe, dataset, changes, message in cases:
        changes = {**SIZES, **changes}
        if recipe != NAME:
            changes = {"filters": 4, "depth": 1, "patch_size": 16, "batch_size": 2, "max_steps": 2}
        options = RunOptions(name="a", dataset=dataset, checkpoints=tmp_path / "runs")
        with pytest.raises(ConfigError, match=message):
            train(recipe, changes, options)
    assert not (tmp_path / "runs/a").exists()


def test_adapting_is_refused_with_what_does_it():
    recipe = dataclasses.replace(customised(NAME, **SIZES), normalization="0-1")
    model = Denoiser(recipe, recipe.build_network())
    with pytest.raises(ConfigError, match=rf"--init MODEL --recipe {NAME}"):
        adapt(["nowhere"], model, 1)


@pytest.mark.slow
def test_the_command_trains_from_a_file(volume, tmp_path, monkeypatch):
    """And goes on from a model of another volume."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("cells.tif", volume, metadata={"axes": "ZYX"}, imagej=True)
    changes = {"channels": 4, "depth": 1, "patch_size": 16, "patch_depth": 8, "batch_size": 2}
    folder = cbsn.train("cells.tif", NAME, out="runs/a", steps=2, **changes)
    denoised = cbsn.denoise("cells.tif", folder / "last")
    assert denoised.shape == volume.shape and denoised.dtype == volume.dtype
    again = cbsn.train(
        "cells.tif", NAME, out="runs/b", steps=1, init=folder, patch_size=16, patch_depth=8
    )
    assert (again / "last").is_dir()
    assert RECIPES[NAME].patch_depth == 16


def test_patches_that_are_halved_to_two_planes_are_trained_on_in_float32(
    prepare_volume, volume, tmp_path, monkeypatch
):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    dataset = prepare_volume(volume)
    for depth, expected in (6, "mixed_bfloat16"), (4, "float32"):
        settings = _settings(dataset, tmp_path, {**SIZES, "patch_depth": depth})
        assert settings.precision[0] == expected
