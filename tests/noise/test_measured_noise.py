import numpy as np
import pytest
from scipy import ndimage

from cbsn.errors import ConfigError, DataError
from cbsn.noise import measured_noise
from cbsn.noise.correlated_noise import CorrelatedNoise
from cbsn.noise.measured_noise import MeasuredNoise
from cbsn.noise.synthetic import Noise, neighbour_correlation


def _sample(noise, value, channels=3, count=8):
    """float64 [count·128, 128, C], what is added to a gray picture, in 8-bit levels."""
    random = np.random.default_rng(0)
    picture = np.full((128, 128, channels), value / 255, np.float32)
    noisy = [noise(picture, random).astype(float) * 255 - value for _ in range(count)]
    return np.concatenate(noisy)


def test_it_is_the_noise_of_the_pictures(walls, add_noise, random):
    noisy = add_noise(walls, 6, random, lambda noise: ndimage.uniform_filter(noise, (3, 2, 0)))
    sample = _sample(MeasuredNoise(noisy), 120, channels=1)
    assert sample.std() == pytest.approx(6, rel=0.07)
    along = neighbour_correlation(sample), neighbour_correlation(sample.swapaxes(0, 1))
    np.testing.assert_allclose(along[0][:3], [0.5, 0, 0], atol=0.06)
    np.testing.assert_allclose(along[1][:4], [2 / 3, 1 / 3, 0, 0], atol=0.06)


def test_channels_have_in_common_what_they_had(walls, random):
    """A simulated camera's noise is its own, at each brightness."""
    camera = Noise("camera", sigma=(4, 4), peak=(200, 200))
    clean = [np.repeat(wall, 3, axis=-1) for wall in walls]
    noisy = [camera(picture, random) for picture in clean]
    noise = MeasuredNoise(noisy)
    for value in (90, 170):
        expected = _sample(lambda picture, random: camera(picture, random), value)
        found = _sample(noise, value)
        np.testing.assert_allclose(found.std(axis=(0, 1)), expected.std(axis=(0, 1)), rtol=0.12)
        correlations = [np.corrcoef(each.reshape(-1, 3).T) for each in (found, expected)]
        np.testing.assert_allclose(*correlations, atol=0.06)
        rho = [neighbour_correlation(each - each.mean(axis=(0, 1))) for each in (found, expected)]
        np.testing.assert_allclose(*rho, atol=0.06)


@pytest.mark.parametrize("linear", [True, False])
def test_the_mean_is_shifted_as_in_the_pictures(walls, random, linear):
    """Noise in linear light makes dark pixels darker, but not noise in sRGB values."""
    model = CorrelatedNoise([np.array([[0, 12.0]])], np.ones((1, 1, 1, 1)), linear=linear)
    found = _sample(MeasuredNoise([model(wall, random) for wall in walls]), 60, channels=1)
    expected = _sample(model, 60, channels=1)
    assert found.mean() == pytest.approx(expected.mean(), abs=0.3)
    assert (expected.mean() < -1) == linear


def test_each_camera_has_a_model(walls, add_noise, random):
    noise = MeasuredNoise([*add_noise(walls, 3, random), *add_noise(walls, 12, random)])
    assert len(noise.models) > 1
    strengths = [_sample(model, 120, channels=1).std() for model in noise.models]
    assert min(strengths) < 4 and max(strengths) > 10
    drawn = [_sample(noise, 120, channels=1, count=1).std() for _ in range(2)]
    assert drawn[0] == drawn[1]  # a generator tells all
    assert str(noise) == f"noise measured in {len(noise.models)} places, 1 times as strong"


def test_what_is_left_at_the_end_counts_too(walls, add_noise, random, monkeypatch):
    """The last pictures are a group of their own, however few their blocks are."""
    noisy = add_noise(walls[:3], 6, random)
    every = [len(MeasuredNoise(noisy[:count]).models) for count in (1, 3)]
    assert every == [1, 3]
    monkeypatch.setattr(measured_noise, "_ENOUGH", 10**6)
    assert len(MeasuredNoise(noisy).models) == 1


def test_there_is_more_or_less_of_it(walls, add_noise, random):
    noise = MeasuredNoise(add_noise(walls, 6, random), gain=(0.5, 2))
    random = np.random.default_rng(3)
    picture = np.full((64, 64, 1), 0.5, np.float32)
    found = [np.std(noise(picture, random)) * 255 / 6 for _ in range(60)]
    assert 0.4 < min(found) < 0.7 < 1.4 < max(found) < 2.3
    assert np.median(found) == pytest.approx(1, abs=0.25)
    assert str(noise).endswith("0.5-2 times as strong")


def test_what_it_cannot_be(walls, add_noise, random):
    with pytest.raises(DataError, match=r"Received: 0 pictures"):
        MeasuredNoise([])
    with pytest.raises(DataError, match="too few flat blocks"):
        MeasuredNoise(walls)  # there is no noise
    noise = MeasuredNoise(add_noise(walls, 6, random))
    noise.check(1)
    for use in (lambda: noise.check(3), lambda: noise.clean(np.zeros((4, 4, 3)))):
        with pytest.raises(ConfigError, match=r"channels, 1\. Received: "):
            use()
