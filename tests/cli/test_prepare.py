import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from cbsn.data.manifest import MANIFEST_NAME, Manifest
from cbsn.data.records import PatchRecords
from data_prep.convert import LOCK_NAME
from data_prep.prepare import Report

SCRIPT = Path(__file__).parents[2] / "prepare_dataset.py"


@pytest.fixture
def photos(tmp_path, random):
    """Pictures of every kind that is read, some of them small."""
    folder = tmp_path / "photos"
    folder.mkdir()
    color = random.integers(256, size=(300, 520, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "webp", "bmp"):
        Image.fromarray(color).save(folder / f"color.{suffix}")
    Image.fromarray(color[..., 0]).save(folder / "gray.png")
    Image.fromarray(np.dstack([color, color[..., 0]])).save(folder / "alpha.png")
    Image.fromarray(color[:1, :1]).save(folder / "pixel.png")
    return folder


@pytest.mark.slow
def test_folder_is_prepared_then_skipped(run_command, photos, tmp_path):
    flags = ["--dataset", "photos", "--workers", 2]
    done = run_command("prepare_dataset.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "13 patches of 256x256 uint8 from 7 of 7 images" in done.stdout
    assert "reflect-padded: 1," in done.stdout
    assert "7/7" in done.stderr
    assert len(PatchRecords.open(tmp_path / "dataset" / "photos256")) == 13
    done = run_command("prepare_dataset.py", *flags)
    assert (done.returncode, "already done: 7" in done.stdout) == (0, True)


def test_broken_files_are_named_and_the_rest_is_converted(run_here, photos, tmp_path):
    tifffile.imwrite(photos / "deep.tif", np.full((256, 256), 1000, np.uint16))
    (photos / "broken.jpg").write_bytes((photos / "color.jpg").read_bytes()[:3000])
    (photos / "broken.tif").write_bytes((photos / "deep.tif").read_bytes()[:3000])
    (photos / "text.png").write_text("not a picture")
    done = run_here("prepare_dataset.py", "--dataset", photos, "--out", "a/b", "--workers", 1)
    assert done.returncode == 1
    assert "14 patches of 256x256 uint16 from 8 of 11 images" in done.stdout
    for name in ("broken.jpg", "broken.tif", "text.png"):
        assert f"\n  {name}: " in done.stdout
    assert "Traceback" not in done.stderr
    assert len(PatchRecords.open(tmp_path / "a" / "b")) == 14


def test_flags_are_the_arguments_of_prepare(run_here, monkeypatch):
    received = {}

    def prepare(**arguments):
        received.update(arguments)
        return Report(Path(), "done")

    monkeypatch.setattr("data_prep.prepare.prepare", prepare)
    flags = ["--dataset", "photos/col*.png", "--out", "out", "--workers", 1, "--white", 900]
    numbers = ["--patchsize", 100, "--stride", 90, "--offset", 20, "--source", "there", "--force"]
    assert run_here("prepare", *flags, *numbers).stdout == "done\n"
    assert received == {
        "dataset": "photos/col*.png",
        "out": "out",
        "workers": 1,
        "white": 900,
        "patch_size": 100,
        "stride": 90,
        "offset": 20,
        "source": "there",
        "force": True,
        "normalize": "auto",
        "nan": "refuse",
    }


def test_a_stack_is_prepared(run_here, tmp_path, random):
    values = random.random((6, 20, 20)).astype("float32")
    values[3, 4, 5] = np.nan
    tifffile.imwrite(tmp_path / "cells.tif", values)
    flags = ("--axes", "ZYX", "--select", "z=2:5", "--normalize", "0,2", "--out", "out")
    refused = run_here("prepare", "cells.tif", *flags)
    assert refused.returncode == 2 and "--nan fill" in refused.stderr
    done = run_here("prepare", "cells.tif", *flags, "--nan", "fill")
    assert done.returncode == 0, done.stderr
    assert "out: 3 patches of 128x128 float32" in done.stdout
    assert "1 values that are not finite (NaN or infinity) were filled" in done.stdout
    assert "cells.tif: Z 3, Y 20, X 20, float32; scaled from 0 to 2" in done.stdout
    assert Manifest.read(tmp_path / "out").select == "z=2:5"


def test_sidd_validation_blocks(run_here, tmp_path):
    blocks = np.arange(2 * 2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 2, 4, 4, 3)
    for name in ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb"):
        scipy.io.savemat(tmp_path / f"{name}.mat", {name: blocks})
    done = run_here("prepare_dataset.py", "--dataset", "sidd_val", "--source", ".")
    assert done.returncode == 0, done.stderr
    names = [path.name for path in sorted((tmp_path / "dataset/SIDD_VAL/clean").iterdir())]
    assert names == ["0000_00.png", "0000_01.png", "0001_00.png", "0001_01.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "SIDD"], "error: There is no"),
        (["--dataset", "DND", "--source", "there"], "error: There is no *.mat file in"),
        (["--dataset", "SIDD_VAL"], "error: There is no dataset/ValidationNoisyBlocksSrgb.mat"),
        (["--dataset", "nothing"], "error: no file matches nothing"),
        (["--dataset", ".", "--stride", "0"], "error: --stride must be at least 1"),
        (["--dataset", ".", "--white", "nan"], "error: --white must be"),
        (["--dataset", "SIDD", "--white", "5"], "error: The white of SIDD is known"),
        (["--dataset", ".", "--patchsize", str(10**30)], "error: --patch_size must be at most"),
        (["--dataset", ".", "--stride", "x"], "--stride: invalid int value"),
        ([], "error: there are no pictures"),
    ],
)
def test_unusable_flags_give_one_line_and_status_2(run_here, tmp_path, flags, message):
    done = run_here("prepare_dataset.py", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["SIGINT", "SIGKILL"])
def test_stopped_run_leaves_whole_shards_and_goes_on(run_command, tmp_path, random, sent):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.fromarray(random.integers(256, size=(900, 900, 3), dtype=np.uint8)).save(
        photos / "00.png"
    )
    for number in range(1, 160):  # ten chunks of files that take a while
        os.link(photos / "00.png", photos / f"{number:02d}.png")
    flags = ["--dataset", photos, "--out", out, "--stride", "9999", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *flags], stderr=subprocess.PIPE, start_new_session=True
    )
    while process.poll() is None and not (out / MANIFEST_NAME).exists():
        time.sleep(0.005)
    # Ctrl-C reaches the workers, too; a kill only the parent.
    (os.killpg if sent == "SIGINT" else os.kill)(process.pid, getattr(signal, sent))
    # Returns when the workers have closed their end as well: none is left behind.
    _, errors = process.communicate(timeout=240)
    assert process.returncode == (130 if sent == "SIGINT" else -signal.SIGKILL)
    assert b"Traceback" not in errors
    kept = len(PatchRecords.open(out))
    assert 16 <= kept < 160

    done = run_command("prepare_dataset.py", *flags)
    assert done.returncode == 0, done.stderr
    assert f"already done: {kept}," in done.stdout
    assert len(PatchRecords.open(out)) == 160
    assert {path.name for path in out.iterdir()} == {
        LOCK_NAME,
        MANIFEST_NAME,
        *(shard.name for shard in Manifest.read(out).shards),
    }


@pytest.mark.slow
def test_a_folder_without_permission_gives_one_line_and_status_2(photos, tmp_path):
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may read everything, and there is no setpriv")
    powers = "-dac_override,-dac_read_search"
    drop = ["setpriv", f"--bounding-set={powers}", "--inh-caps=-all"] if os.geteuid() == 0 else []
    photos.chmod(0)
    try:
        for flags in (
            ["--dataset", "photos"],
            ["--dataset", "photos/*.png"],
            ["--dataset", "photos/gray.png"],
            ["--dataset", "SIDD", "--source", "photos"],
            ["--dataset", "DND", "--source", "photos"],
            ["--dataset", "SIDD_VAL", "--source", "photos"],
            ["--dataset", "gray.png", "--out", "photos"],
            ["--dataset", "gray.png", "--out", "photos/out"],
        ):
            Image.new("L", (9, 9)).save(tmp_path / "gray.png")
            command = [*drop, sys.executable, str(SCRIPT), *flags]
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 2, done
            assert done.stderr.startswith("error: "), done.stderr
            assert done.stderr.count("\n") == 1
    finally:
        photos.chmod(0o755)


def test_volumes_are_cut_from_a_stack(run_here, tmp_path, random):
    voxels = random.integers(0, 4096, (10, 40, 32)).astype("uint16")
    tifffile.imwrite(tmp_path / "cells.tif", voxels)
    flags = ("--patch_depth", 4, "--patch_size", 16, "--workers", 1, "--out", "out")
    done = run_here("prepare_dataset.py", "cells.tif", *flags)
    assert done.returncode == 2 and "name its axes: --axes ZYX" in done.stderr
    done = run_here("prepare_dataset.py", "cells.tif", "--axes", "ZYX", *flags)
    assert done.returncode == 0, done.stderr
    assert "out: 18 patches of 4x16x16 float32 from 1 of 1 images" in done.stdout
    assert PatchRecords.open(tmp_path / "out")[0].shape == (4, 16, 16, 1)


def test_help_needs_no_tensorflow(run_python):
    done = run_python(
        "import sys, data_prep.prepare, cbsn.cli.flags; sys.exit('tensorflow' in sys.modules)"
    )
    assert done.returncode == 0
