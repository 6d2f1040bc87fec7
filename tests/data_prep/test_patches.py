import hashlib

import numpy as np
import pytest

from cbsn.errors import ImageError
from data_prep import folder
from data_prep.patches import convert, cut, is_smaller, is_too_small, uncovered


def coordinates(height, width):
    """An image whose pixels say where they were."""
    return np.stack([*np.indices((height, width)), np.zeros((height, width), int)], axis=-1)


def corners(image, size, stride, offset):
    return [tuple(int(v) for v in patch[0, 0, :2]) for patch in cut(image, size, stride, offset)]


def test_corners_are_offset_plus_multiples_of_the_stride():
    found = corners(coordinates(20, 27), size=8, stride=5, offset=1)
    assert found == [(top, left) for top in (1, 6, 11) for left in (1, 6, 11, 16)]


def test_patch_that_just_fits_is_taken():
    assert corners(coordinates(8, 13), size=8, stride=5, offset=0) == [(0, 0), (0, 5)]
    assert corners(coordinates(8, 12), size=8, stride=5, offset=0) == [(0, 0)]


def test_axis_too_short_for_the_offset_gives_its_last_patch():
    assert corners(coordinates(10, 30), size=8, stride=5, offset=4) == [
        (2, left) for left in (4, 9, 14, 19)
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 20), (7, 7), (8, 5)])
def test_small_pictures_are_reflected_to_one_patch_high_or_wide(shape):
    image = coordinates(*shape)
    patches = list(cut(image, size=8, stride=100, offset=3))
    assert is_smaller(image, 8)
    assert [patch.shape for patch in patches] == [(8, 8, 3)]
    height, width = min(shape[0], 8), min(shape[1], 8)
    left = patches[0][0, 0, 1]  # a long side is cut where the offset says
    np.testing.assert_array_equal(patches[0][:height, :width], image[:height, left : left + width])
    if 1 < shape[0] < 8:
        np.testing.assert_array_equal(patches[0][shape[0]], patches[0][shape[0] - 2])


def test_picture_of_a_patchs_size_is_one_patch():
    image = coordinates(8, 8)
    assert not is_smaller(image, 8)
    (patch,) = cut(image, size=8, stride=5, offset=3)
    np.testing.assert_array_equal(patch, image)


def test_patches_of_a_sidd_picture_are_the_references(golden):
    image, _ = folder.read(golden("records/0002_NOISY_SRGB_010.PNG"))
    hashes = [hashlib.sha256(p.tobytes()).hexdigest()[:16] for p in cut(image, 256, 200, 10)]
    assert hashes == ["d36fa679f8f7e2d7", "07b1a5936e99921f"]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.uint8([0, 1, 255]), "uint8", np.uint8([0, 1, 255])),
        (np.uint8([0, 1, 255]), "uint16", np.uint16([0, 257, 65535])),
        (np.uint8([0, 51, 255]), "float32", np.float32([0, 0.2, 1])),
        (np.uint16([0, 13107, 65535]), "float32", np.float32([0, 0.2, 1])),
        (np.float32([0, 0.2, 1]), "float32", np.float32([0, 0.2, 1])),
    ],
)
def test_white_stays_white_in_a_wider_dtype(values, dtype, expected):
    converted = convert(values, dtype)
    assert converted.dtype == dtype
    np.testing.assert_array_equal(converted, expected)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [(np.uint16([1]), "uint8"), (np.float32([1]), "uint8"), (np.float32([1]), "uint16")],
)
def test_nothing_is_narrowed(values, dtype):
    with pytest.raises(ImageError, match=f"is a {values.dtype} picture in a data set of {dtype}"):
        convert(values, dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ImageError, match="not finite"):
        convert(np.float32([0.5, value]), "float32")


@pytest.mark.parametrize(("size", "stride", "offset"), [(4, 3, 0), (4, 3, 1), (3, 5, 0), (9, 1, 2)])
def test_pixels_in_no_patch_are_counted(size, stride, offset):
    for height, width in ((9, 12), (10, 14), (40, 9)):
        image = np.arange(height * width).reshape(height, width, 1)
        seen = {value for p in cut(image, size, stride, offset) for value in p.ravel().tolist()}
        assert uncovered(height, width, size, stride, offset) == image.size - len(seen)


def test_small_pictures_are_padded_to_the_usual_size_and_to_twice_their_own():
    assert not is_too_small(1, 256)
    assert is_too_small(1, 257)
    assert not is_too_small(300, 600)
    assert is_too_small(300, 601)
