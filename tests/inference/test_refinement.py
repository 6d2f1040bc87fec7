import numpy as np
import pytest

from cbsn.inference.refinement import RandomReplacement


def _masks(rows, columns, *, seed=3, orientation=0):
    return RandomReplacement(seed, orientation).masks(np.asarray(rows), np.asarray(columns), 3)


def test_each_value_is_replaced_with_the_probability():
    masks = _masks(range(400), range(50))
    assert masks.shape == (8, 400, 50, 3)
    assert masks.mean() == pytest.approx(0.16, abs=0.002)
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)):
        np.testing.assert_allclose(masks.mean(axis=axes), 0.16, atol=0.05)
    # Independent from value to value: neighbours in any direction, copies included.
    centred = masks - masks.mean()
    for axis in range(4):
        pairs = np.delete(centred, 0, axis) * np.delete(centred, -1, axis)
        assert abs(pairs.mean() / centred.var()) < 0.02


def test_masks_are_functions_of_the_place():
    whole = _masks(range(40), range(50))
    rows, columns = [7, 6, 7, 30], [49, 0, 3]  # reflected, and not in order
    np.testing.assert_array_equal(_masks(rows, columns), whole[:, rows][:, :, columns])
    for key in ({"seed": 4}, {"orientation": 2}):
        assert (_masks(range(40), range(50), **key) != whole).mean() > 0.2


def test_masks_repeat_after_the_table():
    masks = _masks(range(600), range(300))
    np.testing.assert_array_equal(masks[:, 256:512], masks[:, :256])
    np.testing.assert_array_equal(masks[:, :, 256:], masks[:, :, :44])


def test_gray_has_the_masks_of_the_first_channel():
    replacement = RandomReplacement(3, 0)
    rows, columns = np.arange(5), np.arange(7)
    gray = replacement.masks(rows, columns, 1)
    np.testing.assert_array_equal(gray, replacement.masks(rows, columns, 3)[..., :1])
