"""Runs tests on a CPU as if it were a GPU: `make test-as-gpu`. A plugin of pytest.

Whatever asks is told that there is a GPU, so XLA compiles training steps, and tiles have one shape.
And convolutions are rounded as by other algorithms: with errors that depend on the size, and that
are there where exact sums are 0, as those of FFT and Winograd's algorithm are. Tests that need
exact sums compute on the CPU, see `on_cpu`. Commands in processes of their own run as they always
do, and so do graphs for other runtimes.
"""

import functools

import tensorflow as tf
from tensorflow.python.eager import context

import cbsn.devices
from tests.rounding import ROUNDING

cbsn.devices.has_gpu = lambda: True

_exact = tf.nn.convolution


def _rounded(y):
    """Adds an error of up to two roundings of the largest value; equal sizes have the same."""
    if y.dtype != tf.float32:
        return y
    shape = tf.shape(y)
    seed = tf.stack([tf.reduce_sum(shape * tf.range(3, 3 + tf.rank(y))), 7])
    error = 2 * ROUNDING * tf.random.stateless_uniform(shape, seed, -1, 1)
    return y + tf.stop_gradient(error * tf.reduce_max(tf.abs(y)))


@functools.wraps(_exact)
def _convolution(x, kernel, *args, **options):
    from cbsn.networks import layers  # imports has_gpu, so not above

    if "CPU" in (context.context().device_name or "") or layers._portable.get():
        return _exact(x, kernel, *args, **options)

    @tf.custom_gradient
    def rounded(x, kernel):
        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                y = _exact(x, kernel, *args, **options)
            return [*map(_rounded, tape.gradient(y, [x, kernel], output_gradients=upstream))]

        return _rounded(_exact(x, kernel, *args, **options)), gradient

    return rounded(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel))


tf.nn.convolution = _convolution
