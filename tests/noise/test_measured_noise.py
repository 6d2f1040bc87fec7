import numpy as np
import pytest
from scipy import ndimage

from cbsn.errors import DataError
from cbsn.noise import measured_noise
from cbsn.noise.measured_noise import CorrelatedNoise, measure_noise
from cbsn.noise.synthetic import Noise, neighbour_correlation
from tests.noise_by_numpy import with_noise

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


def _sample(models, value):
    """float64 [192·n, 192, C], what n models add to a gray picture, in 8-bit levels."""
    random = np.random.default_rng(0)
    picture = np.full((192, 192, len(models[0].levels)), value / 255, np.float32)
    noisy = [with_noise(model, picture, random).astype(float) * 255 - value for model in models]
    return np.concatenate(noisy)


def test_the_spectrum_is_of_the_correlation_that_is_asked_for():
    field = _sample([CorrelatedNoise(_levels(2, 3, 4), _smooth(MIX))], 127.5)
    np.testing.assert_allclose(field.std(axis=(0, 1)), [2, 3, 4], rtol=0.02)
    np.testing.assert_allclose(np.corrcoef(field.reshape(-1, 3).T), MIX, atol=0.03)
    field /= field.std(axis=(0, 1))
    for down, right, expected in [(1, 0, 1 / 2), (2, 0, 0), (0, 1, 2 / 3), (1, -2, 1 / 6)]:
        shifted = np.roll(field, (-down, -right), axis=(0, 1))
        assert np.mean(field * shifted) == pytest.approx(expected, abs=0.02)
        assert np.mean(field[..., 0] * shifted[..., 2]) == pytest.approx(expected / 2, abs=0.03)


@pytest.mark.parametrize("size", [15, 16])
def test_the_noise_is_real(size, random):
    root = CorrelatedNoise(_levels(2, 3, 4), _smooth(MIX)).root(size)
    spectrum = np.einsum("cdhw,dhw->chw", root, np.fft.fft2(random.normal(size=(3, size, size))))
    np.testing.assert_allclose(np.fft.ifft2(spectrum).imag, 0, atol=1e-6)


def test_pictures_may_be_smaller_than_the_noise_reaches():
    root = CorrelatedNoise(_levels(5, 5, 5), _smooth(MIX)).root(2)
    assert root.shape == (3, 3, 2, 2) and root.dtype == np.float32
    assert np.isfinite(root).all() and root.any()


def test_errors_of_measurement_do_no_harm():
    """No noise is correlated like this: the nearest that there can be is taken."""
    covariance = np.zeros((1, 1, 2, 3))
    covariance[..., 0, :] = 0.9, 1, 0.9
    assert np.isfinite(CorrelatedNoise(_levels(5), covariance).root(80)).all()


def test_it_is_the_noise_of_the_pictures(walls, add_noise, random):
    noisy = add_noise(walls, 6, random, lambda noise: ndimage.uniform_filter(noise, (3, 2, 0)))
    sample = _sample(measure_noise(noisy), 120)
    assert sample.std() == pytest.approx(6, rel=0.07)
    along = neighbour_correlation(sample), neighbour_correlation(sample.swapaxes(0, 1))
    np.testing.assert_allclose(along[0][:3], [0.5, 0, 0], atol=0.06)
    np.testing.assert_allclose(along[1][:4], [2 / 3, 1 / 3, 0, 0], atol=0.06)


def test_channels_have_in_common_what_they_had(walls, random):
    """A simulated camera's noise is its own, at each brightness."""
    camera = Noise("camera", sigma=(4, 4), peak=(200, 200))
    clean = [np.repeat(wall, 3, axis=-1) for wall in walls]
    models = measure_noise([camera(picture, random) for picture in clean])
    for value in (90, 170):
        flat = np.full((192, 192, 3), value / 255, np.float32)
        expected = camera(flat, random).astype(float) * 255 - value
        found = _sample(models, value)
        np.testing.assert_allclose(found.std(axis=(0, 1)), expected.std(axis=(0, 1)), rtol=0.12)
        correlations = [np.corrcoef(each.reshape(-1, 3).T) for each in (found, expected)]
        np.testing.assert_allclose(*correlations, atol=0.06)
        rho = [neighbour_correlation(each) for each in (found, expected)]
        np.testing.assert_allclose(*rho, atol=0.06)


@pytest.mark.parametrize("linear", [True, False])
def test_the_mean_is_shifted_as_in_the_pictures(walls, random, linear):
    """Noise in linear light makes dark pixels darker, but not noise in sRGB values."""
    model = CorrelatedNoise([np.array([[0, 12.0]])], np.ones((1, 1, 1, 1)), linear=linear)
    models = measure_noise([with_noise(model, wall / 255, random) for wall in walls])
    assert {each.linear for each in models} == {linear}
    expected = _sample([model], 60).mean()
    assert _sample(models, 60).mean() == pytest.approx(expected, abs=0.3)
    assert (expected < -1) == linear


def test_each_camera_has_a_model(walls, add_noise, random):
    models = measure_noise([*add_noise(walls, 3, random), *add_noise(walls, 12, random)])
    assert len(models) > 1
    strengths = [_sample([model], 120).std() for model in models]
    assert min(strengths) < 4 and max(strengths) > 10


def test_what_is_left_at_the_end_counts_too(walls, add_noise, random, monkeypatch):
    """The last pictures are a group of their own, however few their blocks are."""
    noisy = add_noise(walls[:3], 6, random)
    assert [len(measure_noise(noisy[:count])) for count in (1, 3)] == [1, 3]
    monkeypatch.setattr(measured_noise, "_ENOUGH", 10**6)
    assert len(measure_noise(noisy)) == 1


def test_what_shows_no_noise_is_refused(walls):
    with pytest.raises(DataError, match=r"Received: 0 pictures"):
        measure_noise([])
    with pytest.raises(DataError, match="too few flat blocks"):
        measure_noise(walls)
