import functools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from cbsn.augmentation.photo import OwnNoiseAugmentation, PhotoAugmentation
from cbsn.errors import ConfigError
from cbsn.training.step_random import StepRandom


@pytest.mark.parametrize("channels", [1, 3])
def test_pairs(models, channels, recorded, random):
    pictures = random.random((6, 70, 70, channels), np.float32)
    augment = PhotoAugmentation(models(channels), 32)
    pair = ops.convert_to_numpy(augment(ops.convert_to_tensor(pictures), recorded()))
    assert pair.shape == (6, 32, 32, 2 * channels)
    assert pair.dtype == np.float32
    assert pair.min() >= 0 and pair.max() <= 1
    noisy, clean = pair[..., :channels], pair[..., channels:]
    assert 0 < np.abs(noisy - clean).mean() < 0.3


def test_rows_do_not_depend_on_who_computes_them(models, random):
    """One device with all rows, and the second of two, get the same pictures."""
    pictures = tf.constant(random.random((4, 64, 64, 3), np.float32))
    augment = PhotoAugmentation(models(), 32)
    step = tf.constant(3)
    whole = augment(pictures, StepRandom(1, step, 4)).numpy()
    part = augment(pictures[2:], StepRandom(1, step, 4, 2, 2)).numpy()
    # Rounding to 8 bits apart, of which a rounding error may change the direction.
    assert (np.abs(part - whole[2:]) > 1e-5).mean() < 1e-3
    np.testing.assert_allclose(part[..., 3:], whole[2:, ..., 3:], atol=1e-6)


def test_patches_must_fit_jpeg_blocks(models):
    with pytest.raises(ConfigError, match=r"multiple of 16.*--patchsize 64. Received: .* 72"):
        PhotoAugmentation(models(), 72)


@pytest.mark.parametrize("channels", [1, 3])
def test_xla_makes_the_same_pictures(models, channels, recorded, random):
    """To what rounding to 8 bits and to JPEG's steps makes of a rounding error, as below."""
    pictures = tf.constant(random.random((16, 70, 70, channels), np.float32))
    augment = PhotoAugmentation(models(channels), 32)
    plain, xla = (
        tf.function(lambda x: augment(x, recorded()), jit_compile=xla)(pictures).numpy()
        for xla in (False, True)
    )
    np.testing.assert_allclose(plain[..., channels:], xla[..., channels:], atol=1e-5)
    differs = np.abs(plain - xla)[..., :channels] > 1e-4
    assert differs.mean() < 0.01


_ARITHMETIC = {
    *("AddV2", "Sub", "Mul", "FloorDiv", "FloorMod", "Maximum", "Minimum", "SelectV2", "Range"),
    *("Less", "LessEqual", "Greater", "GreaterEqual", "Equal", "Neg", "Sum", "Prod"),
}


@pytest.mark.parametrize("kind", [PhotoAugmentation, OwnNoiseAugmentation])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_computed_with_int32(models, measured, kind, channels):
    """TensorFlow does that in the host's memory, which a GPU waits for; constants it folds."""
    noise = models(channels) if kind is PhotoAugmentation else measured(channels)
    augment = kind(noise, 32)
    graph = (
        tf.function(lambda x, step: augment(x, StepRandom(0, step, 4)))
        .get_concrete_function(tf.TensorSpec((4, 70, 70, channels)), tf.TensorSpec((), tf.int64))
        .graph
    )

    @functools.cache
    def varies(operation):
        if operation.type == "Shape" and operation.inputs[0].shape.is_fully_defined():
            return False
        return operation.type == "Placeholder" or any(varies(x.op) for x in operation.inputs)

    found = [
        operation.name
        for operation in graph.get_operations()
        if operation.type in _ARITHMETIC
        and any(
            x.dtype == tf.int32 and varies(x.op) for x in (*operation.inputs, *operation.outputs)
        )
    ]
    assert found == []


JAX = """
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
import numpy as np
from tests.augmentation.conftest import Recorded, _model
from cbsn.augmentation.photo import PhotoAugmentation

channels = int(sys.argv[1])
augment = PhotoAugmentation([_model(channels, 4.0, True), _model(channels, 10.0, False)], 32)
pictures = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(augment(pictures, Recorded())))
assert "tensorflow" not in sys.modules or channels
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_jax_makes_the_same_pictures(models, channels, recorded, random, tmp_path):
    """From the same random numbers.

    The clean side to a rounding error. The noisy one is rounded to 8 bits, and its cosine
    transform to the steps of JPEG: a rounding error of 1e-6 decides these where a value is that
    close to the middle, for 1 of 1,000 values of which all have 255 steps, and for whole blocks
    of 64.
    """
    pytest.importorskip("jax", reason="JAX is not installed")
    pictures = random.random((16, 70, 70, channels), np.float32)
    paths = [tmp_path / "pictures.npy", tmp_path / "pairs.npy"]
    np.save(paths[0], pictures)
    subprocess.run([sys.executable, "-c", JAX, str(channels), *map(str, paths)], check=True)
    theirs = np.load(paths[1])
    ours = ops.convert_to_numpy(
        PhotoAugmentation(models(channels), 32)(ops.convert_to_tensor(pictures), recorded())
    )
    np.testing.assert_allclose(ours[..., channels:], theirs[..., channels:], atol=1e-5)
    differs = np.abs(ours - theirs)[..., :channels] > 1e-4
    assert differs.mean() < 0.01
