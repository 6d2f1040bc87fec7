import numpy as np
import pytest
import skimage.data

from cbsn.noise import camera as module
from cbsn.noise.camera import Retake
from cbsn.noise.synthetic import Noise

CAMERA = Noise("camera", sigma=(5, 5), peak=(300, 300))


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


def test_pictures_become_sharp(monkeypatch):
    """Of a slope of one level a pixel 2, 3 and 4 are left."""
    monkeypatch.setattr(module, "_OTHER_LIGHT", 0)
    slope = np.arange(256, dtype="uint8")[:, None, None] * np.ones((1, 256, 3), "uint8")
    for size, expected in ((32, [2, 3, 4]), (100, [2]), (200, [1])):
        steps = set()
        for _, clean in _many(Noise("gaussian", sigma=(0, 0)), slope, size):
            steps.add(round(255 * max(np.abs(np.diff(clean, axis=a)).mean() for a in (0, 1)), 3))
        assert sorted(steps) == expected


def test_some_are_in_another_light():
    picture = np.full((64, 64, 3), 200, np.uint8)
    cleans = _many(Noise("gaussian", sigma=(0, 0)), picture)
    colors = np.array([clean.mean(axis=(0, 1)) for _, clean in cleans]) / (200 / 255)
    as_it_was = np.isclose(colors, 1, atol=1e-3).all(axis=1)
    assert 0.25 < as_it_was.mean() < 0.75
    others = colors[~as_it_was]
    assert 0.3 * 0.6 < others.min() < 0.4 and 0.8 < others.max() < 1
    tints = others.max(axis=1) / others.min(axis=1)
    assert 1.3 < tints.max() < 1 / 0.6
