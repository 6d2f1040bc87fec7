import base64
import io

import numpy as np
import pytest
from PIL import Image

from cbsn.evaluation.report.pictures import LONGEST, data_uri, shrunk, to_8bit, to_image


@pytest.mark.parametrize(
    ("pixels", "shown"),
    [
        (np.array([0, 128, 255], "uint8"), [0, 128, 255]),
        (np.array([0, 32768, 65535], "uint16"), [0, 128, 255]),
        (np.array([-0.5, 0.5, 1.5], "float32"), [0, 128, 255]),
        (np.array([np.nan, np.inf, -np.inf], "float16"), [0, 255, 0]),
    ],
)
def test_every_dtype_is_shown_in_8_bits(pixels, shown):
    assert to_8bit(pixels.reshape(1, 3, 1)).ravel().tolist() == shown


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="int64"):
        to_8bit(np.zeros((2, 2, 1), int))


def test_large_images_are_reduced():
    image = to_image(np.zeros((3, 2 * LONGEST, 1), "uint8"))
    assert shrunk(image).size == (LONGEST, 2)
    assert shrunk(to_image(np.zeros((5000, 1, 3), "uint8"))).size == (1, LONGEST)
    small = to_image(np.zeros((LONGEST, 7, 3), "uint8"))
    assert shrunk(small) is small


def test_a_data_uri_holds_the_pixels(random):
    pixels = random.integers(0, 256, (5, 7, 3), "uint8")
    kind, _, data = data_uri(to_image(pixels)).partition(",")
    assert kind == "data:image/webp;base64"
    np.testing.assert_array_equal(Image.open(io.BytesIO(base64.b64decode(data))), pixels)
