import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from cbsn.colors import LUMA, luma, to_linear, to_srgb

VALUES = np.linspace(0, 1, 256)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_luma(dtype, random):
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    colors = (random.random((4, 5, 6)) * full).astype(dtype)
    found = luma(colors)
    assert (found.shape, found.dtype) == ((4, 5, 2), colors.dtype)
    for shot in range(2):
        expected = colors[..., 3 * shot : 3 * shot + 3].astype(float) @ LUMA
        np.testing.assert_allclose(found[..., shot], expected, atol=0.51 if full > 1 else 1e-6)
    gray = np.repeat(colors[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(luma(gray), gray[..., :1])


def test_the_curve_of_srgb():
    """As the standard has it: its ends, one value on each side of the joint, and back again."""
    np.testing.assert_allclose(
        to_linear(np.array([0, 0.04, 0.5, 1])), [0, 0.04 / 12.92, 0.21404, 1], 1e-4
    )
    np.testing.assert_allclose(to_srgb(to_linear(VALUES)), VALUES, atol=1e-7)


@pytest.mark.parametrize("convert", [to_linear, to_srgb])
def test_tensors_have_the_same_curve(convert):
    values = VALUES.astype(np.float32)
    expected = convert(values)
    assert expected.dtype == np.float32
    found = ops.convert_to_numpy(convert(ops.convert_to_tensor(values)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_noise_is_looked_at_without_tensorflow():
    """Which takes seconds to load; a camera's curve is NumPy's."""
    code = "import sys, numpy, cbsn.noise.advice, cbsn.noise.synthetic as c; c.simulate_camera("
    code += "numpy.zeros((4, 4, 3), 'uint8')); print({'tensorflow', 'keras'} & {*sys.modules})"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "set()\n", process.stderr
