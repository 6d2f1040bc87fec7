import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import median_filter

from cbsn.errors import ConfigError, DataError
from cbsn.images.image_files import Picture, read_picture, write_picture
from cbsn.inference import folder as files
from cbsn.inference import folder as overlap
from cbsn.inference.folder import denoise_files

INFER = Path(__file__).resolve().parents[2] / "infer.py"


class Inverter:
    """Stands in for a denoiser."""

    choices = "Inverts."
    self_ensemble = False

    def __call__(self, image, on_tile, *, in_place, white):
        assert in_place and image.flags.writeable
        on_tile(1.0)
        if image.shape[0] == 13:
            raise MemoryError
        if image.shape[0] == 14:
            raise KeyError("a bug")
        return np.subtract(np.iinfo(image.dtype).max, image, out=image)


@pytest.fixture
def inverter(monkeypatch):
    monkeypatch.setattr(files.Denoiser, "load", lambda *_, **__: Inverter())


def save(path, height=9, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(np.full((height, 8, 3), 7, dtype), "PNG", b"profile"))


def test_the_good_ones_are_done_and_the_bad_ones_named(tmp_path, inverter, capsys):
    source, target = tmp_path / "in", tmp_path / "new" / "out"
    save(source / "good.png")
    save(source / "last.png")
    save(source / "memory.png", height=13)
    save(source / "bug.png", height=14)
    (source / "broken.png").write_bytes((source / "good.png").read_bytes()[:50])
    assert denoise_files("model", [source], target) == 1
    assert sorted(p.name for p in target.iterdir()) == ["good.png", "last.png"]
    result = read_picture(target / "good.png")
    assert (result.pixels == 248).all() and result.icc_profile == b"profile"
    output, errors = capsys.readouterr()
    assert "2 of 5 pictures denoised" in output
    failed = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3
    assert "broken.png" in failed[0]
    assert "bug.png: KeyError: 'a bug'" in failed[1] and "Traceback" in errors
    assert "memory.png: not enough memory" in failed[2]


class Smoother(Inverter):
    """Removes all texture."""

    def __call__(self, image, on_tile, *, in_place, white):
        image[...] = median_filter(image, (5, 5, 1))
        return image


def test_pictures_that_lose_more_than_their_noise_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files.Denoiser, "load", lambda *_, **__: Smoother())
    sharp = skimage.data.coffee()[:300, :400]
    smooth = np.full_like(sharp, 128)
    noisy = smooth + np.random.default_rng(0).integers(-9, 10, sharp.shape).astype(np.uint8)
    pictures = {"sharp": sharp, "smooth": smooth, "noisy": noisy, "less": sharp // 2}
    pictures["alpha"] = np.dstack([noisy, noisy[..., 0]])
    for name, pixels in pictures.items():
        write_picture(tmp_path / f"{name}.png", Picture(pixels, "PNG"))
    assert denoise_files("model", [tmp_path / "*.png"], tmp_path / "out") == 0
    (note,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("note: "))
    # Of several the one that lost most is the example.
    assert re.match(
        r"note: more than the noise was removed from 2 pictures, such as .*sharp\.png "
        r"\(removed [0-9.]+ levels, of noise there are about [0-9.]+\): .*--strength 0\.5",
        note,
    )
    assert denoise_files("model", [tmp_path / "sharp.png"], tmp_path / "out") == 0
    output, errors = capsys.readouterr()
    assert "more than the noise was removed from 1 picture, " in errors
    assert "1 of 1 picture denoised" in output
    fine = [tmp_path / f"{name}.png" for name in ("smooth", "noisy", "alpha")]
    assert denoise_files("model", fine, tmp_path / "out") == 0
    assert "note: " not in capsys.readouterr().err


def test_what_is_lost_is_said(tmp_path, inverter, capsys):
    save(tmp_path / "deep.png", dtype=np.uint16)
    assert denoise_files("model", [tmp_path / "deep.png"], tmp_path / "out", format="webp") == 0
    assert "deep.webp: WEBP holds 8 bits" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_does_not_stop_the_others(tmp_path, inverter, capsys):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    assert denoise_files("model", [tmp_path / "in"], tmp_path / "out") == 1
    assert "b.png: cannot be written as PNG (Is a directory)" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    assert (read_picture(tmp_path / "out" / "c.png").pixels == 248).all()


def test_reading_ahead_changes_no_result_and_no_message(tmp_path, inverter, capsys, monkeypatch):
    for number in range(9):
        dtype = np.uint16 if number % 3 == 0 else np.uint8
        save(tmp_path / "in" / f"{number}.png", height=9 + number, dtype=dtype)  # 13 and 14 fail
    (tmp_path / "in" / "2.png").write_bytes(b"broken")
    runs = []
    for budget in (0, 3 * 8 * 25, 2**29):
        monkeypatch.setattr(overlap, "BUDGET", budget)
        assert denoise_files("model", [tmp_path / "in"], tmp_path / "out", format="webp") == 1
        output, errors = capsys.readouterr()
        names = [str(tmp_path), "failed: "]
        messages = [line for line in errors.splitlines() if line.startswith(tuple(names))]
        files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        runs.append((output, messages, files))
    assert runs[0] == runs[1] == runs[2]
    assert [name[0] for name in sorted(runs[0][2])] == list("013678")
    assert [message.split(":")[0][-6:] for message in runs[0][1]].count("0.webp") == 1
    assert sum(message.startswith("failed: ") for message in runs[0][1]) == 3


def test_ctrl_c_leaves_whole_files_only(tmp_path, golden, random):
    """At any moment: while one picture is read, another denoised, and another written."""
    (tmp_path / "in").mkdir()
    picture = Picture(random.integers(256, size=(400, 500, 3), dtype=np.uint8), "TIFF")
    for number in range(60):
        write_picture(tmp_path / "in" / f"{number:02d}.tif", picture)
    flags = ["--modelpath", golden("small/CBSN_small.ckpt"), "--imagepath", "in", "--savepath=out"]
    process = subprocess.Popen(
        [sys.executable, INFER, *flags], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.glob("out/[0-9]*.tif")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors
    results = list((tmp_path / "out").iterdir())
    assert 0 < len(results) < 60
    for result in results:
        assert result.suffix == ".tif" and not result.name.startswith(".")
        assert read_picture(result).pixels.shape == (400, 500, 3)


def test_nothing_is_done_without_pictures_or_a_folder(tmp_path, inverter):
    with pytest.raises(DataError, match="no file matches"):
        denoise_files("model", [tmp_path / "*.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="No folder can be made"):
        denoise_files("model", [tmp_path / "a.png"], tmp_path / "a.png" / "out")


def test_the_model_is_not_loaded_when_a_source_would_be_overwritten(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.setattr(files.Denoiser, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match="overwrite"):
        denoise_files("model", [tmp_path], tmp_path)
