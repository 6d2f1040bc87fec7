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
from cbsn.evaluation.submit.benchmarks import VARIABLE
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sidd_source(golden):
    """Two images of 32 blocks of 8 × 8."""
    return golden("submission_and_metric/sidd/BenchmarkNoisyBlocksSrgb.mat")


@pytest.fixture
def dnd_source(golden):
    """Two images with 20 boxes of 16 × 12."""
    return golden("submission_and_metric/dnd/dnd_2017/info.mat").parent


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


def test_sidd(run_here, model, sidd_source, tmp_path):
    flags = ("--modelpath", model, "--source", sidd_source, "--precision", "float32")
    layouts = ("--layout", "kit,blocks", "--venue", "Nowhere 2026")
    run = run_here("submit", "sidd", *flags, "--out", "a/b", "--rounding", "floor", *layouts)
    assert run.returncode == 0, run.stderr
    out = tmp_path / "a" / "b"
    denoiser = Denoiser.load(
        tmp_path / model, DenoiseOptions(precision="float32", rounding="truncate")
    )
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
    assert f"{record['seconds_per_megapixel']:.3f} s per megapixel" in run.stdout
    assert "warning:" in run.stderr and "the site will not accept this submission" in run.stderr

    run = run_here("submit", "sidd", *flags, "--out", "a/b", "--seed", "3", "--resume")
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1
    assert "started differently: rounding floor (now round), seed 0 (now 3)." in run.stderr


@pytest.mark.slow
def test_dnd_killed_and_resumed(run_here, model, dnd_source, tmp_path):
    flags = ["dnd", "--modelpath", model, "--source", str(dnd_source.parent), "--out", "out"]
    flags += ["--precision", "float32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cbsn", "submit", *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    crops, bundled = tmp_path / "out" / "crops", tmp_path / "out" / "bundled"
    while len([*crops.glob("[0-9]*")]) < 3 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in crops.glob("[0-9]*")}
    assert len(before) >= 3
    assert len(before) == 40 or not bundled.exists()
    run = run_here("submit", *flags, "--resume")
    assert run.returncode == 0, run.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "40 crops denoised" in run.stdout and run.stdout.splitlines()[-1] == "  out/bundled"
    denoiser = Denoiser.load(tmp_path / model, DenoiseOptions(precision="float32"))
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
        (("sidd", "--source", "SIDD", "--out", "old"), "old already holds a submission"),
        (
            ("sidd", "--source", "SIDD", "--out", "out", "--method_name", "Foo", "--authors", "Me"),
            "^--method_name is written by --layout kit only.*"
            "Received: --method_name --authors --layout blocks$",
        ),
        (
            ("sidd", "--source", "SIDD", "--out", "out", "--layout", "csv", "--venue", "Here"),
            "^--venue is .* --layout csv$",
        ),
        (
            ("sidd", "--source", "SIDD", "--out", "out", "--layout", "csv, kit", "--venue", "Here"),
            "No model at nothing",
        ),
    ],
)
def test_mistakes_are_told_before_any_work(sidd_source, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SIDD").symlink_to(sidd_source.parent)
    (tmp_path / "old" / "blocks").mkdir(parents=True)
    with pytest.raises(CbsnError, match=words):
        main(make_parser().parse_args([*flags, "--modelpath", "nothing"]))
    assert not (tmp_path / "out").exists()
