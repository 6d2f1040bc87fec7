import csv
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image

from cbsn.recipes import customised


@pytest.fixture
def clean(tmp_path):
    (tmp_path / "clean").mkdir()
    for name, row in (("b", 40), ("a", 100)):
        pixels = skimage.data.chelsea()[row : row + 48, 100:164]
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{name}.png")
    return "clean"


def test_scores(run_here, model, clean, tmp_path):
    flags = ("--modelpath", model, "--clean", clean, "--noise_sigma", 25, "--precision", "float32")
    results = []
    for folder in ("first", "new/second"):
        run = run_here("evaluate.py", *flags, "--no-lpips", "--out", folder)
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


def test_metrics_are_a_flag(run_here, clean, tmp_path):
    flags = ("--denoised", clean, "--clean", clean, "--no-lpips", "--out", "out")
    run = run_here("evaluate.py", *flags, "--metrics", "ssim,si_psnr,micro_ssim")
    assert run.returncode == 0, run.stderr
    (head,) = (line for line in run.stdout.splitlines() if line.startswith("method "))
    assert head.split()[1:5] == ["SSIM", "SI-PSNR", "MicroSSIM", "parameters"]
    (method,) = json.loads((tmp_path / "out/results.json").read_text())["methods"]
    # PSNR of equal pictures is infinite, which JSON cannot hold.
    assert (method["psnr"], method["ssim"], method["si_psnr"]) == (None, 1, None)
    assert method["micro_ssim"] == 1
    run = run_here("evaluate.py", *flags, "--metrics", "psnr,fsim")
    assert run.returncode == 2
    assert run.stderr == (
        "error: --metrics takes any of psnr, ssim, si_psnr, micro_ssim, separated by commas. "
        "Received: fsim\n"
    )


def test_stacks(run_here, model, tmp_path):
    random = np.random.default_rng(0)
    clean = np.add.outer(np.arange(40.0), 3 * np.arange(48)) * np.array([1, 20])[:, None, None]
    noisy = clean + [[[9]], [[180]]] * random.normal(size=(3, *clean.shape))
    tifffile.imwrite(tmp_path / "noisy.tif", noisy.astype("float32"))
    tifffile.imwrite(tmp_path / "clean.tif", np.stack([clean] * 3).astype("uint16"))
    for name in ("noisy", "clean"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.tif").rename(tmp_path / name / "cells.tif")
    flags = ("noisy", "--clean", "clean", "--axes", "tcyx", "--select", "c=1", "--out", "out")
    more = ("--normalize", "percentile", "--nan", "fill", "--precision", "float32")
    run = run_here("evaluate.py", *flags, "--model", model, *more)
    assert run.returncode == 0, run.stderr
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert [each["method"] for each in content["methods"]] == ["noisy", "cbsn (model)"]
    images = [each["image"] for each in content["methods"][0]["images"]]
    assert images == ["cells t0 c1", "cells t1 c1", "cells t2 c1"]
    expected = 20 * np.log10(np.ptp(clean[1]) / 180)
    assert content["methods"][0]["psnr"] == pytest.approx(expected, abs=0.2)
    assert "3 planes: noisy noisy, clean clean" in run.stdout
    run = run_here("evaluate.py", "--clean", "clean", "--noise_sigma", 25)
    assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
    assert "Noise is added to pictures only" in run.stderr


def test_mistakes_are_one_line(run_here, clean):
    run = run_here("evaluate.py", "--clean", clean, "--noisy", clean, "--noise", "gaussian")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: Give either noisy pictures (--noisy) or noise")
    assert len(run.stderr.splitlines()) == 1


ODD_NAMES = [
    "\udcff\udce9\n'\"<b>&|,.png",
    "-a.png",
    "é" * 125 + ".tiff",
    "a" * 251 + ".png",
]


def test_names_may_be_of_any_bytes(run_here, model, clean, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff\nclean")
    (tmp_path / clean).rename(folder)
    for name, path in zip(ODD_NAMES[:2], sorted(folder.iterdir()), strict=True):
        path.rename(folder / name)
    for name in ODD_NAMES[2:]:
        shutil.copy(folder / ODD_NAMES[0], folder / name)
    (tmp_path / model).rename(tmp_path / os.fsdecode(b"\xfe\nmodel"))
    common = ("--clean", folder.name, "--no-lpips", "--out", "out")
    for flags in (
        ("--modelpath", os.fsdecode(b"\xfe\nmodel"), "--noise_sigma", 25, "--precision", "float32"),
        ("--denoised", folder.name, "--noisy", folder.name),
    ):
        run = run_here("evaluate.py", *common, *flags)
        assert (run.returncode, run.stderr) == (0, "")
        _check_results(tmp_path / "out")


def _check_results(out):
    content = json.loads((out / "results.json").read_text("utf-8"))
    names = sorted(Path(name).stem for name in ODD_NAMES)
    assert [image["image"] for image in content["methods"][0]["images"]] == names
    methods = [each["method"] for each in content["methods"]]
    assert methods in (
        ["noisy", r"denoised (\udcff\nclean)"],
        ["noisy", r"cbsn (\udcfe\nmodel)"],
    )
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    readable = {name.encode(errors="backslashreplace").decode() for name in names}
    assert {row["image"] for row in rows} == readable
    table = (out / "results.md").read_text("utf-8").splitlines()
    assert len(table) == 2 + len(methods)
    html = (out / "report.html").read_text("utf-8")
    assert "<b>&" not in html
    assert (out / "contact_sheet.png").is_file()


@pytest.mark.parametrize("flag", ["--clean", "--noisy", "--denoised"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pictures_that_are_not_finite_are_refused(run_here, tmp_path, flag, value):
    """Also one that is scored against itself."""
    for name in ("--clean", "--noisy", "--denoised"):
        pixels = np.full((48, 48, 3), 0.5, np.float32)
        pixels[::2] = 0.25
        if name == flag:
            pixels[3, 4, 1] = value
        (tmp_path / name[2:]).mkdir()
        tifffile.imwrite(tmp_path / name[2:] / "a.tif", pixels, photometric="rgb")
    bad = flag[2:]
    for flags in (
        ("--clean", "clean", "--noisy", "noisy", "--denoised", "denoised"),
        ("--clean", bad, "--noisy", bad),
        ("--clean", bad, "--denoised", bad),
        ("--noisy", bad, "--denoised", "denoised"),
        ("--clean", bad, "--noise_sigma", 5),
    ):
        run = run_here("evaluate.py", *flags, "--no-lpips", "--out", "out")
        assert run.returncode == 2, run.stdout
        assert "not finite" in run.stderr
        assert len(run.stderr.splitlines()) == 1
        assert "nan" not in run.stdout.lower()


def test_an_empty_name_is_no_folder(run_here, clean, tmp_path):
    """Rather than the current one."""
    run = run_here("evaluate.py", "--denoised", clean, "--clean", clean, "--no-lpips", "--out", "")
    assert run.returncode == 2
    assert "A path is empty. Write . for the current folder." in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == [clean]


@pytest.mark.parametrize("command", ["evaluate.py", "noise", "sidd", "dnd"])
@pytest.mark.parametrize("call", ["iterdir", "is_file", "stat"])
def test_folders_without_permission_are_one_line(run_here, tmp_path, monkeypatch, command, call):
    """Root may read everything, so the system is made to refuse it."""
    locked = tmp_path / "locked"
    locked.mkdir()
    refused = getattr(Path, call)

    def refuse(path, *rest, **options):
        if locked.name in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return refused(path, *rest, **options)

    monkeypatch.setattr(Path, call, refuse)
    submit = ("--modelpath", "photo", "--source", "locked", "--out", "out")
    flags = {
        "evaluate.py": ("--modelpath", "photo", "--noisy", "locked"),
        "noise": ("locked",),
        "sidd": ("sidd", *submit),
        "dnd": ("dnd", *submit),
    }[command]
    run = run_here("submit" if command in flags else command, *flags)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert run.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()
