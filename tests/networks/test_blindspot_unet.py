import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from cbsn.networks import BlindSpotUNet
from cbsn.networks.denoising_network import halve
from cbsn.sampling import to_cells
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


@pytest.mark.parametrize(
    "bad",
    [
        *({"filters": 0}, {"depth": 0}, {"channels": 0}, {"mask_cell": 1}, {"pooling": "mean"}),
        *({"dimensions": 4}, {"replacement": "mean"}, {"z_halvings": 1}),
        *({"z_halvings": 4, "dimensions": 3}, {"z_halvings": -1, "dimensions": 3}),
    ],
)
def test_bad_values_are_named(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        BlindSpotUNet(**bad)


@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 2), (1, 2, 2)])
def test_blur_pooling_is_a_maximum_blurred_then_sampled(random, factors):
    """By SciPy's filters; `nearest` repeats the pixels at the ends, as the network does."""
    x = random.normal(size=(2, *(6 * f for f in factors), 3)).astype("float32")
    expected = np.pad(x, [(0, 0), *((1, 1) if f > 1 else (0, 0) for f in factors), (0, 0)], "edge")
    for axis, factor in enumerate(factors, 1):
        if factor > 1:
            size = expected.shape[axis]
            first, second = (expected.take(range(n, size - 1 + n), axis) for n in (0, 1))
            expected = np.maximum(first, second)
    for axis, factor in enumerate(factors, 1):
        if factor > 1:
            expected = scipy.ndimage.correlate1d(expected, [0.25, 0.5, 0.25], axis)
            expected = expected.take(range(1, expected.shape[axis] - 1, 2), axis)
    np.testing.assert_allclose(halve(x, factors, blur=True), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 2), (1, 2, 2)])
def test_pooling_takes_the_maximum_of_each_cell(random, factors):
    x = random.normal(size=(2, *(3 * f for f in factors), 4)).astype("float32")
    cells = to_cells(tf.constant(x), factors)
    np.testing.assert_array_equal(halve(x, factors), np.max(cells, axis=-2))


def test_blur_pooling_shifts_with_its_input(random):
    """What max-pooling lacks: a constant shifted picture gives nearly the same, shifted."""
    x = random.normal(size=(1, 64, 64, 1)).astype("float32")

    def change(blur):
        here, there = (np.asarray(halve(each, blur=blur)) for each in (x[:, :-2], x[:, 1:-1]))
        return np.mean((here - there) ** 2) / np.var(here)

    assert change(blur=True) < change(blur=False)


def test_without_the_top_skip_the_last_block_sees_no_more_than_its_level():
    with_skip, without = (BlindSpotUNet(4, 2, channels=1, top_skip=skip) for skip in (True, False))
    kernels = [network.decoder[0][0].kernel.shape for network in (with_skip, without)]
    assert kernels == [(3, 3, 8, 4), (3, 3, 4, 4)]
    lower = [network.decoder[1][0].kernel.shape for network in (with_skip, without)]
    assert lower == [(3, 3, 16, 8)] * 2
