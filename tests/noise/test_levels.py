import numpy as np
import pytest

from cbsn.noise.survey import noise_levels


def test_line_through_exact_values(random):
    brightness = random.uniform(10, 240, (200, 2))
    variance = brightness * [0.5, 0] + [9, 25]
    found = noise_levels(variance, brightness, np.zeros(200, int), [brightness])
    np.testing.assert_allclose(found["slope"], [0.5, 0], atol=0.01)
    np.testing.assert_allclose(found["floor"], [9, 25], rtol=0.05)
    np.testing.assert_allclose(found["misfit"], 0, atol=0.01)
    assert len(found["points"]) == 2
    assert found["points"][0].shape == (12, 2)
    assert found["level"][1] == pytest.approx(5)


def test_no_line_fits():
    brightness = np.linspace(0, 200, 96)[:, None]
    variance = np.where(brightness < 100, 4.0, 400.0)
    found = noise_levels(variance, brightness, np.zeros(96, int), [brightness])
    assert found["misfit"][0] > 0.3


def test_equal_brightness_has_no_slope():
    brightness = np.full((50, 1), 120.0)
    variance = np.full((50, 1), 36.0)
    found = noise_levels(variance, brightness, np.zeros(50, int), [brightness])
    assert found["slope"][0] == 0
    assert found["floor"][0] == pytest.approx(36)
    assert found["level"][0] == pytest.approx(6)


def test_level_is_of_the_whole_picture():
    """Flat blocks in the dark half only, and two brightnesses of which half the picture is."""
    brightness = np.repeat([20.0, 100.0], 48)[:, None]
    variance = brightness / 5
    all_bright = np.full((80, 1), 100.0)
    found = noise_levels(variance, brightness, np.zeros(96, int), [all_bright])
    assert found["level"][0] == pytest.approx(20**0.5)


def test_each_picture_has_its_own_level():
    brightness = np.full((96, 1), 50.0)
    variance = np.repeat([4.0, 100.0, 4.0], 32)[:, None]
    picture = np.repeat([0, 1, 3], 32)
    everywhere = [np.full((10, 1), 50.0)] * 4 + [np.zeros((0, 1))]
    found = noise_levels(variance, brightness, picture, everywhere)
    low, high = found["spread"][0]
    assert low == pytest.approx(2)
    assert high > 5
    assert 2 <= found["level"][0] < 10
