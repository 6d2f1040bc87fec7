import numpy as np
import pytest
import skimage.data

from cbsn.colors import to_linear
from cbsn.noise.synthetic import expose, neighbour_correlation, simulate_camera


@pytest.fixture(scope="module")
def chelsea():
    return skimage.data.chelsea()


@pytest.fixture(scope="module")
def clean(chelsea):
    return simulate_camera(chelsea, shot=0, read=0)


def test_without_noise_the_picture_is_nearly_kept(chelsea, clean):
    difference = clean.astype(float) - chelsea
    assert np.abs(difference.mean()) < 0.5
    assert difference.std() < 8


def test_flat_pictures_come_through_exactly():
    for value in (0, 1, 90, 200, 255):
        flat = np.full((7, 10, 3), value, "uint8")
        np.testing.assert_array_equal(simulate_camera(flat, shot=0, read=0), flat)


def test_noise_is_correlated_like_a_photographs(chelsea, clean):
    noise = simulate_camera(chelsea).astype(float) - clean
    correlation = neighbour_correlation(noise)
    assert 0.3 < correlation[0] < 0.7
    assert np.all(np.abs(correlation[2:]) < 0.1)
    assert np.all(np.abs(noise.mean(axis=(0, 1))) < 3)  # the sRGB curve bends


def test_noise_has_the_variance_asked_for():
    """On linear values: Poisson-Gaussian, a·x + b²."""
    gray = np.full((400, 400, 3), 150, "uint8")
    x = to_linear(150 / 255)
    result = to_linear(simulate_camera(gray, shot=0.002, read=0.01) / 255)
    # Where green was measured its variance is that of the sensor, and its gain is 1.
    measured = result[0::2, 1::2, 1]
    assert measured.var() == pytest.approx(0.002 * x + 0.01**2, rel=0.05)
    assert measured.mean() == pytest.approx(x, rel=0.01)


def test_seeded(chelsea):
    a, b, c = (simulate_camera(chelsea[:40, :40], seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).mean() > 0.5


def test_simulate_camera_is_expose_rounded(chelsea, random):
    exposed = expose(chelsea[:40, :40] / 255, shot=0.01, read=0.02, random=random)
    assert exposed.min() >= 0
    assert exposed.max() <= 1
    np.testing.assert_array_equal(np.rint(exposed * 255), simulate_camera(chelsea[:40, :40]))


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (np.zeros((4, 4), "uint8"), {}),
        (np.zeros((4, 4, 3), "float32"), {}),
        (np.zeros((1, 4, 3), "uint8"), {}),
        (np.zeros((4, 4, 3), "uint8"), {"shot": -1}),
        (np.zeros((4, 4, 3), "uint8"), {"read": -1}),
    ],
)
def test_what_no_camera_takes_is_refused(image, options):
    with pytest.raises(ValueError, match="Received"):
        simulate_camera(image, **options)


def test_expose_takes_float_pictures_alone(chelsea):
    with pytest.raises(ValueError, match="Received: uint8"):
        expose(chelsea, shot=0, read=0, random=None)
