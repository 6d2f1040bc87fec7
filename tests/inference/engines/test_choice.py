"""Which engine is chosen."""

import json
import re
import time

import keras
import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.inference import passes
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES, PROVIDERS, cache, choice
from cbsn.inference.engines import tensorflow as tensorflow_engine
from cbsn.inference.engines.choice import choose_engine, fault, measure
from cbsn.inference.engines.engine import Engine
from cbsn.inference.engines.onnxruntime import OnnxRuntime
from cbsn.inference.options import DenoiseOptions
from cbsn.recipes import customised


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    recipe = customised("photo", filters=4, depth=1)
    return recipe, recipe.build_network()


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Where TensorFlow sees a GPU, no engine is compared with it."""
    for module in (choice, tensorflow_engine):
        monkeypatch.setattr(module, "has_gpu", lambda: False)


class Pretended(Engine):
    """An engine that computes what TensorFlow does, and changes the result."""

    def __init__(self, name, change=lambda y: y, is_checked=False):
        self.name, self.change, self.is_checked = name, change, is_checked
        self.calls = 0

    def missing(self):
        return None

    def unfit(self, network, precision):
        return None

    def compile(self, recipe, network, *, blind, single=None):
        run = ENGINES["tensorflow"].compile(recipe, network, blind=blind)

        def changed(x):
            self.calls += 1
            return self.change(np.array(run(x)))

        return changed


@pytest.fixture
def engines(monkeypatch):
    """Replaces the engines but TensorFlow, and the clock by one at which they take some seconds."""

    def use(*others, seconds=None):
        names = {"tensorflow": ENGINES["tensorflow"], **{other.name: other for other in others}}
        monkeypatch.setattr(choice, "ENGINES", names)
        if seconds:
            left = [seconds[name] for name in names]
            monkeypatch.setattr(choice, "_timed", lambda run, x: (np.asarray(run(x)), left.pop(0)))

    return use


def _choices(model, **options):
    denoiser = Denoiser(*model, DenoiseOptions(**options))
    return denoiser, lambda: (denoiser.engine, denoiser.choices)


def test_the_fastest_is_measured_once_there_is_enough_to_do(model, engines, capsys):
    engines(Pretended("quick"), Pretended("slow"), seconds={"tensorflow": 2, "quick": 1, "slow": 3})
    denoiser, now = _choices(model)
    assert now()[0] == "tensorflow" and "so little work" in now()[1]
    denoiser.prepare(1000)
    denoiser(np.zeros((20, 20, 3), np.uint8))
    assert now()[0] == "tensorflow" and capsys.readouterr().out == ""
    denoiser.prepare(10**8)
    assert "Comparing tensorflow, quick, slow, once" in capsys.readouterr().out
    assert now()[0] == "quick"
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", now()[1])]
    assert numbers == sorted(numbers) and len(numbers) == 3
    # Remembered: for other weights of such a network, too, and for little.
    recipe = model[0]
    again = Denoiser(recipe, recipe.build_network())
    assert again.engine == "quick" and "fastest here" in again.choices
    # Not for another network, or in another precision.
    other = customised("photo", filters=4, depth=2)
    assert Denoiser(other, other.build_network()).engine == "tensorflow"
    assert Denoiser(*model, DenoiseOptions(precision="float32")).engine == "tensorflow"
    assert denoiser(np.zeros((20, 20, 3), np.uint8)).shape == (20, 20, 3)
    assert choice.ENGINES["quick"].calls == 2  # the test picture, and this one


@pytest.mark.slow
def test_measured_anew(model, engines):
    engines(Pretended("quick"), seconds={"tensorflow": 2, "quick": 1})
    measure("auto", *model)
    engines(Pretended("quick"), seconds={"tensorflow": 1, "quick": 2})
    assert Denoiser(*model).engine == "quick"
    denoiser, now = _choices(model, engine="auto!")
    assert now()[0] == "tensorflow"
    denoiser(np.zeros((8, 8, 3), np.uint8))
    assert now()[0] == "tensorflow" and "fastest here" in now()[1]
    assert Denoiser(*model).engine == "tensorflow"


def test_a_gain_that_may_be_chance_is_none(model, engines):
    engines(Pretended("other"), seconds={"tensorflow": 1.04, "other": 1.0})
    assert measure("auto", *model).engine.name == "tensorflow"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y: np.roll(y, 3, axis=1), "differs by up to"),
        (lambda y: np.where(np.arange(y.size).reshape(y.shape) % 5000, y, y + 0.1), "differs"),
        (lambda y: y * np.nan, "returns values that are not finite"),
        (lambda y: y[:, 1:], "returns the shape"),
        (lambda y: 1 / 0, "fails (division by zero)"),
    ],
)
def test_what_is_wrong_is_not_used(model, engines, change, reason):
    engines(Pretended("broken", change))
    chosen = measure("auto", *model)
    assert chosen.engine.name == "tensorflow"
    assert f"broken {reason}" in chosen.why
    [known] = cache.measured().values()
    assert reason in known["refused"]["broken"]


def test_a_level_in_few_values_is_right(model):
    _, network = model
    expected, one = np.random.default_rng(0).random((1, 100, 100, 3)), np.ones(3)
    assert fault(expected + 0.9 / 255, expected, one, network) is None
    few = expected.copy()
    few[0, 0, :1] += 0.5
    assert fault(few, expected, one, network) is None
    few[0, 0, :3] += 0.5
    assert "0.03%" in fault(few, expected, one, network)
    # In units of the network, in which a level may be larger.
    assert fault(expected + 2, expected, np.full(3, 1 / 600), network) is None


def test_half_precision_has_its_own_bound(model):
    recipe, single = model
    half = recipe.build_network("mixed_bfloat16")
    expected = np.random.default_rng(0).random((1, 64, 64, 3))
    rounded = expected * (1 + np.random.default_rng(1).uniform(-(2**-8), 2**-8, expected.shape))
    assert fault(rounded, expected, np.ones(3), half) is None
    assert fault(expected * 1.2, expected, np.ones(3), half) is not None
    assert fault(expected * 1.2, expected, np.ones(3), single) is not None


def test_a_gpu_of_another_maker_is_checked_before_it_is_used(model, engines):
    smeared = Pretended("gpu", lambda y: np.roll(y, 1, axis=2), is_checked=True)
    engines(smeared)
    denoise = Denoiser(*model, DenoiseOptions(engine="gpu"))
    with pytest.raises(ConfigError, match=r"gpu differs by .*Received: --engine gpu"):
        denoise(np.full((20, 20, 3), 9, np.uint8))
    right = Pretended("gpu", is_checked=True)
    engines(right)
    denoise = Denoiser(*model, DenoiseOptions(engine="gpu"))
    denoise(np.full((20, 20, 3), 9, np.uint8))
    calls = right.calls
    denoise(np.full((20, 20, 3), 9, np.uint8))
    assert right.calls == calls + 1


def test_providers_are_those_of_onnx_runtime(monkeypatch, model):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    assert ENGINES["onnxruntime"].missing() is None
    assert "no DmlExecutionProvider, but" in ENGINES["onnxruntime-directml"].missing()
    assert [name for name in PROVIDERS if OnnxRuntime(name).is_checked] == [*PROVIDERS][1:]
    there, sessions = onnxruntime.get_available_providers(), []
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [*there, "CoreMLExecutionProvider"]
    )
    make = onnxruntime.InferenceSession

    def on_cpu(content, options, providers):
        sessions.append(providers)
        return make(content, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    assert ENGINES["onnxruntime-coreml"].missing() is None
    denoise = Denoiser(*model, DenoiseOptions(engine="onnxruntime-coreml"))
    denoise(np.zeros((16, 16, 3), np.uint8))
    assert sessions and {*map(tuple, sessions)} == {("CoreMLExecutionProvider",)}


def test_what_is_asked_for_is_taken_or_refused(model, monkeypatch):
    recipe, network = model
    pytest.importorskip("openvino")
    assert choose_engine("openvino", "float32", recipe, network).engine is ENGINES["openvino"]
    with pytest.raises(
        ConfigError, match=r"auto or one of tensorflow, openvino.*Received: --engine onnx$"
    ):
        choose_engine("onnx", "float32", recipe, network)
    with pytest.raises(ConfigError, match=r"only in float32.*--precision mixed_bfloat16"):
        choose_engine("onnxruntime", "mixed_bfloat16", recipe, network)
    half = recipe.build_network("mixed_float16")
    with pytest.raises(ConfigError, match="--precision mixed_float16"):
        choose_engine("openvino", "mixed_float16", recipe, half)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[openvino\]'"):
        choose_engine("openvino", "float32", recipe, network)
    with pytest.raises(ConfigError, match=r"pip install '\.\[onnxruntime\]'"):
        choose_engine("onnxruntime", "float32", recipe, network)
    assert "no other one" in choose_engine("auto", "auto", recipe, network).why


def test_a_gpu_that_tensorflow_sees_needs_no_comparison(model, monkeypatch):
    for module in (choice, tensorflow_engine):
        monkeypatch.setattr(module, "has_gpu", lambda: True)
    chosen = choose_engine("auto", "auto", *model)
    assert (chosen.engine.name, chosen.is_open) == ("tensorflow", False)


def test_a_damaged_cache_is_measured_anew(model, engines, cache_folder):
    engines(Pretended("quick"))
    for content in ("{", "[1]", json.dumps({"a": {}})):
        (cache_folder / "engines.json").write_text(content)
        assert choose_engine("auto", "auto", *model).is_open
    measure("auto", *model)
    assert not choose_engine("auto", "auto", *model).is_open


def test_an_engine_that_was_uninstalled_is_not_chosen(model, engines):
    engines(
        Pretended("quick"), Pretended("other"), seconds={"tensorflow": 2, "quick": 1, "other": 3}
    )
    assert measure("auto", *model).engine.name == "quick"
    choice.ENGINES["quick"].missing = lambda: "it is gone"
    chosen = choose_engine("auto", "auto", *model)
    assert (chosen.engine.name, chosen.is_open) == ("tensorflow", True)


def test_tiles_are_as_large_as_memory_allows(model):
    _, network = model
    side = passes.auto_side(network, ENGINES["tensorflow"])
    window = side + 2 * network.halo
    unit = network.size_multiple
    size = ENGINES["tensorflow"].bytes_per_pixel(network)
    assert side % unit == 0
    assert window**2 * size <= passes.TILE_BYTES < (window + unit + 1) ** 2 * size
    half = customised("photo", filters=4, depth=1).build_network("mixed_bfloat16")
    assert passes.auto_side(half, ENGINES["tensorflow"]) > side
    full = customised("cbsn").build_network()
    assert passes.auto_side(full, ENGINES["tensorflow"]) == passes.AUTO_TILE


@pytest.mark.slow
def test_a_real_measurement(needs_engine):
    """Takes the fastest of what is installed here, whichever it is."""
    needs_engine("openvino", "float32")
    denoiser = Denoiser.load("photo", DenoiseOptions(precision="float32"))
    start = time.monotonic()
    denoiser.prepare(10**8)
    assert time.monotonic() > start
    [known] = cache.measured().values()
    seconds = known["seconds_per_megapixel"]
    assert {"tensorflow", "openvino"} <= {*seconds} and known["refused"] == {}
    fastest = min(seconds, key=seconds.get)
    assert known["engine"] == denoiser.engine
    assert denoiser.engine in (fastest, "tensorflow")
