import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from cbsn.errors import DataError
from cbsn.images.finding import find_images
from cbsn.images.image_files import read_picture
from cbsn.noise.advice import advise
from cbsn.noise.autocovariance import REACH, autocovariance, split
from cbsn.noise.estimate import (
    ONE_BRIGHTNESS,
    estimate_noise,
    estimate_noise_of_residuals,
    groups,
    noise_levels,
    sample_size,
    typical_correlation,
)
from cbsn.noise.survey import Blocks
from cbsn.noise.synthetic import Noise, neighbour_correlation, simulate_camera

FOUR_ERRORS = 4

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize("sigma", [5, 25])
def test_white_noise(sigma, photographs, add_noise, random):
    estimate = estimate_noise(add_noise(photographs, sigma, random))
    np.testing.assert_allclose(estimate.level, sigma, rtol=0.03)
    np.testing.assert_allclose(estimate.spread, sigma, rtol=0.08)
    assert (estimate.misfit < 0.03).all()
    assert abs(estimate.correlation[:, 1:]).max() < 0.02
    assert abs(estimate.correlation[:, 0]).max() < 0.03
    assert estimate.deviation.max() < 0.01
    advice = advise(estimate)
    assert (advice.recipe, advice.stride_b, advice.stride_i) == ("n2v-unet", 1, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_levels_are_of_8_bits_for_all_depths(dtype, walls, add_noise, random):
    scale = {"uint8": 255, "uint16": 65535}.get(dtype)
    pictures = add_noise(walls, 12, random)
    if scale:
        pictures = [np.rint(np.clip(p, 0, 1) * scale).astype(dtype) for p in pictures]
    else:
        pictures = [picture.astype(dtype) for picture in pictures]
    estimate = estimate_noise(pictures)
    assert estimate.channels == ("gray",)
    np.testing.assert_allclose(estimate.level, 12, rtol=0.03)
    assert all(60 < intensity < 250 for intensity in estimate.points[0][:, 0])


def _box(size):
    return lambda noise: uniform_filter(noise, (*size, 0))


@pytest.mark.parametrize(
    ("smooth", "correlations", "stride"),
    [
        (_box((2, 2)), ([0.5, 0, 0], [0.5, 0, 0]), 2),
        (_box((3, 3)), ([2 / 3, 1 / 3, 0], [2 / 3, 1 / 3, 0]), 3),
        (_box((1, 3)), ([2 / 3, 1 / 3, 0], [0, 0, 0]), 3),
        (_box((4, 1)), ([0, 0, 0], [3 / 4, 2 / 4, 1 / 4]), 4),
        (
            lambda noise: gaussian_filter(noise, (0.8, 0.8, 0)),
            (np.exp(-np.array([1, 4, 9, 16]) / 4 / 0.8**2),) * 2,
            4,
        ),
    ],
)
def test_blurred_noise(smooth, correlations, stride, photographs, walls, add_noise, random):
    """Against the autocorrelation of the kernel."""
    gray = [np.repeat(wall, 3, axis=2) for wall in walls]
    estimate = estimate_noise(add_noise([*photographs, *gray], 20, random, smooth))
    for found, error, expected in zip(
        estimate.correlation, estimate.deviation, correlations, strict=False
    ):
        size = len(expected)
        assert error.max() < 0.008
        # What content adds on top is no more than 0.01.
        np.testing.assert_array_less(
            abs(found[:size] - expected), FOUR_ERRORS * error[:size] + 0.01
        )
    for channel in estimate.channel_correlation:
        np.testing.assert_allclose(channel, estimate.correlation, atol=0.03)
    np.testing.assert_allclose(estimate.level, 20, rtol=0.06)
    assert advise(estimate).stride_b == stride
    assert advise(estimate).recipe == "cbsn"


def test_map_agrees_with_the_directions(walls, add_noise, random):
    smooth = lambda noise: uniform_filter(noise, (1, 3, 0))  # noqa: E731
    estimate = estimate_noise(add_noise(walls, 20, random, smooth))
    middle = 14
    assert estimate.correlation_map.shape == (29, 29)
    turned = estimate.correlation_map[::-1, ::-1]
    np.testing.assert_allclose(estimate.correlation_map, turned, atol=1e-6)
    for lag in (1, 2, 5, 12):
        values = [
            estimate.correlation_map[middle + down * lag, middle + right * lag]
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))
        ]
        np.testing.assert_array_equal(values, estimate.correlation[:, lag - 1])


def test_simulated_camera(photographs):
    """Bilinear demosaicing smears over two pixels."""
    pictures = [simulate_camera(photograph) for photograph in photographs]
    clean = [simulate_camera(photograph, shot=0, read=0) for photograph in photographs]
    estimate = estimate_noise(pictures)
    truth = estimate_noise_of_residuals(zip(pictures, clean, strict=True))
    np.testing.assert_allclose(estimate.correlation[:2], truth.correlation[:2], atol=0.035)
    np.testing.assert_allclose(truth.correlation[:2, 2:], 0, atol=0.012)
    assert advise(truth).stride_b == 3
    assert advise(truth).recipe == advise(estimate).recipe == "cbsn"


def test_poisson_gaussian_noise(photographs, random):
    noise = Noise("poisson-gaussian", sigma=(8, 8), peak=(50, 50))
    estimate = estimate_noise([noise(photograph, random) for photograph in photographs])
    for slope, floor, points in zip(estimate.slope, estimate.floor, estimate.points, strict=True):
        assert slope == pytest.approx(255 / 50, rel=0.1)
        assert floor == pytest.approx(64, abs=40)
        np.testing.assert_allclose(points[:, 1] ** 2, 255 / 50 * points[:, 0] + 64, 0.1, 30)
        assert (np.diff(points[:, 0]) >= 0).all()
    assert (estimate.misfit < 0.05).all()
    assert advise(estimate).stride_b == 1


def test_pictures_of_different_strength(walls, random):
    noisy = [
        (wall + sigma * random.normal(size=wall.shape)).astype("float32") / 255
        for sigma, wall in zip((4, 5, 6, 12, 14, 16), walls, strict=True)
    ]
    estimate = estimate_noise(noisy)
    assert estimate.level[0] == pytest.approx(9, abs=1)
    np.testing.assert_allclose(estimate.spread, [[4.5, 15]], rtol=0.1)


def test_clipping_and_histogram(random):
    picture = 100 + 5 * random.normal(size=(256, 256, 3))
    picture[:128, :, 0] = 0
    picture[:64, :, 2] = 300
    picture = np.clip(np.rint(picture), 0, 255).astype("uint8")
    estimate = estimate_noise([picture, picture])
    np.testing.assert_allclose(estimate.clipped, [[0.5, 0], [0, 0], [0, 0.25]])
    assert estimate.histogram.shape == (3, 64)
    np.testing.assert_allclose(estimate.histogram.sum(axis=1), 1)
    assert estimate.histogram[0, 0] == 0.5
    np.testing.assert_allclose(estimate.level, 5, rtol=0.05)


def test_floats_beyond_the_range_are_not_clipped(walls, add_noise, random):
    dark = [np.zeros_like(wall) for wall in walls]
    estimate = estimate_noise(add_noise(dark, 10, random))
    assert not estimate.clipped.any()
    assert estimate.level[0] == pytest.approx(10, rel=0.02)
    cut = [np.clip(picture, 0, 1) for picture in add_noise(dark, 10, random)]
    with pytest.raises(DataError, match="1350 clipped"):
        estimate_noise(cut)


def test_residual_with_the_clean_pictures_is_the_truth(photographs, random):
    """Also where there is hardly anything flat."""
    pairs = []
    for photograph in photographs:
        noise = 3 * uniform_filter(15 * random.normal(size=photograph.shape), (3, 3, 0))
        pairs.append(((photograph + noise) / 255, photograph / 255))
    estimate = estimate_noise_of_residuals(pairs)
    np.testing.assert_allclose(estimate.level, 15, rtol=0.02)
    np.testing.assert_allclose(estimate.correlation[:2, :2], [[2 / 3, 1 / 3]] * 2, atol=0.01)
    np.testing.assert_allclose(estimate.correlation[:2, 2:], 0, atol=0.01)
    assert estimate.source == "what the denoiser removed"


def test_unsigned_residuals_do_not_wrap_around(walls, random):
    noisy = [np.clip(w + 9 * random.normal(size=w.shape), 0, 255).astype("uint8") for w in walls]
    estimate = estimate_noise_of_residuals(zip(noisy, walls, strict=True))
    assert estimate.level[0] == pytest.approx(9, rel=0.03)


def test_order_and_number_of_pictures_do_not_matter(walls, add_noise, random):
    noisy = add_noise(walls, 10, random)
    first, second = estimate_noise(noisy), estimate_noise(iter(noisy[::-1]))
    np.testing.assert_allclose(first.correlation, second.correlation, atol=1e-6)
    assert first.pictures == second.pictures == 6
    assert first.of_blocks == 6 * 15**2
    assert 8 <= first.blocks <= first.of_blocks


def test_small_pictures_are_counted_but_not_needed(walls, add_noise, random):
    noisy = add_noise(walls, 10, random)
    small = [noisy[0][:31]]
    estimate = estimate_noise([*noisy, *small])
    assert estimate.pictures == 7
    with pytest.raises(DataError, match=r"32 × 32 pixels: .* Received: 1 picture"):
        estimate_noise(small)


def test_nothing_flat(photographs):
    with pytest.raises(DataError, match=r"too few flat blocks.*--denoised.*Received: 1 picture"):
        estimate_noise([photographs[1][100:200, 100:200]])


def test_no_pictures():
    with pytest.raises(DataError, match="Received: 0 pictures"):
        estimate_noise([])


def test_gray_and_colour_together(photographs, walls):
    with pytest.raises(DataError, match="one of 1 channels after others of 3"):
        estimate_noise([photographs[0], walls[0]])


@pytest.mark.parametrize("change", [lambda p: p[1:], lambda p: p.astype("uint16")])
def test_pairs_that_do_not_fit(change, walls):
    with pytest.raises(DataError, match="the same size and bit depth"):
        estimate_noise_of_residuals([(walls[0], change(walls[0]))])


def test_to_json(walls, add_noise, random):
    estimate = estimate_noise(add_noise(walls, 10, random))
    found = json.loads(json.dumps(estimate.to_dict()))
    assert found["level"] == pytest.approx(estimate.level, abs=1e-4)
    assert np.shape(found["correlation"]) == (4, 12)
    assert np.shape(found["points"])[0] == 1
    assert (found["pictures"], found["source"]) == (6, "flat blocks")


def test_lines(walls, photographs, add_noise, random):
    for pictures, names in ((walls, "gray"), (photographs, "red")):
        estimate = estimate_noise(add_noise(pictures, 10, random))
        lines = estimate.lines()
        assert lines[0].startswith(f"Noise of {len(pictures)} pictures, seen in flat blocks: ")
        assert names in lines[2]
        assert f"{estimate.level[0]:.2f}" in lines[3]
        assert any(line.startswith("horizontal") for line in lines)
        assert max(map(len, lines)) <= 102
        assert "-0.000" not in "".join(lines)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    good = np.full((64, 64, 3), 0.5, np.float32)
    bad = good.copy()
    bad[5, 6, 0] = value
    with pytest.raises(DataError, match=r"not finite.*in picture 2"):
        estimate_noise([good, bad])
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match=r"not finite.*in picture 1"):
            estimate_noise_of_residuals([pair])


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


def test_one_brightness_tells_no_line(random):
    estimate = estimate_noise([random.normal(0.5, 0.01, (128, 128, 1)) for _ in range(4)])
    assert not estimate.has_slope.any()
    text = "\n".join(estimate.lines())
    assert text.count("unknown") == 3 and ONE_BRIGHTNESS in text
    numbers = estimate.to_dict()
    assert numbers["slope"] == numbers["floor"] == numbers["misfit"] == [None]


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


def _read(folder, step=1):
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder} is not here")
    return [read_picture(path).color for path in find_images(DATA / folder)[::step]]


def _truth(noisy, clean):
    """Along rows and along columns [2, 6], and the median σ of a picture in each channel."""
    noise = [a.astype(float) - b for a, b in zip(noisy, clean, strict=True)]
    power = [np.mean((each - each.mean(axis=(0, 1))) ** 2) for each in noise]
    rho = [
        np.average([neighbour_correlation(turn(each), 6) for each in noise], 0, power)
        for turn in (np.asarray, lambda each: each.swapaxes(0, 1))
    ]
    return np.array(rho), np.median([each.std(axis=(0, 1)) for each in noise], axis=0)


# Against the true noise of real pictures, where there is one.


def test_sidd():
    noisy, clean = _read("sidd_val32/noisy"), _read("sidd_val32/clean")
    rho, sigma = _truth(noisy, clean)
    estimate = estimate_noise(noisy)
    np.testing.assert_allclose(estimate.correlation[:2, :6], rho, atol=0.025)
    np.testing.assert_allclose(estimate.correlation[:2, 2:6], rho[:, 2:], atol=0.006)
    # Clipped parts, which do not count, are noisier than the rest.
    np.testing.assert_allclose(estimate.level, sigma, rtol=0.1)
    advice = advise(estimate)
    assert (advice.stride_b, advice.stride_i, advice.recipe) == (5, 2, "cbsn")


@pytest.mark.slow
def test_dnd():
    """There is no clean side; that of the README's table has some content in it."""
    estimate = estimate_noise(_read("dnd_crops", 6))
    for values in estimate.correlation[:2]:
        np.testing.assert_allclose(values[:2], [0.50, 0.11], atol=0.04)
        np.testing.assert_allclose(values[2:5], [0.03, 0.02, 0], atol=0.01)
        assert abs(values[5:]).max() < 0.01
    advice = advise(estimate)
    assert (advice.stride_b, advice.recipe) == (5, "cbsn")


@pytest.mark.slow
def test_cc15():
    noisy, clean = _read("cc15/noisy"), _read("cc15/clean")
    rho, sigma = _truth(noisy[::3], clean[::3])
    truth = estimate_noise_of_residuals(zip(noisy[::3], clean[::3], strict=True))
    np.testing.assert_allclose(truth.correlation[:2, :6], rho, atol=0.05)
    np.testing.assert_allclose(truth.level, sigma, rtol=0.15)
    estimate = estimate_noise(noisy)
    # Seen in few blocks, and in those with the least of the long correlation.
    np.testing.assert_allclose(estimate.correlation[:2, :6], rho, atol=0.15)
    assert (estimate.correlation[:2, :4] < rho[:, :4]).all()
    for advice in (advise(truth), advise(estimate)):
        assert 6 <= advice.stride_b <= 10
        assert "JPEG" in " ".join(advice.reasons)


def test_weak_white_noise_on_bsd68(add_noise, random):
    estimate = estimate_noise(add_noise(_read("bsd68", 2), 5, random))
    assert estimate.level[0] == pytest.approx(5, rel=0.03)
    assert advise(estimate).stride_b == 1
