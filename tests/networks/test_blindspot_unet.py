import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import BlindSpotUNet
from cbsn.training.step_random import StepRandom


def test_size():
    network = BlindSpotUNet(channels=1)
    assert network.count_params() == 2_140_065
    assert len(network.weights) == 36


def _as_in_training(seed, step, rows):
    return StepRandom(seed, tf.constant(step), rows)


@pytest.mark.parametrize("cell", [2, 4])
def test_the_masked_input_never_leaks_the_pixel(random, cell, monkeypatch):
    """By the values themselves: what is hidden may be anything, and the input stays the same."""
    network = BlindSpotUNet(filters=2, depth=1, mask_cell=cell)
    inputs = []
    monkeypatch.setattr(type(network), "transform", lambda self, x: inputs.append(x) or x)
    x = random.normal(size=(3, 16, 20, 3)).astype("float32")
    masks = []
    for step in range(5):
        _, mask = network.blind_pass(tf.constant(x), _as_in_training(1, step, 3))
        masks.append(mask.numpy())
        changed = np.where(masks[-1] == 1, 1e3 + random.normal(size=x.shape), x)
        again = _as_in_training(1, step, 3)
        _, same_mask = network.blind_pass(tf.constant(changed, "float32"), again)
        np.testing.assert_array_equal(same_mask, mask)
        np.testing.assert_array_equal(inputs[-1], inputs[-2])
        np.testing.assert_array_equal(np.any(inputs[-1] != x, axis=-1), masks[-1][..., 0] == 1)
    assert np.mean(masks) == pytest.approx(1 / cell**2)
    assert any((masks[0] != mask).any() for mask in masks[1:])


def test_every_pixel_is_masked_as_often_and_by_each_of_its_cell():
    network = BlindSpotUNet(filters=2, depth=1, mask_cell=2)
    x = np.tile(np.arange(4.0).reshape(1, 2, 2, 1), (1, 60, 60, 3)).astype("float32")
    inputs = []
    network.transform = lambda x: inputs.append(x) or x
    _, mask = network.blind_pass(tf.constant(x), _as_in_training(3, 7, 1))
    masked = mask.numpy()[0, :, :, 0] == 1
    hidden, shown = x[0, masked, 0], inputs[0].numpy()[0, masked, 0]
    counts = np.histogram2d(hidden, shown, bins=4)[0]
    np.testing.assert_array_equal(np.diag(counts), 0)
    assert np.all(counts[~np.eye(4, dtype=bool)] > 3600 / 12 * 0.8)


def test_the_graph_of_a_step_knows_its_sizes():
    network = BlindSpotUNet(filters=2, depth=1)

    @tf.function(input_signature=[tf.TensorSpec((2, 12, 16, 3)), tf.TensorSpec((), tf.int64)])
    def run(x, step):
        return network.blind_pass(x, StepRandom(0, step, 2))

    output, mask = run(tf.ones((2, 12, 16, 3)), tf.constant(3, tf.int64))
    assert output.shape == (2, 12, 16, 3)
    assert mask.shape == (2, 12, 16, 1)


@pytest.mark.parametrize("bad", [{"filters": 0}, {"depth": 0}, {"channels": 0}, {"mask_cell": 1}])
def test_bad_values_are_named(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        BlindSpotUNet(**bad)
