import math

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.objectives import Distillation
from cbsn.training.step_random import StepRandom


class Network:
    """Halves a picture, and remembers it."""

    def __call__(self, x, blind):
        assert not blind
        self.seen = x.numpy()
        return x / 2


@pytest.fixture
def pairs(random):
    return random.uniform(0.3, 0.7, (64, 4, 4, 2)).astype("float32")


def test_the_noisy_picture_is_turned_into_the_teachers(pairs):
    noisy, teachers = pairs[..., :1], pairs[..., 1:]
    objective, network = Distillation(amplify=1), Network()
    terms = objective(network, tf.constant(pairs), 0, None)
    assert set(terms) == {"total", *objective.TERMS} == {"total", "pixel"}
    np.testing.assert_array_equal(network.seen, noisy)
    expected = np.mean(np.abs(noisy / 2 - teachers))
    assert terms["total"].numpy() == terms["pixel"].numpy() == pytest.approx(expected, rel=1e-6)


def test_half_of_the_pictures_get_their_own_noise_amplified(pairs):
    noisy, teachers = pairs[..., :1], pairs[..., 1:]
    network = Network()
    pairs[0, 0, 0] = 1.0, 0.8
    Distillation(amplify=2)(network, tf.constant(pairs), 0, StepRandom(3, 0, 64))
    untouched = (network.seen == noisy).all(axis=(1, 2, 3))
    assert 20 < untouched.sum() < 44
    gains = []
    for seen, picture, teacher in zip(network.seen, noisy, teachers, strict=True):
        whole = (seen > 0) & (seen < 1) & (np.abs(picture - teacher) > 0.05)
        gain = (seen - teacher)[whole] / (picture - teacher)[whole]
        np.testing.assert_allclose(gain, gain[0], rtol=1e-4)
        gains.append(gain[0])
    gains = np.array(gains)[~untouched]
    assert 1 < gains.min() < 1.2 < 1.7 < gains.max() < 2
    assert np.log(gains).mean() == pytest.approx(math.log(2) / 2, abs=0.1)


def test_amplified_pictures_stay_pictures(pairs):
    network = Network()
    pairs[..., 0] = np.round(pairs[..., 0])
    Distillation(amplify=100)(network, tf.constant(pairs), 0, StepRandom(3, 0, 64))
    assert network.seen.min() == 0
    assert network.seen.max() == 1


@pytest.mark.parametrize("amplify", [0.5, float("inf"), float("nan")])
def test_out_of_range(amplify):
    with pytest.raises(ConfigError, match=f"amplify={amplify}"):
        Distillation(amplify)
