import numpy as np
import pytest
from keras import ops

from cbsn.augmentation import clean as module
from cbsn.augmentation.clean import DRAWS, Draws, shrink, turn, vary


class Given:
    """The same numbers for every picture."""

    def __init__(self, *values):
        self._values = values

    def uniform(self, shape):
        return np.tile(np.float32(self._values), (shape[0], 1))


def _draws(*values, rows=1):
    return Draws(Given(*values), rows, len(values))


def _all(rows=1, value=True):
    return np.full(rows, value)


def test_shrinking_takes_means(random):
    pictures = random.random((2, 20, 20, 3), np.float32)
    # A third of a number of 1 to 3 for the factor, then the place.
    output = ops.convert_to_numpy(
        shrink(ops.convert_to_tensor(pictures), 4, _draws(0.4, 0.9, 0.0, 0.99, rows=2), _all(2))
    )
    window = pictures[:, :12, 8:]
    expected = window.reshape(2, 4, 3, 4, 3, 3).mean((2, 4))
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_shrinking_may_take_single_pixels(random):
    pictures = random.random((1, 20, 20, 3), np.float32)
    output = shrink(ops.convert_to_tensor(pictures), 4, _draws(0.4, 0.1, 0.0, 0.99), _all())
    np.testing.assert_allclose(ops.convert_to_numpy(output), pictures[:, 1:12:3, 9::3], atol=1e-6)


def test_pictures_need_not_be_crisper_than_they_are(photographs, recorded):
    picture = np.repeat(photographs[0][None, 100:164, 100:164] / np.float32(255), 64, axis=0)
    pictures = ops.convert_to_tensor(picture)
    # Else this draw keeps single pixels.
    none = _all(64, False)
    means, same = (
        ops.convert_to_numpy(shrink(pictures, 16, _draws(0.4, kept, 0.0, 0.0, rows=64), none))
        for kept in (0.1, 0.9)
    )
    np.testing.assert_array_equal(means, same)
    varied = ops.convert_to_numpy(vary(pictures, Draws(recorded(), 64, DRAWS), none))
    gray, before = varied.mean(-1), picture.mean(-1)
    contrast = np.diff(gray, axis=1).std((1, 2)) / gray.std((1, 2))
    # Other light and colours change it a little; the unsharp mask and patterns by half and more.
    assert contrast.max() < 1.2 * np.diff(before, axis=1).std() / before.std()


@pytest.mark.parametrize("side", [4, 7])
def test_what_is_too_small_keeps_its_scale(random, side):
    pictures = random.random((1, side, side, 1), np.float32)
    output = ops.convert_to_numpy(
        shrink(ops.convert_to_tensor(pictures), 4, _draws(0.9, 0.1, 0.0, 0.0), _all())
    )
    np.testing.assert_allclose(output, pictures[:, :4, :4], atol=1e-6)


def test_orientations_are_eight():
    picture = np.arange(9, dtype="float32").reshape(1, 3, 3, 1)
    found = {
        ops.convert_to_numpy(turn(ops.convert_to_tensor(picture), _draws(a, b, c))).tobytes()
        for a in (0.1, 0.9)
        for b in (0.1, 0.9)
        for c in (0.1, 0.9)
    }
    assert len(found) == 8


@pytest.mark.parametrize("channels", [1, 3])
def test_variety_stays_in_range(channels, recorded, random):
    pictures = random.random((64, 16, 16, channels), np.float32)
    draws = Draws(recorded(), 64, DRAWS)
    output = ops.convert_to_numpy(vary(ops.convert_to_tensor(pictures), draws, _all(64)))
    assert output.shape == pictures.shape
    assert output.min() >= 0 and output.max() <= 1
    brightness = output.mean((1, 2, 3)) / pictures.mean((1, 2, 3))
    assert brightness.min() < 0.4 and np.mean(np.abs(brightness - 1) < 0.02) > 0.2


def test_patterns_are_as_fine_and_as_strong_as_drawn():
    """Stripes with a period of 5 pixels across, and 0.3 of the brightness."""
    frequency = np.log(0.2 / 0.08) / np.log(0.5 / 0.08)
    soft_stripes = (frequency, 0.5, 0.0, 0.9)
    draws = _draws(*soft_stripes, *soft_stripes, 0.9, (0.3 - 0.05) / 0.65)
    pattern = ops.convert_to_numpy(module._pattern(40, draws))[0, ..., 0]
    np.testing.assert_allclose(pattern[0], pattern[-1], atol=1e-4)
    np.testing.assert_allclose(pattern[0, :35], pattern[0, 5:], atol=1e-3)
    assert pattern.mean() == pytest.approx(1, abs=1e-3)
    assert pattern.std() == pytest.approx(0.3 / 2**0.5, rel=1e-3)


def test_some_are_sharper_and_some_softer(photographs, recorded):
    picture = np.repeat(photographs[0][None, 100:132, 100:132] / np.float32(255), 256, axis=0)
    draws = Draws(recorded(), 256, DRAWS)
    half = np.arange(256) % 2 > 0
    varied = ops.convert_to_numpy(vary(ops.convert_to_tensor(picture), draws, half))

    def contrast(pictures):
        """Of neighbours, relative to the whole; other light does not change it."""
        gray = pictures.mean(-1)
        return np.diff(gray, axis=1).std((1, 2)) / gray.std((1, 2))

    change = contrast(varied) / contrast(picture)
    assert 0.1 < np.mean(change < 0.95) < 0.4 and 0.1 < np.mean(change > 1.05) < 0.5


def test_blur_keeps_flat_pictures_and_means(random):
    flat = np.full((2, 8, 8, 3), 0.3, np.float32)
    sigma = np.float32([0.3, 0.9])
    np.testing.assert_allclose(
        ops.convert_to_numpy(module._blur(ops.convert_to_tensor(flat), sigma)), flat, atol=1e-6
    )
    picture = random.random((2, 8, 8, 1), np.float32)
    blurred = ops.convert_to_numpy(module._blur(ops.convert_to_tensor(picture), sigma))
    spread = blurred.std((1, 2, 3)) / picture.std((1, 2, 3))
    assert spread[1] < spread[0] < 1
