import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from cbsn.recipes import customised


@pytest.fixture
def clean(tmp_path):
    (tmp_path / "clean").mkdir()
    for name, row in (("b", 40), ("a", 100)):
        pixels = skimage.data.chelsea()[row : row + 48, 100:164]
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{name}.png")
    return "clean"


def test_scores(run_command, run_here, model, clean, tmp_path):
    flags = ("--modelpath", model, "--clean", clean, "--noise_sigma", 25, "--precision", "float32")
    results = []
    for folder, run in (("first", run_command), ("new/second", run_here)):
        run = run("evaluate.py", *flags, "--no-lpips", "--out", folder)
        assert run.returncode == 0, run.stderr
        results.append(json.loads((tmp_path / folder / "results.json").read_text()))
        files = {"results.json", "results.csv", "results.md", "report.html", "contact_sheet.png"}
        assert {path.name for path in (tmp_path / folder).iterdir()} == files

    lines = run.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("method "))
    head, noisy_row, model_row = lines[start : start + 3]
    columns = ["method", "PSNR", "SSIM", "parameters", "s/image", "MP/s", "peak", "GiB"]
    assert head.split() == columns
    assert len(head) == len(noisy_row) == len(model_row)
    noisy, trained = results[0]["methods"]
    assert noisy["psnr"] == pytest.approx(20 * np.log10(255 / 25), abs=0.2)
    assert noisy_row.split()[:4] == ["noisy", f"{noisy['psnr']:.2f}", f"{noisy['ssim']:.4f}", "–"]
    count = customised("cbsn", filters=4, num_modules=1).build_network().count_params()
    assert (trained["method"], trained["parameters"]) == ("cbsn (model)", count)
    shown = ["cbsn", "(model)", f"{trained['psnr']:.2f}", f"{trained['ssim']:.4f}", f"{count:,}"]
    assert model_row.split()[:5] == shown
    facts = {key: results[0][key] for key in ("clean", "noisy", "noise", "seed")}
    assert facts == {
        "clean": "clean",
        "noisy": None,
        "noise": "gaussian noise, σ 25",
        "seed": 0,
    }
    for first, second in zip(*(result["methods"] for result in results), strict=True):
        for scores in (first, second):
            assert [image["image"] for image in scores["images"]] == ["a", "b"]
            for part in (scores, *scores["images"]):
                part.pop("seconds")
            scores.pop("megapixels_per_second")
            scores.pop("peak_gib")
        assert first == second


def test_conventions_are_flags(run_here, clean, tmp_path):
    flags = ("--denoised", clean, "--clean", clean, "--rounding", "floor", "--no-clip")
    more = ("--data_range", "clean", "--color", "luma", "--ssim", "gaussian", "--border", "3")
    run = run_here("evaluate.py", *flags, *more, "--no-lpips", "--out", "out")
    assert run.returncode == 0, run.stderr
    conventions = json.loads((tmp_path / "out/results.json").read_text())["conventions"]
    assert conventions == {
        "rounding": "floor",
        "clip": False,
        "data_range": "clean",
        "color": "luma",
        "ssim": "gaussian",
        "border": 3,
    }
    said = "rounding floor, not clipped, data range clean, luma, SSIM gaussian, 3 px cut off"
    assert said in run.stdout


def test_mistakes_are_one_line(run_here, clean):
    run = run_here("evaluate.py", "--clean", clean, "--noisy", clean, "--noise", "gaussian")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: Give the noisy pictures by --noisy, or noise")
    assert len(run.stderr.splitlines()) == 1
