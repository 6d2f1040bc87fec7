"""What the tests on a GPU share. Most of them can run on the CPU, too, to see that they work."""

import textwrap

import pytest
import tensorflow as tf


@pytest.fixture(
    params=[
        pytest.param("CPU:0", id="cpu", marks=pytest.mark.slow),
        pytest.param("GPU:0", id="gpu", marks=pytest.mark.gpu),
    ]
)
def device(request):
    """The device that the test computes on."""
    with tf.device(request.param):
        yield request.param


@pytest.fixture
def run_on(run_python):
    """Runs a piece of Python that computes on a device in a process of its own; returns the output.

    `gpus`, of a GPU, says into how many it is divided, and `megabytes` how much memory each of them
    has; without it there is no limit.
    """

    def run(device, code, *, gpus=1, megabytes=None, timeout=400):
        if device.startswith("CPU"):
            setup = 'tf.config.set_visible_devices([], "GPU")'
        elif megabytes:
            setup = f"""\
[gpu, *others] = tf.config.list_physical_devices("GPU")
tf.config.set_visible_devices([gpu], "GPU")
limit = tf.config.LogicalDeviceConfiguration(memory_limit={megabytes})
tf.config.set_logical_device_configuration(gpu, [limit] * {gpus})
"""
        else:
            setup = ""
        result = run_python(
            f"import tensorflow as tf\n{setup}\n{textwrap.dedent(code)}", timeout=timeout
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run
