import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter

from cbsn.noise.series import FAR, distances, mask_step, series_correlation

COUNT, SIDE = 20, 128


def _white(random):
    return random.normal(size=(COUNT + 1, SIDE, SIDE))


def _averaged(random):
    noise = _white(random)
    return (noise[1:] + noise[:-1]) / np.sqrt(2)


NOISES = {
    "independent": (lambda random: _white(random)[:COUNT], [0, 0, 0]),
    "averaged": (_averaged, [0.5, 0, 0]),
    "repeated": (lambda random: np.repeat(_white(random)[: COUNT // 2], 2, axis=0), [0.5, 0, 0]),
}


def _moving(picture, speed):
    lefts = [40 + speed * t for t in range(COUNT)]
    return np.stack([picture[60 : 60 + SIDE, left : left + SIDE] for left in lefts])


def _disks(count):
    """Bright disks that move over a dark ground."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    frames = np.zeros((count, SIDE, SIDE))
    for t, frame in enumerate(frames):
        for y, x, way in ((20, 10, 3), (60, 40, 2), (100, 80, -3)):
            frame[np.hypot(rows - y, columns - x - way * t) < 9] = 90
    return frames


STRUCTURES = {
    "none": lambda: np.zeros((COUNT, 1, 1)),
    "photograph": lambda: _moving(skimage.data.camera().astype(float), 0),
    "moving photograph": lambda: _moving(skimage.data.camera().astype(float), 1),
    "texture": lambda: _moving(skimage.data.grass().astype(float), 0),
    "moving disks": lambda: _disks(COUNT),
}


def _groups(series):
    lags, far = distances(len(series))
    offsets = [0, *lags, *([far] if far else [])]
    starts = range(len(series) - offsets[-1])
    return [[series[start + n, ..., None] for n in offsets] for start in starts], far


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_noise_is_told_from_structure(noise, structure, random):
    make, expected = NOISES[noise]
    groups, far = _groups(STRUCTURES[structure]() + 10 * make(random))
    found = series_correlation(groups, far)
    assert found.far == far == FAR
    np.testing.assert_allclose(found.correlation, expected, atol=0.06)
    assert found.independent_from == 1 + (expected[0] > 0)
    text = "\n".join(found.lines("frames"))
    if noise == "independent":
        assert "neighbouring frames is independent: they can be pairs for n2n" in text
    else:
        assert f"is correlated ({found.correlation[0]:.2f}), unless" in text
        assert "n2n with neighbouring frames would learn it." in text
        assert "Take frames 2 apart." in text
    assert ("same in frames 8 apart: fine structure" in text) == (structure == "texture")


def test_blurred_noise_that_is_rounded(random):
    """The finest mask would see little else than rounding."""
    noise = gaussian_filter(_averaged(random), (0, 1.2, 1.2))
    groups, far = _groups(np.rint(200 + 4 * noise / noise.std()))
    step = mask_step(np.exp(-(np.arange(1, 9) ** 2) / 4 / 1.2**2))
    assert step == 3
    fine, coarse = (series_correlation(groups, far, each).correlation[0] for each in (1, step))
    assert coarse == pytest.approx(0.5, abs=0.06)
    assert fine < coarse - 0.1


def test_steps():
    assert [mask_step(np.array(each)) for each in ([0, 0.9], [0.4, 0], [0.9] * 9)] == [1, 2, 4]


def test_fine_texture_that_moves_is_not_correlated_noise(random):
    groups, far = _groups(_moving(skimage.data.grass().astype(float), 1) + 20 * _white(random)[1:])
    found = series_correlation(groups, far)
    assert found.correlation[0] < -0.1 and found.independent_from == 1


def test_short_series(random):
    assert distances(1) == ([], None)
    assert distances(2) == ([1], None)
    assert distances(4) == ([1, 2, 3], None)
    assert distances(5) == ([1, 2, 3], 4)
    assert distances(9) == ([1, 2, 3], 8)
    groups, far = _groups(random.normal(size=(2, 64, 64)))
    found = series_correlation(groups, far)
    assert found.groups == 1 and found.shared is None
    assert abs(found.correlation[0]) < 4 * found.error[0]
    assert "too few slices to tell noise from what stays" in found.lines("slices")[-1]
    assert found.to_dict()["correlation"] == [pytest.approx(found.correlation[0], abs=1e-4)]


def test_error_is_that_of_chance(random):
    found = [
        series_correlation([random.normal(size=(2, 96, 96, 1))], None).correlation[0]
        for _ in range(40)
    ]
    error = series_correlation([random.normal(size=(2, 96, 96, 1))], None).error[0]
    assert np.std(found) / 2 < error < 2 * np.std(found)


@pytest.mark.parametrize("planes", [np.zeros((2, 64, 64, 1)), np.ones((2, 12, 64, 1))])
def test_no_noise_to_see(planes):
    assert series_correlation([planes], None) is None
    assert series_correlation([], None) is None
