import json

import numpy as np
import pytest
from PIL import Image

from cbsn.images.image_files import read_picture

FAST = ("--precision", "float32")


@pytest.fixture
def noisy(tmp_path, random):
    """Two noisy pictures, one in a sub-folder."""
    for name in ("photos/a.png", "photos/more/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = (128 + random.normal(0, 20, (80, 80, 3))).clip(0, 255).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / name)


def test_the_adapted_model_is_kept_and_denoises(run_here, noisy, model, tmp_path):
    flags = ("photos", "--model", model, "--minutes", "0.01", "--out", "kept", *FAST)
    for _ in range(2):  # the second result replaces the first
        run = run_here("adapt", *flags)
        assert run.returncode == 0, run.stderr
        assert "of 1 picture," in run.stdout
        assert "Denoise with: cbsn denoise PICTURES --model kept" in run.stdout
    assert "adapted" in json.loads((tmp_path / "kept" / "recipe.json").read_text())["training"]
    run = run_here("denoise", "photos", "--model", "kept", *FAST)
    assert run.returncode == 0, run.stderr
    before, after = (read_picture(tmp_path / f / "a.png").pixels for f in ("photos", "denoised"))
    assert not np.array_equal(before, after)


@pytest.mark.slow
def test_sub_folders(run_here, noisy, model):
    flags = ("photos", "--model", model, "--minutes", "0.01", "--recursive", *FAST)
    run = run_here("adapt", *flags)
    assert run.returncode == 0 and "of 2 pictures," in run.stdout, run.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "there are no pictures"),
        (("photos", "--minutes", "0"), "minutes"),
        (("photos", "--out", "photos"), "something else is there"),
        (("photos", "--quality", "fast", "--model", "model"), "--quality fast"),
        (("photos", "--quality", "best"), "invalid choice: 'best'"),
        (("photos", "--model", "nowhere"), "No model at nowhere"),
        (("nowhere",), "nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line_before_any_work(run_here, noisy, tmp_path, flags, words):
    before = sorted(tmp_path.rglob("*"))
    run = run_here("adapt", *flags)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1 and words in run.stderr
    assert sorted(tmp_path.rglob("*")) == before
