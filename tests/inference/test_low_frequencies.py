import numpy as np
import pytest
import scipy

from cbsn.colors import to_linear, to_srgb
from cbsn.training.distillation import _LEVELS_PER_PIXEL, with_low_frequencies


@pytest.fixture
def noisy(random):
    slope = np.linspace(0.3, 0.7, 64)[:, None, None] * np.ones((1, 64, 3))
    return (slope + random.normal(0, 0.04, slope.shape)).astype("float32")


def test_wrong_colours_are_mended(noisy):
    slope = np.linspace(0.3, 0.7, 64, dtype="float32")[:, None, None] * np.ones((1, 64, 3), "f")
    tinted = slope + np.float32([0.03, 0, -0.05])
    mended = with_low_frequencies(noisy, tinted)
    assert mended.dtype == np.float32
    assert np.abs(mended - slope).mean() < 0.25 * np.abs(tinted - slope).mean()
    # And next to nothing of the noise came back.
    assert (mended - slope).std() < 0.15 * (noisy - slope).std()


def test_detail_is_the_denoised_pictures_own(noisy):
    denoised = scipy.ndimage.gaussian_filter(noisy, (1, 1, 0))
    details = 0.02 * np.cos(np.pi * np.arange(64))[None, :, None]
    mended = with_low_frequencies(noisy, denoised + details)
    np.testing.assert_allclose(mended, with_low_frequencies(noisy, denoised) + details, atol=0.004)


def test_the_dark_does_not_become_darker(random):
    """Where the sRGB curve bends, noise in the sensor's light lowers the mean."""
    light = np.full((128, 128, 3), 0.03)
    noisy = to_srgb(np.clip(light + random.normal(0, 0.015, light.shape), 0, 1)).astype("float32")
    dark, true = np.full_like(noisy, noisy.mean()), to_srgb(light)
    assert (true - dark).mean() > 0.005
    mended = with_low_frequencies(noisy, dark)
    assert abs((true - mended).mean()) < 0.2 * (true - dark).mean()


def test_results_are_pictures(random):
    noisy, denoised = random.random((2, 8, 8, 3)).astype("float32")
    mended = with_low_frequencies(noisy, np.round(denoised))
    assert 0 <= mended.min() < mended.max() <= 1
    np.testing.assert_allclose(with_low_frequencies(noisy, noisy), noisy, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 56), (100, 70), (5, 9), (1, 33)])
def test_the_blur_is_scipys(random, shape):
    """Of each picture of a batch its own, also of those that are narrower than its kernel.

    Values to the rounding errors of sums over 65 pixels, and of powers, which the sRGB curve makes
    up to 13 times as large in the dark.
    """
    clean = random.random((6, *shape, 3))
    sigma = np.array([1, 5, 8, 13, 19, 40])[:, None, None, None]  # levels, for 2 to 8 pixels
    denoised = np.clip(clean, 0.05, 0.95).astype(np.float32)
    noisy = denoised + (random.normal(0, 1, denoised.shape) * sigma / 255).astype(np.float32)
    noisy = np.clip(noisy, 0, 1)
    found = with_low_frequencies(noisy, denoised)
    assert found.dtype == np.float32
    for ours, before, after in zip(found, noisy, denoised, strict=True):
        width = np.clip((before - after).std() * 255 / _LEVELS_PER_PIXEL, 2, 8)
        light = to_linear(after)
        removed = to_linear(before) - light
        coarse = scipy.ndimage.gaussian_filter(removed, (width, width, 0), mode="reflect")
        np.testing.assert_allclose(ours, to_srgb(np.clip(light + coarse, 0, 1)), atol=2e-6)
        np.testing.assert_allclose(with_low_frequencies(before, after), ours, atol=2e-6)
