import importlib.util
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import CbsnWarning, ConfigError
from cbsn.inference import engines, passes
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import Calls, choose_engine, compile_network
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.passes import AUTO_TILE
from cbsn.inference.tiling import Tiling
from cbsn.models.loading import load_model
from cbsn.recipes import customised


@pytest.fixture
def machine(monkeypatch):
    """Pretends to be a machine with or without these."""

    def pretend(*, amx=True, installed=True, gpu=False):
        spec = object() if installed else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        monkeypatch.setattr(engines, "cpu_flags", lambda: {"amx_bf16"} if amx else {"avx2"})
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"] * gpu)

    return pretend


@pytest.mark.parametrize(
    ("there", "precision", "expected"),
    [
        ({}, "mixed_bfloat16", "openvino"),
        ({}, "float32", "tensorflow"),
        ({"amx": False}, "mixed_bfloat16", "tensorflow"),
        ({"gpu": True}, "mixed_bfloat16", "tensorflow"),
        ({"installed": False}, "mixed_bfloat16", "tensorflow"),
        ({"num_attention": 2}, "mixed_bfloat16", "tensorflow"),
    ],
)
def test_auto(machine, there, precision, expected):
    network = SimpleNamespace(num_attention=there.pop("num_attention", 0))
    machine(**there)
    chosen, why = choose_engine("auto", precision, network)
    assert chosen == expected
    assert "OpenVINO" in why or "TensorFlow" in why


def test_what_is_asked_for_is_taken_or_refused(machine):
    network, attentive = (SimpleNamespace(num_attention=count) for count in (0, 2))
    machine(amx=False)
    assert choose_engine("openvino", "float32", network) == ("openvino", "as requested")
    with pytest.raises(ConfigError, match="--precision mixed_float16"):
        choose_engine("openvino", "mixed_float16", network)
    with pytest.raises(ConfigError, match="self-similarity attention"):
        choose_engine("openvino", "float32", attentive)
    with pytest.raises(ConfigError, match=r"auto or one of tensorflow, openvino.*'onnx'"):
        choose_engine("onnx", "float32", network)
    machine(installed=False)
    with pytest.raises(ConfigError, match=r"pip install '\.\[openvino\]'"):
        choose_engine("openvino", "float32", network)


def test_openvino_computes_the_same(golden, random):
    pytest.importorskip("openvino")
    recipe, network = load_model(golden("small/CBSN_small.ckpt"))
    ours, theirs = (
        compile_network(recipe, network, engine, blind=False) for engine in engines.ENGINES
    )
    side = 2 * network.receptive_field_radius
    for height, width in ((6, 18), (60, 12), (6, 18)):
        x = random.normal(size=(2, height + side, width + side, 3)).astype("float32")
        expected = np.asarray(ours(x))
        assert expected.shape == (2, height, width, 3)
        # Kernels sum up to 144 products in orders of their own, by which each of 12 layers is off
        # by 144 2⁻²⁴ of its values at most: 1.03e-4.
        np.testing.assert_allclose(theirs(x), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("engine", engines.ENGINES)
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
    expected = np.asarray(compile_network(recipe, single, "tensorflow", blind=False)(x))
    result = np.asarray(compile_network(recipe, half, engine, blind=False)(x))
    difference = np.abs(result - expected)
    roundings = 3 * sum(weight.path.endswith("kernel") for weight in single.weights)
    assert _rms(difference) <= np.sqrt(roundings) * 2**-8 * _rms(expected)
    assert difference.max() <= roundings * 2**-8 * np.abs(expected).max()
    if engine == "tensorflow":
        assert _rms(difference) > 2**-10 * _rms(expected)  # so it is not float32


def _rms(x):
    return np.sqrt(np.mean(np.square(x)))


def test_openvino_denoises_to_a_level(golden, random):
    pytest.importorskip("openvino")
    slope = np.linspace(60, 180, 50)[:, None, None]
    picture = np.clip(slope + random.normal(0, 15, (50, 70, 3)), 0, 255).astype("uint8")
    model = load_model(golden("small/CBSN_small.ckpt"), precision="float32")
    ours, theirs = (
        Denoiser(*model, DenoiseOptions(engine=engine, tile=32)) for engine in engines.ENGINES
    )
    # Off by one where the kernels' sums fall on two sides of a half.
    assert np.abs(ours(picture).astype(int) - theirs(picture)).max() <= 1


SMALL = {
    "cbsn": {"filters": 4, "num_modules": 1},
    "apbsn": {"filters": 4, "num_modules": 1},
    "photo": {"filters": 4, "depth": 1},
}
"""Networks that are local, with a border of each kind."""


class Device:
    """Runs a network, and has memory for a number of pixels at once.

    Args:
        run: the network's pass.
        pixels: how many; None for as many as there are.
        late: whether it finds out only when the result is fetched, as GPUs may.
    """

    def __init__(self, run, pixels, late=False):
        self.run, self.pixels, self.late = run, pixels, late
        self.calls = []

    def __call__(self, x):
        self.calls.append(x.shape[:3])
        given = x.copy()
        if self.pixels is None or np.prod(x.shape[:3]) <= self.pixels:
            return self.run(x)

        class Result:
            def __array__(result, dtype=None, copy=None):  # noqa: N805
                np.testing.assert_array_equal(x, given)
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

        return Result() if self.late else np.asarray(Result())


TILING = Tiling(border="zeros", side=None, halo=2, multiple=2)


@pytest.fixture(scope="module")
def models():
    """A recipe and its network by name, and the graphs that there are of it."""
    keras.utils.set_random_seed(1)
    recipes = {name: customised(name, **config) for name, config in SMALL.items()}
    return {name: (recipe, recipe.build_network(), {}) for name, recipe in recipes.items()}


@pytest.fixture
def limited(monkeypatch, models):
    """Makes a denoiser whose networks have memory for a number of pixels."""
    compile_network = passes.compile_network

    def make(name, pixels=None, late=False, **options):
        recipe, network, graphs = models[name]
        devices = []

        def compile_limited(*args, blind, **kwargs):
            if blind not in graphs:
                graphs[blind] = compile_network(*args, blind=blind, **kwargs)
            devices.append(Device(graphs[blind], pixels, late))
            return devices[-1]

        monkeypatch.setattr(passes, "compile_network", compile_limited)
        return Denoiser(recipe, network, DenoiseOptions(**options)), devices

    return make


def _denoise(denoise, images):
    if images.ndim == 4:
        return denoise.batch(images, white=1.0)
    return denoise(images.copy(), in_place=True, white=1.0)


@pytest.mark.parametrize(
    ("name", "options", "on_gpu"),
    [
        ("cbsn", {}, False),
        ("cbsn", {"r3": True}, True),
        ("apbsn", {}, True),  # with R3
        ("apbsn", {"self_ensemble": True, "r3": False}, False),
        ("photo", {}, False),
        ("photo", {"self_ensemble": True}, True),
    ],
)
def test_pixels_stay_the_same(limited, random, monkeypatch, name, options, on_gpu):
    """With room for some tiles, for half a tile, and for less; which GPUs may find out late."""
    monkeypatch.setattr(passes, "has_gpu", lambda: on_gpu)
    for shape in ((70, 83, 3), (3, 20, 30, 3), (60, 70, 1)):
        images = random.random(shape).astype(np.float32)
        expected = _denoise(limited(name, **options)[0], images)
        for tile, pixels in ((24, 3000), (0, 3600)):
            denoise, devices = limited(name, pixels, on_gpu, tile=tile, **options)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = _denoise(denoise, images)
            np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)
            largest = max(np.prod(call) for device in devices for call in device.calls)
            assert {each.category for each in caught} == (
                {CbsnWarning} if largest > pixels else set()
            )


def test_what_does_not_fit_is_said_once_and_not_tried_again(limited, random, monkeypatch):
    denoise, [device] = limited("cbsn", 3000, tile=24)
    picture = random.random((200, 200, 3))
    with pytest.warns(CbsnWarning) as caught:
        denoise(picture)
        denoise(picture)
    [note] = caught
    assert "Too little memory" in str(note.message)
    too_many = [call for call in device.calls if np.prod(call) > 3000]
    # Each failure halves what is tried, until it fits.
    assert len(too_many) == len(set(too_many)) <= 6
    monkeypatch.setattr(passes, "has_gpu", lambda: True)
    monkeypatch.setattr(passes, "GPU_PIXELS", AUTO_TILE**2)
    denoise, _ = limited("photo", 7000, tile=96)
    with pytest.warns(CbsnWarning, match=r"cbsn denoise --tile \d+ does so") as caught:
        denoise(picture)
    [note] = caught
    tile = int(str(note.message).split("--tile ")[1].split()[0])
    again, [device] = limited("photo", 7000, tile=tile)
    again(picture)
    assert len(device.calls) > 1 and max(np.prod(call) for call in device.calls) <= 7000


@pytest.mark.parametrize("name", SMALL)
def test_not_even_the_smallest_part_fits(limited, random, name):
    denoise, _ = limited(name, 100)
    with pytest.raises(MemoryError, match=r"too little memory even for \d+ × \d+ pixels"):
        denoise(random.random((80, 80, 3)))


def test_what_else_goes_wrong_is_raised(random):
    def broken(x):
        raise tf.errors.InvalidArgumentError(None, None, "a bug")

    with pytest.raises(tf.errors.InvalidArgumentError, match="a bug"):
        Calls(TILING, 100).start(broken, random.random((1, 8, 8, 3)))


def test_fewer_tiles_are_given_once_there_was_too_little_memory():
    tried = []

    def run(x):
        tried.append(len(x))
        if len(x) > 7:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return x

    calls = Calls(TILING, 1000)
    assert (calls.tiles(10, 10), calls.tiles(100, 100)) == (10, 1)
    x = np.zeros((8, 10, 10, 3))
    with pytest.warns(CbsnWarning, match="8 × 10 × 10 pixels at once: using 4 × 10 × 10"):
        assert calls.finish(run, x, calls.start(run, x)).shape == x.shape
    assert calls.tiles(10, 10) == 4
    assert calls.start(run, x) is None and calls.start(run, x[1:]) is not None
    assert tried == [8, 4, 4, 7]
