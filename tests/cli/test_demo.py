import shutil

from PIL import Image


def test_pictures_and_report(run_here, tmp_path):
    result = run_here("demo", "pictures", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "4 photographs" in result.stdout
    assert result.stderr == ""
    shutil.copytree(tmp_path / "clean", tmp_path / "denoised")
    shutil.copytree(tmp_path / "noisy", tmp_path / "adapted")
    result = run_here("demo", "report", tmp_path)
    assert result.returncode == 0, result.stderr
    mean = result.stdout.splitlines()[-2].split()
    assert mean[0] == "mean"
    assert 20 < float(mean[1]) < 26
    assert mean[2:] == ["inf", mean[1]]
    with Image.open(tmp_path / "before_after.png") as picture:
        assert picture.size == (8 * 160, 2 * 160)
