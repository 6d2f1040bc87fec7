"""The library: what `import cbsn` gives."""

import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import cbsn
from cbsn.images.image_files import read_picture
from cbsn.noise.synthetic import simulate_camera
from tests.cases import slow_except

OPTIONS = {"precision": "float32", "engine": "tensorflow"}
SMALL = {"channels": 4, "modules": 1, "patch_size": 40, "batch_size": 1, "seed": 3}


@pytest.fixture
def path(model, tmp_path):
    """A tiny model's folder."""
    return tmp_path / model


@pytest.fixture
def denoise(path):
    """A tiny model."""
    return cbsn.load(path, **OPTIONS)


@pytest.fixture
def noisy(photographs):
    return simulate_camera(photographs[0][:96, :80])


def test_public_names_are_there():
    for name in cbsn.__all__:
        assert getattr(cbsn, name) is not None
        assert name in dir(cbsn)
    assert cbsn.load_denoiser is cbsn.load
    with pytest.raises(AttributeError, match="'denois'"):
        cbsn.denois  # noqa: B018
    assert issubclass(cbsn.ModelError, cbsn.CbsnError)


def test_denoise_is_what_the_denoiser_does(path, noisy):
    expected = cbsn.load(path, **OPTIONS)(noisy)
    assert not np.array_equal(expected, noisy)
    np.testing.assert_array_equal(cbsn.denoise(noisy, path, **OPTIONS), expected)
    denoiser = cbsn.load(str(path), **OPTIONS)
    np.testing.assert_array_equal(cbsn.denoise(noisy, model=denoiser), expected)
    half = cbsn.denoise(noisy, path, strength=0.5, **OPTIONS)
    middle = (noisy.astype(float) + expected) / 2
    assert np.abs(half - middle).max() <= 1


@pytest.mark.parametrize("channels", slow_except((None, 1, 2, 3, 4), None, 3))
def test_dtypes_and_shapes_stay(path, random, channels):
    shape = (24, 20) if channels is None else (24, 20, channels)
    for dtype in ("uint8", "uint16", ">u2", "float16", "float32", "float64"):
        image = random.random(shape)
        if np.dtype(dtype).kind == "u":
            image = image * np.iinfo(dtype).max
        image = image.astype(dtype)
        before = image.copy()
        denoised = cbsn.denoise(image, path, **OPTIONS)
        assert (denoised.shape, denoised.dtype) == (shape, np.dtype(dtype))
        np.testing.assert_array_equal(image, before)


def test_lists_and_stacks(path, noisy):
    single = cbsn.denoise(noisy, path, **OPTIONS)
    gray = cbsn.denoise(noisy[..., 0], path, **OPTIONS)
    several = cbsn.denoise([noisy, noisy[..., 0], noisy[:40]], path, **OPTIONS)
    np.testing.assert_array_equal(several[0], single)
    np.testing.assert_array_equal(several[1], gray)
    assert several[2].shape == (40, 80, 3)
    # A batch may be rounded in another way than a single picture.
    stack = cbsn.denoise(np.stack([noisy, noisy]), path, **OPTIONS)
    assert np.abs(stack.astype(int) - single).max() <= 1
    grays = cbsn.denoise(np.stack([noisy[..., 0]] * 2), path, **OPTIONS)
    assert grays.shape == (2, 96, 80) and np.abs(grays.astype(int) - gray).max() <= 1


def test_files_keep_their_values(path, noisy, tmp_path):
    Image.fromarray(noisy).save(tmp_path / "a.png")
    expected = cbsn.denoise(noisy, path, **OPTIONS)
    for name in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(cbsn.denoise(name, path, **OPTIONS), expected)
    few = (noisy[..., 0].astype(np.uint16) << 4) | 15  # 12 bits
    Image.fromarray(few).save(tmp_path / "b.png")
    np.testing.assert_array_equal(
        cbsn.denoise(tmp_path / "b.png", path, **OPTIONS), cbsn.denoise(few, path, **OPTIONS)
    )


def test_mistakes_are_typed(path, noisy, tmp_path):
    with pytest.raises(cbsn.ConfigError, match="no option 'strenght'; did you mean 'strength'"):
        cbsn.denoise(noisy, path, strenght=1)
    with pytest.raises(cbsn.ConfigError, match="has its options already"):
        cbsn.denoise(noisy, cbsn.load(path), strength=1)
    with pytest.raises(cbsn.ConfigError, match="strength"):
        cbsn.load(path, strength=2)
    with pytest.raises(cbsn.ModelError, match="No model at nowhere"):
        cbsn.load("nowhere")
    with pytest.raises(cbsn.ImageError, match=r"nothing\.png"):
        cbsn.denoise("nothing.png", path)
    with pytest.raises(cbsn.ImageError, match="int32"):
        cbsn.denoise(noisy.astype(np.int32), path)
    with pytest.raises(cbsn.ConfigError, match=r"no setting of a training 'step'.*'steps'"):
        cbsn.train(tmp_path, step=4)
    with pytest.raises(cbsn.ConfigError, match=r"no setting of evaluate 'bordr'.*'border'"):
        cbsn.evaluate(path, noisy=tmp_path, bordr=4)
    with pytest.raises(cbsn.ConfigError, match="minutes"):
        cbsn.adapt(noisy, path, minutes=0)


def test_shapes_that_are_no_stack(path, noisy):
    with pytest.raises(cbsn.ImageError, match="at most 4 channels"):
        cbsn.denoise(np.zeros((20, 24, 5), np.uint8), path)
    planes = np.moveaxis(noisy, -1, 0)
    with pytest.warns(cbsn.CbsnWarning, match=r"taken for 3 gray images; give .*\[H, W, 3\]"):
        assert cbsn.denoise(planes, path, **OPTIONS).shape == planes.shape


def test_arguments_of_other_types(path, noisy, tmp_path):
    for model in (None, 5):
        with pytest.raises(cbsn.ConfigError, match="a name, a path or a Denoiser"):
            cbsn.denoise(noisy, model)
    with pytest.raises(cbsn.ConfigError, match="strength"):
        cbsn.denoise(noisy, path, strength="0.5")
    with pytest.raises(cbsn.ImageError, match="is a folder; give its files"):
        cbsn.denoise(tmp_path, path)
    with pytest.raises(cbsn.ConfigError, match=r"needs a model\. Received: \[\]"):
        cbsn.denoise(noisy, [])
    with pytest.raises(cbsn.ConfigError, match=r"a name or a path\. Received: None"):
        cbsn.load(None)
    with pytest.raises(cbsn.ConfigError, match=r"--white must be a number above 0.*'a'"):
        cbsn.denoise(noisy, path, white="a")
    with pytest.raises(cbsn.ConfigError, match=r"--steps must be a number.*'a'"):
        cbsn.train(tmp_path, steps="a")
    with pytest.raises(cbsn.ConfigError, match=r"pictures takes a path\. Received: pictures=\["):
        cbsn.train([tmp_path])
    with pytest.raises(cbsn.ConfigError, match=r"out takes a path\. Received: out=5"):
        cbsn.train(tmp_path, out=5)
    with pytest.raises(cbsn.ConfigError, match=r"recipe takes a text\. Received: recipe=\["):
        cbsn.train(tmp_path, ["cbsn"])
    with pytest.raises(cbsn.ConfigError, match=r"--border must be a whole number.*'2'"):
        cbsn.evaluate(path, noisy=tmp_path, clean=tmp_path, border="2")
    for function in (cbsn.evaluate, cbsn.estimate_noise):
        with pytest.raises(cbsn.ConfigError, match=r"a path or an array, or several.*: 5"):
            function(5)
    with pytest.raises(cbsn.ConfigError, match=r"minutes .* must be a number above 0.*'5'"):
        cbsn.adapt(noisy, path, minutes="5")
    with pytest.raises(cbsn.ConfigError, match=r"out takes a path\. Received: out=5"):
        cbsn.adapt(noisy, path, out=5)
    with pytest.raises(cbsn.ImageError, match="A batch holds pictures of one shape"):
        cbsn.load(path, **OPTIONS).batch([noisy, noisy[1:]])


@pytest.mark.parametrize(
    "options",
    [
        *({"repair": ["pixels"]}, {"recipe": 5}, {"precision": np.float32}, {"engine": 1}),
        *({"self_ensemble": "no"}, {"r3": 1}, {"seed": 1.5}, {"tile": [8]}, {"rounding": True}),
    ],
    ids=str,
)
def test_options_of_another_type_are_named(path, options):
    with pytest.raises(cbsn.ConfigError, match=rf"{next(iter(options))} .*Received: .*"):
        cbsn.load(path, **options)


@pytest.mark.parametrize(
    "options",
    [
        *({"normalize": (100, 4095)}, {"roi": (0, 5, 0, 5)}, {"axes": ["T", "Y", "X"]}),
        *({"select": 1}, {"nan": True}, {"dtype": np.float32}),
    ],
    ids=str,
)
def test_options_of_stacks_of_another_type_are_named(path, options):
    with pytest.raises(cbsn.ConfigError, match=rf"{next(iter(options))} takes a text\. Received"):
        cbsn.denoise(np.zeros((3, 8, 8), np.uint8), path, **{"axes": "TYX", **options})


def test_the_home_folder_is_found(path, noisy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    Image.fromarray(noisy).save(tmp_path / "a.png")
    clean = cbsn.denoise("~/a.png", path, **OPTIONS)
    np.testing.assert_array_equal(clean, cbsn.denoise(tmp_path / "a.png", path, **OPTIONS))


def test_representations(path):
    assert repr(cbsn.load(path, **OPTIONS)) == f"Denoiser('{path}', float32, tensorflow)"


def test_a_model_that_was_replaced_is_loaded_again(path, noisy, tmp_path):
    from cbsn.models.folder import save_model
    from cbsn.models.loading import load_model

    before = cbsn.denoise(noisy, path, **OPTIONS)
    recipe, network = load_model(path)
    network.set_weights([1.5 * each for each in network.get_weights()])
    save_model(path, recipe, network, {})
    after = cbsn.denoise(noisy, path, **OPTIONS)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, cbsn.load(path, **OPTIONS)(noisy))


def test_threads_take_turns(path, photographs):
    denoiser = cbsn.load(path, **OPTIONS)
    images = [photograph[:60, : 40 + 8 * n] for n, photograph in enumerate(photographs)] * 3
    expected = [denoiser(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for result, wanted in zip(pool.map(denoiser, images), expected, strict=True):
            np.testing.assert_array_equal(result, wanted)


def test_pickles_are_small_and_give_the_same(path, noisy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    denoiser = cbsn.load(path.name, strength=0.5, **OPTIONS)
    pickled = pickle.dumps(denoiser)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")  # the path of the model was relative
    again = pickle.loads(pickled)
    assert again.options == denoiser.options
    np.testing.assert_array_equal(again(noisy), denoiser(noisy))
    made = cbsn.Denoiser(denoiser.recipe, denoiser.network, denoiser.options)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made))(noisy), denoiser(noisy))
    assert pickle.loads(pickle.dumps(denoiser.options)) == denoiser.options


@pytest.mark.slow
def test_adapt_takes_arrays_and_files(path, noisy, tmp_path):
    Image.fromarray(noisy).save(tmp_path / "a.png")
    settings = {"minutes": 0.02, "seed": 1, **OPTIONS}
    adapted = cbsn.adapt([noisy, tmp_path / "a.png"], path, out=tmp_path / "kept", **settings)
    denoised = cbsn.denoise(noisy, adapted)
    np.testing.assert_array_equal(denoised, cbsn.denoise(noisy, tmp_path / "kept", **OPTIONS))
    denoiser = cbsn.load(path, **OPTIONS)
    before = [each.copy() for each in denoiser.network.get_weights()]
    stack = np.stack([noisy, noisy])
    assert isinstance(cbsn.adapt(stack, denoiser, minutes=0.02), cbsn.Denoiser)
    for weights, first in zip(denoiser.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, first)


def test_estimate_noise(random, tmp_path):
    sigma = 6
    pictures = [
        (np.full((256, 256, 3), level) + random.normal(0, sigma, (256, 256, 3))).astype("uint8")
        for level in (80, 120, 160)
    ]
    found = cbsn.estimate_noise(pictures)
    assert found.level == pytest.approx([sigma] * 3, rel=0.05)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    for given in (tmp_path, f"{tmp_path}/*.png", np.stack(pictures), [tmp_path]):
        assert cbsn.estimate_noise(given).lines() == found.lines()
    deep = [picture.astype(np.uint16) << 4 for picture in pictures]  # 12 bits
    assert cbsn.estimate_noise(deep, white=4080).level == pytest.approx(found.level, rel=0.01)


def test_evaluate(path, noisy, tmp_path):
    for name in ("noisy", "clean"):
        (tmp_path / name).mkdir()
        Image.fromarray(noisy).save(tmp_path / name / "a.png")
    settings = {"clean": tmp_path / "clean", "precision": "float32", "border": 2}
    scores = cbsn.evaluate(path, noisy=tmp_path / "noisy", **settings)
    assert [each.method for each in scores] == ["noisy", f"cbsn ({path})"]
    assert scores[0].mean("psnr") == np.inf and scores[1].mean("psnr") < 100
    scores = cbsn.evaluate([path], noise_sigma=25, baselines="noisy", **settings)
    assert scores[0].mean("psnr") == pytest.approx(20.2, abs=0.3)


@pytest.mark.slow
def test_train_in_a_script_without_a_guarded_main(noisy, tmp_path):
    """Preparing pictures starts processes, which must not run the script again."""
    for number in range(2):
        Image.fromarray(noisy).save(tmp_path / f"{number}.png")
    script = tmp_path / "script.py"
    script.write_text(
        f"import cbsn\nrun = cbsn.train('*.png', steps=2, out='runs/mine', **{SMALL})\nprint(run)\n"
    )
    run = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(cbsn.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (run.returncode, run.stdout) == (0, f"{Path('runs/mine')}\n"), run.stderr
    assert cbsn.denoise(noisy, tmp_path / "runs" / "mine").shape == noisy.shape


@pytest.mark.slow
def test_nothing_is_printed_unless_asked_for(run_python, noisy, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")  # which would ask for TensorFlow's lines
    Image.fromarray(noisy).save(tmp_path / "a.png")
    code = f"""
        import cbsn
        verbose = VERBOSE
        run = cbsn.train("a.png", steps=2, out="runs/mine", verbose=verbose, **{SMALL})
        cbsn.adapt("a.png", run, minutes=0.01, verbose=verbose)
        cbsn.evaluate(run, noisy="a.png", clean="a.png", verbose=verbose)
        cbsn.denoise("a.png", run)
    """
    quiet = run_python(code.replace("VERBOSE", "False"))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    told = run_python(code.replace("VERBOSE", "True"))
    assert told.returncode == 0 and "Denoise with" in told.stdout and "PSNR" in told.stdout


def test_metadata_of_files_is_no_obstacle(path, noisy, tmp_path):
    exif = Image.Exif()
    exif[271] = "a camera"
    Image.fromarray(noisy).save(tmp_path / "a.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoised = cbsn.denoise(tmp_path / "a.jpg", path, **OPTIONS)
    assert denoised.shape == read_picture(tmp_path / "a.jpg").pixels.shape


def test_stacks_have_named_axes(denoise, random, tmp_path):
    array = random.poisson(300, (3, 2, 20, 24)).astype(np.uint16)
    clean = cbsn.denoise(array, denoise, axes="TCYX")
    assert clean.shape == array.shape and clean.dtype == array.dtype and (clean != array).any()
    turned = cbsn.denoise(array.transpose(1, 2, 3, 0), denoise, axes="cyxt")
    np.testing.assert_array_equal(turned.transpose(3, 0, 1, 2), clean)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "TCYX"})
    np.testing.assert_array_equal(cbsn.denoise(tmp_path / "a.tif", denoise), clean)
    part = cbsn.denoise(tmp_path / "a.tif", [denoise, denoise], select="c=1", dtype="float32")
    assert part.shape == (3, 1, 20, 24) and part.dtype == np.float32
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as file:
        for planes in array[:, 0], array[:2, 1]:
            file.write(planes, metadata={"axes": "TYX"}, photometric="minisblack")
    shapes = [each.shape for each in cbsn.denoise(tmp_path / "two.ome.tif", denoise)]
    assert shapes == [(3, 20, 24), (2, 20, 24)]


def test_what_is_for_stacks_only(denoise, random, tmp_path):
    array = random.poisson(300, (3, 20, 24)).astype(np.uint16)
    with pytest.raises(cbsn.ConfigError, match="select is for stacks"):
        cbsn.denoise(array, denoise, select="t=1")
    with pytest.raises(cbsn.ConfigError, match="channels of a stack"):
        cbsn.denoise(array[0], [denoise, denoise])
    with pytest.raises(cbsn.ImageError, match="has 3 axes"):
        cbsn.denoise(array, denoise, axes="TCYX")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with pytest.raises(cbsn.ImageError, match="is a stack"):
        cbsn.estimate_noise(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore::cbsn.errors.CbsnWarning")
def test_uncertainty(path, denoise, noisy, random, tmp_path):
    """A pair in the place of each result, in the picture's own units."""
    expected = denoise.with_uncertainty(noisy)
    eight = cbsn.denoise(noisy, path, self_ensemble=True, **OPTIONS)
    np.testing.assert_array_equal(expected[0], eight)

    def check(pair, wanted=expected, unit=1.0):
        clean, sigma = pair
        np.testing.assert_array_equal(clean, wanted[0])
        np.testing.assert_allclose(sigma, unit * wanted[1], rtol=1e-6)
        assert sigma.dtype == np.float32

    check(cbsn.denoise(noisy, path, uncertainty=True, **OPTIONS))
    Image.fromarray(noisy).save(tmp_path / "a.png")
    check(cbsn.denoise(tmp_path / "a.png", denoise, uncertainty=True))
    for each in cbsn.denoise([noisy, tmp_path / "a.png"], denoise, uncertainty=True):
        check(each)
    both = cbsn.denoise(np.stack([noisy, noisy]), denoise, uncertainty=True)
    assert [each.shape for each in both] == [(2, *noisy.shape)] * 2
    check([each[1] for each in both])
    for shape in ((0, 20, 24, 3), (0, 20, 24, 4), (0, 20, 24)):
        clean, sigma = cbsn.denoise(np.zeros(shape, np.uint8), denoise, uncertainty=True)
        assert clean.shape == shape and clean.dtype == np.uint8
        assert sigma.shape == (shape[:3] + (3,) * (len(shape) - 3)) and sigma.dtype == np.float32
    # 12 bits in a file of 16, which the network sees stretched.
    deep = noisy.astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    check(
        cbsn.denoise(tmp_path / "deep.tif", denoise, uncertainty=True),
        denoise.with_uncertainty(deep, white=4095),
    )
    stack = random.poisson(200, (3, 64, 60)).astype(np.uint16)
    clean, sigma = cbsn.denoise(stack, denoise, axes="TYX", uncertainty=True)
    assert clean.shape == sigma.shape == stack.shape and sigma.min() > 0
    turned = cbsn.denoise(np.moveaxis(stack, 0, 2), denoise, axes="YXT", uncertainty=True)
    np.testing.assert_array_equal(np.moveaxis(turned[1], 2, 0), sigma)
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "TYX"})
    from_file = cbsn.denoise(tmp_path / "s.tif", denoise, uncertainty=True)
    np.testing.assert_array_equal(from_file[1], sigma)


def test_errors_of_arguments_show_no_whole_arrays():
    array = np.ones((40, 40, 3), np.uint8)
    for call in (
        lambda: cbsn.train(array, "n2v-unet"),
        lambda: cbsn.evaluate("photo", noisy=array, clean=array),
        lambda: cbsn.denoise(array, array),
        lambda: cbsn.load(array),
        lambda: cbsn.load(precision=array),
        lambda: cbsn.load(self_ensemble=array),
    ):
        with pytest.raises(cbsn.ConfigError, match=r"ndarray of 40 x 40 x 3, uint8$"):
            call()
