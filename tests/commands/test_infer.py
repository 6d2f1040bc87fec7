import numpy as np
import pytest
import skimage.data
from PIL import Image

from cbsn.evaluation.conventions import psnr
from cbsn.images.image_files import Picture, read_picture, write_picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES
from cbsn.inference.options import DenoiseOptions
from cbsn.models.loading import load_model
from cbsn.noise.camera import simulate_camera


@pytest.fixture
def flags_of_model(golden):
    """Those of the small golden model, which does not denoise."""
    return ("--modelpath", golden("small/CBSN_small.ckpt"))


@pytest.fixture
def infer(flags_of_model, run_here):
    """Runs `infer.py` with that model, in this process."""
    return lambda *flags: run_here("infer.py", *flags_of_model, *flags)


@pytest.fixture
def noisy():
    return simulate_camera(skimage.data.chelsea())[:40, :50]


def test_golden_pictures(golden, run_command, tmp_path):
    model, pictures = golden("trained/CBSN_iter201500.ckpt"), golden("sample_images")
    run = run_command(
        *("infer.py", "--modelpath", model, "--imagepath", f"{pictures}/*.png"),
        *("--savepath", "new/out", "--rounding=truncate", "--precision=float32"),
    )
    assert run.returncode == 0, run.stderr
    assert "2 of 2 pictures denoised" in run.stdout
    for name in ("samplenoisy1.png", "samplenoisy2.png"):
        result = read_picture(tmp_path / "new" / "out" / name).pixels
        expected = read_picture(golden(f"trained/infer/{name}")).pixels
        off = np.abs(result.astype(int) - expected)
        assert off.max() <= 1 and (off > 0).mean() <= 1e-4


def test_a_stranger_needs_no_model(run_command, tmp_path):
    crop = (slice(100, 196), slice(150, 250))
    clean = simulate_camera(skimage.data.chelsea(), shot=0, read=0)[crop]
    noisy = simulate_camera(skimage.data.chelsea())[crop]
    write_picture(tmp_path / "in.png", Picture(noisy, "PNG"))
    run = run_command("infer.py", "--imagepath", "*.png", "--savepath", "out", "--quality", "fast")
    assert run.returncode == 0, run.stderr
    assert psnr(clean, read_picture(tmp_path / "out" / "in.png").pixels) > psnr(clean, noisy) + 3


@pytest.mark.parametrize(
    "precision", [pytest.param("float32", marks=pytest.mark.slow), "mixed_bfloat16"]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_engine_and_precision_are_those_asked_for(
    golden, infer, needs_engine, noisy, tmp_path, engine, precision
):
    """How far they are from each other is in the tests of the engines."""
    needs_engine(engine, precision)
    write_picture(tmp_path / "in.png", Picture(noisy, "PNG"))
    where = ("--imagepath", "in.png", "--savepath", "out")
    run = infer(*where, "--engine", engine, "--precision", precision)
    assert run.returncode == 0, run.stderr
    assert f"Precision {precision}: as asked for. Engine {engine}: as asked for." in run.stdout
    model = load_model(golden("small/CBSN_small.ckpt"), precision=precision)
    expected = Denoiser(*model, DenoiseOptions(engine=engine))(noisy)
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "in.png").pixels, expected)


def test_unusable_engines_are_refused(infer, noisy, tmp_path):
    write_picture(tmp_path / "in.png", Picture(noisy, "PNG"))
    flags = ("--engine", "openvino", "--precision", "mixed_float16")
    run = infer("--imagepath", "in.png", "--savepath", "out", *flags)
    assert (run.returncode, "--precision mixed_float16" in run.stderr) == (2, True)


def test_a_mixed_folder(flags_of_model, run_command, noisy, tmp_path):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
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

    flags = ("--imagepath", "in/**/*.*", "--savepath", "out", "--tile", "32")
    run = run_command("infer.py", *flags_of_model, *flags)

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
    assert read_picture(tmp_path / "out" / "gray.tif").pixels.shape == (40, 50, 1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--imagepath", "*.png", "--savepath", "out"], "no file matches"),
        (["--imagepath", "a.bmp", "--savepath", "."], "would overwrite"),
        (["--imagepath", "a.bmp", "--savepath", "out", "--tile", "wide"], "tile is auto"),
        (["--imagepath", "a.bmp", "--savepath", "out", "--gpu", "99"], "--gpu 99"),
        (["--imagepath", "a.bmp", "--savepath", "out", "--channel", "64"], "--channel"),
        (["--imagepath", "a.bmp", "--savepath", "out", "--quality", "best"], "--quality best"),
        (["--imagepath", "a.bmp", "--savepath", "out", "--adapt", "0"], "--adapt 0"),
        (["--imagepath", "a.bmp", "--savepath", "out", "--adapt_save", "b"], "--adapt_save b"),
        (["--imagepath", "a.bmp"], "--savepath"),
        (["--imagepath", "a.bmp", "--savepath", "out", "--format", "gif"], "gif"),
    ],
)
def test_unusable_flags_exit_with_2_before_any_work(infer, tmp_path, flags, words):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.bmp")
    run = infer(*flags)
    assert run.returncode == 2
    assert words in run.stderr and "Traceback" not in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.bmp"]


def test_a_missing_model_is_said(run_command, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    run = run_command(
        "infer.py", "--modelpath", "nowhere", "--imagepath", "a.png", "--savepath", "out"
    )
    assert run.returncode == 2
    assert "error: No model at nowhere" in run.stderr
    assert not (tmp_path / "out").exists()


def test_format_flag(infer, noisy, tmp_path):
    Image.fromarray(noisy).save(tmp_path / "a.png")
    run = infer("--imagepath", "a.png", "--savepath", "out", "--format", "jpeg")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "out" / "a.jpg") as result:
        assert (result.format, result.size) == ("JPEG", (50, 40))


def test_a_glob_that_the_shell_expanded(infer, noisy, tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(noisy).save(tmp_path / name)
    run = infer("--imagepath", "a.png", "b.png", "c.*", "--savepath", "out")
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_help(run_command):
    run = run_command("infer.py", "--help")
    assert run.returncode == 0
    assert "--savepath" in run.stdout
