import numpy as np
import pytest
import tensorflow as tf

from cbsn.objectives import Distillation


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
    objective, network = Distillation(), Network()
    terms = objective(network, tf.constant(pairs), 0, None)
    assert set(terms) == {"total", *objective.TERMS} == {"total", "pixel"}
    np.testing.assert_array_equal(network.seen, noisy)
    expected = np.mean(np.abs(noisy / 2 - teachers))
    assert terms["total"].numpy() == terms["pixel"].numpy() == pytest.approx(expected, rel=1e-6)
