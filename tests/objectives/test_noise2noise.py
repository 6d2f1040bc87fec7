import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.objectives import Noise2Noise, noise2noise


def halve(x, blind):
    assert not blind
    return x / 2


def test_the_first_shot_is_turned_into_the_second(random):
    first, second = random.normal(size=(2, 2, 4, 4, 3)).astype("float32")
    shots = tf.constant(np.concatenate([first, second], axis=-1))
    objective = Noise2Noise()
    objective.prepare()  # without a perceptual term there is nothing to fetch
    terms = objective(halve, shots, 0, None)
    assert set(terms) == {"total", *objective.TERMS} == {"total", "pixel"}
    expected = np.mean(np.abs(first / 2 - second))
    assert terms["total"].numpy() == terms["pixel"].numpy() == pytest.approx(expected, rel=1e-6)


def test_the_perceptual_term_is_added_with_its_weight(random, monkeypatch):
    given = []

    class Perceptual:
        def __init__(self, weights):
            given.append(weights)

        def __call__(self, a, b):
            return tf.reduce_max(tf.abs(a - b))

    monkeypatch.setattr(noise2noise, "PerceptualLoss", Perceptual)
    objective = Noise2Noise(lmbda=0.5)
    objective.prepare("some file")
    assert given == ["some file"]
    shots = random.normal(size=(1, 4, 4, 2)).astype("float32")
    terms = objective(halve, tf.constant(shots), 0, None)
    difference = np.abs(shots[..., :1] / 2 - shots[..., 1:])
    assert set(terms) == {"total", *objective.TERMS}
    assert terms["perceptual"].numpy() == pytest.approx(difference.max())
    assert terms["total"].numpy() == pytest.approx(difference.mean() + 0.5 * difference.max())


@pytest.mark.parametrize("lmbda", [-1.0, float("inf")])
def test_out_of_range(lmbda):
    with pytest.raises(ConfigError, match=f"lmbda={lmbda}"):
        Noise2Noise(lmbda)
