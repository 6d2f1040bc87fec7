import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.objectives import AsymmetricPixelShuffle
from cbsn.training.trainer import Trainer
from tests import rounding

MASKED = ("bsn.branch1.body.0.weight", "bsn.branch2.body.0.weight")


@pytest.mark.parametrize("name", ["apbsn", "ssbsn"])
def test_loss_and_gradients_golden(golden, torch_model, name):
    data = np.load(golden(f"{name}/wrapper_train.npz"))
    network = torch_model(name)[1]
    with tf.GradientTape() as tape:
        terms = AsymmetricPixelShuffle()(network, data["x"], 0, None)
    np.testing.assert_allclose(terms["total"], data["loss"], rtol=0, atol=1e-4)
    assert terms["blind"] == terms["total"]
    gradients = tape.gradient(terms["total"], [w.value for w in network.trainable_weights])
    names = [key[2:] for key in data.files if key.startswith("g/")]
    for result, key in zip(gradients, names, strict=True):
        wanted = data[f"g/{key}"]
        if key in MASKED:  # PyTorch's mask is not in it
            centre = wanted.shape[0] // 2
            wanted[centre, centre] = 0
            assert not result.numpy()[centre, centre].any()
        error = np.linalg.norm(result - wanted) / np.linalg.norm(wanted)
        assert error <= 1e-3, key


@pytest.mark.slow
@pytest.mark.usefixtures("on_cpu")  # on a GPU: tests/gpu/test_golden.py
@pytest.mark.parametrize("name", ["apbsn", "ssbsn"])
def test_ten_steps_golden(golden, torch_model, name):
    """The trainer's own steps: normalisation, loss and Adam.

    A few weights whose gradients are all rounding go another way than in PyTorch, so the root mean
    square counts.
    """
    data = np.load(golden(f"{name}/wrapper_train.npz"))
    recipe, network = torch_model(name)
    rate, steps = 1e-3, 10
    recipe = dataclasses.replace(recipe, batch_size=1, learning_rate=rate)
    trainer = Trainer(recipe)
    trainer.network.set_weights(network.get_weights())
    batch = tf.constant(data["x"].astype("uint8"))
    losses = [float(trainer.train_step(batch)["total"]) for _ in range(steps)]
    np.testing.assert_allclose(losses, data["adam_loss_curve_lr1e-3"], rtol=0, atol=0.1)
    kernels = {
        "bsn.tail.6.weight": trainer.network.tail[-1].kernel,
        "bsn.branch1.body.0.weight": trainer.network.branches[0].masked.kernel,
    }
    pixels = np.prod(batch.shape[1:3])
    bound = rounding.of_adam(rounding.of_gradients(network, pixels), steps * rate)
    for key, kernel in kernels.items():
        before, wanted, result = data[f"w/{key}"], data[f"adam_w10/{key}"], kernel.numpy()
        if key in MASKED:
            before[1, 1] = wanted[1, 1] = result[1, 1] = 0
        assert rounding.rms(result - wanted) < bound < rounding.rms(wanted - before) / 3, key


def test_the_mosaic_is_that_of_the_stride(random):
    """A network that returns its input leaves nothing; one that shifts it, the mosaic's steps."""
    x = random.normal(size=(2, 12, 18, 3)).astype("float32")
    shapes = []

    class Identity:
        def blind_pass(self, mosaic, random):
            shapes.append(tuple(mosaic.shape))
            return mosaic, None

    for stride, pad in ((1, 2), (3, 0), (6, 2)):
        assert AsymmetricPixelShuffle(stride, pad)(Identity(), x, 0, None)["total"] == 0
    assert shapes == [(2, 16, 22, 3), (2, 12, 18, 3), (2, 36, 42, 3)]


@pytest.mark.parametrize(("stride_b", "pad"), [(0, 2), (5, -1)])
def test_out_of_range(stride_b, pad):
    with pytest.raises(ConfigError, match=f"stride_b={stride_b}, pad={pad}"):
        AsymmetricPixelShuffle(stride_b, pad)
