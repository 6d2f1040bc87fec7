import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.cli.demo import PHOTOGRAPHS, main, make_parser
from cbsn.errors import ConfigError
from cbsn.evaluation.conventions import psnr
from cbsn.images.image_files import read_picture, write_picture


def test_pictures_are_noisy_and_clean(run_here, tmp_path):
    result = run_here("demo", tmp_path / "demo")
    assert (result.returncode, result.stderr) == (0, "")
    assert "4 photographs" in result.stdout

    def read(kind, name):
        return read_picture(tmp_path / "demo" / kind / f"{name}.png").pixels

    scores = [psnr(read("clean", name), read("noisy", name)) for name in PHOTOGRAPHS]
    assert 20 < np.mean(scores) < 26


def test_a_time_series(run_here, tmp_path):
    run = run_here("demo", "microscope", "--stack", "--frames", "3", "--size", "64")
    assert run.returncode == 0, run.stderr
    for kind, dtype in ("noisy", "uint16"), ("clean", "float32"):
        with tifffile.TiffFile(tmp_path / "microscope" / kind / "cells.tif") as file:
            assert file.is_imagej and file.series[0].axes == "TYX"
            assert file.series[0].shape == (3, 64, 64) and file.series[0].dtype == dtype
    assert "cbsn train microscope/noisy/cells.tif" in run.stdout


def test_flags_of_the_series_need_it(run_here):
    run = run_here("demo", "photos", "--frames", "3")
    assert run.returncode == 2
    assert "--frames is for the time series: give --stack, too" in run.stderr


@pytest.mark.parametrize(
    ("name", "flags"),
    [("noisy/coffee.png", []), ("clean/rocket.png", []), ("clean/cells.tif", ["--stack"])],
)
@pytest.mark.parametrize("content", [b"mine", None])
def test_other_files_are_kept(demo, tmp_path, name, flags, content):
    path = tmp_path / name
    path.parent.mkdir()
    if content is None:
        Image.new("L", (9, 9)).save(path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"{name} is there already, .*: give another folder"):
        demo(tmp_path, *flags)
    assert path.read_bytes() == before
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]


def test_a_folder_that_cannot_be_made_is_told(demo, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"cannot be made \(.*\): give another folder\. Received: "
    ):
        demo(tmp_path / "file" / "demo")


def test_an_empty_name_is_no_folder(demo, tmp_path, monkeypatch):
    """Rather than the current one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"A path is empty\. Write \. for the current folder"):
        demo("")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("flags", [[], ["--stack", "--frames", "1", "--size", "32"]])
def test_files_of_its_own_are_written_anew(demo, tmp_path, flags):
    demo(tmp_path, *flags)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    other = ["--size", "40"] if flags else []
    demo(tmp_path, *flags, *other)
    assert {*tmp_path.rglob("*.*")} == {*files}
    assert all((path.read_bytes() == before) != bool(other) for path, before in files.items())


def test_what_is_made_of_a_file_of_its_own_is_another_s(demo, tmp_path):
    demo(tmp_path)
    path = tmp_path / "noisy" / "coffee.png"
    write_picture(path, read_picture(path))
    with pytest.raises(ConfigError, match="is there already"):
        demo(tmp_path)


@pytest.fixture
def demo():
    return lambda *flags: main(make_parser().parse_args([*map(str, flags)]))
