"""What every network that a recipe may name must do; a new one is tested by being registered."""

import contextlib
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import NETWORKS, layers
from cbsn.networks import ssbsn as attention
from tests import rounding
from tests.known_noise import know_noise

SMALL = {
    "BlindSpotUNet": {"filters": 8, "depth": 2},
    "BlindSpotUNet: N2V2": {
        "filters": 8,
        "depth": 2,
        "pooling": "blur",
        "top_skip": False,
        "replacement": "median",
    },
    "BlindSpotUNet: structN2V": {"filters": 8, "depth": 2, "mask_shape": "x:1", "mask_cell": 3},
    "BlindSpotUNet: volumes": {"filters": 8, "depth": 2, "dimensions": 3, "z_halvings": 1},
    "BlindSpotUNet: thick planes": {"filters": 8, "depth": 1, "dimensions": 3, "pooling": "blur"},
    "ConditionalBlindSpotNetwork": {"filters": 6, "num_modules": 2},
    "DilatedBlindSpotNetwork": {"filters": 6, "num_modules": 2},
    "ProbabilisticBlindSpotUNet": {"filters": 8, "depth": 2, "samples": 5},
    "ProbabilisticBlindSpotUNet: histogram": {
        "filters": 8,
        "depth": 1,
        "samples": 4,
        "noise_model": "histogram",
    },
    "ProbabilisticBlindSpotUNet: volumes": {
        "filters": 8,
        "depth": 1,
        "samples": 3,
        "dimensions": 3,
    },
    "ResidualAttentionUNet": {"filters": 8, "depth": 2, "reduction": 2},
    "SelfSimilarityBlindSpotNetwork": {"filters": 6, "num_modules": 2, "num_attention": 1},
    "TriangularMaskedBlindSpotNetwork": {"filters": 6, "depth": 2, "hole": 5, "denoise_hole": 5},
    "TriangularMaskedBlindSpotNetwork: closed": {
        "filters": 6,
        "depth": 1,
        "hole": 9,
        "denoise_hole": 0,
    },
}

LOCAL = {
    "ResidualAttentionUNet": {"reduction": 0},
    "SelfSimilarityBlindSpotNetwork": {"num_attention": 0},
}
"""What makes networks local that are not."""


# The benchmarks register a network of their own, which is not for users.
OWN = {name for name, network in NETWORKS.items() if network.__module__.startswith("cbsn.")}


def test_every_network_has_a_small_configuration_here():
    assert {_class_name(name) for name in SMALL} == OWN


def _class_name(name):
    return name.partition(":")[0]


@pytest.fixture(scope="module", params=sorted(SMALL))
def make(request):
    """Makes the network, with some arguments changed."""
    network_class = NETWORKS[_class_name(request.param)]
    return lambda **changes: network_class(**{**SMALL[request.param], **changes})


# Networks are made once: no test changes one.
@pytest.fixture(scope="module")
def network(make):
    keras.utils.set_random_seed(1)
    network = make()
    _randomise_biases(network)
    return network


@pytest.fixture(scope="module")
def local_network(network, make):
    """The network without what makes it see everything."""
    if network.is_local:
        return network
    network = make(**LOCAL[type(network).__name__])
    assert network.is_local
    _randomise_biases(network)
    return network


def _switches(network):
    return (True, False) if network.blindness in ("always", "switched") else (False,)


def _randomise_biases(network):
    # Fresh biases are 0, and would hide a bias that leaks or is forgotten.
    generator = np.random.default_rng(2)
    for weight in network.weights:
        if weight.path.endswith("bias"):
            weight.assign(generator.normal(size=weight.shape))
    know_noise(network)


class Draws:
    """Draws as an objective is given them, but the same for all of `rows` rows."""

    def __init__(self, seed, rows=1):
        self._random = np.random.default_rng(seed)
        self._rows = rows

    def integers(self, shape, high):
        first, *others = shape
        own = self._random.integers(0, high, (first // self._rows, *others))
        return tf.constant(np.concatenate([own] * self._rows), "int32")


def _size(network, height, width, planes=5):
    """The size of a picture, or of a volume."""
    return (planes, height, width)[-network.dimensions :]


def _gradient_of_own_input(run, x):
    """d output[i, j] / d input[i, j] for all pixels and channel pairs: [pixels, C, C]."""
    # A copy of the picture for each value of the result. `tape.jacobian` would make a graph first,
    # which takes longer.
    pixels, channels = math.prod(x.shape[1:-1]), x.shape[-1]
    copies = tf.constant(np.repeat(x, x.size, axis=0))
    with tf.GradientTape() as tape:
        tape.watch(copies)
        own = tf.linalg.diag_part(tf.reshape(run(copies), (x.size, x.size)))
    gradient = tf.reshape(tape.gradient(own, copies), (pixels, channels, pixels, channels))
    return np.stack([gradient[i, :, i] for i in range(pixels)])


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("size", [(9, 7), pytest.param((8, 8), marks=pytest.mark.slow)])
def test_blind_by_gradient(network, random, size, monkeypatch):
    # SS-BSN's layer normalisation takes the mean and variance of all features, by which a trace of
    # each pixel comes back to it (see test_ssbsn.py); but for them it is blind.
    moment = attention.moment
    monkeypatch.setattr(attention, "moment", lambda *a: keras.ops.stop_gradient(moment(*a)))
    size = _size(network, *size)
    x = random.normal(size=(1, *size, 3)).astype("float32")
    sees_itself = _gradient_of_own_input(lambda x: network(x, blind=False), x) != 0
    assert sees_itself.any() == (network.blindness != "always")
    if network.blindness == "none":
        return
    seen_with_eyes_shut = np.zeros(size, bool)
    for seed in range(2 if network.blindness == "masked" else 1):
        _, valid = network.blind_pass(tf.constant(x), Draws(seed))
        valid = np.ones(size) if valid is None else valid.numpy()[0, ..., 0]
        assert valid.any()
        assert set(np.unique(valid)) <= {0.0, 1.0}
        gradient = _gradient_of_own_input(
            lambda x, seed=seed: network.blind_pass(x, Draws(seed, len(x)))[0], x
        )
        sees_itself = np.any(gradient != 0, axis=(1, 2)).reshape(size)
        assert not (sees_itself & (valid == 1)).any()
        seen_with_eyes_shut |= sees_itself
    # Elsewhere it is not blind, or masks would be larger than they need be.
    assert seen_with_eyes_shut.any() == (network.blindness == "masked")


def test_blindness_says_what_a_call_does(network):
    x = np.zeros((1, *_size(network, 12, 12), 3), "float32")
    assert network.blindness in ("always", "switched", "masked", "none")
    if network.blindness in ("always", "switched"):
        network(x, blind=True)
    else:
        with pytest.raises(ValueError, match="not blind"):
            network(x, blind=True)
    assert hasattr(network, "blind_pass") == (network.blindness != "none")


def test_config_round_trip(network, random):
    x = random.normal(size=(1, *_size(network, 11, 8), 3)).astype("float32")
    again = type(network).from_config(network.get_config())
    again.set_weights(network.get_weights())
    for blind in _switches(network):
        np.testing.assert_array_equal(again(x, blind=blind), network(x, blind=blind))


def test_weights_round_trip(network, make, random, tmp_path):
    network.save_weights(tmp_path / "model.weights.h5")
    again = make()
    again.load_weights(tmp_path / "model.weights.h5")
    x = random.normal(size=(1, *_size(network, 11, 8), 3)).astype("float32")
    np.testing.assert_array_equal(again(x), network(x))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "size", [(1, 1), (2, 5), (13, 12), pytest.param((60, 24), marks=pytest.mark.slow)]
)
def test_any_size_keeps_its_shape(make, random, size, channels):
    network = make(channels=channels)
    assert network.channels == channels
    x = random.normal(size=(2, *_size(network, *size, planes=size[0]), channels)).astype("float32")
    for blind in _switches(network):
        assert network(x, blind=blind).shape == x.shape


@pytest.mark.parametrize("multiples", [(1, 1), (2, 5)])
def test_valid_padding_is_the_inside_of_same_padding(local_network, random, multiples):
    network = local_network
    radius = network.receptive_field_radius
    plane = (network.size_multiple * m + 2 * radius for m in multiples)
    size = _size(network, *plane, planes=2 * network.z_grid + 2 * network.z_radius)
    x = random.normal(size=(2, *size, 3)).astype("float32")
    for blind in _switches(network):
        inside = network(x, blind=blind, padding="same")[..., radius:-radius, radius:-radius, :]
        if network.dimensions == 3:
            inside = inside[:, network.z_radius : -network.z_radius]
        valid = network(x, blind=blind, padding="valid")
        bound = rounding.of_outputs(network) * np.abs(inside).max()
        np.testing.assert_allclose(valid, inside, rtol=0, atol=bound)


def test_it_pads_as_it_says(network, random):
    """So that tiles that end beyond a picture can be filled in the same way."""
    multiples = _size(network, network.grid, network.grid, network.z_grid)
    if max(multiples) == 1:
        pytest.skip("every size fits")
    size = [3 * multiple + (multiple > 1) for multiple in multiples]
    x = random.normal(size=(2, *size, 3)).astype("float32")
    margins = [(0, -length % multiple) for length, multiple in zip(size, multiples, strict=True)]
    mode = {"reflect": "reflect", "zeros": "constant"}[network.padding_mode]
    padded = np.pad(x, [(0, 0), *margins, (0, 0)], mode=mode)
    inside = (slice(None), *map(slice, size))
    for blind in _switches(network):
        np.testing.assert_array_equal(network(x, blind=blind), network(padded, blind=blind)[inside])


def test_valid_padding_refuses_sizes_that_do_not_fit(local_network, monkeypatch):
    network = local_network
    monkeypatch.setattr(layers, "has_gpu", lambda: False)  # whose dilated form fits every size
    if network.size_multiple == 1:
        pytest.skip("every size fits")
    side = network.size_multiple + 2 * network.receptive_field_radius + 1
    size = _size(network, side, side, network.z_grid + 2 * network.z_radius)
    with pytest.raises(ValueError, match="must be a multiple of"):
        network(np.zeros((1, *size, 3), "float32"), padding="valid")


def test_unknown_sizes_in_the_graph_give_the_same(network, random):
    @tf.function(input_signature=[tf.TensorSpec((*[None] * (1 + network.dimensions), 3))])
    def graph(x):
        return network(x, blind=False)

    for size in ((12, 12), (13, 7), (1, 1)):
        x = random.normal(size=(1, *_size(network, *size, size[0]), 3)).astype("float32")
        np.testing.assert_allclose(graph(x), network(x, blind=False), atol=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_computes_in_it_and_returns_float32(network, make, random, precision):
    half = make(dtype=precision)
    half.set_weights(network.get_weights())
    assert {weight.dtype for weight in half.weights} == {"float32"}
    x = random.normal(size=(1, *_size(network, 23, 26), 3)).astype("float32")
    expected, result = network(x).numpy(), half(x).numpy()
    assert result.dtype == np.float32
    difference = np.abs(result - expected).max() / np.abs(expected).max()
    assert 1e-6 < difference < 0.05


def test_valid_padding_is_refused_where_there_is_no_inside(network):
    side = network.size_multiple + 2 * network.receptive_field_radius
    size = _size(network, side, side, network.z_grid + 2 * network.z_radius)
    x = np.zeros((1, *size, 3), "float32")
    with (
        contextlib.nullcontext() if network.is_local else pytest.raises(ValueError, match="'valid'")
    ):
        shape = network(x, padding="valid").shape[1:-1]
        multiple = network.size_multiple
        assert tuple(shape) == _size(network, multiple, multiple, network.z_grid)


@pytest.mark.usefixtures("on_cpu")
def test_what_is_not_local_is_seen_from_everywhere(network):
    side = max(60, 2 * network.receptive_field_radius + 8) if network.is_local else 60
    middle = side // 2
    x = tf.random.stateless_normal((1, *_size(network, side, side, 1), 3), (1, 2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(network(x, blind=False)[0, ..., middle, middle, :])
    seen = np.abs(tape.gradient(y, x).numpy()).reshape(-1, side, side, 3).sum(axis=(0, 3)) > 0
    far = np.abs(np.arange(side) - middle) > network.receptive_field_radius
    assert far.any()
    assert seen[far].any() == seen[:, far].any() == (not network.is_local)


@pytest.mark.usefixtures("on_cpu")
def test_receptive_field_radius_is_exact(local_network):
    network = local_network
    r, grid = network.receptive_field_radius, network.grid
    side = 2 * r + 5 + grid
    _check_reach(network, -2, _size(network, side, side, 1), r, grid)


@pytest.mark.usefixtures("on_cpu")
def test_z_radius_is_exact(local_network):
    network = local_network
    r, grid = network.z_radius, network.z_grid
    if network.dimensions == 2:
        assert (r, grid, network.z_halo) == (0, 1, 0)
        return
    assert network.z_halo % grid == 0 <= network.z_halo - r < grid
    _check_reach(network, 1, (2 * r + 5 + grid, 8, 8), r, grid)


def _check_reach(network, axis, size, r, grid):
    """Compares the reach along one axis of [N, *size, C] with the gradients at all its places."""
    x = tf.random.stateless_normal((1, *size, 3), (1, 2))
    before = after = 0
    for blind, place in itertools.product(_switches(network), range(r + 2, r + 2 + grid)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(tf.gather(network(x, blind=blind), place, axis=axis))
        gradient = np.moveaxis(np.abs(tape.gradient(y, x).numpy()), axis, 0)
        rows = np.flatnonzero(gradient.reshape(len(gradient), -1).sum(axis=1))
        before, after = max(before, place - rows.min()), max(after, rows.max() - place)
    assert max(before, after) <= r
    # The bound is reached, or tiles would be larger than they need be. What is halved sees
    # further to one side.
    assert before + after >= 2 * r - 1 if grid == 1 else max(before, after) == r
