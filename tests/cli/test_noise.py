"""python -m cbsn noise, as a user would run it."""

import json
import os
import subprocess
import sys
import tempfile
import unittest.mock
from pathlib import Path

import numpy as np
import pytest
import tifffile
from matplotlib.figure import Figure
from PIL import Image

from cbsn.cli.noise import main, make_parser
from cbsn.errors import CbsnError, ConfigError, ImageError
from cbsn.inference.denoiser import Denoiser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pictures(tmp_path, walls, random):
    """Folders `noisy`, with white noise of σ 12, and `clean`."""
    for number, wall in enumerate(walls):
        noisy = np.clip(np.rint(wall + 12 * random.normal(size=wall.shape)), 0, 255)
        for kind, pixels in (("noisy", noisy), ("clean", wall)):
            (tmp_path / kind).mkdir(exist_ok=True)
            path = tmp_path / kind / f"{number}.png"
            Image.fromarray(pixels[..., 0].astype("uint8")).save(path)
    return tmp_path / "noisy"


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Runs `main` in the folder with the pictures; returns what is in the JSON file."""
    monkeypatch.chdir(tmp_path)

    def look(*flags):
        main(make_parser().parse_args([*map(str, flags), "--json", "noise.json"]))
        return json.loads((tmp_path / "noise.json").read_text("utf-8"))

    return look


@pytest.mark.slow
def test_tables_json_and_figure(pictures, tmp_path):
    """In a process of its own, which is to keep TensorFlow quiet."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    flags = [str(pictures), "--json", "noise.json", "--figure", "noise.png"]
    process = subprocess.run(
        [sys.executable, "-m", "cbsn", "noise", *flags],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert lines[0].startswith("Noise of 6 pictures, seen in flat blocks: ")
    assert "Train with cbsn train --recipe n2v-unet" in lines
    found = json.loads((tmp_path / "noise.json").read_text())
    assert found["noise"]["level"] == [pytest.approx(12, rel=0.03)]
    assert np.shape(found["noise"]["correlation"]) == (4, 12)
    assert found["advice"]["stride_b"] == found["advice"]["stride_i"] == 1
    assert found["advice"]["recipe"] == "n2v-unet"
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")


def test_each_file_is_taken_once(look, pictures):
    found = look(pictures, pictures / "2.png", pictures / "[45].png")
    assert found["names"] == [str(pictures / f"{number}.png") for number in range(6)]
    found = look(pictures, "--images", 2)
    assert found["names"] == [str(pictures / f"{number}.png") for number in (0, 3)]
    assert len(look(pictures, "--images", 9)["names"]) == 6


def test_alpha_is_no_channel_to_look_at(look, pictures):
    gray = Image.open(pictures / "3.png")
    Image.merge("LA", (gray, gray)).save(pictures / "3.png")
    assert len(look(pictures)["noise"]["level"]) == 1


def test_denoised_pictures(look, pictures, tmp_path, capsys):
    for path in (tmp_path / "clean").iterdir():
        Image.open(path).save(path.with_suffix(".tif"))
        path.unlink()
    flags = ("--denoised", "clean", "--images", 3)
    found = look(pictures / "*.png", *flags)
    shown = capsys.readouterr().out
    assert shown.startswith("Noise of 3 pictures, seen in what the denoiser removed: 675 of 675")
    assert "The denoised pictures:\nRemoved: 12.0 levels" in shown
    assert "none to speak of" in shown
    assert found["diagnosis"]["removed"] == pytest.approx(12, rel=0.03)
    (tmp_path / "clean" / "2.tif").unlink()
    with pytest.raises(CbsnError, match=r"--denoised clean has none for noisy/2\.png"):
        look("noisy", *flags)


def test_a_model_denoises(look, pictures, monkeypatch, capsys):
    given = {}

    class Rounded:
        recipe = type("Recipe", (), {"name": "rounded"})
        choices = "As it likes."

        def __call__(self, picture, *, white):
            assert white == 255
            return picture // 64 * 64

    def load(path, options):
        given.update(path=path, options=options)
        return Rounded()

    monkeypatch.setattr(Denoiser, "load", load)
    found = look(pictures, "--modelpath", "model", "--strength", "0.5")
    assert (given["path"], given["options"].strength) == ("model", 0.5)
    shown = capsys.readouterr().out
    assert shown.startswith("rounded (model): As it likes.\nNoise of 6 pictures, seen in what the ")
    assert found["diagnosis"]["removed"] > 12


def test_the_picture_that_fails_is_named(look, pictures, monkeypatch):
    def load(path, options):
        def denoise(picture, *, white):
            raise ImageError("It is too noisy.")

        denoise.recipe, denoise.choices = type("Recipe", (), {"name": "none"}), ""
        return denoise

    monkeypatch.setattr(Denoiser, "load", load)
    with pytest.raises(ImageError, match=r"0\.png: It is too noisy\."):
        look(pictures, "--modelpath", "model")


def test_too_few_flat_blocks(run_here, pictures, tmp_path):
    process = run_here("noise", tmp_path / "clean")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("error: There are too few flat blocks")
    assert process.stderr.count("\n") == 1
    assert "--model" in process.stderr
    assert "Received: 6 pictures" in process.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "no file matches nowhere"),
        (["noisy", "noisy/*.tif"], r"no file matches .*\*\.tif"),
        (["noisy", "--modelpath", "nowhere"], "No model at nowhere"),
        (["broken.png"], "broken.png: "),
        (["noisy", "--images", "-3"], "--images must be at least 0. Received: --images -3"),
        (["noisy", "--modelpath", "a", "--denoised", "b"], "Received: --model a --denoised b$"),
        (["noisy", "--denoised", "empty"], "in the folder empty"),
        (["noisy", "--json", "no/file.json"], "--json must be .* Received: --json no/file.json$"),
        (["noisy", "--json", "empty"], "--json must be .* Received: --json empty$"),
        (
            ["noisy", "--figure", "no/file.png"],
            "--figure must be .* --figure no/file.png$",
        ),
        (["noisy", "--figure", "noise.doc"], "Received: --figure noise.doc$"),
        (["noisy", "--json", os.devnull], f"--json must be a file .* {os.devnull}$"),
        (
            ["noisy", "--figure", "a.svg", "--json", "empty/../a.svg"],
            "--figure and --json need a file each: .* --json empty/../a.svg$",
        ),
        (
            ["noisy", "--strength", "0.5", "--tile", "64"],
            "--tile is for --model, .*: omit it. Received: --tile 64 --strength 0.5$",
        ),
        (["noisy", "--denoised", "clean", "--self_ensemble"], "Received: --self_ensemble$"),
        (["noisy", "--no-r3"], "--no-r3 is for --model"),
        (["noisy", "--precision", "float32"], "--precision is for --model"),
    ],
)
def test_mistakes(flags, message, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CbsnError, match=message) as raised:
        main(make_parser().parse_args(flags))
    assert raised.value.status == 2
    assert "\n" not in str(raised.value)


def test_names_may_be_of_any_bytes(run_here, pictures, tmp_path):
    names = [os.fsdecode(b"\xff\n'.png"), "-a.png", "a" * 251 + ".png"]
    for name, path in zip(names, sorted(pictures.iterdir()), strict=False):
        path.rename(pictures / name)
        (tmp_path / "clean" / path.name).rename(tmp_path / "clean" / name)
    files = [os.fsdecode(b"\xff\n") + name for name in ("noise.json", "noise.svg")]
    for flags in (("--figure", files[1]), ("--denoised", "clean")):
        process = run_here("noise", "noisy", *flags, "--json", files[0])
        assert (process.returncode, process.stderr) == (0, "")
        found = json.loads((tmp_path / files[0]).read_text("utf-8"))["names"]
        assert {f"noisy/{name}" for name in names} <= {*found}
    assert (tmp_path / files[1]).is_file()


@pytest.mark.parametrize("flag", ["--json", "--figure"])
def test_a_picture_is_never_taken_for_the_file_to_write(run_here, pictures, flag):
    """As a shell's glob makes it where the name of the file was forgotten."""
    first, *others = sorted(pictures.glob("*.png"))
    before = first.read_bytes()
    process = run_here("noise", flag, first, *others)
    assert process.returncode == 2 and f"{flag} replaces only files" in process.stderr
    assert first.read_bytes() == before


@pytest.mark.parametrize("flag", ["--json", "--figure"])
def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    pictures, monkeypatch, capsys, flag
):
    monkeypatch.chdir(pictures.parent)
    error = PermissionError(13, "Permission denied")
    monkeypatch.setattr(tempfile, "TemporaryFile", unittest.mock.Mock(side_effect=error))
    with pytest.raises(ConfigError, match=rf"can be written to: Permission denied.* {flag} a\.png"):
        main(make_parser().parse_args(["noisy", flag, "a.png"]))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_figures_and_numbers_of_its_own_are_replaced(look, pictures, tmp_path, suffix):
    name = f"noise.{suffix}"
    for images in (0, 3):
        found = look(pictures, "--figure", name, "--images", images)
        assert len(found["names"]) == (images or 6)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ConfigError, match="--json replaces only files that cbsn noise --json"):
        main(make_parser().parse_args(["noisy", "--json", name]))
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", ["mine.png", "mine.pdf", "mine.svg", "mine.json"])
def test_files_of_others_are_kept(look, pictures, tmp_path, name):
    """As they look most like its own: a figure by Matplotlib, and JSON with names."""
    path = tmp_path / name
    if path.suffix == ".json":
        path.write_text(json.dumps({"names": ["my own list"]}))
    else:
        figure = Figure()
        figure.suptitle("cbsn noise")
        figure.savefig(path, metadata={"Title": "Noise"})
    before = path.read_bytes()
    flag = "--json" if path.suffix == ".json" else "--figure"
    with pytest.raises(ConfigError, match=rf"{flag} replaces only .* Received: {flag} {name}$"):
        main(make_parser().parse_args(["noisy", flag, name]))
    assert path.read_bytes() == before


def test_an_empty_file_is_written(look, pictures, tmp_path):
    (tmp_path / "noise.json").touch()
    assert len(look(pictures)["names"]) == 6


@pytest.fixture
def stack(tmp_path, walls, random):
    """Two channels of one wall over three frames, with white noise of σ 12."""
    noisy = walls[0][..., 0] + 12 * random.normal(size=(3, 2, 256, 256))
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, noisy.astype("float32"), imagej=True, metadata={"axes": "TCYX"})
    return path


def test_stacks(look, stack, capsys):
    found = look(stack, "--figure", "noise.png")
    shown = capsys.readouterr().out
    for channel in (0, 1):
        assert f"cells.tif, channel {channel}: values from " in shown
    assert shown.count("neighbouring frames is independent") == 2
    assert found["names"] == [str(stack)]
    names = [each["name"] for each in found["stacks"]]
    assert names == ["cells.tif, channel 0", "cells.tif, channel 1"]
    for each in found["stacks"]:
        assert each["in_file_units"]["level"] == [pytest.approx(12, rel=0.05)]
    assert {path.name for path in stack.parent.glob("*.png")} == {"noise-0.png", "noise-1.png"}
    found = look(stack, "--select", "c=1,t=0", "--figure", "noise.png")
    assert [each["series"] for each in found["stacks"]] == [{}]
    assert (stack.parent / "noise.png").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["noisy", "--select", "t=1"], "--select is for stacks, and none of the pictures is one"),
        (["cells.tif", "--white", "4095"], "--normalize 0,4095: omit --white"),
        (["noisy", "cells.tif"], r"There are stacks, such as cells\.tif, and pictures, such as "),
        (["cells.tif", "--normalize", "range"], "omit it, or add --model. Received: --normalize r"),
        (["cells.tif", "--tile", "64"], "--tile is for --model"),
        (["cells.tif", "--axes", "YX"], "--axes takes a letter for each"),
    ],
)
def test_mistakes_with_stacks(flags, message, pictures, stack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CbsnError, match=message):
        main(make_parser().parse_args(flags))


def test_what_is_wrong_with_the_camera_is_told(look, tmp_path, walls, random, capsys):
    """Offsets of rows, bands of columns and a hot pixel, in gray pictures."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    bands = 6 * np.sin(np.arange(256) * 2 * np.pi / 9)
    for number, wall in enumerate(walls):
        noisy = wall[..., 0] / 2 + 8 * random.normal(size=(256, 256)) + bands
        noisy += 4 * random.normal(size=(256, 1))
        noisy[20, 30] = 255
        pixels = np.rint(np.clip(noisy, 0, 255)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
    found = look(folder)
    shown = capsys.readouterr().out
    assert [each["lines"] for each in found["lines"]] == ["rows"]
    assert [each["lines"] for each in found["bands"]] == ["columns"]
    assert found["bands"][0]["period"] == pytest.approx(9, abs=0.1)
    assert found["advice"]["repair"] == ["pixels", "rows"]
    assert "- Line noise, new in each picture: each row has an offset" in shown
    assert "- Vertical bands every 9" in shown
    assert "- 6 pixels are isolated outliers in 6 pictures" in shown
    assert found["outliers"] == {"pixels": 6, "pictures": 6}


def test_bands_are_told_where_nothing_is_flat(look, tmp_path, random, capsys):
    """They leave no flat block, so that the other noise is not seen."""
    bands = 60 * np.sin(np.arange(512) * 2 * np.pi / 40)[:, None]
    noisy = 128 + bands + 5 * random.normal(size=(512, 512))
    Image.fromarray(noisy.astype("uint8")).save(tmp_path / "a.png")
    found = look(tmp_path / "a.png", "--figure", "noise.png")
    shown = capsys.readouterr().out
    assert found["noise"] is None and found["reason"] in shown
    assert "few flat blocks" in shown
    assert [each["lines"] for each in found["bands"]] == ["rows"]
    assert found["bands"][0]["period"] == pytest.approx(40, abs=1)
    assert "- Horizontal bands every " in shown and "noise.png is not drawn" in shown
    assert not (tmp_path / "noise.png").exists()
