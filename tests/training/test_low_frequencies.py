import numpy as np
import pytest
import scipy

from cbsn.training.low_frequencies import with_low_frequencies


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


def test_detail_is_the_denoised_pictures_own(noisy, random):
    denoised = scipy.ndimage.gaussian_filter(noisy, (1, 1, 0))
    details = 0.05 * np.cos(np.pi * np.arange(64))[None, :, None]
    mended = with_low_frequencies(noisy, denoised + details)
    np.testing.assert_allclose(mended, with_low_frequencies(noisy, denoised) + details, atol=0.01)


def test_results_are_pictures(random):
    noisy, denoised = random.random((2, 8, 8, 3)).astype("float32")
    mended = with_low_frequencies(noisy, np.round(denoised))
    assert 0 <= mended.min() < mended.max() <= 1
    np.testing.assert_allclose(with_low_frequencies(noisy, noisy), noisy)
