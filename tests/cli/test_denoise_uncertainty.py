import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions

FAST = ("--precision", "float32", "--engine", "tensorflow")
OPTIONS = DenoiseOptions(precision="float32", engine="tensorflow")


@pytest.fixture
def denoise(run_here, model):
    """Runs `cbsn denoise` with a tiny model, in this process."""
    return lambda *flags: run_here("denoise", *flags, "--model", model, *FAST)


@pytest.fixture
def noisy(tmp_path, random):
    """The pixels of in/a.png: flat, with noise."""
    pixels = random.normal(128, 12, (96, 100, 3)).clip(0, 255).astype("uint8")
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png")
    return pixels


def test_it_lies_next_to_the_result_of_the_self_ensemble(denoise, noisy, tmp_path, model):
    for _ in range(2):  # again, as results are replaced
        run = denoise("in", "--out", "sure", "--uncertainty")
        assert run.returncode == 0, run.stderr
    assert denoise("in", "--out", "eight", "--self_ensemble").returncode == 0
    results = [(tmp_path / name / "a.png").read_bytes() for name in ("sure", "eight")]
    assert results[0] == results[1]
    names = sorted(path.name for path in (tmp_path / "sure").iterdir())
    assert names == ["a.png", "a.uncertainty.tif"]
    _, sigma = Denoiser.load(tmp_path / model, OPTIONS).with_uncertainty(noisy)
    found = tifffile.imread(tmp_path / "sure" / "a.uncertainty.tif")
    assert found.dtype == np.float32 and found.shape == (96, 100, 3)
    np.testing.assert_array_equal(found, sigma)
    assert "note: " not in run.stderr


@pytest.mark.slow
def test_pictures_of_all_kinds(denoise, noisy, tmp_path, random):
    gray = random.normal(2000, 150, (96, 100, 1)).clip(0, 4095).astype(np.uint16)
    alpha = np.dstack([noisy, np.full((96, 100), 255, np.uint8)])
    alpha[:5, :, 3] = 0
    exif = Image.Exif()
    exif[274] = 6
    exif = exif.tobytes().removeprefix(b"Exif\0\0")
    write_picture(tmp_path / "in" / "a.tif", Picture(gray, "TIFF", exif=exif))
    write_picture(tmp_path / "in" / "b.png", Picture(alpha, "PNG", b"profile"))
    write_picture(tmp_path / "in" / "small.png", Picture(noisy[:9, :7], "PNG"))
    run = denoise("in", "--out", "out", "--uncertainty")
    assert run.returncode == 0, run.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("a.png", "a.png.uncertainty.tif", "a.tif", "a.tif.uncertainty.tif"),
        *("b.png", "b.uncertainty.tif", "small.png", "small.uncertainty.tif"),
    }
    found = read_picture(out / "a.tif.uncertainty.tif")
    kept = Image.Exif()
    kept.load(b"Exif\0\0" + found.exif)
    assert kept[274] == 6 and found.pixels.shape == (96, 100, 1)
    # In the file's own units, of 12 bits: not more than the noise, and not 16 times as much.
    assert 5 < tifffile.imread(out / "a.tif.uncertainty.tif").mean() < 1000
    sigma = tifffile.imread(out / "b.uncertainty.tif")
    assert sigma.shape == (96, 100, 3) and not sigma[:5].any() and sigma[5:].min() > 0
    assert read_picture(out / "b.uncertainty.tif").icc_profile is None
    note = next(line for line in run.stderr.splitlines() if "noise cannot be measured" in line)
    assert note.startswith("note: 1 picture, in/small.png: the noise cannot be measured")


@pytest.mark.slow
def test_stacks(denoise, tmp_path, random):
    values = random.poisson(300, (3, 64, 72)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata={"axes": "TYX"})
    run = denoise("a.tif", "--out", "sure", "--uncertainty")
    assert run.returncode == 0, run.stderr
    run = denoise("a.tif", "--out", "eight", "--self_ensemble")
    result, eight = (tifffile.imread(tmp_path / name / "a.tif") for name in ("sure", "eight"))
    np.testing.assert_array_equal(result, eight)
    with tifffile.TiffFile(tmp_path / "sure" / "a.uncertainty.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("TYX", (3, 64, 72))
        assert file.asarray().dtype == np.float32 and file.asarray().min() > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--strength", "0"), "Received: --strength 0"),
        (("--out", "in"), "would overwrite"),
        (("--uncertainty=yes",), "uncertainty"),
    ],
)
def test_mistakes_are_told_in_a_line_before_any_work(denoise, noisy, tmp_path, flags, words):
    before = sorted(tmp_path.rglob("*"))
    run = denoise("in", "--out", "out", "--uncertainty", *flags)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith(("error:", "Trace"))]
    assert len(errors) == 1 and words in errors[0], run.stderr
    assert "Engine" not in run.stdout and sorted(tmp_path.rglob("*")) == before


def test_a_file_that_would_be_overwritten_is_told_before_any_work(denoise, noisy, tmp_path):
    Image.fromarray(noisy[:8, :8]).save(tmp_path / "in" / "a.uncertainty.tif")
    run = denoise("in", "--out", "out", "--uncertainty")
    assert run.returncode == 2 and "would overwrite" in run.stderr
    assert not (tmp_path / "out").exists()


def test_other_commands_refuse_it(run_here, model, tmp_path):
    run = run_here("export", "--model", model, "--out", "x", "--uncertainty")
    assert run.returncode == 2 and "unrecognized arguments: --uncertainty" in run.stderr
    run = run_here("beam", "--model", model, "--input", "a.png", "--out", "x", "--uncertainty")
    assert run.returncode == 2 and "use cbsn denoise --uncertainty" in run.stderr
    assert not (tmp_path / "x").exists()
