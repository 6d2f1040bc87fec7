"""Each engine computes what TensorFlow computes."""

import keras
import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES, cache
from cbsn.inference.engines.engine import RunsByShape, on_multiples
from cbsn.inference.engines.onnxruntime import load_onnxruntime
from cbsn.inference.options import DenoiseOptions
from cbsn.models.loading import load_model
from cbsn.recipes import customised
from tests.cases import slow_except
from tests.known_noise import know_noise

OTHERS = ("openvino", "onnxruntime")

SMALL = {
    "cbsn": {"filters": 8, "num_modules": 2},
    "apbsn": {"filters": 8, "num_modules": 2},
    "ssbsn": {"filters": 8, "num_modules": 2, "num_attention": 0},
    "tmbsn": {"filters": 8, "depth": 2},
    "n2v-unet": {"filters": 8, "depth": 2},
    "pn2v-unet": {"filters": 8, "depth": 2, "samples": 4},
    "n2n-resunet": {"filters": 8, "depth": 2},
    "photo": {"filters": 8, "depth": 2},
}


@pytest.fixture(scope="module")
def models():
    keras.utils.set_random_seed(1)
    recipes = {name: customised(name, **config) for name, config in SMALL.items()}
    made = {name: (recipe, recipe.build_network()) for name, recipe in recipes.items()}
    know_noise(made["pn2v-unet"][1])
    return made


def _rms(x):
    return np.sqrt(np.mean(np.square(x)))


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("name", slow_except(SMALL, "cbsn", "photo"))
def test_results_are_those_of_tensorflow(models, random, needs_engine, name, engine):
    """In the form for one shape and in that for all others, whether or not sizes are multiples."""
    needs_engine(engine, "float32")
    recipe, network = models[name]
    blind = network.blindness == "always"
    ours = ENGINES["tensorflow"].compile(recipe, network, blind=blind)
    theirs = ENGINES[engine].compile(recipe, network, blind=blind)
    sizes = [(64, 48), (57, 61), (33, 90), (33, 90)]
    if recipe.border == "reflect":
        unit, rim = network.size_multiple, 2 * network.halo
        sizes = [(-(-h // unit) * unit + rim, -(-w // unit) * unit + rim) for h, w in sizes]
    for height, width in sizes:
        x = random.normal(size=(2, height, width, network.channels)).astype("float32")
        fresh = ENGINES[engine].compile(recipe, network, blind=blind)  # a form for this shape
        expected = np.asarray(ours(x))
        # Kernels sum up to 288 products in orders of their own, by which each of 20 layers is off
        # by 288 2⁻²⁴ of its values at most: 3.4e-4.
        bound = 3.4e-4 * np.abs(expected).max()
        for run in (theirs, fresh):
            np.testing.assert_allclose(run(x), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_bfloat16_is_off_by_its_rounding_at_most(golden, random, needs_engine, engine):
    """On any processor: what is multiplied, emulated, or (by OpenVINO, without AVX-512) float32.

    A convolution rounds its kernel, its sums, and the sums with their bias, each by 2⁻⁸ of the
    value at most; sums are taken in float32. Fresh He weights pass on an error as they do a value,
    so that n roundings, independent of each other, add up to √n 2⁻⁸ of the output's size, and to
    n 2⁻⁸ of its largest value if all of them go the same way. A path leads through part of the
    convolutions only, so three roundings for each are more than there are.
    """
    needs_engine(engine, "mixed_bfloat16")
    path = golden("small/CBSN_small.ckpt")
    recipe, single = load_model(path, precision="float32")
    _, half = load_model(path, precision="mixed_bfloat16")
    side = 2 * single.receptive_field_radius
    x = random.normal(size=(2, 60 + side, 48 + side, 3)).astype("float32")
    expected = np.asarray(ENGINES["tensorflow"].compile(recipe, single, blind=False)(x))
    result = np.asarray(ENGINES[engine].compile(recipe, half, blind=False)(x))
    difference = np.abs(result - expected)
    roundings = 3 * sum(weight.path.endswith("kernel") for weight in single.weights)
    assert _rms(difference) <= np.sqrt(roundings) * 2**-8 * _rms(expected)
    assert difference.max() <= roundings * 2**-8 * np.abs(expected).max()
    if engine == "tensorflow":
        assert _rms(difference) > 2**-10 * _rms(expected)  # so it is not float32


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("cbsn", "photo"), {}),
        pytest.param(("tmbsn",), {}, marks=pytest.mark.slow),
        (("cbsn",), {"r3": True}),
        (("cbsn", "photo"), {"self_ensemble": True, "strength": 0.5}),
    ],
)
def test_pictures_are_the_same_to_a_level(models, random, needs_engine, engine, names, options):
    """Tile by tile, whatever is done with the results of the network."""
    needs_engine(engine, "float32")
    slope = np.linspace(60, 180, 71)[:, None, None]
    picture = np.clip(slope + random.normal(0, 15, (71, 90, 3)), 0, 255).astype("uint8")
    for name in names:
        ours, theirs = (
            Denoiser(*models[name], DenoiseOptions(engine=each, tile=32, **options))
            for each in ("tensorflow", engine)
        )
        # Off by one where the kernels' sums fall on two sides of a half.
        assert np.abs(ours(picture).astype(int) - theirs(picture)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", OTHERS)
def test_signals_are_handled_after_networks_are_gone(run_python, needs_engine, engine):
    """Whichever ends first: an engine may handle signals on a stack that ends with it."""
    needs_engine(engine, "float32")
    process = run_python(
        f"""
        import faulthandler, gc, os, signal
        import numpy as np
        from cbsn.inference.engines import ENGINES
        from cbsn.recipes import customised

        faulthandler.enable()  # gives the thread a stack for handlers, which engines replace
        recipe = customised("n2v-unet", filters=4, depth=1)
        network = recipe.build_network()
        first, second = (
            ENGINES["{engine}"].compile(recipe, network, blind=False) for _ in range(2)
        )
        for run in (first, second):
            run(np.zeros((1, 16, 16, network.channels), "float32"))
        del run, first
        gc.collect()
        del second
        gc.collect()
        signal.signal(signal.SIGINT, lambda *_: print("handled"))
        os.kill(os.getpid(), signal.SIGINT)
        """
    )
    assert (process.returncode, process.stdout) == (0, "handled\n"), process.stderr


def test_all_tiles_of_a_picture_have_one_shape(models, random):
    """And they are together hardly larger than the picture with its rims."""

    class Counting(type(ENGINES["openvino"])):
        def compile(self, recipe, network, *, blind, single=None):
            run = ENGINES["tensorflow"].compile(recipe, network, blind=blind)
            return lambda x: shapes.append(x.shape) or run(x)

    for name in ("cbsn", "photo"):
        recipe, network = models[name]
        whole = Denoiser(recipe, network, DenoiseOptions(engine="tensorflow", tile=0))
        for height, width in ((100, 171), (130, 64)):
            shapes = []
            denoiser = Denoiser(recipe, network, DenoiseOptions(engine="tensorflow", tile=48))
            denoiser._choice = type(denoiser._choice)(Counting(), "for this test")
            denoiser._passes = denoiser._make_passes()
            picture = random.integers(0, 256, (height, width, 3)).astype("uint8")
            apart = np.abs(denoiser(picture).astype(int) - whole(picture))
            assert apart.max() <= 1
            assert len(set(shapes)) == 1
            count, h, w, _ = shapes[0]
            assert len(shapes) * count >= (height // 64) * (width // 64)
            assert h <= 48 + 2 * network.halo + network.size_multiple
            assert w <= 48 + 2 * network.halo + network.size_multiple


def test_a_form_for_the_shape_that_comes_most():
    made = []

    def make(shape):
        made.append(shape)
        return lambda x: (shape, x.shape)

    runs = RunsByShape(make)
    a, b = np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 6, 3))
    assert [runs(x)[0] for x in (a, a, b, a, b)] == [a.shape, a.shape, None, a.shape, None]
    assert [runs(b)[0] for _ in range(4)] == [None, None, b.shape, b.shape]
    assert runs(a)[0] is None
    assert made == [a.shape, None, b.shape]


def test_tiles_are_padded_as_the_u_nets_do_it(models, random):
    _, network = models["photo"]
    run = on_multiples(lambda x: np.asarray(network(x)), network)
    for size in ((1, 1), (2, 3), (8, 12), (13, 21)):
        x = random.random((2, *size, 3)).astype("float32")
        np.testing.assert_allclose(run(x), network(x), atol=1e-5)


@pytest.mark.parametrize("engine", OTHERS)
def test_what_cannot_be_computed_is_said(engine, needs_engine, models):
    needs_engine(engine, "float32")
    attentive = customised("ssbsn", filters=4, num_modules=1, num_attention=1).build_network()
    assert "attention" in ENGINES[engine].unfit(attentive, "auto")
    assert ENGINES[engine].unfit(models["photo"][1], "float32") is None
    run = ENGINES[engine].compile(*models["cbsn"], blind=False)
    with pytest.raises(ConfigError, match=rf"use --engine tensorflow\. Received: .*{engine}"):
        run(np.zeros((1, 3, 3, 3), np.float32))  # smaller than the rim


@pytest.mark.parametrize("engine", slow_except(OTHERS, "openvino"))
def test_a_converted_network_is_kept(models, needs_engine, monkeypatch, tmp_path, engine):
    needs_engine(engine, "float32")
    monkeypatch.setenv("CBSN_CACHE", str(tmp_path / "cache"))
    recipe, network = models["cbsn"]
    side = network.size_multiple + 2 * network.halo
    x = np.ones((1, side, side, 3), np.float32)
    first = ENGINES[engine].compile(recipe, network, blind=True)(x)
    [folder] = (tmp_path / "cache/converted").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(f"cbsn.inference.engines.{engine}.frozen_in_float32", lambda *_, **__: None)
        np.testing.assert_array_equal(
            ENGINES[engine].compile(recipe, network, blind=True)(x), first
        )
    # Of other weights, of the other pass, or damaged, it is converted anew.
    [damaged] = (path for path in folder.iterdir() if path.suffix in (".bin", ".onnx"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    np.testing.assert_array_equal(ENGINES[engine].compile(recipe, network, blind=True)(x), first)
    ENGINES[engine].compile(recipe, network, blind=False)(x)
    assert len([*(tmp_path / "cache/converted").iterdir()]) == 2


@pytest.mark.slow
def test_nothing_is_reported_to_the_makers_of_openvino(needs_engine, run_python, tmp_path):
    """Its import does, and its converter, over the network, unless the user has forbidden it."""
    needs_engine("openvino", "float32")
    pytest.importorskip("openvino_telemetry")
    result = run_python(
        f"""
        import os, sys
        os.environ["CBSN_CACHE"] = {str(tmp_path)!r}
        import numpy as np
        import openvino_telemetry
        sent = []
        for name in ("__init__", "send_event", "start_session"):
            setattr(openvino_telemetry.Telemetry, name, lambda *args, **_: sent.append(args))
        from cbsn.inference.engines import ENGINES
        from cbsn.recipes import customised
        recipe = customised("n2v-unet", filters=4, depth=1)
        run = ENGINES["openvino"].compile(recipe, recipe.build_network(), blind=False)
        run(np.zeros((1, 8, 8, 3), np.float32))
        assert sys.modules["openvino_telemetry"] is openvino_telemetry
        print("sent", sent)
        """
    )
    assert result.stdout.splitlines()[-1:] == ["sent []"], result.stderr
    assert [*(tmp_path / "converted").iterdir()]


def test_onnxruntime_is_told_to_report_nothing(needs_engine, monkeypatch):
    """On Windows it would."""
    needs_engine("onnxruntime", "float32")
    onnxruntime = load_onnxruntime()
    told = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: told.append(True))
    load_onnxruntime.cache_clear()
    for _ in range(2):
        assert load_onnxruntime() is onnxruntime
    assert told == [True]


def test_only_the_newest_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("CBSN_CACHE", str(tmp_path))
    for number in range(cache._KEPT + 3):
        cache.keep(f"network-{number}", lambda folder: (folder / "model").write_text("weights"))
    assert len([*(tmp_path / "converted").iterdir()]) == cache._KEPT
    assert cache.find(f"network-{number}") and not cache.find("network-0")


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CBSN_CACHE", str(tmp_path / "file"))
    cache.keep("network", lambda folder: (folder / "model").write_text("weights"))
    cache.add_measured("something", {"engine": "tensorflow"})
    assert cache.find("network") is None and cache.measured() == {}
