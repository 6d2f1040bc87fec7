import numpy as np
import pytest

from cbsn.noise.measured_noise import CorrelatedNoise


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


def two_models(channels=3):
    """In linear light and not; neighbours have 0.4 in common, and channels 0.3."""
    reach = np.zeros((3, 5))
    reach[0, 2], reach[0, 1], reach[0, 3], reach[1, 2] = 1, 0.2, 0.2, 0.2
    mix = np.full((channels, channels), 0.3) + 0.7 * np.eye(channels)
    covariance = mix[:, :, None, None] * reach
    models = []
    for sigma, linear in ((4.0, True), (10.0, False)):
        curves = [
            np.array([[20.0, sigma], [120.0, 2 * sigma], [220.0, sigma + c]])
            for c in range(channels)
        ]
        models.append(CorrelatedNoise(curves, covariance, linear))
    return models


@pytest.fixture
def models():
    """Makes two models of noise, for pictures of 1 or 3 channels."""
    return two_models
