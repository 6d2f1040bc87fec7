"""What is refused before a training begins, and what it says."""

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.manifest import Manifest
from cbsn.errors import ConfigError, DataError
from cbsn.training import dataset as dataset_module
from cbsn.training.options import RunOptions
from cbsn.training.run import train

UNET = {"filters": 4, "depth": 1, "patch_size": 20, "batch_size": 2, "max_steps": 2}
SMALL = ("--recipe", "dil-unet", "--channel", 4, "--depth", 1, "--patchsize", 20)
SMALL = (*SMALL, "--batchsize", 2, "--maxiter", 2)

COUNTS = (
    *("channel", "block", "attention", "depth", "patchsize", "batchsize", "maxiter", "epochs"),
    *("lr_steps", "ramp_steps", "mask_cell", "stride_b", "stride_i", "denoise_stride", "seed"),
    *("accumulate", "max_bad_steps", "cpu_devices", "val_images"),
    *("print_every", "val_every", "save_every"),
)
NUMBERS = ("lr", "lmbda", "ema", "clip_norm", "white")


@pytest.fixture
def photos(tmp_path, monkeypatch, random):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(2):
        pixels = random.integers(0, 256, (64, 64, 3)).astype("uint8")
        Image.fromarray(pixels).save(f"photos/{i}.png")
    return "photos"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *((flag, value) for flag in COUNTS for value in ("-1", "1" + "0" * 30)),
        *((flag, value) for flag in NUMBERS for value in ("-1", "nan", "inf", "1e400")),
        *((flag, "0") for flag in ("channel", "patchsize", "batchsize", "maxiter", "lr")),
        *((flag, "0") for flag in ("stride_b", "cpu_devices", "white")),
        ("noise_sigma", "nan"),
        ("noise_peak", "-1"),
        ("own_noise", "inf"),
    ],
)
def test_numbers_out_of_range_are_refused_before_any_work(run_here, tmp_path, flag, value):
    recipe = "ssbsn" if flag in ("attention", "block") else "dil-unet"
    done = run_here("train.py", "--recipe", recipe, "--dataset", "nowhere", f"--{flag}", value)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "nowhere" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_is_refused_before_any_work(run_here, tmp_path):
    flags = ("--recipe", "ssbsn", "--dataset", "nowhere", "--block", 2, "--attention", 3)
    done = run_here("train.py", *flags)
    assert (done.returncode, "num_attention" in done.stderr) == (2, True)


def _save(path, pixels):
    path = Path(path)
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack")
    else:
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("noisy", "clean", "message"),
    [
        (np.zeros((30, 30), "uint8"), np.zeros((30, 31), "uint8"), "not a pair"),
        (np.zeros((30, 30), "uint8"), np.zeros((30, 30), "uint16"), "not a pair"),
        (np.zeros((30, 30), "uint8"), np.full((30, 30), np.nan, "float32"), "not finite"),
        (None, np.full((30, 30), np.nan, "float32"), "not finite"),
        (np.zeros((30, 30), "uint8"), None, "Every noisy picture needs a clean one"),
    ],
)
def test_validation_pictures_are_checked_before_the_first_step(
    photos, run_here, tmp_path, noisy, clean, message
):
    for name, pixels in (("vn", noisy), ("vc", clean)):
        _save(f"{name}/other.png", np.zeros((30, 30), "uint8"))
        if pixels is not None:
            _save(f"{name}/a{'.tif' if pixels.dtype.itemsize > 1 else '.png'}", pixels)
    validation = ["--val_clean", "vc", "--noise_sigma", 5]
    if noisy is not None:
        validation = ["--val_noisy", "vn", "--val_clean", "vc"]
    done = run_here("train.py", *SMALL, "--name", "a", "--dataset", photos, *validation)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not Path("checkpoints").exists()


def test_white_counts_for_patches_and_validation(photos, run_here, random):
    for name in ("deep", "vn", "vc"):
        for i in range(2):
            _save(f"{name}/{i}.tif", random.integers(0, 1000, (300, 300)).astype("uint16"))
    flags = (*SMALL, "--dataset", "deep", "--val_noisy", "vn", "--val_clean", "vc")
    done = run_here("train.py", "--name", "a", *flags, "--white", 4095)
    assert done.returncode == 0, done.stderr
    assert "12 bits, white is 4095" in done.stdout
    manifest = Manifest.read("dataset/deep256")
    assert manifest.white == 4095
    # Another one needs other patches, and the command that makes them works.
    done = run_here("train.py", "--name", "b", *flags, "--white", 1023)
    assert (done.returncode, "white 4095" in done.stderr) == (2, True)
    command = shlex.split(done.stderr.split("`")[1])
    assert run_here(*command[1:]).returncode == 0
    done = run_here("train.py", "--name", "b", *flags, "--white", 1023)
    assert done.returncode == 0, done.stderr
    # Of patches that are prepared, too.
    prepared = (*SMALL, "--dataset", "dataset/deep256", "--white", 4095, "--name", "c")
    done = run_here("train.py", *prepared)
    assert (done.returncode, "with another white" in done.stderr) == (2, True)
    command = shlex.split(done.stderr.split("`")[1])
    assert run_here(*command[1:]).returncode == 0
    assert run_here("train.py", *prepared).returncode == 0
    done = run_here("train.py", *flags, "--name", "d", "--white", 500)
    assert (done.returncode, "--white 500" in done.stderr) == (2, True)


def test_a_wider_picture_has_the_patches_made_anew(photos, run_here):
    flags = (*SMALL, "--name", "a", "--dataset", photos)
    assert run_here("train.py", *flags).returncode == 0
    _save("photos/deep.tif", np.full((30, 30), 60000, "uint16"))
    done = run_here("train.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "uint16 from 3 of 3 images" in done.stdout


@pytest.mark.parametrize("copied", [False, True])
def test_one_folder_for_both_shots_is_refused(photos, run_here, copied):
    second = photos
    if copied:
        Path("copy").mkdir()
        for path in Path(photos).iterdir():
            (second := Path("copy", path.name)).write_bytes(path.read_bytes())
        second = second.parent
    flags = ("--channel", 4, "--depth", 1, "--patchsize", 32, "--batchsize", 2, "--maxiter", 2)
    shots = ("--recipe", "n2n-resunet", "--dataset", photos, "--second_shots", second)
    done = run_here("train.py", *flags, *shots)
    assert (done.returncode, "The second shots are the first ones" in done.stderr) == (2, True)
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize("name", ["my run", "a'b\n$x", "n" * 255])
def test_runs_of_any_name_and_the_command_that_is_printed(options, name, capsys, monkeypatch):
    monkeypatch.setattr("builtins.print", lambda *args, **kwargs: lines.append(str(args[0])))
    lines = []
    folder = train("dil-unet", UNET, RunOptions(name=name, **options))
    command = shlex.split(lines[-1].removeprefix("Denoise with: "))
    assert command[:4] == ["python", "infer.py", "--modelpath", str(folder)]
    folder = train("dil-unet", UNET, RunOptions(name=name, resume=False, **options))
    assert json.loads((folder / "run.json").read_text())["dataset"] == options["dataset"]
    assert len([p for p in folder.parent.iterdir() if not p.name.startswith(".")]) == 2


def test_a_name_that_tensorflow_cannot_write_is_refused_at_once(run_here, tmp_path):
    done = run_here("train.py", "--dataset", "nowhere", "--name", os.fsdecode(b"\xff"))
    assert (done.returncode, "not UTF-8" in done.stderr) == (2, True)


def test_pictures_of_any_name_are_trained_on(photos, options, capfd):
    name = os.fsdecode(b"\xff\xfe")
    Path(photos).rename(name)
    options = {**options, "dataset": name, "val_clean": name, "val_noisy": name}
    folder = train("dil-unet", UNET, RunOptions(name="a", **options))
    assert json.loads((folder / "run.json").read_text())["dataset"] == name
    assert "validation_psnr" in (folder / "metrics.jsonl").read_text()


def test_a_folder_without_permission_is_one_line(photos, run_here, monkeypatch):
    error = PermissionError(13, "Permission denied", photos)

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(dataset_module.PatchRecords, "open", refuse)
    done = run_here("train.py", *SMALL, "--dataset", photos)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {photos} cannot be read: ")


def test_patches_larger_than_recorded_name_the_command_that_makes_them(options):
    with pytest.raises(ConfigError, match=r"python prepare_dataset\.py .*--patchsize 300 --out"):
        train("dil-unet", {**UNET, "patch_size": 300}, RunOptions(name="a", **options))


def test_a_prepared_benchmark_has_no_white_to_choose(options):
    with pytest.raises(ConfigError, match="omit --white"):
        train("dil-unet", UNET, RunOptions(name="a", white=255.0, **options))


def test_damaged_run_files_are_named(options):
    for content in ("[1]", "3", "[" * 10**5, '"a"', "\0"):
        run = options["checkpoints"] / "a"
        run.mkdir(parents=True, exist_ok=True)
        (run / "run.json").write_text(content)
        with pytest.raises(ConfigError, match=r"run\.json cannot be read"):
            train("dil-unet", UNET, RunOptions(name="a", **options))


def test_second_shots_of_other_names_are_refused(photos, options):
    Path("second").mkdir()
    Image.new("RGB", (64, 64)).save("second/other.png")
    chosen = {**options, "dataset": photos, "second_shots": "second"}
    with pytest.raises(DataError, match="Each picture needs a second shot"):
        train("n2n-resunet", {**UNET, "patch_size": 32}, RunOptions(name="a", **chosen))
