import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.objectives import Noise2Void


class Network:
    """Returns twice what it is given, and says that it was blind at the first pixel only."""

    def __init__(self, valid):
        self.valid = valid

    def blind_pass(self, x, random):
        return 2 * x, self.valid


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("error", "function"), [("squared", np.square), ("absolute", np.abs)])
def test_the_mean_error_over_blind_pixels(random, masked, error, function):
    x = random.normal(size=(2, 4, 4, 3)).astype("float32")
    valid = np.zeros((2, 4, 4, 1), "float32")
    valid[:, 0, 0] = 1
    network = Network(tf.constant(valid) if masked else None)
    terms = Noise2Void(error)(network, tf.constant(x), 0, None)
    expected = np.mean(function(x[:, 0, 0] if masked else x))
    assert terms["total"].numpy() == terms["blind"].numpy() == pytest.approx(expected, rel=1e-6)


def test_it_is_the_squared_error_by_default():
    x = tf.constant([[[[3.0]]]])
    assert Noise2Void()(Network(None), x, 0, None)["total"] == 9


def test_another_error_is_refused():
    with pytest.raises(ConfigError, match=r"error must be squared or absolute.*'cubed'"):
        Noise2Void("cubed")


def test_no_blind_pixel_is_no_loss():
    network = Network(tf.zeros((1, 2, 2, 1)))
    assert Noise2Void()(network, tf.ones((1, 2, 2, 3)), 0, None)["total"] == 0
