import numpy as np
import pytest

from cbsn.noise.correlated_noise import CorrelatedNoise
from cbsn.noise.measured_noise import MeasuredNoise


class Recorded:
    """Random numbers of NumPy, the same for every backend."""

    def __init__(self, seed=0):
        self._random = np.random.default_rng(seed)

    def uniform(self, shape):
        return self._random.random(shape, np.float32)

    def normal(self, shape):
        return self._random.standard_normal(shape, np.float32)


@pytest.fixture
def recorded():
    return Recorded


def _model(channels, sigma, linear):
    """Noise of neighbours that have 0.4 in common, and channels 0.3."""
    reach = np.zeros((3, 5))
    reach[0, 2], reach[0, 1], reach[0, 3], reach[1, 2] = 1, 0.2, 0.2, 0.2
    mix = np.full((channels, channels), 0.3) + 0.7 * np.eye(channels)
    curves = [
        np.array([[20.0, sigma], [120.0, 2 * sigma], [220.0, sigma + c]]) for c in range(channels)
    ]
    return CorrelatedNoise(curves, mix[:, :, None, None] * reach, linear=linear)


def _measured(channels, gain):
    """Noise measured on flat pictures that have such noise: at least a model for each kind."""
    random = np.random.default_rng(0)
    flat = [np.full((128, 128, channels), value, np.float32) for value in (0.2, 0.5, 0.8)]
    kinds = _model(channels, 3.0, True), _model(channels, 6.0, False)
    return MeasuredNoise([model(picture, random) for model in kinds for picture in flat], gain)


@pytest.fixture
def measured():
    """Measured noise, for pictures of 1 or 3 channels."""

    def make(channels=3, gain=(1.0, 1.0)):
        return _measured(channels, gain)

    return make


@pytest.fixture
def models():
    """Two models of noise, for pictures of 1 or 3 channels."""

    def make(channels=3):
        return [_model(channels, 4.0, True), _model(channels, 10.0, False)]

    return make
