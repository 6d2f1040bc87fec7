import numpy as np
import pytest
import tensorflow as tf

from cbsn.export.graph_tiles import orient, orient_back
from cbsn.orientations import orient as orient_array


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("orientation", range(8))
def test_orientations_are_those_of_arrays(random, orientation, known):
    pictures = random.random((2, 4, 5, 3))
    wanted = orientation if known else tf.constant(orientation)
    turned = tf.function(orient)(pictures, wanted)
    expected = np.stack([orient_array(picture, orientation) for picture in pictures])
    np.testing.assert_array_equal(turned, expected)
    np.testing.assert_array_equal(tf.function(orient_back)(turned, wanted), pictures)
