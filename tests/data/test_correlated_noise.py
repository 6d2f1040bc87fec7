import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.noise.correlated_noise import CorrelatedNoise

REACH = 3

MIX = np.array([[1.0, 0.3, 0.5], [0.3, 1.0, 0.2], [0.5, 0.2, 1.0]])
"""Correlation of the channels."""


def _levels(*sigmas):
    return [np.array([[0.0, sigma], [255.0, sigma]]) for sigma in sigmas]


def _smooth(mix):
    """The covariance of noise that is a moving average: 2 pixels down, and 3 to the right."""
    down, right = np.mgrid[: REACH + 1, -REACH : REACH + 1]
    space = np.maximum(2 - down, 0) / 2 * np.maximum(3 - abs(right), 0) / 3
    return mix[:, :, None, None] * space


def _gray(value, channels=3):
    return np.full((80, 96, channels), value, np.float32)


def test_it_has_the_correlation_that_is_asked_for(random):
    noise = CorrelatedNoise(_levels(2, 3, 4), _smooth(MIX))
    fields = [(noise(_gray(0.5), random) - 0.5) * 255 for _ in range(20)]
    field = np.stack(fields)
    np.testing.assert_allclose(field.std(axis=(0, 1, 2)), [2, 3, 4], rtol=0.02)
    np.testing.assert_allclose(np.corrcoef(field.reshape(-1, 3).T), MIX, atol=0.03)
    field /= field.std(axis=(0, 1, 2))
    for down, right, expected in [(1, 0, 1 / 2), (2, 0, 0), (0, 1, 2 / 3), (1, -2, 1 / 6)]:
        shifted = np.roll(field, (-down, -right), axis=(1, 2))
        assert np.mean(field * shifted) == pytest.approx(expected, abs=0.02)
        assert np.mean(field[..., 0] * shifted[..., 2]) == pytest.approx(expected / 2, abs=0.03)


def test_it_is_as_strong_as_the_brightness_has_it(random):
    levels = [np.array([[50.0, 2.0], [150.0, 6.0]])]
    noise = CorrelatedNoise(levels, _smooth(np.ones((1, 1))))
    for value, expected in ((20, 2), (50, 2), (100, 4), (200, 6)):
        picture = _gray(value / 255, 1)
        assert np.std(noise(picture, random) * 255) == pytest.approx(expected, rel=0.1)
        assert np.std(noise(picture, random, 0.5) * 255) == pytest.approx(expected / 2, rel=0.1)


def test_it_is_added_in_linear_light_and_clipped(random):
    noise = CorrelatedNoise(_levels(40, 40, 40), _smooth(MIX))
    noisy = np.stack([noise(_gray(0.2), random) for _ in range(10)])
    assert noisy.dtype == np.float32 and noisy.min() == 0 and noisy.max() <= 1
    linear = np.where(noisy <= 0.04045, noisy / 12.92, ((noisy + 0.055) / 1.055) ** 2.4)
    light = ((0.2 + 0.055) / 1.055) ** 2.4
    # What is clipped at black is missing below; in sRGB values the mean is too low all the same.
    assert light < linear.mean() < 1.3 * light
    assert noisy.mean() < 0.2


def test_or_in_srgb_values(random):
    noise = CorrelatedNoise(_levels(40, 40, 40), _smooth(MIX), linear=False)
    noisy = np.stack([noise(_gray(0.5), random) for _ in range(10)])
    assert noisy.mean() == pytest.approx(0.5, abs=0.005)
    assert noisy.std() * 255 == pytest.approx(40, rel=0.03)
    dark = noise(_gray(0.1), random)
    assert dark.dtype == np.float32 and dark.min() == 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_kinds_of_pictures(dtype):
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    picture = np.full((3, 2, 3), 0.6 * full).astype(dtype)  # smaller than the noise reaches
    noise = CorrelatedNoise(_levels(5, 5, 5), _smooth(MIX))
    np.testing.assert_allclose(noise.clean(picture), 0.6, atol=0.003)
    noisy, again = (noise(picture, np.random.default_rng(1)) for _ in range(2))
    assert noisy.shape == picture.shape and 0 < np.abs(noisy - 0.6).max() < 0.2
    np.testing.assert_array_equal(noisy, again)


def test_errors_of_measurement_do_no_harm(random):
    """No noise is correlated like this: the nearest that there can be is taken."""
    covariance = np.zeros((1, 1, 2, 3))
    covariance[..., 0, :] = 0.9, 1, 0.9
    noise = CorrelatedNoise(_levels(5), covariance)
    assert np.isfinite(noise(_gray(0.5, 1), random)).all()


def test_other_channels_are_refused(random):
    noise = CorrelatedNoise(_levels(5), _smooth(np.ones((1, 1))))
    for use in (lambda: noise(_gray(0.5), random), lambda: noise.clean(_gray(0.5))):
        with pytest.raises(ConfigError, match=r"number of channels, 1\. Received: 3"):
            use()
