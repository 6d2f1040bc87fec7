import numpy as np
import pytest
from keras import ops

from cbsn.augmentation import noise as module
from cbsn.augmentation.clean import Draws
from cbsn.augmentation.noise import (
    DRAWS,
    NoiseFamily,
    NoiseTables,
    add_measured_noise,
    add_noise,
)
from cbsn.colors import LUMA
from cbsn.noise.measured_noise import CorrelatedNoise
from tests.noise_by_numpy import with_noise

SIZE = 32
ROWS = 64


def _noisy(clean, models, family, recorded, crisp=False):
    random = recorded()
    draws = Draws(random, len(clean), DRAWS)
    tables = NoiseTables.of(models, clean.shape[1])
    return ops.convert_to_numpy(
        add_noise(
            ops.convert_to_tensor(clean),
            np.full(len(clean), crisp),
            tables,
            family,
            draws,
            random,
        )
    )


def test_tables_have_the_curves_of_all_models(models):
    """Also where one has fewer points, and beyond the last."""
    first = models()[0]
    short = CorrelatedNoise([curve[:1] for curve in first.levels], np.ones((3, 3, 1, 1)))
    tables = NoiseTables.of([first, short], 8)
    curves = tables.brightness, tables.sigma
    for m, model in enumerate((first, short)):
        for c, curve in enumerate(model.levels):
            at = np.linspace(0, 1, 50)
            np.testing.assert_allclose(
                np.interp(at, *(ops.convert_to_numpy(each[m, c]) for each in curves)),
                np.interp(at, *(curve.T / 255)),
                rtol=1e-6,
            )


@pytest.mark.parametrize("channels", [1, 3])
def test_sigma_is_interpolated(models, channels, random):
    model = models(channels)[0]
    clean = random.random((2, 8, 8, channels), np.float32)
    tables = NoiseTables.of([model, model], 8)
    sigma = module._sigma(ops.convert_to_tensor(clean), tables)
    for c, curve in enumerate(model.levels):
        expected = np.interp(clean[..., c], *(curve.T / 255))
        np.testing.assert_allclose(ops.convert_to_numpy(sigma)[..., c], expected, atol=1e-6)


def test_noise_is_that_of_the_model(models, recorded):
    """Its strength, its correlation from pixel to pixel, and from channel to channel.

    Of n values in a row of batches, an estimate of a correlation has an error of about 1/√n; here
    n is 65,536, of which neighbours count less: 0.02 is four times that.
    """
    model = models()[1]  # in sRGB values, so that its strength can be seen
    clean = np.full((ROWS, SIZE, SIZE, 3), 120 / 255, np.float32)
    family = NoiseFamily(gain=(1.0, 1.0), processed=0.0, none=0.1)
    noise = _noisy(clean, [model], family, recorded) - clean
    has_noise = noise.std((1, 2, 3)) > 2 / 255
    assert 0.8 < has_noise.mean() < 1
    noise = noise[has_noise] * 255
    np.testing.assert_allclose(noise.std((0, 1, 2)), 20, rtol=0.03)
    unit = noise / noise.std()
    assert (unit[:, :, 1:] * unit[:, :, :-1]).mean() == pytest.approx(0.2, abs=0.02)
    assert (unit[:, :, 2:] * unit[:, :, :-2]).mean() == pytest.approx(0.0, abs=0.02)
    assert (unit[..., 0] * unit[..., 1]).mean() == pytest.approx(0.3, abs=0.02)


def test_crisp_pictures_get_none_more_often(models, recorded):
    """Of 64 pictures 40 % are 26 ± 4, and 10 % are 6 ± 2.5."""
    clean = np.full((ROWS, SIZE, SIZE, 3), 120 / 255, np.float32)
    family = NoiseFamily(gain=(1.0, 1.0), processed=0.0, none=0.1, none_if_crisp=0.4)
    others, crisp = (
        (_noisy(clean, models(), family, recorded, crisp) == clean).all((1, 2, 3)).mean()
        for crisp in (False, True)
    )
    assert others < 0.25 < crisp


class Given:
    """The same numbers for every picture, and NumPy's noise."""

    def __init__(self, *values):
        self._values = np.float32([values])

    def uniform(self, shape):
        return np.repeat(self._values, shape[0], axis=0)

    def normal(self, shape):
        return np.random.default_rng(1).standard_normal(shape, np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", [0, 1])
def test_measured_noise_is_what_numpy_adds(models, channels, number, random):
    """From the same random numbers, by the model and with the gain that they stand for."""
    clean = random.random((1, 16, 16, channels), np.float32)
    model = models(channels)[number]
    expected = with_noise(model, clean[0], np.random.default_rng(1), 0.5 * 4**0.7)
    given = Given(0.5 * number, 0.7)
    noisy = add_measured_noise(
        ops.convert_to_tensor(clean),
        NoiseTables.of(models(channels), 16),
        (0.5, 2.0),
        Draws(given, 1, 2),
        given,
    )
    assert np.abs(expected - clean[0]).mean() > 0.01
    np.testing.assert_allclose(ops.convert_to_numpy(noisy)[0], expected, atol=1e-5)


def test_gain_is_from_next_to_nothing_up(models, recorded):
    clean = np.full((ROWS, SIZE, SIZE, 3), 120 / 255, np.float32)
    noise = _noisy(clean, models(), NoiseFamily(), recorded) - clean
    levels = np.sort(noise.std((1, 2, 3))) * 255
    assert levels[0] < 0.4 and levels[-1] > 20
    values = (noise + clean) * 255
    np.testing.assert_allclose(values, np.rint(values), atol=1e-3)
    assert values.min() >= 0 and values.max() <= 255


def test_processed_noise_reaches_further_and_is_not_weaker(models, recorded):
    model = models()[1]
    white = recorded().normal((ROWS, 3, SIZE, SIZE))
    roots = NoiseTables.of([model] * ROWS, SIZE).roots
    found = []
    for sigma in ((0.0, 0.0), (1.2, 0.0), (0.0, 1.5)):
        wider, chroma = (np.full(ROWS, each, np.float32) for each in sigma)
        field = ops.convert_to_numpy(
            module._correlated(ops.convert_to_tensor(white), roots, wider, chroma)
        )
        assert field.std() == pytest.approx(1, rel=0.03)
        luma = field @ np.float32(LUMA)
        blue = field[..., 2] - luma
        found.append([_next_but_one(part) for part in (luma, blue)])
    as_it_is, wider, of_colours = found
    assert min(wider) > max(as_it_is) + 0.2
    assert of_colours[0] == pytest.approx(as_it_is[0], abs=0.03)
    assert of_colours[1] > as_it_is[1] + 0.2


def test_colours_stay_as_strong_as_they_were(models, recorded):
    """Relative to the luminance, where they alone are smoothed."""
    white = recorded().normal((ROWS, 3, SIZE, SIZE))
    roots = NoiseTables.of(models()[1:] * ROWS, SIZE).roots
    none = np.zeros(ROWS, np.float32)
    shares = []
    for chroma in (0.0, 1.5):
        field = ops.convert_to_numpy(
            module._correlated(ops.convert_to_tensor(white), roots, none, none + np.float32(chroma))
        )
        luma = field @ np.float32(LUMA)
        shares.append((field - luma[..., None]).std() / luma.std())
    # Smooth noise of 64 × 32² has a twentieth as many independent values: an error of 1.5 %.
    assert shares[1] == pytest.approx(shares[0], rel=0.06)


def _next_but_one(field):
    """The correlation of pixels with those two to the right."""
    return (field[:, :, 2:] * field[:, :, :-2]).mean() / np.square(field).mean()
