import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from cbsn.model_folder import save_model
from cbsn.recipes import customised


@pytest.fixture
def model(tmp_path):
    """A saved model of fresh weights; returns its path in the folder of the command."""
    recipe = customised("cbsn", filters=4, num_modules=1)
    save_model(tmp_path / "model", recipe, recipe.build_network(), {})
    return "model"


@pytest.fixture
def clean(tmp_path):
    (tmp_path / "clean").mkdir()
    for name, row in (("b", 40), ("a", 100)):
        pixels = skimage.data.chelsea()[row : row + 48, 100:164]
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{name}.png")
    return "clean"


def test_scores(run_command, model, clean, tmp_path):
    flags = ("--modelpath", model, "--clean", clean, "--noise_sigma", 25, "--precision", "float32")
    results = []
    for file in ("first.json", "new/second.json"):
        run = run_command("evaluate.py", *flags, "--no-lpips", "--json", file)
        assert run.returncode == 0, run.stderr
        results.append(json.loads((tmp_path / file).read_text()))

    head, noisy_row, model_row = run.stdout.splitlines()[-3:]
    assert head.split() == ["method", "PSNR", "SSIM", "parameters", "s/image"]
    assert len(head) == len(noisy_row) == len(model_row)
    noisy, trained = results[0]["methods"]
    assert noisy["psnr"] == pytest.approx(20 * np.log10(255 / 25), abs=0.2)
    assert noisy_row.split()[:4] == ["noisy", f"{noisy['psnr']:.2f}", f"{noisy['ssim']:.4f}", "–"]
    count = customised("cbsn", filters=4, num_modules=1).build_network().count_params()
    assert (trained["method"], trained["parameters"]) == ("cbsn (model)", count)
    assert model_row.startswith(f"cbsn (model)  {trained['psnr']:.2f}  {trained['ssim']:.4f}")
    facts = {key: results[0][key] for key in ("clean", "noisy", "noise", "seed", "names")}
    assert facts == {
        "clean": "clean",
        "noisy": None,
        "noise": "gaussian noise, σ 25",
        "seed": 0,
        "names": ["a", "b"],
    }
    for first, second in zip(*(result["methods"] for result in results), strict=True):
        assert all(len(values) == 2 for values in first["images"].values())
        for scores in (first, second):
            assert scores.pop("seconds") >= 0 and min(scores["images"].pop("seconds")) >= 0
        assert first == second


def test_mistakes_are_one_line(run_command, clean):
    run = run_command("evaluate.py", "--clean", clean, "--noisy", clean, "--noise", "gaussian")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: Give the noisy pictures by --noisy, or noise")
    assert len(run.stderr.splitlines()) == 1
