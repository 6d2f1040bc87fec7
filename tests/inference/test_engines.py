import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.inference import engines
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import choose_engine, compile_network
from cbsn.inference.options import DenoiseOptions
from cbsn.models.loading import load_model


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
    assert choose_engine("openvino", "float32", network) == ("openvino", "as asked for")
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
