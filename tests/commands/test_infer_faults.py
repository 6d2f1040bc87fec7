"""What outsiders met with `infer.py`: names, permissions, flags out of range, and encodings."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbsn.images.image_files import Picture, read_picture, write_picture

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_OVERRIDES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Takes the right to read and write anything from root."""


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return pixels


@pytest.fixture
def infer(run_here, model):
    """Runs `infer.py` with a tiny model, in this process."""
    return lambda *flags: run_here("infer.py", "--modelpath", model, *flags)


@pytest.fixture
def without_rights(tmp_path):
    """Runs `infer.py` as one to whom permissions apply, which they do not to root."""

    def run(*flags):
        command = [sys.executable, str(ROOT / "infer.py"), *map(str, flags)]
        if os.geteuid() == 0:
            try:
                subprocess.run([*WITHOUT_OVERRIDES, "true"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("there is no setpriv to take root's rights away")
            command = [*WITHOUT_OVERRIDES, *command]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)

    return run


@pytest.fixture
def locked(tmp_path):
    """Returns what makes a folder without some permissions, till the test has ended."""
    made = []

    def make(name, mode):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        made.append(tmp_path / name)

    yield make
    for folder in made:
        folder.chmod(0o755)


def _errors(run):
    """The lines on stderr, without TensorFlow's."""
    return [line for line in run.stderr.splitlines() if line.startswith(("error:", "Trace"))]


@pytest.mark.parametrize("source", ["locked", "locked/a.png", "locked/*.png"])
def test_folders_that_cannot_be_read_are_told_in_a_line(without_rights, locked, source):
    locked("locked", 0o000)
    run = without_rights("--imagepath", source, "--savepath", "out")
    assert run.returncode == 2
    assert len(_errors(run)) == 1 and "locked" in _errors(run)[0], run.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--savepath", "locked"),
        ("--savepath", "locked/deeper/out"),
        ("--savepath", "out", "--adapt", "1", "--adapt_save", "locked/kept"),
    ],
)
def test_folders_that_cannot_be_written_to_are_told_before_any_work(
    without_rights, locked, picture, flags
):
    locked("locked", 0o555)
    run = without_rights("--imagepath", "a.png", *flags)
    assert run.returncode == 2
    assert len(_errors(run)) == 1, run.stderr
    assert "Permission denied" in _errors(run)[0] and " ".join(flags[-2:]) in _errors(run)[0]
    assert "Engine" not in run.stdout


@pytest.mark.parametrize(
    "flags",
    [
        ("--adapt", "nan"),
        ("--adapt", "inf"),
        ("--adapt", "-1"),
        ("--adapt", "1e300"),
        ("--adapt", "soon"),
        ("--seed", "-1"),
        ("--seed", str(2**64)),
        ("--seed", "1.5"),
        ("--adapt", "1", "--seed", str(2**40)),
        ("--tile", "-1"),
        ("--tile", "0.5"),
        ("--tile", "9" * 5000),
        ("--channel", "0"),
        ("--channel", "99999999999"),
        ("--num_block", "-3"),
        ("--white", "nan"),
        ("--white", "inf"),
        ("--white", "-4095"),
        ("--white", "0"),
    ],
)
def test_numbers_out_of_range_are_told_before_any_work(infer, picture, tmp_path, flags):
    for weights in (tmp_path / "model").iterdir():
        weights.write_text("This would fail if it was read.")
    (tmp_path / "a.png").write_text("And so would this.")
    run = infer("--imagepath", "a.png", "--savepath", "out", *flags)
    assert run.returncode == 2
    lines = run.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), run.stderr
    assert flags[-2] in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_home_folder_of_nobody_is_refused_in_words(infer, picture):
    run = infer("--imagepath", "a.png", "--savepath", "~nobody-of-that-name/out")
    assert run.returncode == 2 and "no such user's home folder" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("tile", ["1000000000", str(2**31 - 1)])
def test_tiles_may_be_larger_than_any_picture(infer, picture, tmp_path, tile):
    run = infer("--imagepath", "a.png", "--savepath", "out", "--tile", tile)
    assert run.returncode == 0, run.stderr


NAMES = (
    b"\xff\xfe.png",  # no UTF-8
    b"new\nline.png",
    b"'quotes\"`.png",
    b"-dash.png",
    b"--adapt",
    b"esc\x1b[31m.png",
    "σ é 画像.png".encode(),
    b"x" * 251 + b".png",
    b"y" * 250 + b".jpeg",
    b"z" * 255,  # and one more suffix
    "画".encode() * 83 + b".jpg",
)


def test_names_may_be_of_any_bytes_and_of_any_length(run_command, model, picture, tmp_path):
    (tmp_path / "in").mkdir()
    png = (tmp_path / "a.png").read_bytes()
    for name in NAMES:
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(png)
    (tmp_path / "in" / os.fsdecode(b"broken\n\xff.png")).write_bytes(b"no picture")
    run = run_command(
        *("infer.py", "--modelpath", model, "--imagepath", "in/*", "--savepath", "out"),
    )
    assert run.returncode == 1, run.stderr
    assert f"{len(NAMES)} of {len(NAMES) + 1} pictures denoised" in run.stdout
    failed = [line for line in run.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and failed[0].startswith(r"failed: in/broken\n\udcff.png"), failed
    assert "\x1b[31m" not in run.stderr
    results = [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()]
    assert len(results) == len(NAMES)
    assert all(len(name) <= 255 and not name.startswith(b".") for name in results)
    assert {b"\xff\xfe.png", b"new\nline.png", b"-dash.png", b"--adapt.png"} <= {*results}


@pytest.fixture(params=["ascii", "cp1252"])
def narrow_output(request, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", request.param)


def test_output_never_fails_for_its_encoding(narrow_output, run_command, model, picture, tmp_path):
    (tmp_path / "a.png").rename(tmp_path / "σ.png")
    (tmp_path / "画.png").write_bytes(b"no picture")
    run = run_command(
        *("infer.py", "--modelpath", model, "--imagepath", "σ.png", "画.png", "--savepath", "→"),
    )
    assert run.returncode == 1, run.stderr
    assert "1 of 2 pictures denoised, in ->" in run.stdout
    assert r"failed: \u753b.png" in run.stderr
    run = run_command("infer.py", "--modelpath", model, "--imagepath", "画σ", "--savepath", "out")
    assert run.returncode == 2 and r"error: no file matches \u753bsigma" in run.stderr


def test_white_and_what_was_taken_for_it(infer, tmp_path, random):
    deep = random.integers(0, 4096, (20, 24, 3)).astype(np.uint16)
    for name in ("a.tif", "b.tif"):
        write_picture(tmp_path / name, Picture(deep, "TIFF"))
    for name, scale in (("c.tif", 700), ("d.tif", 3)):
        values = (random.random((20, 24, 3)) * scale).astype(np.float32)
        write_picture(tmp_path / name, Picture(values, "TIFF"))
    where = ("--imagepath", ".", "--savepath", "out")
    run = infer(*where)
    assert run.returncode == 0, run.stderr
    notes = [line for line in run.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2, run.stderr
    assert "12 bits, white is 4095: 2 pictures, such as a.tif" in notes[0]
    assert "floats of a range of their own: 2 pictures, such as c.tif (black is 0" in notes[1]
    assert all("--white N" in note for note in notes)
    seen = read_picture(tmp_path / "out" / "a.tif", white=65535).pixels
    assert seen.max() <= 4095

    (tmp_path / "c.tif").unlink(), (tmp_path / "d.tif").unlink()
    run = infer(*where, "--white", "65535")
    assert run.returncode == 0 and "note: " not in run.stderr, run.stderr
    run = infer(*where, "--white", "1000")
    assert run.returncode == 1 and "a.tif: has values from" in run.stderr
    assert "--white 1000" in run.stderr
