"""train.py as a user runs it, on pictures."""

import json
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from cbsn.data.manifest import Manifest
from cbsn.models.folder import save_model
from cbsn.noise.synthetic import simulate_camera
from cbsn.recipes import customised
from cbsn.signals import STOPPING
from cbsn.training import dataset as dataset_module

TINY = ("--channel", 4, "--block", 1, "--patchsize", 20, "--batchsize", 2, "--lr", "1e-3")
UNET = ("--channel", 4, "--depth", 1, "--patchsize", 20, "--batchsize", 2)
SMALL = ("--recipe", "n2v-unet", *UNET, "--maxiter", 2)

COUNTS = (
    *("channel", "block", "attention", "depth", "patchsize", "batchsize", "maxiter", "epochs"),
    *("lr_steps", "ramp_steps", "mask_cell", "stride_b", "stride_i", "denoise_stride", "seed"),
    *("accumulate", "max_bad_steps", "cpu_devices", "val_images"),
    *("print_every", "val_every", "save_every"),
)
NUMBERS = ("lr", "lmbda", "ema", "clip_norm", "white", "hold_out")


@pytest.fixture
def photos(tmp_path):
    rows, columns = np.indices((256, 300))
    for i in range(2):
        photo = np.stack([rows // 2 + 60, columns // 2 + 40, 0 * rows + 60 * (i + 1)], axis=-1)
        for kind, noise in (("noisy", {}), ("clean", {"shot": 0, "read": 0})):
            path = tmp_path / "photos" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = simulate_camera(photo.astype("uint8"), seed=i, **noise)
            Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def test_from_pictures_to_a_model_that_denoises(run_here, photos, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = (
        *("--recipe", "dil-unet", *UNET, "--maxiter", 4),
        *("--name", "run", "--dataset", photos / "noisy", "--precision", "float32"),
        *("--val_noisy", photos / "noisy", "--val_clean", photos / "clean"),
        *("--print_every", 2, "--val_every", 2, "--ema", 0.9),
    )
    result = run_here("train.py", *flags)
    assert result.returncode == 0, result.stderr
    assert "2 patches" not in result.stderr
    assert result.stdout.count("validation PSNR") == 2
    assert "step 4: total " in result.stdout
    run = tmp_path / "checkpoints/run"
    assert json.loads((run / "best/recipe.json").read_text())["training"]["step"] in (2, 4)
    assert len(list((run / "events").glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(run / "events")).Reload()
    tags = set(events.Tags()["tensors"])
    assert {f"loss/{term}" for term in ("total", "blind", "self", "invariance")} <= tags
    assert {"learning_rate", "steps_per_second", "validation/psnr", "validation/0"} <= tags
    assert [event.step for event in events.Tensors("loss/total")] == [2, 4]

    result = run_here("train.py", *flags)
    assert (result.returncode, "steps 4 to 4" in result.stdout) == (0, True)

    result = run_here(
        "infer.py", "--modelpath", run, "--imagepath", photos / "noisy", "--savepath", "out"
    )
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]


@pytest.fixture
def bright(tmp_path):
    """A model of SS-BSN whose pictures are neither black nor flat, as fresh weights make them."""
    keras.utils.set_random_seed(1)
    recipe = customised("ssbsn", filters=8, num_modules=1, num_attention=1)
    network = recipe.build_network()
    x = np.random.default_rng(0).uniform(0, 255, (1, 60, 60, 3)).astype("float32")
    y = np.asarray(network(x))
    last = network.tail[-1]
    last.kernel.assign(last.kernel * 20 / y.std())
    last.bias.assign(128 - y.mean(axis=(0, 1, 2)) * 20 / y.std())
    save_model(tmp_path / "bright", recipe, network, {})
    return "bright"


@pytest.mark.slow
def test_self_similarity_from_pictures_to_a_denoised_one(run_here, photos, bright, tmp_path):
    result = run_here(
        "train.py",
        *("--recipe", "ssbsn", "--name", "run", "--dataset", photos / "noisy", *TINY),
        *("--init", bright, "--attention", 1, "--channel", 8, "--lr", "1e-4", "--maxiter", 2),
        # In small patches the zeros around the sub-images are most of what attention sees.
        *("--patchsize", 80, "--batchsize", 1),
    )
    assert result.returncode == 0, result.stderr
    assert "num_attention 1" in result.stdout
    assert "step 2: total " in result.stdout
    Image.open(photos / "noisy/0.png").crop((0, 0, 90, 70)).save(tmp_path / "crop.png")
    pictures = []
    for flags in (("--no-r3",), ("--seed", 1, "--self_ensemble")):
        result = run_here(
            *("infer.py", "--modelpath", "checkpoints/run", "--tile", 64, *flags),
            *("--imagepath", "crop.png", "--savepath", "out"),
        )
        assert result.returncode == 0, result.stderr
        pictures.append(np.asarray(Image.open(tmp_path / "out/crop.png")).astype(int))
        assert pictures[-1].std() > 1
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.slow
def test_clean_gray_pictures_with_noise(run_here, photos, tmp_path):
    """By the names that other programs have for the flags; validation adds noise by itself."""
    for kind in ("train", "valid"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for path in (photos / "clean").iterdir():
            Image.open(path).convert("L").save(tmp_path / "data" / kind / path.name)
    flags = (
        *("--recipe", "dil-unet", "--dataset", "data/train", "--noise_sigma", 25, "--epochs", 2),
        *("--batch_size", 2, "--patch_size", 20, "--learning_rate", "1e-3", "--channel", 8),
        *("--depth", 1, "--val_clean", "data/valid", "--save_path", "results/gray"),
        *("--print_every", 1, "--val_every", 2, "--precision", "float32"),
    )
    result = run_here("train.py", *flags)
    assert result.returncode == 0, result.stderr
    assert "channels 1" in result.stdout
    assert "step 2: validation PSNR" in result.stdout
    model = tmp_path / "results/gray"
    assert {"best", "last", "checkpoints", "events", "metrics.jsonl"} <= {
        path.name for path in model.iterdir()
    }
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["total"] < 10 and line["skipped_steps"] == 0 for line in lines)
    scores = ("--clean", "data/valid", "--noise_sigma", 25, "--out", "scores", "--report_images", 0)
    result = run_here("evaluate.py", "--modelpath", model, *scores, "--precision", "float32")
    assert result.returncode == 0, result.stderr
    methods = json.loads((tmp_path / "scores/results.json").read_text())["methods"]
    noisy, denoised = (method["psnr"] for method in methods)
    # 153,600 values of noise tell its variance to 0.4 %, which is 0.016 dB.
    assert noisy == pytest.approx(20.17, abs=0.1)
    # The model that was saved, with the noise of the validation.
    assert denoised == pytest.approx(lines[-1]["validation_psnr"], abs=0.01)
    assert denoised != pytest.approx(noisy, abs=0.01)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--patchsize", 121), "use 120 or 130"),
        (("--stride_b", 0), "stride_b"),
        (("--gpu", 0), "pip install 'cbsn[gpu]'"),
        (("--gpu",), "pip install 'cbsn[gpu]'"),
        (("--gpu=one",), "--gpu one"),
        (("--epochs", 1, "--maxiter", 5), "omit one of them"),
        (("--val_noisy", "photos"), "--val_clean"),
        (
            ("--recipe", "magic"),
            "Choose from cbsn, apbsn, ssbsn, tmbsn, cbsn-hole, n2v-unet, n2v2-unet",
        ),
        (("--recipe", "apbsn", "--lmbda", 2), "'apbsn' has no --lmbda: omit it"),
        (("--name", "a/b"), "--name"),
        (("--name", "a", "--save_path", "b"), "--out b"),
        (("--out", ""), "A path is empty. Write . for the current folder."),
        (("--noise_sigma", "50-5"), "--noise_sigma 50-5"),
        (("--recipe", "n2n-resunet"), "--second_shots FOLDER"),
        (("--precision", "float8"), "float8"),
        (("--rounds", 0), "--rounds must be at least 1"),
        (("--rounds", 2), "--rounds is only for the recipes photo and photo-large"),
        (("--recipe", "photo", "--patchsize", 120), "use 112 or 128"),
        (("--recipe", "photo", "--noise_sigma", 25), "gaussian noise, σ 25"),
        (("--recipe", "photo-large", "--own_noise", 1), "--own_noise"),
        (("--batchsize", 0), "--batch_size 0"),
        (("--channels", 5000), "--channels must be at most 4096. Received: --channels 5000"),
        (("--modules", 5000), "--modules must be at most 256. Received: --modules 5000"),
        (("--dataset", "nowhere/*.png"), "nowhere/*.png"),
        ((), "cbsn prepare SIDD"),
    ],
)
def test_bad_flags_fail_before_any_work(run_here, tmp_path, monkeypatch, flags, message):
    if any("--gpu" in str(flag) for flag in flags):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    result = run_here("train.py", *flags)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *((flag, "-1") for flag in COUNTS),
        *((flag, value) for flag in NUMBERS for value in ("-1", "nan")),
        *((flag, "0") for flag in ("channel", "patchsize", "batchsize", "maxiter", "lr")),
        *((flag, "0") for flag in ("stride_b", "cpu_devices", "white")),
        ("maxiter", "1" + "0" * 30),
        ("seed", "1" + "0" * 30),
        ("lr", "1e400"),
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
    photos, run_here, tmp_path, monkeypatch, noisy, clean, message
):
    monkeypatch.chdir(tmp_path)
    for name, pixels in (("vn", noisy), ("vc", clean)):
        _save(f"{name}/other.png", np.zeros((30, 30), "uint8"))
        if pixels is not None:
            _save(f"{name}/a{'.tif' if pixels.dtype.itemsize > 1 else '.png'}", pixels)
    validation = ["--val_clean", "vc", "--noise_sigma", 5]
    if noisy is not None:
        validation = ["--val_noisy", "vn", "--val_clean", "vc"]
    done = run_here("train.py", *SMALL, "--name", "a", "--dataset", photos / "noisy", *validation)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not Path("checkpoints").exists()


@pytest.mark.slow
def test_white_counts_for_patches_and_validation(run_here, tmp_path, random, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("deep", "vn", "vc"):
        _save(f"{name}/0.tif", random.integers(0, 1000, (300, 300)).astype("uint16"))
    flags = (*SMALL, "--dataset", "deep", "--val_noisy", "vn", "--val_clean", "vc")
    done = run_here("train.py", *flags, "--white", 4095)
    assert done.returncode == 0, done.stderr
    assert "12 bits, white is 4095" in done.stdout
    assert Manifest.read("dataset/deep256").white == 4095
    # Another one needs other patches, and the command that makes them works; of patches that are
    # prepared, too.
    for dataset, white in (("deep", 1023), ("dataset/deep256", 4095)):
        flags = (*SMALL, "--dataset", dataset, "--white", white, "--name", str(white))
        done = run_here("train.py", *flags)
        assert (done.returncode, "white" in done.stderr) == (2, True)
        command = shlex.split(done.stderr.split("`")[1])
        assert run_here(*command[1:]).returncode == 0
        assert Manifest.read("dataset/deep256").white == white
    monkeypatch.setattr("cbsn.training.run.TrainingLoop.run", lambda self: False)
    done = run_here("train.py", *flags)
    assert done.returncode == 0, done.stderr
    done = run_here("train.py", *SMALL, "--dataset", "deep", "--white", 500)
    assert (done.returncode, "--white 500" in done.stderr) == (2, True)


def test_a_folder_without_permission_is_one_line(photos, run_here, monkeypatch):
    error = PermissionError(13, "Permission denied", "photos")

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(dataset_module.PatchRecords, "open", refuse)
    done = run_here("train.py", *SMALL, "--dataset", photos / "noisy")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {photos / 'noisy'} cannot be read: ")


def test_from_a_stack_to_a_model_that_denoises_it(run_here, tmp_path, random):
    cells = (random.gamma(3, 80, (10, 2, 40, 40)) - 100).astype("int16")
    tifffile.imwrite(tmp_path / "cells.tif", cells)
    flags = ("--axes", "TCYX", "--select", "c=1", "--normalize", "percentile", "--hold_out", 0.2)
    run = ("--name", "cells", "--val_every", 1, "--print_every", 1)
    done = run_here("train.py", "cells.tif", *SMALL, *flags, *run)
    assert done.returncode == 0, done.stderr
    assert "cells.tif: T 10, C 1, Y 40, X 40, int16; scaled from " in done.stdout
    assert "Held out for validation: 2 of 10 planes." in done.stdout
    assert done.stdout.count("held-out loss ") == 2
    for model in ("best", "last"):
        saved = json.loads((tmp_path / "checkpoints/cells" / model / "recipe.json").read_text())
        assert len(saved["recipe"]["scaling"]["channels"]) == 1
        assert saved["recipe"]["scaling"]["method"] == "percentile"
    again = run_here("train.py", "cells.tif", *SMALL, *flags, *run)
    assert "already done: 1" in again.stdout and "steps 2 to 2" in again.stdout


@pytest.mark.slow
def test_bad_flags_are_one_line(run_command, tmp_path):
    result = run_command("train.py", "--patchsize", 121)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and "use 120 or 130" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_shows_the_defaults(run_here):
    result = run_here("train.py", "--help-all")
    assert result.returncode == 0
    stacks = ("--axes", "--select", "--normalize", "--nan", "--hold_out")
    for flag in ("--stride_b", "--no-resume", "--ema", "--gpu", *stacks):
        assert flag in result.stdout


@pytest.mark.slow
def test_help_needs_no_tensorflow(run_python):
    """Whose start takes most of a command's time."""
    result = run_python(
        """
        import runpy, sys
        sys.argv = ["train.py", "--help"]
        try:
            runpy.run_module("train", run_name="__main__")
        finally:
            print("tensorflow" in sys.modules)
        """
    )
    assert result.stdout.splitlines()[-1] == "False", result.stderr


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_while_tensorflow_is_imported_has_the_status_of_a_stop(run_python, number):
    done = run_python(f"""
        import os, signal, sys
        class Stopping:
            def find_spec(name, path=None, target=None):
                if name == "tensorflow":
                    os.write(2, b"chatter")
                    signal.raise_signal({int(number)})
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)  # set by the tests
        sys.meta_path.insert(0, Stopping)
        sys.argv = ["cbsn", "train", "photos"]
        from cbsn.__main__ import main
        main()
    """)
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout.startswith("Stopped at once.")
