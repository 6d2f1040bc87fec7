import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import quality
from cbsn.noise.repair import parse_repairs
from cbsn.recipes import RECIPES, customised

ROOT = Path(__file__).resolve().parents[2]


def test_every_method_is_a_recipe():
    for case in quality.CASES.values():
        for method in case.methods.values():
            assert method.recipe in RECIPES
            given = {key: value for key, value in method.changes.items() if value != "auto"}
            customised(method.recipe, **given)
            parse_repairs(method.repair)


@pytest.mark.parametrize("name", ["white", "rows"])
def test_noise_is_as_strong_as_it_says(random, name):
    clean = np.full((4, 256, 256), 0.5)
    noise = quality.CASES[name].noise(clean, random) - clean
    # A row of 3 pixels is one independent value: four standard errors of a standard deviation.
    error = 4 * quality._SIGMA / np.sqrt(2 * noise.size / 3)
    assert noise.std() == pytest.approx(quality._SIGMA, abs=error)
    next_to = np.mean(noise[..., 1:] * noise[..., :-1]) / noise.var()
    below = np.mean(noise[:, 1:] * noise[:, :-1]) / noise.var()
    assert next_to == pytest.approx(2 / 3 if name == "rows" else 0, abs=0.02)
    assert below == pytest.approx(0, abs=0.02)


def test_rows_have_offsets(random):
    clean = np.full((200, 256, 256), 0.5)
    offsets = (quality.lines(clean, random) - clean).mean(axis=-1)
    expected = quality._SIGMA * np.sqrt(quality._OFFSETS**2 + 1 / 256)
    assert offsets.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * offsets.size))


def test_photons_follow_the_light(random):
    for light in (0.1, 0.9):
        clean = np.full((512, 512), light)
        noisy = quality.photons(clean, random)
        variance = light / quality._PHOTONS + quality._READ_NOISE**2
        assert noisy.mean() == pytest.approx(light, abs=4 * np.sqrt(variance / clean.size))
        assert noisy.var() == pytest.approx(variance, rel=0.05)


def test_data_are_the_same_in_every_run(random):
    pictures = [random.random((size, 140)) for size in (150, 130)]
    once, again = (quality.make_data("white", pictures, pictures[:1]) for _ in range(2))
    np.testing.assert_array_equal(once.train, again.train)
    assert once.train.shape == (2, 130, 140)
    assert once.train.dtype == once.noisy[0].dtype == np.float32
    np.testing.assert_array_equal(once.clean[0], pictures[0])


def test_volumes_have_structure_along_all_axes():
    volume = quality.simulate_volume((24, 48, 48), 1)
    assert volume.shape == (24, 48, 48)
    assert 0.1 <= volume.min() < volume.max() <= 1
    for axis in range(3):
        # Neighbours are alike, as a microscope blurs; white noise differs by twice its variance.
        assert np.mean(np.diff(volume, axis=axis) ** 2) < 0.5 * volume.var()


def test_the_finest_frequencies_are_told(random):
    clean = np.zeros((64, 64))
    board = np.indices((64, 64)).sum(axis=0) % 2 - 0.5
    # All of its power lies there: in 13 of 64 frequencies along each axis.
    assert quality.finest(board, clean) == pytest.approx((64 / 13) ** 2)
    assert quality.finest(random.normal(size=(64, 64)), clean) == pytest.approx(1, abs=0.5)


def _names(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.slow
def test_command(tmp_path, random):
    for folder, count in (("train", 3), ("test", 1)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (132, 140, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    flags = ("--minutes", "0.01", "--cases", "rows,lines", "--methods", "auto,repair")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.quality", "--train", "train", "--test", "test"),
            *("--work", "work", "--markdown", "--json", "results.json", *flags),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    rows, lines = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert (rows["case"], lines["case"]) == ("rows", "lines")
    assert [side["side"] for side in rows["sides"]] == ["auto"]
    assert [side["side"] for side in lines["sides"]] == ["auto", "repair"]
    for side in (*rows["sides"], *lines["sides"]):
        assert side["steps"] >= 1
        assert np.isfinite([side["psnr"], side["ssim"], side["seconds_per_megapixel"]]).all()
    assert "| rows  | auto " in run.stdout
    # Nothing lies anywhere else, nor is left of the short trainings.
    assert _names(tmp_path) == {"train", "test", "work", "results.json"}
    names = {"rows-auto-0.01", "lines-auto-0.01", "lines-repair-0.01", "dataset"}
    files = {f"{case}.{suffix}" for case in ("rows", "lines") for suffix in ("tif", "npz")}
    assert _names(tmp_path / "work") == names | files
    arrays = np.load(tmp_path / "work" / "rows.npz")
    assert arrays["train"].shape == (3, 132, 140)
    assert arrays["noisy0"].shape == arrays["clean0"].shape == (132, 140)


def test_pictures_that_are_too_small_are_told(random):
    large, small = random.random((1, 130, 130)), random.random((1, 20, 130))
    for pictures in ((small, large), (large, small)):
        with pytest.raises(quality.ConfigError, match="20 × 130"):
            quality.make_data("white", *pictures)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--minutes", "soon"), "--minutes takes numbers. Received: soon"),
        (("--minutes", "0"), "--minutes"),
        (("--cases", "pink"), "--cases are of white, photons, rows, lines, volume. Received: pink"),
        (("--methods", "bm3d"), "--methods are of"),
    ],
)
def test_bad_flags_are_told_before_any_work(tmp_path, capsys, flags, message):
    work = tmp_path / "work"
    parser = quality.make_parser()
    given = parser.parse_args(["--train", "a", "--test", "b", "--work", str(work), *flags])
    with pytest.raises(quality.ConfigError, match=message.split(". ")[0]):
        quality.main(given)
    assert not work.exists()
