import numpy as np
import pytest

from cbsn.errors import DataError
from cbsn.noise.measured_noise import CorrelatedNoise, measure_roughly
from cbsn.noise.sampler import NoiseSampler
from cbsn.noise.synthetic import neighbour_correlation, simulate_camera
from tests.noise_by_numpy import with_noise


def _flat(random, sigma, size=(256, 256, 1), level=0.5):
    return (level + random.normal(0, sigma, size)).astype(np.float32)


@pytest.mark.parametrize("linear", [False, True])
def test_noise_is_added_as_by_numpy(random, linear):
    levels = [np.array([[0.0, 2.0], [128.0, 9.0], [255.0, 4.0]])] * 3
    covariance = np.zeros((3, 3, 3, 5))
    covariance[[0, 1, 2], [0, 1, 2], 0, 2] = 1
    covariance[:, :, 0, 3] = covariance[:, :, 0, 1] = 0.2
    model = CorrelatedNoise(levels, covariance, linear)
    picture = random.uniform(0.1, 0.8, (24, 24, 3)).astype(np.float32)
    expected = with_noise(model, picture, np.random.default_rng(3))
    noisy = NoiseSampler(model, 0.0, 1.0).add(picture, np.random.default_rng(3))
    np.testing.assert_allclose(noisy, expected, atol=1e-5)
    # The same in 16 bits, in their own units.
    sampler = NoiseSampler(model, 0.0, 65535.0)
    deep = sampler.add(picture * 65535, np.random.default_rng(3))
    np.testing.assert_allclose(deep, 65535 * expected, atol=1)


def test_what_is_drawn_is_like_what_was_measured():
    """On a slope that is as bright as can be at one end, with a camera's noise."""
    slope = np.broadcast_to(np.linspace(40, 220, 512)[:, None], (512, 512, 3)).astype(np.uint8)
    noisy, clean = (simulate_camera(slope, shot=n * 0.01, read=n * 0.02) for n in (1, 0))
    sampler = NoiseSampler.measure([noisy[:256], noisy[256:]])
    assert not sampler.is_rough
    again = sampler.add(clean, np.random.default_rng(0))
    true, drawn = (each.astype(float) - clean for each in (noisy, np.clip(again, 0, 255)))
    np.testing.assert_allclose(drawn.std(axis=(0, 1)), true.std(axis=(0, 1)), rtol=0.1)
    np.testing.assert_allclose(neighbour_correlation(drawn), neighbour_correlation(true), atol=0.1)
    expected = np.sqrt(np.mean(np.square(sampler.deviation(clean))))
    assert expected == pytest.approx(true.std(), rel=0.1)


@pytest.mark.parametrize(("low", "span"), [(0.0, 1.0), (-3e4, 1e3), (1e6, 7.0)])
def test_values_may_have_any_range(random, low, span):
    """The noise is twice as strong in the brighter half."""
    scaled = np.concatenate([_flat(random, 0.02, level=0.2), _flat(random, 0.04, level=0.8)])
    picture = (low + span * scaled.astype(np.float64)).astype(np.float32)
    sampler = NoiseSampler.measure([picture], photographs=False)
    levels = (low + span * np.array([[[0.2], [0.8]]])).astype(np.float32)
    found = sampler.deviation(levels).ravel() / span
    # Of 256² values each, the standard error is 0.3 %; medians of blocks take some more.
    np.testing.assert_allclose(found, [0.02, 0.04], rtol=0.05)
    drawn = sampler.add(np.broadcast_to(levels[:, 1:], (128, 128, 1)), random) - levels[0, 1, 0]
    assert drawn.std() / span == pytest.approx(found[1], rel=0.05)


def test_what_is_brighter_than_all_that_is_flat(random):
    """Its noise is what was removed where there is least content, but not less than elsewhere."""
    sampler = NoiseSampler.measure([_flat(random, 0.02, level=0.2)])
    where = np.array([[0.1], [0.2], [0.6], [0.9]], np.float32)
    before = sampler.deviation(where).ravel()
    np.testing.assert_allclose(before, 0.02, rtol=0.05)
    count = 20_000
    denoised = np.repeat([0.1, 0.6, 0.9], count)[:, None].astype(np.float32)
    removed = random.normal(0, np.repeat([0.001, 0.05, 0.04], count))[:, None]
    content = random.random((3 * count, 1))
    edges = content > 0.5
    removed[edges] += random.choice([-0.3, 0.3], edges.sum())
    noisy = (denoised + removed).astype(np.float32)
    after = sampler.extended(denoised, noisy, content).deviation(where).ravel()
    np.testing.assert_array_equal(after[:2], before[:2])
    # Of the smoothest 250 in a group, the median is right to 8 % (one standard error).
    np.testing.assert_allclose(after[2:], [0.05, 0.04], rtol=0.25)
    few = np.linspace(0, len(denoised) - 1, 300).astype(int)
    unchanged = sampler.extended(denoised[few], noisy[few], content[few]).deviation(where)
    np.testing.assert_array_equal(unchanged.ravel(), before)


def test_deviations_are_never_0(random):
    sampler = NoiseSampler.measure([_flat(random, 1e-9)])
    assert sampler is None or sampler.deviation(np.full((2, 2, 1), 0.5)).min() > 0


def test_texture_everywhere_counts_as_noise(random):
    """The noise is then measured too strong rather than too weak, and that is known."""
    blocks = np.kron(random.uniform(0.2, 0.8, (40, 40)), np.ones((7, 7)))[..., None]
    picture = (blocks + _flat(random, 0.03, blocks.shape, level=0)).astype(np.float32)
    sampler = NoiseSampler.measure([picture])
    assert sampler.is_rough
    assert sampler.deviation(np.full((1, 1, 1), 0.5, np.float32)).item() > 0.03


@pytest.mark.parametrize(
    "picture",
    [
        np.full((64, 64, 1), 7, np.uint8),  # no noise
        np.zeros((16, 500, 3), np.uint8),  # no block
        np.full((64, 64, 1), 0.5, np.float32),
    ],
)
def test_where_there_is_no_noise_nothing_is_measured(picture):
    assert NoiseSampler.measure([picture]) is None
    if picture.dtype == np.float32:
        assert NoiseSampler.measure([picture], photographs=False) is None
    with pytest.raises(DataError, match=r"too few|has 32"):
        measure_roughly(picture)
