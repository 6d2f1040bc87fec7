"""What every network that a recipe may name must do; a new one is tested by being registered."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import NETWORKS, attention

SMALL = {
    "ConditionalBlindSpotNetwork": {"filters": 6, "num_modules": 2},
    "DilatedBlindSpotNetwork": {"filters": 6, "num_modules": 2},
    "SelfSimilarityBlindSpotNetwork": {"filters": 6, "num_modules": 2, "num_attention": 1},
}


# The benchmarks register a network of their own, which is not for users.
OWN = sorted(name for name, network in NETWORKS.items() if network.__module__.startswith("cbsn."))


@pytest.fixture(params=OWN)
def network_class(request):
    assert request.param in SMALL, f"give {request.param} a small configuration here"
    return NETWORKS[request.param]


@pytest.fixture
def network(network_class):
    keras.utils.set_random_seed(1)
    network = network_class(**SMALL[network_class.__name__])
    _randomise_biases(network)
    return network


@pytest.fixture
def local_network(network):
    """The network without what makes it see everything."""
    if network.is_local:
        return network
    config = {**SMALL[type(network).__name__], "num_attention": 0}
    network = type(network)(**config)
    assert network.is_local
    _randomise_biases(network)
    return network


def _randomise_biases(network):
    # Fresh biases are 0, and would hide a bias that leaks or is forgotten.
    generator = np.random.default_rng(2)
    for weight in network.weights:
        if weight.path.endswith("bias"):
            weight.assign(generator.normal(size=weight.shape))


def _gradient_of_own_input(network, x, blind):
    """d output[i, j] / d input[i, j] for all pixels and channel pairs: [pixels, C, C]."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = network(x, blind=blind)
        flat = tf.reshape(y, (-1,))
    jacobian = tape.jacobian(flat, x)
    channels = x.shape[-1]
    pixels = x.shape[1] * x.shape[2]
    jacobian = tf.reshape(jacobian, (pixels, channels, pixels, channels))
    return np.stack([jacobian[i, :, i] for i in range(pixels)])


@pytest.mark.parametrize("size", [(9, 7), (6, 6)])
def test_blind_by_gradient(network, random, size, monkeypatch):
    # SS-BSN's layer normalisation takes the mean and variance of all features, by which a trace of
    # each pixel comes back to it (see test_ssbsn.py); but for them it is blind.
    moment = attention.moment
    monkeypatch.setattr(attention, "moment", lambda *a: keras.ops.stop_gradient(moment(*a)))
    x = random.normal(size=(1, *size, 3)).astype("float32")
    assert np.all(_gradient_of_own_input(network, x, blind=True) == 0)
    sees_itself = np.any(_gradient_of_own_input(network, x, blind=False) != 0)
    assert sees_itself == (not network.always_blind)


def test_config_round_trip(network, random):
    x = random.normal(size=(1, 11, 8, 3)).astype("float32")
    again = type(network).from_config(network.get_config())
    again.set_weights(network.get_weights())
    for blind in (True, False):
        np.testing.assert_array_equal(again(x, blind=blind), network(x, blind=blind))


def test_weights_round_trip(network, random, tmp_path):
    network.save_weights(tmp_path / "model.weights.h5")
    again = type(network)(**SMALL[type(network).__name__])
    again.load_weights(tmp_path / "model.weights.h5")
    x = random.normal(size=(1, 11, 8, 3)).astype("float32")
    np.testing.assert_array_equal(again(x), network(x))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (13, 12), (60, 24)])
def test_any_size_keeps_its_shape(network, random, size):
    x = random.normal(size=(2, *size, 3)).astype("float32")
    for blind in (True, False):
        assert network(x, blind=blind).shape == x.shape


@pytest.mark.parametrize("blind", [True, False])
@pytest.mark.parametrize("multiples", [(1, 1), (2, 5)])
def test_valid_padding_is_the_inside_of_same_padding(local_network, random, blind, multiples):
    network = local_network
    radius = network.receptive_field_radius
    height, width = (network.size_multiple * m + 2 * radius for m in multiples)
    x = random.normal(size=(2, height, width, 3)).astype("float32")
    inside = network(x, blind=blind, padding="same")[:, radius:-radius, radius:-radius]
    np.testing.assert_allclose(network(x, blind=blind, padding="valid"), inside, atol=1e-5)


def test_valid_padding_refuses_sizes_that_do_not_fit(local_network):
    network = local_network
    side = network.size_multiple + 2 * network.receptive_field_radius + 1
    with pytest.raises(ValueError, match="must be a multiple of"):
        network(np.zeros((1, side, side, 3), "float32"), padding="valid")


def test_unknown_sizes_in_the_graph_give_the_same(network, random):
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def graph(x):
        return network(x, blind=False)

    for size in ((12, 12), (13, 7), (1, 1)):
        x = random.normal(size=(1, *size, 3)).astype("float32")
        np.testing.assert_allclose(graph(x), network(x, blind=False), atol=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_computes_in_it_and_returns_float32(network, random, precision):
    half = type(network)(**SMALL[type(network).__name__], dtype=precision)
    half.set_weights(network.get_weights())
    assert {weight.dtype for weight in half.weights} == {"float32"}
    x = random.normal(size=(1, 23, 26, 3)).astype("float32")
    expected, result = network(x).numpy(), half(x).numpy()
    assert result.dtype == np.float32
    difference = np.abs(result - expected).max() / np.abs(expected).max()
    assert 1e-6 < difference < 0.05


def test_valid_padding_is_refused_where_there_is_no_inside(network_class):
    network = network_class(**SMALL[network_class.__name__])
    side = network.size_multiple + 2 * network.receptive_field_radius
    x = np.zeros((1, side, side, 3), "float32")
    with (
        contextlib.nullcontext() if network.is_local else pytest.raises(ValueError, match="'valid'")
    ):
        assert network(x, padding="valid").shape[1] == network.size_multiple


def test_what_is_not_local_is_seen_from_everywhere(network):
    x = tf.random.stateless_normal((1, 60, 60, 3), (1, 2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(network(x, blind=False)[0, 30, 30])
    seen = np.abs(tape.gradient(y, x).numpy()).sum(axis=(0, 3)) > 0
    far = np.abs(np.arange(60) - 30) > network.receptive_field_radius
    assert far.any()
    assert seen[far].any() == seen[:, far].any() == (not network.is_local)


def test_receptive_field_radius_is_exact(local_network):
    network = local_network
    r = network.receptive_field_radius
    size = 2 * r + 5
    x = tf.random.stateless_normal((1, size, size, 3), (1, 2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(network(x, blind=False)[0, r + 2, r + 2])
    rows = np.flatnonzero(np.abs(tape.gradient(y, x).numpy()).sum(axis=(0, 2, 3)))
    assert rows.min() >= 2
    assert rows.max() <= 2 * r + 2
    # The bound is reached, or tiles would be larger than they need be.
    assert rows.max() - rows.min() >= 2 * r - 1
