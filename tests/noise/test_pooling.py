import numpy as np
import pytest

from cbsn.noise.autocovariance import REACH, autocovariance, split
from cbsn.noise.pooling import groups, noise_levels, sample_size, typical_correlation
from cbsn.noise.survey import Blocks


def _blocks(values, picture, corner):
    """Of [n, C, 1024] pixels."""
    shape = values.shape[:2]
    return Blocks(
        content=np.zeros(shape[0]),
        quiet=np.ones(shape),
        brightness=np.zeros(shape),
        covariance=autocovariance(split(values)[1]),
        picture=np.asarray(picture),
        corner=np.asarray(corner),
    )


def test_groups_are_places_in_few_pictures(random):
    values = random.normal(size=(4, 1, 1024))
    blocks = _blocks(values, [0, 0, 0, 5], [(0, 0), (3, 3), (0, 4), (0, 0)])
    a, b, c, d = groups(blocks)
    assert a == b
    assert len({a, c, d}) == 3


def test_groups_are_pictures_if_there_are_many(random):
    values = random.normal(size=(32, 1, 1024))
    picture = np.repeat(np.arange(16) * 3, 2)
    corner = np.tile([(0, 0), (40, 40)], (16, 1))
    np.testing.assert_array_equal(groups(_blocks(values, picture, corner)), picture // 3)


def test_sample_size(random):
    """Pixels count once, and channels that are equal as one."""
    corner = [(0, 0), (0, 1), (0, 0), (4, 4)] * 25
    picture = np.repeat(np.arange(50), 2)
    gray = random.normal(size=(100, 1, 1024))
    pixels = 25 * (32 * 48 + 2 * 32 * 32)
    assert sample_size(_blocks(gray, picture, corner)) == pytest.approx(pixels)
    equal = np.repeat(gray, 3, axis=1)
    assert sample_size(_blocks(equal, picture, corner)) == pytest.approx(pixels)
    different = random.normal(size=(100, 3, 1024))
    assert sample_size(_blocks(different, picture, corner)) == pytest.approx(3 * pixels, rel=0.05)


def test_outliers_do_not_count(random):
    white = autocovariance(split(random.normal(size=(400, 1024)))[1])
    group = np.repeat(np.arange(20), 20)
    waves = np.tile(20 * np.sin(np.arange(32) * np.pi / 4), 32)
    spoilt = white.copy()
    spoilt[:60] = autocovariance(split(waves)[1])
    before, error = typical_correlation(white, group, 400 * 1024)
    after, _ = typical_correlation(spoilt, group, 400 * 1024)
    assert abs(spoilt.mean(axis=0)[0, REACH + 8]) > 10
    assert abs(after[0, REACH + 1 :]).max() < 0.01
    np.testing.assert_allclose(before[0, REACH], 1)
    assert (error > 0.0015).all()


def test_error_is_that_of_repetitions():
    repeated, told = [], []
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=(64, 1024))
        covariance = autocovariance(split(noise)[1])
        found, error = typical_correlation(covariance, np.arange(64), 64 * 1024)
        repeated.append(found[0, REACH + 1 : REACH + 7])
        told.append(error[0, REACH + 1 : REACH + 7])
    assert np.mean(told) == pytest.approx(np.std(repeated), rel=0.2)


def test_groups_count_by_their_blocks(random):
    white = autocovariance(split(random.normal(size=(100, 1024)))[1])
    other = np.repeat(autocovariance(split(np.tile([1.0, -1], 512)[None])[1]), 10, axis=0)
    group = np.concatenate([np.zeros(100, int), np.arange(1, 11)])
    found, _ = typical_correlation(np.concatenate([white, other]), group, 1e5)
    assert abs(found[0, REACH + 1]) < 0.02


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
