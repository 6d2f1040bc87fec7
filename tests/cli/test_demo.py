import numpy as np
import tifffile

from cbsn.cli.demo import PHOTOGRAPHS
from cbsn.evaluation.conventions import psnr
from cbsn.images.image_files import read_picture


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
