import numpy as np
import pytest
import tensorflow as tf

from cbsn.export.graph_pixels import orient
from cbsn.orientations import orient as orient_array


@pytest.mark.parametrize("known", [True, False])
def test_orientations_are_those_of_arrays(random, known):
    pictures = random.random((2, 4, 5, 3))
    turn, turn_back = tf.function(orient), tf.function(lambda *args: orient(*args, back=True))
    for orientation in range(8):
        wanted = orientation if known else tf.constant(orientation)
        turned = turn(pictures, wanted)
        expected = np.stack([orient_array(picture, orientation) for picture in pictures])
        np.testing.assert_array_equal(turned, expected)
        np.testing.assert_array_equal(turn_back(turned, wanted), pictures)
