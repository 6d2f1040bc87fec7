import dataclasses
import math
import warnings

import keras
import numpy as np
import pytest
import scipy
import skimage.data

from cbsn.errors import CbsnWarning, ConfigError
from cbsn.images.stacks.scaling import Scale
from cbsn.inference import uncertainty
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.pixels import Frame
from cbsn.inference.uncertainty import WINDOWS, Calibration, Uncertainty, places
from cbsn.noise.synthetic import simulate_camera
from cbsn.orientations import NUM_ORIENTATIONS, orient
from cbsn.recipes import customised
from tests import rounding
from tests.cases import slow_except
from tests.inference.linear import EVEN, ROW, gain, linear, of_ensemble

OPTIONS = DenoiseOptions(precision="float32", engine="tensorflow")
UNCALIBRATED = Calibration()


def small(name="distill", channels=3, denoise_stride=1, **options):
    sizes = {"filters": 4, "channels": channels, "denoise_stride": denoise_stride}
    sizes |= {"num_modules": 1} if name == "cbsn" else {"depth": 1}
    keras.utils.set_random_seed(1)
    recipe = customised(name, **sizes)
    return Denoiser(recipe, recipe.build_network(), dataclasses.replace(OPTIONS, **options))


def spread_of(denoiser, image, **options):
    """The result, and the spread alone."""
    with denoiser.estimating(Uncertainty(UNCALIBRATED)) as found:
        result = denoiser(image, **options)
    return result, found.of_picture(result)


@pytest.fixture(scope="module")
def photo():
    return simulate_camera(skimage.data.chelsea())[:80, 100:196]


@pytest.fixture
def noise(random):
    """Makes white noise of a standard deviation, [H, W, 1]."""
    return lambda sigma, size=(256, 256): random.normal(0, sigma, (*size, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options"),
    [("distill", {}), ("n2v-unet", {}), ("cbsn", {"r3": True}), ("cbsn", {"denoise_stride": 2})],
)
@pytest.mark.parametrize("size", [(40, 40), (40, 52)])
def test_the_spread_is_the_deviation_of_the_eight_results(photo, name, options, size):
    """With R3 and sub-images, too, in squares and in rectangles."""
    planes = photo[None, : size[0], : size[1]].astype(np.float32)
    scale = Scale(0.0, 255.0, 120.0, 50.0)
    denoiser = small(name, **options)
    results = []

    def one_by_one(frames, units, on_tile, ensemble):
        for number in range(NUM_ORIENTATIONS):
            back = np.zeros(frames[0].image.shape)
            frame = Frame(orient(frames[0].image, number), frames[0].units, number)
            for _, where, result in denoiser._passes([frame], on_tile):
                orient(back, number)[where] = result
            frames[0].units.enlarge(back)
            results.append(units[0] * back)

    with denoiser.estimating(one_by_one):
        denoiser.scaled(planes, scale)
    with denoiser.estimating(Uncertainty(UNCALIBRATED)) as found:
        mean = denoiser.scaled(planes, scale)
    expected = np.std(results, axis=0, ddof=1)
    # The orientations may be computed together, and float32 sums of eight values.
    atol = (rounding.of_outputs(denoiser.network) + 1e-6) * np.abs(results).max()
    assert expected.mean() > 20 * atol
    np.testing.assert_allclose(found.sigmas[0], expected, atol=atol)
    offset = mean[0] - np.mean(results, axis=0)  # the normalisation's mean
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:1, :1], offset.shape), atol=8 * atol)


def test_the_spread_of_what_does_not_depend_on_the_orientation_is_0(noise):
    image = 0.5 + noise(0.05, (40, 60))
    _, even = spread_of(linear(EVEN), image)
    _, row = spread_of(linear(ROW), image)
    # What float32 rounds sums of eight values near 0.5 to.
    assert even.max() < 1e-6
    # Horizontal and vertical means of five share one pixel: each differs from their mean by half of
    # their difference, whose variance is 2 · (1/5 − 1/25) σ². Of 2400 pixels, of which five have
    # much in common, the standard error is 3 %.
    expected = 0.05 * math.sqrt(8 / 7 / 4 * 2 * (1 / 5 - 1 / 25))
    assert np.sqrt(np.mean(row**2)) == pytest.approx(expected, rel=0.1)


@pytest.fixture(scope="module")
def with_and_without_ensemble():
    """Denoisers with one network."""
    ensemble = small(self_ensemble=True)
    return ensemble, Denoiser(ensemble.recipe, ensemble.network, OPTIONS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", slow_except((1, 2, 3, 4), 3))
def test_the_result_is_that_of_the_self_ensemble(photo, with_and_without_ensemble, dtype, channels):
    image = photo[..., : 1 if channels < 3 else 3]
    if channels % 2 == 0:
        image = np.concatenate([image, np.full((80, 96, 1), 200, np.uint8)], axis=-1)
    if np.dtype(dtype).kind == "f":
        image = image / 255
    image = np.ascontiguousarray(image.astype(dtype))
    if channels % 2 == 0:
        image[:10, ..., -1] = 0
    expected, plain = with_and_without_ensemble
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CbsnWarning)
        shares = []
        clean, sigma = plain.with_uncertainty(image, shares.append)
        np.testing.assert_array_equal(clean, expected(image))
        assert math.fsum(shares) == pytest.approx(1)
        assert sigma.dtype == np.float32 and sigma.shape == (80, 96, 1 if channels < 3 else 3)
        assert np.isfinite(sigma).all() and sigma[10:].min() > 0
        if channels % 2 == 0:
            assert not sigma[:10].any()
        again = plain.with_uncertainty(image)[1]
        np.testing.assert_array_equal(again, sigma)
        # Afterwards, everything is as before.
        other = Denoiser(plain.recipe, plain.network, OPTIONS)
        np.testing.assert_array_equal(plain(image), other(image))


def test_gray_and_hidden_pictures(photo):
    denoiser = small()
    with pytest.warns(CbsnWarning, match="Of a picture: "):
        clean, sigma = denoiser.with_uncertainty(photo[..., 0])
    assert clean.shape == sigma.shape == (80, 96)
    hidden = np.dstack([photo, np.zeros((80, 96, 1), np.uint8)])
    clean, sigma = denoiser.with_uncertainty(hidden)
    np.testing.assert_array_equal(clean, hidden)
    assert sigma.shape == (80, 96, 3) and not sigma.any()


@pytest.mark.parametrize("name", ["distill", "n2v-unet", "cbsn"])
def test_tiles_equal_the_whole(photo, name):
    image = (photo / 255).astype(np.float32)
    whole = small(name, tile=0)
    tiled = Denoiser(whole.recipe, whole.network, dataclasses.replace(OPTIONS, tile=16))
    (_, expected), (_, spread) = (spread_of(each, image) for each in (whole, tiled))
    np.testing.assert_allclose(spread, expected, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CbsnWarning)
        expected, sigma = (each.with_uncertainty(image)[1] for each in (whole, tiled))
    np.testing.assert_allclose(sigma, expected, rtol=1e-2)


def assert_near(found, sigma, kernel):
    """The estimate of the error of a filter on flat pictures, which is `sigma` · `gain`.

    The bootstrap filters the result, which is not as flat as the truth: it loses some of that. And
    as the noise is measured to some 3 % only, up to 6 % of its variance may count as lost content.
    """
    twice = _convolved(kernel) - np.pad(kernel, len(kernel) // 2)
    least = sigma * math.hypot(gain(kernel), gain(twice))
    predicted = np.sqrt(np.mean(np.square(found)))
    assert 0.95 * least <= predicted <= 1.03 * math.hypot(least, 0.25 * sigma)
    return predicted


def _convolved(kernel):
    return scipy.signal.convolve2d(kernel, kernel)


@pytest.mark.parametrize("kernel", [EVEN, ROW], ids=["even", "row"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_the_error_of_a_linear_filter_on_flat_pictures(noise, kernel, strength):
    """Its standard deviation is known; and so is the share of the truths within one and two."""
    sigma = 0.06
    clean, found = linear(kernel, strength=strength).with_uncertainty(0.5 + noise(sigma))
    whole = of_ensemble(kernel) * strength
    whole[len(whole) // 2, len(whole) // 2] += 1 - strength
    ratio = assert_near(found, sigma, whole) / (sigma * gain(whole))
    error = np.abs(clean - 0.5)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(sigma * gain(whole), rel=0.02)
    for times in 1, 2:
        expected = math.erf(times * ratio / math.sqrt(2))
        assert expected > math.erf(times * 0.95 / math.sqrt(2))
        # The standard error of the share is 0.5 %, as some ten pixels have much in common.
        assert np.mean(error <= times * found) == pytest.approx(expected, abs=0.02)


def test_content_that_is_lost_counts(noise):
    """Waves lose the same part in all orientations: no spread shows it, nor does the bootstrap.

    There are flat parts that are darker and brighter, so that the noise is known for the waves.
    """
    sigma, size, frequency = 0.06, 256, 2 * np.pi * 0.3
    wave = 0.15 * np.sin(frequency * np.arange(size))[:, None, None]
    truth = np.full((size, size, 1), 0.4)
    truth[size // 2 :] = 0.6
    truth[:, : size // 2] = 0.5 + wave
    kept = (1 + np.cos(frequency)) / 2  # of the filter (1, 2, 1) / 4, along one axis
    lost = (1 - kept) ** 2 * 0.15**2 / 2 / 2
    clean, found = linear(EVEN).with_uncertainty((truth + noise(sigma)).astype(np.float32))
    expected = math.sqrt(lost + (sigma * gain(EVEN)) ** 2)
    assert expected > 2 * sigma * gain(EVEN)
    assert np.sqrt(np.mean((clean - truth) ** 2)) == pytest.approx(expected, rel=0.02)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(expected, rel=0.05)


def test_where_the_spread_is_large_so_is_the_uncertainty(noise):
    """A filter that blurs along rows errs at edges, and its spread shows where."""
    truth = np.full((256, 256, 1), 0.3)
    truth[64:192, 64:192] = 0.7
    image = (truth + noise(0.03)).astype(np.float32)
    clean, found = linear(ROW).with_uncertainty(image)
    at_edges = np.zeros((256, 256), bool)
    for edge in (64, 192):
        at_edges[edge - 2 : edge + 2, 64:192] = at_edges[64:192, edge - 2 : edge + 2] = True
    error = np.square(clean - truth)[..., 0]
    for where in (at_edges, ~at_edges):
        actual, predicted = np.sqrt(error[where].mean()), np.sqrt(np.mean(found[where] ** 2))
        assert 0.7 * actual < predicted < 1.4 * actual
    # One number for all pixels would be wrong by more.
    assert np.sqrt(error[at_edges].mean() / error[~at_edges].mean()) > 4


def test_shot_noise_makes_bright_parts_less_sure(random):
    """The same filter makes twice the error where there is four times the light."""
    light = np.repeat([40.0, 160.0], 128)[:, None, None] * np.ones((256, 256, 1))
    image = (random.poisson(light) / 250).astype(np.float32)
    _, found = linear(EVEN).with_uncertainty(image, white=1.0)
    dark, bright = (np.sqrt(np.mean(found[rows] ** 2)) for rows in np.s_[8:120, 136:248])
    assert bright / dark == pytest.approx(2, rel=0.1)
    # Both as without shot noise, see `assert_near`, but here half as many pixels are measured.
    assert bright == pytest.approx(math.sqrt(160) / 250 * gain(EVEN), rel=0.4)


def test_units_are_those_of_the_picture(noise):
    unit = np.clip(0.5 + noise(0.05, (128, 128)), 0, 1)
    expected = linear(EVEN).with_uncertainty(unit, white=1.0)[1].mean()
    deep = np.rint(unit * 4095).astype(np.uint16)  # of 12 bits
    assert linear(EVEN).with_uncertainty(deep)[1].mean() / 4095 == pytest.approx(expected, rel=0.05)
    own = (unit * 700).astype(np.float32)
    assert linear(EVEN).with_uncertainty(own, white=700)[1].mean() / 700 == pytest.approx(
        expected, rel=0.05
    )


def test_a_model_of_stacks_estimates_for_pictures_in_their_units(noise):
    """Its network sees deviations from the mean, which may be negative."""
    flat = linear(EVEN)
    scale = {"low": 1000.0, "high": 1020.0, "mean": 1000.0, "deviation": 20.0}
    scaling = {"method": "deviation", "channels": [scale]}
    recipe = dataclasses.replace(flat.recipe, scaling=scaling)
    image = 1000 + noise(20.0)
    _, found = Denoiser(recipe, flat.network, flat.options).with_uncertainty(image)
    assert_near(found, 20.0, EVEN)


def test_where_the_noise_cannot_be_measured_there_is_the_spread(photo):
    denoiser = small()
    for image in (photo[:24, :20], np.full((64, 64, 3), 99, np.uint8)):
        expected = spread_of(denoiser, image)[1]
        with pytest.warns(
            CbsnWarning, match="noise cannot be measured, so the uncertainty is only"
        ):
            found = denoiser.with_uncertainty(image)[1]
        np.testing.assert_array_equal(found, expected)


def test_a_large_picture_is_looked_at_in_windows(noise, monkeypatch):
    """Memory and time of the calibration do not grow with the picture."""
    seen = []
    cast = uncertainty.cast
    monkeypatch.setattr(uncertainty, "cast", lambda *a: seen.append(a[0].shape) or cast(*a))
    image = 0.5 + noise(0.06, (700, 900))
    _, found = linear(EVEN).with_uncertainty(image)
    assert seen == [(128, 128, 1)] * WINDOWS
    assert_near(found, 0.06, EVEN)


def test_nothing_is_estimated_where_nothing_is_removed():
    image = np.zeros((8, 8), np.float32)
    with pytest.raises(ConfigError, match=r"Received: --strength 0"):
        linear(EVEN, strength=0.0).with_uncertainty(image)


@pytest.mark.parametrize("size", [(1, 1), (128, 128), (129, 40), (1000, 1), (512, 512), (513, 300)])
@pytest.mark.parametrize("side", [128, 256])
def test_windows_lie_in_the_picture_and_cover_small_ones(size, side):
    found = places(*size, side)
    assert 1 <= len(found) <= WINDOWS
    covered = np.zeros(size, int)
    for rows, columns in found:
        covered[rows, columns] += 1
    shapes = {(r.stop - r.start, c.stop - c.start) for r, c in found}
    assert len(shapes) == 1 and max(*shapes.pop()) <= side
    if math.prod(-(-each // side) for each in size) <= WINDOWS:
        assert covered.min() >= 1
    assert covered.any(axis=1).mean() >= 0.1


@pytest.mark.parametrize("size", [(3000, 4000), (100, 90000), (90000, 100), (2049, 2049)])
def test_windows_of_large_pictures_are_spread_over_them(size):
    found = places(*size, 128)
    assert WINDOWS / 2 < len(found) <= WINDOWS
    for axis, length in enumerate(size):
        assert min(each[axis].start for each in found) == 0
        assert max(each[axis].stop for each in found) == length
