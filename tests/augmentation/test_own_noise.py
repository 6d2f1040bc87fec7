import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from cbsn.augmentation import photo as module
from cbsn.augmentation.photo import OwnNoiseAugmentation
from cbsn.training.step_random import StepRandom

SIZE = 32


def _pairs(augment, pictures, random):
    return np.split(ops.convert_to_numpy(augment(ops.convert_to_tensor(pictures), random)), 2, -1)


def _same_by_numpy(noise, clean):
    random = np.random.default_rng(7)
    return np.stack([noise(picture, random) for picture in clean])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 70, 128])
def test_pairs(measured, channels, side, recorded, random):
    pictures = random.random((6, side, side, channels), np.float32)
    noise = measured(channels, (0.5, 2.0))
    augment = OwnNoiseAugmentation(noise, SIZE)
    noisy, clean = _pairs(augment, pictures, recorded())
    assert noisy.shape == clean.shape == (6, SIZE, SIZE, channels)
    assert noisy.dtype == np.float32
    for each in (noisy, clean):
        assert each.min() >= 0 and each.max() <= 1
    assert 0.005 < np.abs(noisy - clean).mean() < 0.1
    assert np.abs(noisy * 255 - np.rint(noisy * 255)).mean() > 0.1  # not rounded
    assert str(augment) == str(noise)


def test_pictures_become_sharp(measured, recorded, monkeypatch):
    """Of a slope of one level a pixel 2, 3 and 4 are left, as far as there is room."""
    monkeypatch.setattr("cbsn.augmentation.clean._OTHER_LIGHT", 0)
    slope = np.tile(np.arange(256, dtype=np.float32)[:, None, None] / 255, (40, 1, 256, 3))
    for size, expected in ((32, [2, 3, 4]), (100, [2]), (200, [1])):
        _, clean = _pairs(OwnNoiseAugmentation(measured(), size), slope, recorded())
        steps = np.max([np.abs(np.diff(clean, axis=a)).mean((1, 2, 3)) for a in (1, 2)], axis=0)
        assert sorted({*np.round(255 * steps, 2)}) == expected


def test_half_are_in_another_light(measured, recorded):
    """Of 200 pictures 100 ± 7 are."""
    pictures = np.full((200, 64, 64, 3), 0.8, np.float32)
    _, clean = _pairs(OwnNoiseAugmentation(measured(), 16), pictures, recorded())
    colors = clean.mean((1, 2)) / 0.8
    as_it_was = np.isclose(colors, 1, atol=1e-3).all(axis=1)
    assert 0.35 < as_it_was.mean() < 0.65
    others = colors[~as_it_was]
    low, _ = module._LIGHT
    assert low * 0.6 <= others.min() < 0.3 and 0.8 < others.max() <= 1
    tints = others.max(axis=1) / others.min(axis=1)
    assert 1.3 < tints.max() <= 1 / 0.6 + 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_as_numpy_makes_it(measured, channels, recorded, random):
    """On the same clean pictures: as strong at each brightness, and as correlated.

    Gaussian noise whose correlations ρ have a sum of squares q, over all distances, gives of n
    values the standard deviation to sqrt(q / 2n), relative to it, and a correlation to about
    sqrt(q / n). With ρ of 1, and four times 0.2 between neighbours, q is below 2, and a third more
    with three channels that are correlated, 0.3 each: below 3. The model, and the two sides, differ
    from picture to picture: of 256, the share with each model is known to 1/32, which moves a
    variance, σ² or (2σ)², by less than 8 %, both sides together. So bounds are 4 standard
    deviations of the noise, and 3 of the share for the strength.
    """
    levels = random.uniform(0.2, 0.9, (256, 1, 1, 1)).astype(np.float32)
    pictures = np.broadcast_to(levels, (256, 64, 64, channels))
    noise = measured(channels)
    noisy, clean = _pairs(OwnNoiseAugmentation(noise, SIZE), pictures, recorded())
    ours, theirs = noisy - clean, _same_by_numpy(noise, clean) - clean
    for low, high in ((0.1, 0.3), (0.3, 0.5), (0.5, 0.9)):
        inside = (clean > low) & (clean < high)
        shown = ours[inside].std(), theirs[inside].std()
        share = 3 * 0.04 * np.sqrt(256 / max(1, inside.any((1, 2, 3)).sum()))
        assert shown[0] == pytest.approx(shown[1], rel=4 * np.sqrt(3 / 2 / inside.sum()) + share)
    ours, theirs = (each / each.std((1, 2), keepdims=True) for each in (ours, theirs))
    error = 4 * np.sqrt(2 * 3 / ours.size)
    for down, right in ((0, 1), (0, 2), (1, 0), (1, 1)):
        found = [
            (each[:, down:, right:] * each[:, : SIZE - down, : SIZE - right]).mean()
            for each in (ours, theirs)
        ]
        assert found[0] == pytest.approx(found[1], abs=error)
    if channels == 3:
        found = [(each[..., 0] * each[..., 1]).mean() for each in (ours, theirs)]
        assert found[0] == pytest.approx(found[1], abs=np.sqrt(3) * error)


def test_gain_is_uniform_in_its_logarithm(measured, recorded, monkeypatch):
    """As strong, relative to what it is at a gain of 1 with the same random numbers, as was drawn.

    The logarithms, between ±ln 2, have a mean of 0 and a standard deviation of ln 4 / √12 = 0.4: of
    256 the mean to 0.025, and the standard deviation, as of what is uniform, to 0.4 times
    √(0.8 / (4 · 256)), 0.011. Noise in linear light is not quite in proportion: 0.02 is for that.
    """
    monkeypatch.setattr("cbsn.augmentation.clean._OTHER_LIGHT", 0)
    pictures = np.full((256, SIZE, SIZE, 3), 0.5, np.float32)
    stds = []
    for gain in ((1.0, 1.0), (0.5, 2.0)):
        noisy, clean = _pairs(OwnNoiseAugmentation(measured(gain=gain), SIZE), pictures, recorded())
        stds.append((noisy - clean).std((1, 2, 3)))
    gains = np.log(stds[1] / stds[0])
    assert np.abs(gains).max() < np.log(2) + 0.02
    assert gains.mean() == pytest.approx(0, abs=4 * 0.025)
    assert gains.std() == pytest.approx(np.log(4) / np.sqrt(12), abs=4 * 0.011 + 0.02)


def test_a_step_tells_all_and_rows_do_not_depend_on_who_computes_them(measured, random):
    pictures = tf.constant(random.random((4, 64, 64, 3), np.float32))
    augment = OwnNoiseAugmentation(measured(gain=(0.5, 2.0)), SIZE)
    whole, again, other = (
        augment(pictures, StepRandom(1, tf.constant(step), 4)).numpy() for step in (3, 3, 4)
    )
    np.testing.assert_array_equal(whole, again)
    assert (np.abs(whole - other) > 1e-3).any((1, 2, 3)).all()
    part = augment(pictures[2:], StepRandom(1, tf.constant(3), 4, 2, 2)).numpy()
    np.testing.assert_allclose(part, whole[2:], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_xla_makes_the_same_pairs(measured, channels, random):
    """Of a step, to a rounding error.

    Of a transform of 32 × 32 values that is 10 times 6e-8 of the largest, and of a power some
    units in the last place, which the sRGB curve makes up to 13 times as large in the dark.
    """
    pictures = tf.constant(random.random((8, 70, 70, channels), np.float32))
    augment = OwnNoiseAugmentation(measured(channels, (0.5, 2.0)), SIZE)
    found = [
        tf.function(
            lambda pictures, step: augment(pictures, StepRandom(0, step, 8)), jit_compile=xla
        )(pictures, tf.constant(5)).numpy()
        for xla in (False, True)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)


JAX = """
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
import numpy as np
from tests.augmentation.conftest import Recorded, _measured
from cbsn.augmentation.photo import OwnNoiseAugmentation

augment = OwnNoiseAugmentation(_measured(int(sys.argv[1]), (0.5, 2.0)), 32)
np.save(sys.argv[3], np.asarray(augment(np.load(sys.argv[2]), Recorded())))
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_jax_makes_the_same_pairs(measured, channels, recorded, random, tmp_path):
    """From the same random numbers, to a rounding error."""
    pytest.importorskip("jax", reason="JAX is not installed")
    pictures = random.random((16, 70, 70, channels), np.float32)
    paths = [tmp_path / "pictures.npy", tmp_path / "pairs.npy"]
    np.save(paths[0], pictures)
    subprocess.run([sys.executable, "-c", JAX, str(channels), *map(str, paths)], check=True)
    augment = OwnNoiseAugmentation(measured(channels, (0.5, 2.0)), SIZE)
    ours = ops.convert_to_numpy(augment(ops.convert_to_tensor(pictures), recorded()))
    np.testing.assert_allclose(ours, np.load(paths[1]), atol=1e-5)
