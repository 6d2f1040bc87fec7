import shutil
import subprocess
import sys

from PIL import Image


def _demo(what, folder):
    return subprocess.run(
        [sys.executable, "-m", "cbsn", "demo", what, str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_pictures_and_report(tmp_path):
    result = _demo("pictures", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "4 photographs" in result.stdout
    assert result.stderr == ""  # TensorFlow, which is not needed, would say something
    shutil.copytree(tmp_path / "clean", tmp_path / "denoised")
    shutil.copytree(tmp_path / "noisy", tmp_path / "adapted")
    result = _demo("report", tmp_path)
    assert result.returncode == 0, result.stderr
    mean = result.stdout.splitlines()[-2].split()
    assert mean[0] == "mean"
    assert 20 < float(mean[1]) < 26
    assert mean[2:] == ["inf", mean[1]]
    with Image.open(tmp_path / "before_after.png") as picture:
        assert picture.size == (8 * 160, 2 * 160)
