import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image

from cbsn.evaluation.conventions import psnr
from cbsn.images.image_files import Picture, read_picture, write_picture
from cbsn.images.stacks.opening import is_stack
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES
from cbsn.inference.options import DenoiseOptions
from cbsn.models import loading
from cbsn.models.folder import save_model
from cbsn.noise.synthetic import simulate_camera
from cbsn.recipes import customised
from cbsn.training import adaptation
from tests.cases import slow_except

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_OVERRIDES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Takes the right to read and write anything from root."""

FAST = ("--precision", "float32", "--engine", "tensorflow")
OPTIONS = {"precision": "float32", "engine": "tensorflow"}


@pytest.fixture
def infer(run_here, model):
    """Runs `infer.py` with a tiny model, in this process."""
    return lambda *flags: run_here("infer.py", "--modelpath", model, *flags)


@pytest.fixture
def noisy(tmp_path, random):
    """The pixels of a.png."""
    pixels = random.integers(0, 256, (20, 24, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return pixels


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Tiny models in place of those that ship."""
    for name, filters in (("photo", 2), ("photo_large", 4)):
        recipe = customised("distill", filters=filters, depth=1)
        save_model(tmp_path / name, recipe, recipe.build_network(), {})
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    return tmp_path


def _pixels(path):
    return read_picture(path).pixels


@pytest.mark.slow
def test_golden_pictures(golden, run_command, tmp_path):
    model, pictures = golden("trained/CBSN_iter201500.ckpt"), golden("sample_images")
    run = run_command(
        *("infer.py", "--modelpath", model, "--imagepath", f"{pictures}/*.png"),
        *("--savepath", "new/out", "--rounding=truncate", "--precision=float32"),
    )
    assert run.returncode == 0, run.stderr
    assert "2 of 2 pictures denoised" in run.stdout
    for name in ("samplenoisy1.png", "samplenoisy2.png"):
        result = _pixels(tmp_path / "new" / "out" / name)
        expected = _pixels(golden(f"trained/infer/{name}"))
        off = np.abs(result.astype(int) - expected)
        assert off.max() <= 1 and (off > 0).mean() <= 1e-4


@pytest.mark.slow
def test_help(run_command):
    run = run_command("infer.py", "--help")
    assert run.returncode == 0
    assert "--out" in run.stdout


def test_a_stranger_needs_no_model(run_here, tmp_path):
    crop = (slice(100, 196), slice(150, 250))
    clean = simulate_camera(skimage.data.chelsea(), shot=0, read=0)[crop]
    noisy = simulate_camera(skimage.data.chelsea())[crop]
    write_picture(tmp_path / "in.png", Picture(noisy, "PNG"))
    run = run_here("infer.py", "--imagepath", "*.png", "--savepath", "out", "--quality", "fast")
    assert run.returncode == 0, run.stderr
    assert psnr(clean, _pixels(tmp_path / "out" / "in.png")) > psnr(clean, noisy) + 3


@pytest.mark.parametrize(
    ("quality", "name", "ensemble"),
    [
        ((), "photo_large", False),
        (("--quality", "fast"), "photo", False),
        (("--quality", "default"), "photo_large", False),
        (("--quality", "best"), "photo_large", True),
    ],
)
def test_the_models_that_ship_denoise(run_here, shipped, noisy, quality, name, ensemble):
    run = run_here("infer.py", "--imagepath", "a.png", "--savepath", "out", *quality, *FAST)
    assert run.returncode == 0, run.stderr
    denoiser = Denoiser.load(shipped / name, DenoiseOptions(self_ensemble=ensemble, **OPTIONS))
    np.testing.assert_array_equal(_pixels(shipped / "out" / "a.png"), denoiser(noisy))


@pytest.mark.parametrize(
    "precision", [pytest.param("float32", marks=pytest.mark.slow), "mixed_bfloat16"]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_engine_and_precision_are_those_asked_for(
    infer, needs_engine, noisy, tmp_path, model, engine, precision
):
    """How far they are from each other is in the tests of the engines."""
    needs_engine(engine, precision)
    where = ("--imagepath", "a.png", "--savepath", "out")
    run = infer(*where, "--engine", engine, "--precision", precision)
    assert run.returncode == 0, run.stderr
    assert f"Precision {precision}: as requested. Engine {engine}: as requested." in run.stdout
    options = DenoiseOptions(engine=engine, precision=precision)
    expected = Denoiser.load(tmp_path / model, options)(noisy)
    np.testing.assert_array_equal(_pixels(tmp_path / "out" / "a.png"), expected)


def test_a_mixed_folder(infer, tmp_path):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    noisy = simulate_camera(skimage.data.chelsea())[:40, :50]
    exif = Image.Exif()
    exif[274] = 6
    exif = exif.tobytes().removeprefix(b"Exif\0\0")
    alpha = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50, 1)
    deep = np.concatenate([noisy.astype(np.uint16) * 257, alpha], axis=-1)
    write_picture(source / "deep.png", Picture(deep, "PNG", b"profile", exif))
    write_picture(source / "photo.jpg", Picture(noisy, "JPEG", b"profile", exif))
    write_picture(source / "gray.tif", Picture(noisy[..., :1], "TIFF"))
    write_picture(source / "dot.png", Picture(noisy[:1, :1], "PNG"))
    write_picture(source / "sub" / "dot.png", Picture(noisy[:3, :2], "PNG"))
    (source / "broken.png").write_bytes((source / "deep.png").read_bytes()[:-100])
    (source / "text.png").write_text("no picture")

    run = infer("--imagepath", "in/**/*.*", "--savepath", "out", "--tile", "32")

    assert run.returncode == 1, run.stderr
    assert "5 of 7 pictures denoised" in run.stdout
    assert "failed: in/broken.png" in run.stderr and "failed: in/text.png" in run.stderr
    assert "Traceback" not in run.stderr
    written = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert written == {"deep.png", "photo.png", "gray.tif", "dot.png", "sub/dot.png"}
    result = read_picture(tmp_path / "out" / "deep.png")
    assert result.pixels.dtype == np.uint16
    np.testing.assert_array_equal(result.alpha, alpha)
    assert (result.icc_profile, result.exif) == (b"profile", exif)
    assert np.abs(result.color / 257 - noisy).mean() > 1
    photo = read_picture(tmp_path / "out" / "photo.png")
    assert (photo.icc_profile, photo.exif) == (b"profile", exif)
    assert _pixels(tmp_path / "out" / "gray.tif").shape == (40, 50, 1)


def test_format_and_a_glob_that_the_shell_expanded(infer, noisy, tmp_path):
    for name in ("b.png", "c.png"):
        Image.fromarray(noisy).save(tmp_path / name)
    run = infer("--imagepath", "a.png", "b.png", "c.*", "--savepath", "out", "--format", "jpeg")
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]
    with Image.open(tmp_path / "out" / "a.jpg") as result:
        assert (result.format, result.size) == ("JPEG", (24, 20))


@pytest.mark.parametrize("tile", ["1000000000", str(2**31 - 1)])
def test_tiles_may_be_larger_than_any_picture(infer, noisy, tile):
    run = infer("--imagepath", "a.png", "--savepath", "out", "--tile", tile)
    assert run.returncode == 0, run.stderr


def test_white_and_what_was_taken_for_it(infer, tmp_path, random):
    (tmp_path / "in").mkdir()
    deep = random.integers(0, 4096, (20, 24, 3)).astype(np.uint16)
    for name in ("a.tif", "b.tif"):
        write_picture(tmp_path / "in" / name, Picture(deep, "TIFF"))
    for name, scale in (("c.tif", 700), ("d.tif", 3)):
        values = (random.random((20, 24, 3)) * scale).astype(np.float32)
        write_picture(tmp_path / "in" / name, Picture(values, "TIFF"))
    where = ("--imagepath", "in", "--savepath", "out")
    run = infer(*where)
    assert run.returncode == 0, run.stderr
    notes = [line for line in run.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2, run.stderr
    assert "12 bits, white is 4095: 2 pictures, such as in/a.tif" in notes[0]
    assert "floats with a range of their own: 2 pictures, such as in/c.tif (black is 0" in notes[1]
    assert all("--white N" in note for note in notes)
    seen = read_picture(tmp_path / "out" / "a.tif", white=65535).pixels
    assert seen.max() <= 4095

    for name in ("c.tif", "d.tif"):
        (tmp_path / "in" / name).unlink()
    run = infer(*where, "--white", "65535")
    assert run.returncode == 0 and "note: " not in run.stderr, run.stderr
    run = infer(*where, "--white", "1000")
    assert run.returncode == 1 and "a.tif: has values from" in run.stderr
    assert "--white 1000" in run.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cbsn.errors.CbsnWarning")
def test_what_ships_can_be_adapted_and_kept(run_here, shipped, random, monkeypatch):
    """The model is read once, and nothing is written but the results."""
    loaded = []
    load = loading.load_folder
    monkeypatch.setattr(loading, "load_folder", lambda *each: loaded.append(1) or load(*each))
    noisy = (128 + random.normal(0, 20, (160, 160, 3))).clip(0, 255).astype("uint8")
    Image.fromarray(noisy).save(shipped / "a.png")
    (shipped / "broken.png").write_bytes(b"\x89PNG\r\n")
    flags = ("--adapt", "0.01", "--adapt_save", "kept", "--quality", "fast")
    run = run_here("infer.py", "--imagepath", "*.png", "--savepath", "out", *flags, *FAST)
    assert run.returncode == 1 and "broken.png" in run.stderr, run.stderr
    assert "held out" in run.stdout and "1 of 2 pictures denoised" in run.stdout
    assert "Precision float32: as requested. Engine tensorflow" in run.stdout
    assert len(loaded) == 1
    assert {path.name for path in shipped.iterdir()} == {
        *("photo", "photo_large", "a.png", "broken.png", "out", "kept"),
    }
    denoiser = Denoiser.load(shipped / "kept", DenoiseOptions(**OPTIONS))
    assert denoiser.recipe.network_config["filters"] == 2
    np.testing.assert_array_equal(_pixels(shipped / "out" / "a.png"), denoiser(noisy))


@pytest.fixture
def adapted_at_once(monkeypatch):
    """Adapting takes no time, and changes nothing."""

    def adapt(image_paths, model, minutes, **_):
        return adaptation.Adapted(model.recipe, model.network, {"adapted": False})

    monkeypatch.setattr(adaptation, "adapt", adapt)


def test_a_full_disk_loses_the_model_but_no_picture(
    infer, noisy, tmp_path, adapted_at_once, monkeypatch
):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(adaptation, "save_model", fail)
    flags = ("--adapt", "1", "--adapt_save", "kept")
    run = infer("--imagepath", "a.png", "--savepath", "out", *flags)
    assert run.returncode == 1 and "1 of 1 picture denoised" in run.stdout
    note, error = (
        next(line for line in run.stderr.splitlines() if line.startswith(start))
        for start in ("note: ", "error: ")
    )
    assert "No space left on device" in note and "The pictures are denoised first" in note
    assert "cannot be saved in kept: No space left on device" in error
    assert (tmp_path / "out" / "a.png").exists() and not (tmp_path / "kept").exists()


def test_ctrl_c_writes_nothing(infer, noisy, tmp_path, adapted_at_once, monkeypatch):
    where = ("--imagepath", "a.png", "--savepath", "out", "--adapt", "1", "--adapt_save", "kept")
    assert infer(*where).returncode == 0

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    monkeypatch.setattr(adaptation, "adapt", interrupted)
    assert infer(*where).returncode == 130
    assert before == {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--imagepath", "*.gif"), "no file matches"),
        (("--imagepath", "a.png", "--savepath", "."), "would overwrite"),
        (("--savepath", "a.png"), "a.png"),
        (("--savepath", "x" * 256), "File name too long"),
        (("--savepath", ""), "A path is empty. Write . for the current folder."),
        (("--savepath", "~nobody-of-that-name/out"), "no such user's home folder"),
        (("--modelpath", "nowhere"), "No model at nowhere"),
        (("--tile", "wide"), "tile is auto"),
        (("--gpu", "99"), "--gpu 99"),
        (("--channel", "64"), "--channel"),
        (("--quality", "best"), "--quality best"),
        (("--format", "gif"), "gif"),
        (("--engine", "openvino", "--precision", "mixed_float16"), "--precision mixed_float16"),
        (("--adapt", "0"), "Received: 0"),
        (("--adapt_save", "kept"), "--adapt_save kept"),
        (("--adapt", "1", "--savepath", "."), "would overwrite"),
        (("--adapt", "1", "--adapt_save", "model"), "something else is there"),
        (("--adapt", "1", "--adapt_save", "a.png/deeper/kept"), "Received: a.png/deeper/kept"),
        (("--adapt", "1", "--adapt_save", "x" * 256), "File name too long"),
        (("--adapt", "1", "--modelpath", "nowhere"), "No model at nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line_before_any_work(
    infer, noisy, tmp_path, flags, words, monkeypatch
):
    monkeypatch.setattr(adaptation, "adapt", lambda *_, **__: pytest.fail("adapted"))
    before = sorted(tmp_path.rglob("*"))
    run = infer("--imagepath", "a.png", "--savepath", "out", *flags)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith(("error:", "Trace"))]
    assert len(errors) == 1 and words in errors[0], run.stderr
    assert "Engine" not in run.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_results_go_to_a_folder_next_to_the_picture(infer, noisy, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "photos" / "a.png")
    assert infer("photos").returncode == 0
    assert (tmp_path / "denoised" / "a.png").exists()
    assert infer("photos/a.png").returncode == 0
    assert (tmp_path / "photos" / "denoised" / "a.png").exists()


def test_pictures_must_be_given(infer):
    run = infer()
    assert run.returncode == 2 and "there are no pictures" in run.stderr


def test_pictures_may_stand_anywhere(infer, noisy, tmp_path):
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    run = infer("a.png", "--out", "out", "b.png", "--color-strength", "1")
    assert run.returncode == 0, run.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png"}


@pytest.mark.slow
def test_trees_of_folders_are_kept(infer, noisy, tmp_path):
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "a.png").rename(tmp_path / "photos" / "2024" / "a.png")
    for _ in range(2):  # the second time, the results of the first are not taken
        assert infer("photos", "--recursive", "--out", "photos/out").returncode == 0
    results = list((tmp_path / "photos" / "out").rglob("*.png"))
    assert results == [tmp_path / "photos" / "out" / "2024" / "a.png"]


def test_jpegs_stay_jpegs_on_request(infer, noisy, tmp_path):
    Image.open(tmp_path / "a.png").save(tmp_path / "b.jpg")
    sizes = []
    for quality in (95, 30):
        run = infer("b.jpg", "--out", "out", "--format", "same", "--jpeg_quality", quality)
        assert run.returncode == 0, run.stderr
        assert f"JPEG is written at quality {quality}" in run.stdout
        sizes.append((tmp_path / "out" / "b.jpg").stat().st_size)
    assert sizes[0] > sizes[1]


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
        ("--adapt", "1", "--white", "0"),
    ],
)
def test_numbers_out_of_range_are_told_before_any_work(infer, noisy, tmp_path, flags):
    for weights in (tmp_path / "model").iterdir():
        weights.write_text("This would fail if it was read.")
    (tmp_path / "a.png").write_text("And so would this.")
    run = infer("--imagepath", "a.png", "--savepath", "out", *flags)
    assert run.returncode == 2
    lines = run.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), run.stderr
    assert flags[-2] in lines[0] or (flags[0] == "--adapt" and "minutes" in lines[0])
    assert not (tmp_path / "out").exists()


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
    """Makes a folder without some permissions, until the test has ended."""
    folder = tmp_path / "locked"
    folder.mkdir()
    yield folder.chmod
    folder.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "flags", "words"),
    [
        (0o000, ("--imagepath", "locked", "--savepath", "out"), "locked"),
        (0o000, ("--imagepath", "locked/a.png", "--savepath", "out"), "locked"),
        (0o000, ("--imagepath", "locked/*.png", "--savepath", "out"), "locked"),
        (0o555, ("--savepath", "locked"), "Permission denied"),
        (0o555, ("--savepath", "locked/deeper/out"), "Permission denied"),
        (
            *(0o555, ("--savepath", "out", "--adapt", "1", "--adapt_save", "locked/kept")),
            "Permission denied",
        ),
    ],
)
def test_folders_without_permission_are_told_in_a_line(
    without_rights, locked, noisy, mode, flags, words
):
    locked(mode)
    run = without_rights("--imagepath", "a.png", *flags)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith(("error:", "Trace"))]
    assert len(errors) == 1 and words in errors[0], run.stderr
    if words != "locked":
        assert str(flags[-1]) in errors[0]
    assert "Engine" not in run.stdout


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


@pytest.mark.slow
def test_names_may_be_of_any_bytes_and_of_any_length(run_command, model, noisy, tmp_path):
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


@pytest.mark.slow
def test_output_never_fails_for_its_encoding(narrow_output, run_command, model, noisy, tmp_path):
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


@pytest.fixture
def stack(tmp_path, random):
    """The pixels of cells.tif, TCYX."""
    pixels = random.integers(100, 900, (3, 2, 20, 24)).astype("uint16")
    tifffile.imwrite(tmp_path / "cells.tif", pixels, imagej=True, metadata={"axes": "TCYX"})
    return pixels


def _small_model(folder, filters):
    recipe = customised("distill", filters=filters, depth=1, channels=1)
    save_model(folder, recipe, recipe.build_network(), {})


def test_stacks_and_pictures_together(infer, noisy, stack, tmp_path):
    run = infer("cells.tif", "a.png", "--savepath", "out", "--select", "t=1:", *FAST)
    assert run.returncode == 0, run.stderr
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["a.png", "cells.tif"]
    assert tifffile.imread(tmp_path / "out" / "cells.tif").shape == (2, 2, 20, 24)
    assert "1 of 1 stack denoised" in run.stdout and "1 of 1 picture denoised" in run.stdout


@pytest.mark.parametrize(
    "flags",
    slow_except(
        [
            "cells.tif --model nuclei membrane",
            "--model nuclei membrane cells.tif",
            "--model nuclei --model membrane cells.tif",
        ],
        "--model nuclei membrane cells.tif",
    ),
)
def test_each_channel_may_have_its_model(run_here, stack, tmp_path, flags):
    for filters, name in enumerate(("nuclei", "membrane"), 2):
        _small_model(tmp_path / name, filters)
        run = run_here("infer.py", "cells.tif", "--model", name, "--out", name + "-out", *FAST)
        assert run.returncode == 0, run.stderr
    run = run_here("infer.py", *flags.split(), "--out", "out", *FAST)
    assert run.returncode == 0, run.stderr
    found = tifffile.imread(tmp_path / "out" / "cells.tif")
    for channel, name in enumerate(("nuclei", "membrane")):
        alone = tifffile.imread(tmp_path / f"{name}-out" / "cells.tif")
        np.testing.assert_array_equal(found[:, channel], alone[:, channel])


@pytest.mark.parametrize("planes", [1, 3, 4])
def test_axes_make_a_stack_of_any_tiff_file(infer, tmp_path, random, planes):
    """A plane, and planes that a program has written as the colours of a picture."""
    values = random.poisson(400, (planes, 24, 40)).astype(np.uint16)
    values, axes = (values[0], "YX") if planes == 1 else (values, "ZYX")
    path = tmp_path / "cells.tif"
    written = {} if planes == 1 else {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(path, values, **written)
    assert not is_stack(path)
    run = infer(str(path), "--axes", axes, "--savepath", "out", *FAST)
    assert run.returncode == 0, run.stderr
    assert "1 of 1 stack denoised" in run.stdout
    with tifffile.TiffFile(tmp_path / "out" / "cells.tif") as file:
        assert file.series[0].axes == axes
        result = file.asarray()
    assert (result.shape, result.dtype) == (values.shape, values.dtype)
    changed = (result != values).reshape(planes, -1).any(axis=1)
    assert changed.all()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("a.png", "--roi", "0:9,0:9"), "--roi is for stacks, and none of the pictures is one"),
        (("cells.tif", "--white", "4095"), "--normalize 0,4095: omit --white"),
        (("a.png", "--format", "zarr"), "--format zarr is for stacks, and a.png is a picture"),
        (("a.png", "--model", "other"), "Several models are for the channels of stacks"),
        (("other",), "There are no pictures"),
        (("cells.tif", "--format", "png"), "Stacks are written as tiff or zarr"),
        (("cells.tif", "--adapt", "1", "--model", "other"), "--adapt adapts one model"),
        (("cells.tif", "--select", "t"), "--select takes positions by axis"),
        (("cells.tif", "--normalize", "mean"), "--normalize takes auto, model, deviation"),
        (("cells.tif", "--axes", "QYX"), "--axes: Axes are letters of TZCYXS"),
    ],
)
def test_mistakes_with_stacks_are_told(infer, noisy, stack, tmp_path, monkeypatch, flags, words):
    monkeypatch.setattr(adaptation, "adapt", lambda *_, **__: pytest.fail("adapted"))
    _small_model(tmp_path / "other", 2)
    run = infer(*flags, "--savepath", "out", *FAST)
    assert run.returncode == 2
    assert words in run.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--select", "t=7"), "Nothing is selected on the axis T, which has 3 positions"),
        (("--axes", "TZCYX"), "has 4 axes"),
        (("--normalize", "model"), "no scaling of its own"),
        (("--model", "other", "--model", "other"), "2 channels: give one --model"),
    ],
)
def test_what_does_not_fit_a_stack_is_told(infer, stack, tmp_path, flags, words):
    _small_model(tmp_path / "other", 2)
    run = infer("cells.tif", *flags, "--savepath", "out", *FAST)
    assert run.returncode == 1 and words in run.stderr
    assert not [*(tmp_path / "out").iterdir()]


def test_defects_are_repaired_if_asked(infer, tmp_path, random):
    """Of pictures, of stacks, and told of both; a wrong value is told before any work."""
    frames = random.normal(100, 5, (6, 64, 64)).astype("uint8")
    frames[:, 20, 30] = 250
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    Image.fromarray(frames[0]).save(tmp_path / "b.png")
    offered = infer("a.tif", "b.png", "--out", "before", *FAST)
    assert offered.returncode == 0, offered.stderr
    assert "1 hot pixel in the middle of all planes" in offered.stderr
    assert "--repair pixels" in offered.stderr
    run = infer("a.tif", "b.png", "--repair", "pixels", "--out", "after", *FAST)
    assert run.returncode == 0, run.stderr
    assert "a.tif: 1 hot pixel repaired in all planes." in run.stderr
    assert "note: 1 pixel that lay far beyond the noise around repaired." in run.stderr
    for name, read in (("a.tif", tifffile.imread), ("b.png", _pixels)):
        before, after = (read(tmp_path / folder / name) for folder in ("before", "after"))
        assert (before != after).any()
    refused = infer("b.png", "--repair", "everything", "--out", "never")
    assert refused.returncode == 2 and "--repair takes pixels" in refused.stderr
    assert not (tmp_path / "never").exists()
