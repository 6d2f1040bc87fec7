import dataclasses
import io
import json
import re
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from cbsn.cli.export import make_parser
from cbsn.errors import ModelError
from cbsn.export import bioimage, export
from cbsn.export.export import FACTS
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import save_model
from cbsn.recipes import customised


@pytest.mark.slow
def test_all_formats_and_the_next_version(model, run_command, random, tmp_path):
    flags = ("--modelpath", model, "--out", "served/holiday")
    run = run_command("export.py", *flags, "--format", "saved_model, litert,onnx")
    assert (run.returncode, run.stderr) == (0, "")
    out = tmp_path / "served/holiday"
    written = ["1", "model-1-float16.tflite", "model-1.onnx", "model-1.tflite"]
    assert sorted(path.name for path in out.iterdir()) == written
    assert sorted(run.stdout.split()) == [str(out / name) for name in written]

    denoise = Denoiser.load(
        tmp_path / model, DenoiseOptions(precision="float32", engine="tensorflow")
    )
    pictures = random.integers(0, 255, (2, 40, 33, 3), np.uint8)
    loaded = tf.saved_model.load(str(out / "1"))
    result = loaded.signatures["uint8"](images=tf.constant(pictures))["denoised"].numpy()
    for found, picture in zip(result, pictures, strict=True):
        assert np.abs(found.astype(int) - denoise(picture)).max() <= 1


@pytest.mark.slow
def test_settings_go_into_the_model(model, run_here, tmp_path):
    flags = ("--modelpath", model, "--out", "served")
    (tmp_path / "served/7").mkdir(parents=True)
    (tmp_path / "served/notes").mkdir()
    settings = ("--tile=40", "--rounding=truncate", "--self_ensemble", "--max_megapixels=0.001")
    settings += ("--strength=0.5", "--color_strength=0.75")
    run = run_here("export.py", *flags, *settings, "--precision=mixed_bfloat16", "--no-warmup")
    assert run.returncode == 0, run.stderr
    out = tmp_path / "served/8"
    facts = json.loads((out / FACTS).read_text())
    assert facts["recipe"]["name"] == "cbsn"
    assert (facts["tile"], facts["rounding"]) == (40, "truncate")
    assert (facts["self_ensemble"], facts["precision"]) == (True, "mixed_bfloat16")
    assert (facts["strength"], facts["color_strength"]) == (0.5, 0.75)
    assert [path.name for path in (out / FACTS).parent.iterdir()] == ["cbsn.json"]
    Image.new("RGB", (50, 40)).save(tmp_path / "large.png")
    serve = tf.saved_model.load(str(out)).signatures["encoded"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 1000 pixels"):
        serve(image_bytes=tf.constant([(tmp_path / "large.png").read_bytes()]))


@pytest.mark.slow
def test_a_channel_of_stacks_in_all_formats(run_here, random, tmp_path):
    scales = Scale(0.0, 255.0, 90.0, 20.0), Scale(100.0, 900.0, 400.0, 90.0)
    recipe = customised("distill", filters=4, depth=1, channels=1)
    recipe = dataclasses.replace(recipe, scaling=Scaling("given", scales).to_dict())
    save_model(tmp_path / "model", recipe, recipe.build_network(), {})
    flags = ("--model", "model", "--out", "served", "--format", "saved_model,litert,onnx")
    run = run_here("export.py", *flags, "--stack_channel", 1)
    assert run.returncode == 0, run.stderr
    facts = json.loads((tmp_path / "served/1" / FACTS).read_text())
    assert (facts["stack_channel"], facts["scale"]["high"]) == (1, 900)
    denoise = Denoiser.load(
        tmp_path / "model", DenoiseOptions(precision="float32", engine="tensorflow")
    )
    planes = random.integers(100, 900, (2, 40, 33)).astype(np.uint16)
    serve = tf.saved_model.load(str(tmp_path / "served/1")).signatures["uint16"]
    result = serve(images=tf.constant(planes[..., None]))["denoised"].numpy()[..., 0]
    assert np.abs(result.astype(int) - denoise.scaled(planes, scales[1])).max() <= 1
    run = run_here("export.py", *flags, "--stack_channel", 2)
    assert run.returncode == 2
    assert "2 channels, counted from 0" in run.stderr and not (tmp_path / "served/2").exists()


@pytest.mark.slow
def test_a_package_for_the_bioimage_model_zoo(model, run_here, random, tmp_path):
    for name in ("onnxruntime", "tf2onnx", "bioimageio"):
        pytest.importorskip(name, reason="the extra bioimage is not installed")
    Image.fromarray(random.integers(0, 256, (150, 140, 3), np.uint8)).save(tmp_path / "mine.png")
    flags = ["--model", model, "--format", "bioimage", "--author", "Ada Lovelace"]
    flags += ["--author", "Grace Hopper", "--author", "Hedy Lamarr, MGM"]
    run = run_here("export.py", *flags, "--out", "made/mine.zip", "--sample", "mine.png")
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(tmp_path / "made/mine.zip")]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["mine.zip"]
    with zipfile.ZipFile(tmp_path / "made/mine.zip") as archive:
        text = archive.read("rdf.yaml").decode()
        noisy = np.load(io.BytesIO(archive.read("test_input.npy")))
    assert re.findall("  - name: (.*)", text) == ["Ada Lovelace", "Grace Hopper", "Hedy Lamarr"]
    assert "license: Apache-2.0" in text
    with Image.open(tmp_path / "mine.png") as picture:
        np.testing.assert_allclose(noisy[0], np.asarray(picture)[11:139, 6:134] / 255, atol=1e-6)
    run = run_here("export.py", *flags, "--out", "made/mine.zip")
    assert run.returncode == 2 and "use another name" in run.stderr
    # Next to other formats it has a version.
    flags += ["--out", "served", "--license", "MIT", "--strength", "0.5"]
    for version in (1, 2):
        run = run_here("export.py", *flags)
        assert run.returncode == 0, run.stderr
        with zipfile.ZipFile(tmp_path / f"served/model-{version}.zip") as archive:
            text = archive.read("rdf.yaml").decode()
        assert "license: MIT" in text and "\n    strength: 0.5" in text


@pytest.mark.slow
def test_a_stack_without_names_of_its_axes_is_a_sample_of_volumes(run_here, random, tmp_path):
    for name in ("onnxruntime", "tf2onnx", "bioimageio"):
        pytest.importorskip(name, reason="the extra bioimage is not installed")
    stack = random.normal(500, 100, (5, 50, 40)).astype(np.float32)
    tifffile.imwrite(tmp_path / "mine.tif", stack, photometric="minisblack")
    scaling = Scaling("given", (Scale(0.0, 900.0, 500.0, 100.0),)).to_dict()
    recipe = customised("n2v-unet-3d", filters=2, depth=1, z_halvings=1, channels=1)
    recipe = dataclasses.replace(recipe, scaling=scaling)
    save_model(tmp_path / "model", recipe, recipe.build_network(), {})
    flags = ["--model", "model", "--out", "a.zip", "--format", "bioimage", "--author", "Ada"]
    flags += ["--sample", "mine.tif"]
    run = run_here("export.py", *flags)
    assert run.returncode == 2 and "no axis Z" in run.stderr
    run = run_here("export.py", *flags, "--axes", "ZYX")
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        noisy = np.load(io.BytesIO(archive.read("test_input.npy")))[0, ..., 0]
    y, x = ((size - kept) // 2 for size, kept in zip((50, 40), noisy.shape[1:], strict=True))
    kept = stack[:, y : y + noisy.shape[1], x : x + noisy.shape[2]]
    np.testing.assert_array_equal(noisy[:5], kept)


def test_the_help_has_the_flags_of_its_examples():
    text = make_parser().format_help()
    for flag in ("--author", "--sample", "--stack_channel"):
        assert re.search(f"^ +{flag} ", text, re.MULTILINE)


@pytest.mark.parametrize("failing", ["write_bioimage", "write_onnx", "write_saved_model"])
def test_an_export_that_fails_leaves_nothing(model, run_here, tmp_path, monkeypatch, failing):
    """Neither formats that were finished nor folders; what was there before stays."""

    def write(path, *arguments, **options):
        path.write_text("finished")

    def fail(*arguments, **options):
        raise ModelError("It cannot be converted.")

    for name in ("write_litert", "write_onnx", "write_saved_model"):
        monkeypatch.setattr(export, name, fail if name == failing else write)
    monkeypatch.setattr(bioimage, "write_bioimage", fail if "bio" in failing else write)
    monkeypatch.setattr(bioimage, "check_bioimage", lambda *arguments: [])
    monkeypatch.setattr(export, "check_onnx", lambda: None)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/notes").touch()
    before = sorted(tmp_path.rglob("*"))
    formats = ("--format", "saved_model,litert,onnx,bioimage")
    for out in ("new/served", "old"):
        run = run_here("export.py", "--model", model, "--out", out, *formats)
        assert (run.returncode, run.stderr) == (2, "error: It cannot be converted.\n")
        assert sorted(tmp_path.rglob("*")) == before


def test_defaults_are_for_all_formats(tmp_path):
    """Of the command, of the function, and of `DenoiseOptions`, whose precision is auto."""
    for options in (None, DenoiseOptions(precision="float32"), DenoiseOptions()):
        with pytest.raises(ModelError, match="No model at"):
            export.export(tmp_path / "none", tmp_path / "out", formats="onnx", options=options)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "saved_model,tflite"], "Received: 'saved_model,tflite'"),
        (["--format", ""], "saved_model, litert, onnx"),
        (["--version", "0"], "--version must be at least 1. Received: --version 0"),
        (["--version", "3"], "served/3 already exists"),
        (["--version", "4", "--format", "saved_model,onnx"], "model-4.onnx already exists"),
        (
            ["--max_megapixels", "0"],
            "--max_megapixels must be above 0. Received: --max_megapixels 0.0",
        ),
        (["--precision", "auto"], "invalid choice: 'auto'"),
        (["--stack_channel", "0"], "was trained on pictures"),
        (["--tile", "big"], "Received: big"),
        (["--modelpath", "nowhere"], "No model at nowhere"),
        (["--out", "file"], "file: the model cannot be written"),
        (
            ["--author", "Ada Lovelace", "--author", "Grace"],
            "--author is for --format bioimage: omit it. Received: --author Ada Lovelace --author "
            "Grace, --format saved_model",
        ),
        (
            ["--format", "bioimage", "--author", "Ada", "Lovelace"],
            "Lovelace; a text of several words stands in quotes: --author 'Ada Lovelace'",
        ),
        (["--axes", "ZYX"], "--axes is for --format bioimage"),
        (["--format", "bioimage", "--author", "Ada", "--axes", "ZYX"], "--axes is for --sample"),
        (["--format", "onnx", "--warmup"], "--warmup is for --format saved_model: omit it"),
        (["--format", "onnx", "--no-warmup"], "Received: --no-warmup, --format onnx"),
        (["--format", "onnx", "--out", "a.zip"], "a.zip names a single package"),
        (
            ["--format", "onnx", "--max_megapixels", "5"],
            "--max_megapixels is for --format saved_model: omit it. Received: --max_megapixels 5.0",
        ),
        (["--format", "litert", "--tile", "64"], "--tile is for --format saved_model: omit it"),
        (["--format", "bioimage", "--tile", "0"], "Received: --tile 0, --format bioimage"),
        (["--format", "onnx", "--rounding", "truncate"], "Received: --rounding truncate, --format"),
        (["--format", "onnx,litert", "--precision", "mixed_bfloat16"], "--precision is for"),
        (["--license", "MIT"], "--license is for --format bioimage"),
        (["--sample", "file"], "--sample is for --format bioimage"),
        (["--format", "onnx,bioimage", "--out", "a.zip"], "a.zip names a single package"),
        (["--format", "bioimage", "--out", "a.zip", "--version", "1"], "without --version"),
    ],
)
def test_what_cannot_be_exported_is_refused(model, run_here, tmp_path, flags, message):
    (tmp_path / "served/3").mkdir(parents=True)
    (tmp_path / "served/model-4.onnx").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    run = run_here("export.py", "--modelpath", model, "--out", "served", *flags)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert sorted(tmp_path.rglob("*")) == before
