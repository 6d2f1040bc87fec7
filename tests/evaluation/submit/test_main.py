import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from cbsn.cli.submit import main, make_parser
from cbsn.errors import CbsnError
from cbsn.evaluation.submit.sidd import VARIABLE
from cbsn.inference.denoiser import Denoiser

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def start(tmp_path):
    """Starts the command in an empty folder; returns the process."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}

    def popen(*flags):
        return subprocess.Popen(
            [sys.executable, "-m", "cbsn", "submit", *map(str, flags)],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return popen


@pytest.fixture
def submit(run_here):
    """Runs the command in this process; returns its status, and what it printed."""

    def run(*flags):
        process = run_here("cbsn.evaluation.submit", *flags)
        return process.returncode, process.stdout, process.stderr

    return run


@pytest.mark.parametrize("benchmark", ["sidd", "dnd"])
def test_flags(benchmark):
    flags = make_parser().parse_args(
        [benchmark, "--modelpath", "m", "--source", "s", "--out", "o", "--no-r3"]
    )
    assert (flags.benchmark, flags.model_path, flags.source, flags.out) == (
        benchmark,
        "m",
        "s",
        "o",
    )
    assert (flags.resume, flags.r3, flags.self_ensemble) == (False, False, False)
    assert flags.rounding == {"sidd": "round", "dnd": "none"}[benchmark]


def test_sidd(start, submit, model, sidd_source, tmp_path):
    flags = ("--modelpath", model, "--source", sidd_source, "--precision", "float32")
    layouts = ("--layout", "kit,blocks", "--venue", "Nowhere 2026")
    process = start("sidd", *flags, "--out", "a/b", "--rounding", "floor", *layouts)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    out = tmp_path / "a" / "b"
    denoiser = Denoiser.load(tmp_path / model, precision="float32", rounding="truncate")
    noisy = scipy.io.loadmat(sidd_source)[VARIABLE]
    for name, place in (("0000", (0, 0)), ("0033", (1, 1))):
        block = np.asarray(Image.open(out / "blocks" / f"{name}_DN.png"))
        np.testing.assert_array_equal(block, denoiser(np.ascontiguousarray(noisy[place])))
    assert scipy.io.loadmat(out / "SubmitSrgb.mat")["Idenoised"].shape == noisy.shape
    kit = scipy.io.loadmat(out / "kit" / "SubmitSrgb.mat", simplify_cells=True)
    assert kit["OptionalData"]["MethodName"] == "model"
    assert kit["OptionalData"]["Venue"] == "Nowhere 2026"
    record = json.loads((out / "submission.json").read_text())
    assert record["settings"] == {
        "rounding": "floor",
        "r3": False,
        "self_ensemble": False,
        "seed": 0,
        "tile": "auto",
        "precision": "float32",
        "engine": "tensorflow",
    }
    assert record["model"]["path"] == "model"
    digest = hashlib.sha256(json.dumps(denoiser.recipe.to_dict(), sort_keys=True).encode())
    for weights in denoiser.network.get_weights():
        digest.update(weights.tobytes())
    assert record["model"]["sha256"] == digest.hexdigest()
    assert f"{record['seconds_per_megapixel']:.3f} s per megapixel" in output
    assert "warning:" in errors and "the site will not take this submission" in errors

    code, output, errors = submit("sidd", *flags, "--out", "a/b", "--seed", "3", "--resume")
    assert code == 2 and len(errors.splitlines()) == 1
    assert "begun otherwise: rounding floor (now round), seed 0 (now 3)." in errors


def test_dnd_killed_and_resumed(start, submit, model, dnd_source, tmp_path):
    flags = ("dnd", "--modelpath", model, "--source", dnd_source.parent, "--out", "out")
    process = start(*flags, "--precision", "float32")
    crops, bundled = tmp_path / "out" / "crops", tmp_path / "out" / "bundled"
    while len([*crops.glob("[0-9]*")]) < 3 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in crops.glob("[0-9]*")}
    assert len(before) >= 3
    assert len(before) == 40 or not bundled.exists()
    code, output, errors = submit(*flags, "--precision", "float32", "--resume")
    assert code == 0, errors
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "40 crops denoised" in output and output.splitlines()[-1] == "  out/bundled"
    denoiser = Denoiser.load(tmp_path / model, precision="float32")
    noisy = scipy.io.loadmat(
        dnd_source.parent / "out_denoise_srgb_identity" / "bundled" / "0002.mat"
    )
    cells = scipy.io.loadmat(bundled / "0002.mat")["Idenoised"]
    for place in ((0, 0), (0, 19)):
        np.testing.assert_array_equal(cells[place], denoiser(noisy["Idenoised"][place]))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("sidd", "--source", "nowhere", "--out", "out"), "There is no file nowhere. Download"),
        (("sidd", "--source", "SIDD", "--out", "out"), "No model at nothing"),
        (("dnd", "--source", "SIDD", "--out", "out"), "There is no info.mat in SIDD or SIDD/dnd"),
        (("sidd", "--source", "SIDD", "--out", "old"), "old holds a submission already"),
    ],
)
def test_mistakes_are_told_before_any_work(sidd_source, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SIDD").symlink_to(sidd_source.parent)
    (tmp_path / "old" / "blocks").mkdir(parents=True)
    with pytest.raises(CbsnError, match=words):
        main(make_parser().parse_args([*flags, "--modelpath", "nothing"]))
    assert not (tmp_path / "out").exists()
