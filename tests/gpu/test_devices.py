"""What is set up on a GPU."""

import numpy as np
import pytest
import tensorflow as tf

from tests import rounding


def test_float32_is_multiplied_as_such(device, random):
    """TF32 would round each factor to 11 bits."""
    a, b = random.normal(size=(2, 500, 500)).astype("float32")
    result = tf.matmul(a, b)
    assert device in result.device
    sizes = np.abs(a).astype(float) @ np.abs(b)
    # Its 500 products, and their sum.
    bound = 501 * rounding.ROUNDING * sizes
    assert (np.abs(result - a.astype(float) @ b) <= bound).all()

    def rounded(x):  # the last 13 of 24 bits
        return (x.view("uint32") & 0xFFFFE000).view("float32").astype(float)

    assert (np.abs(rounded(a) @ rounded(b) - a.astype(float) @ b) > bound).any()


def test_convolutions_are_those_of_float32(device, random):
    """By whatever algorithm cuDNN chooses."""
    x = random.normal(size=(2, 64, 64, 64)).astype("float32")
    kernel = random.normal(size=(3, 3, 64, 64)).astype("float32")
    result = tf.nn.conv2d(x, kernel, 1, "SAME")
    with tf.device("CPU:0"):
        expected = tf.nn.conv2d(x.astype(float), kernel.astype(float), 1, "SAME")
        sizes = tf.nn.conv2d(np.abs(x), np.abs(kernel), 1, "SAME")
    bound = 9 * 64 * rounding.ROUNDING * sizes.numpy()
    assert (np.abs(result.numpy() - expected.numpy()) <= bound).all()


@pytest.mark.gpu
def test_memory_is_taken_as_it_is_needed(run_on):
    output = run_on(
        "GPU:0",
        """
        import cbsn
        cbsn.load_denoiser("photo")
        [gpu] = tf.config.get_visible_devices("GPU")[:1]
        print(tf.config.experimental.get_memory_growth(gpu))
        """,
    )
    assert output.split() == ["True"]
