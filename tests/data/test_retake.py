import numpy as np
import pytest
import skimage.data

from cbsn.data import retake as module
from cbsn.data.noise import Noise, neighbour_correlation
from cbsn.data.retake import Retake

CAMERA = Noise("camera", sigma=(5, 5), peak=(300, 300))


@pytest.fixture
def plain(monkeypatch):
    """No darkening, no JPEG."""
    monkeypatch.setattr(module, "_SHARE_DARK", 0)
    monkeypatch.setattr(module, "_SHARE_JPEG", 0)


def _many(noise, picture, size=32, count=60):
    retake = Retake(noise, size)
    return [
        np.split(retake(picture, np.random.default_rng(seed)), 2, axis=-1) for seed in range(count)
    ]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_it_is_a_pair_of_pictures(dtype):
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    picture = (skimage.data.astronaut()[:256, :256] / 255 * full).astype(dtype)
    for noisy, clean in _many(CAMERA, picture):
        for each in (noisy, clean):
            assert each.shape == (32, 32, 3) and each.dtype == np.float32
            assert each.min() > -0.1 and each.max() < 1.1
        assert 0.005 < np.abs(noisy - clean).mean() < 0.2


def test_gray_pictures_and_those_no_larger_than_the_result(random):
    picture = random.integers(0, 256, (32, 32, 1)).astype("uint8")
    for noisy, _ in _many(Noise("gaussian", sigma=(10, 10)), picture):
        assert noisy.shape == (32, 32, 1)


def test_a_number_tells_all():
    picture = skimage.data.astronaut()[:256, :256]
    retake = Retake(CAMERA, 32)
    first, second, other = (retake(picture, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_pictures_become_sharp(plain):
    """Of a slope of one level a pixel, 2 to 4 are left, or less where it was enlarged again."""
    slope = np.arange(256, dtype="uint8")[:, None, None] * np.ones((1, 256, 3), "uint8")
    steps = []
    for _, clean in _many(Noise("gaussian", sigma=(0, 0)), slope, count=200):
        steps.append(255 * max(np.abs(np.diff(clean[4:-4, 4:-4], axis=a)).mean() for a in (0, 1)))
    assert min(steps) == pytest.approx(2 * 7 / 16, abs=0.05)
    assert max(steps) == pytest.approx(4, abs=0.01)


def test_noise_reaches_farther_where_it_was_enlarged(plain):
    gray = np.full((128, 128, 3), 128, "uint8")
    noises = [noisy - clean for noisy, clean in _many(Noise("gaussian", sigma=(9, 9)), gray, 64)]
    reach = [neighbour_correlation(noise)[0] for noise in noises]
    assert min(reach) < 0.1 and max(reach) > 0.6


def test_some_are_darker_and_some_are_jpegs(monkeypatch):
    picture = skimage.data.astronaut()[:256, :256]
    noise = Noise("gaussian", sigma=(0, 0))
    compressed = [np.abs(noisy - clean).max() > 0 for noisy, clean in _many(noise, picture)]
    assert 0.1 < np.mean(compressed) < 0.5
    monkeypatch.setattr(module, "_SHARE_DARK", 0)
    bright = np.array([clean.mean() for _, clean in _many(noise, np.full_like(picture, 200))])
    monkeypatch.setattr(module, "_SHARE_DARK", 1)
    dark = np.array([clean.mean() for _, clean in _many(noise, np.full_like(picture, 200))])
    np.testing.assert_allclose(bright, 200 / 255, atol=1e-3)
    assert dark.min() < 0.4 * bright[0] and dark.max() > 0.9 * bright[0]
