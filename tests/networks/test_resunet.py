import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import ResidualAttentionUNet
from tests import rounding


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return ResidualAttentionUNet(filters=8, depth=2)


def test_size():
    network = ResidualAttentionUNet(channels=1)
    assert network.count_params() == 2_062_476
    assert len(network.weights) == 96


def test_it_predicts_the_noise_and_takes_it_off(network, random):
    x = random.normal(size=(1, 12, 16, 3)).astype("float32")
    seen = []
    head = network.head.call
    network.head.call = lambda inputs, **kwargs: seen.append(head(inputs, **kwargs)) or seen[-1]
    y = network(x)
    np.testing.assert_allclose(y, x - seen[0].numpy(), atol=1e-6)
    # A fresh one changes little.
    assert 0 < np.abs(seen[0]).mean() < 0.3


def test_upsampling_starts_without_checkerboards(network, random):
    """Each pixel of the lower resolution becomes four equal ones."""
    for layer in network.doublings:
        kernel = layer.convolution.kernel
        assert np.std(kernel) > 0
        x = random.normal(size=(2, 3, 5, kernel.shape[-2])).astype("float32")
        y = layer(x).numpy()
        assert y.shape == (2, 6, 10, kernel.shape[-1] // 4)
        cells = y.reshape(2, 3, 2, 5, 2, -1)
        first = np.broadcast_to(cells[:, :, :1, :, :1], cells.shape)
        bound = np.prod(kernel.shape[:-1]) * rounding.ROUNDING * np.abs(y).max()
        np.testing.assert_allclose(cells, first, rtol=0, atol=bound)
    kernels = [layer.convolution.kernel.numpy() for layer in network.doublings]
    assert not np.array_equal(*(kernel.ravel()[:8] for kernel in kernels))


def test_gates_weigh_each_pixel_of_the_skip(network, random):
    skip, signal = random.normal(size=(2, 1, 6, 6, 8)).astype("float32")
    shares = network.gates[0](skip, signal).numpy() / skip
    assert np.all((shares > 0) & (shares < 1))
    np.testing.assert_allclose(shares, np.broadcast_to(shares[..., :1], shares.shape), rtol=1e-4)
    other = network.gates[0](skip, -signal).numpy() / skip
    assert np.abs(other - shares).max() > 1e-3


def test_excitation_weighs_channels_by_their_means(network, random):
    block = network.bottom
    x = tf.constant(random.normal(size=(1, 5, 5, 16)), "float32")
    whole = block.second(block.first(x))
    weights = block.excite(block.squeeze(tf.reduce_mean(whole, axis=(1, 2)))).numpy()
    assert weights.shape == (1, 32)
    expected = np.maximum(whole * weights[:, None, None] + block.shortcut(x), 0)
    np.testing.assert_allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("bad", [{"filters": 0}, {"depth": -1}, {"reduction": -1}])
def test_bad_values_are_named(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ResidualAttentionUNet(**bad)
