import numpy as np

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
