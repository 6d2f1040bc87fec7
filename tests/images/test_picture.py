import numpy as np

from cbsn.images.image_files import to_rgb
from cbsn.images.picture import Picture


def test_picture_parts(random):
    pixels = random.integers(256, size=(19, 26, 4), dtype=np.uint8)
    rgba = Picture(pixels, "PNG", b"profile")
    assert rgba.color.shape[-1] == 3 and rgba.alpha.shape[-1] == 1
    np.testing.assert_array_equal(rgba.pixels, np.concatenate([rgba.color, rgba.alpha], axis=-1))
    inverted = rgba.with_pixels(255 - rgba.pixels)
    np.testing.assert_array_equal(inverted.pixels, 255 - rgba.pixels)
    assert inverted.icc_profile == b"profile"
    gray = Picture(pixels[..., :1], "PNG")
    assert gray.alpha is None
    np.testing.assert_array_equal(to_rgb(gray), np.repeat(gray.pixels, 3, axis=-1))
