"""The authors' numbers on a GPU, in float32, but for the order of sums."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cbsn.models.loading import load_model
from cbsn.models.tf1_checkpoint import variable_names
from cbsn.objectives import AsymmetricPixelShuffle, DownsampledInvariance
from cbsn.recipes import customised
from cbsn.training.trainer import Trainer
from tests import rounding

MASKED = ("bsn.branch1.body.0.weight", "bsn.branch2.body.0.weight")
"""PyTorch's mask is not in them."""

# The networks of the fixtures for all tests may lie on another device.


@pytest.fixture
def small(device, golden):
    """The golden network of C-BSN."""
    return load_model(golden("small/CBSN_small.ckpt"))[1]


def _torch_network(golden, name, file):
    sizes = {
        "apbsn": {"filters": 16, "num_modules": 2},
        "ssbsn": {"filters": 16, "num_modules": 3, "num_attention": 2},
    }
    recipe = customised(name, **sizes[name])
    network = recipe.build_network()
    data = np.load(golden(f"{name}/{file}"))
    network.set_weights([data[key] for key in data.files if key.startswith("w/")])
    return recipe, network, data


@pytest.mark.parametrize("size", ["even", "odd"])
@pytest.mark.parametrize("blind", [True, False])
def test_cbsn(small, golden, size, blind):
    data = np.load(golden("small/forward.npz"))
    expected = data[f"{'masked' if blind else 'unmasked'}_{size}"]
    result = small(data[f"x_{size}"], blind=blind)
    bound = rounding.of_outputs(small) * np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["apbsn", "ssbsn"])
@pytest.mark.parametrize("size", ["60x60", "61x47", "10x13"])
def test_networks_of_pytorch(device, golden, name, size):
    file = {"apbsn": "dbsnl.npz", "ssbsn": "ssbsnl.npz"}[name]
    _, network, data = _torch_network(golden, name, file)
    x, expected = data[f"x_{size}"], data[f"y_{size}"]
    # Attention and layer normalisation take sums over all pixels.
    more = np.prod(x.shape[1:3]) if name == "ssbsn" else 0
    bound = rounding.of_outputs(network, more=more) * np.abs(expected).max()
    np.testing.assert_allclose(network(x), expected, rtol=0, atol=bound)


class Given:
    """Random numbers that are not: the indices of a golden vector."""

    def __init__(self, indices):
        self.indices = indices

    def integers(self, shape, high):
        return tf.reshape(tf.cast(self.indices, tf.int32), shape)


@pytest.mark.parametrize(("case", "step"), [("zero", 0), ("half", 100_000), ("one", 200_000)])
def test_gradients_of_cbsn(small, golden, case, step):
    data = np.load(golden("small/losses.npz"))
    with tf.GradientTape() as tape:
        terms = DownsampledInvariance()(small, data["x"], step, Given(data["rand_mask"]))
    variables = {w.path.split("/", 1)[1]: w.value for w in small.trainable_weights}
    gradients = tape.gradient(terms["total"], variables)
    expected = np.load(golden("small/grads.npz"))
    pairs = [(gradients[ours], expected[f"{case}:{theirs}"]) for theirs, ours in variable_names(2)]
    _assert_same_gradients(pairs, small, data["x"])


@pytest.mark.parametrize("name", ["apbsn", "ssbsn"])
def test_gradients_of_pytorch(device, golden, name):
    _, network, data = _torch_network(golden, name, "wrapper_train.npz")
    with tf.GradientTape() as tape:
        terms = AsymmetricPixelShuffle()(network, data["x"], 0, None)
    gradients = tape.gradient(terms["total"], [w.value for w in network.trainable_weights])
    names = [key[2:] for key in data.files if key.startswith("g/")]
    pairs = []
    for gradient, key in zip(gradients, names, strict=True):
        wanted = data[f"g/{key}"]
        if key in MASKED:
            wanted[wanted.shape[0] // 2, wanted.shape[1] // 2] = 0
        pairs.append((gradient, wanted))
    _assert_same_gradients(pairs, network, data["x"])


def _assert_same_gradients(pairs, network, x):
    ours, theirs = (
        np.concatenate([np.ravel(g) for g in each]) for each in zip(*pairs, strict=True)
    )
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error <= rounding.of_gradients(network, np.prod(x.shape[:3]))


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", ["apbsn", "ssbsn"])
def test_ten_steps_of_pytorch(device, golden, name, xla):
    rate, steps = 1e-3, 10
    recipe, network, data = _torch_network(golden, name, "wrapper_train.npz")
    recipe = dataclasses.replace(recipe, batch_size=1, learning_rate=rate)
    trainer = Trainer(recipe, xla=xla)
    trainer.network.set_weights(network.get_weights())
    batch = tf.constant(data["x"].astype("uint8"))
    losses = [float(trainer.train_step(batch)["total"]) for _ in range(steps)]
    error = rounding.of_gradients(network, np.prod(data["x"].shape[:3]))
    np.testing.assert_allclose(losses, data["adam_loss_curve_lr1e-3"], rtol=error)
    kernels = {
        "bsn.tail.6.weight": trainer.network.tail[-1].kernel,
        "bsn.branch1.body.0.weight": trainer.network.branches[0].masked.kernel,
    }
    for key, kernel in kernels.items():
        wanted, result = data[f"adam_w10/{key}"], kernel.numpy()
        if key in MASKED:
            wanted[1, 1] = result[1, 1] = 0
        assert rounding.rms(result - wanted) < rounding.of_adam(error, steps * rate), key
