import functools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from cbsn.augmentation import photo as module
from cbsn.augmentation.photo import OwnNoiseAugmentation, PhotoAugmentation
from cbsn.errors import ConfigError
from cbsn.training.step_random import StepRandom

SIZE = 32

BOTH = pytest.mark.parametrize("kind", [PhotoAugmentation, OwnNoiseAugmentation])


def _pairs(augment, pictures, random):
    """What the augmentation makes of pictures: noisy ones and clean ones."""
    return np.split(ops.convert_to_numpy(augment(ops.convert_to_tensor(pictures), random)), 2, -1)


@BOTH
@pytest.mark.parametrize(("channels", "side"), [(1, 70), (3, 32), (3, 70), (3, 128)])
def test_pairs(models, kind, channels, side, recorded, random):
    pictures = random.random((6, side, side, channels), np.float32)
    noisy, clean = _pairs(kind(models(channels), SIZE), pictures, recorded())
    assert noisy.shape == clean.shape == (6, SIZE, SIZE, channels)
    assert noisy.dtype == np.float32
    for each in (noisy, clean):
        assert each.min() >= 0 and each.max() <= 1
    assert 0.005 < np.abs(noisy - clean).mean() < 0.3
    rounded = np.abs(noisy * 255 - np.rint(noisy * 255)).mean() < 1e-3
    assert rounded == (kind is PhotoAugmentation)


def test_they_say_what_they_do(models):
    assert str(PhotoAugmentation(models(), SIZE)) == (
        "noise as measured in 2 places, 0.04 to 3 times as strong"
    )
    assert str(OwnNoiseAugmentation(models()[:1], SIZE)) == (
        "noise measured in 1 place, 1 times as strong"
    )
    own = OwnNoiseAugmentation(models(), SIZE, gain=(0.5, 2.0))
    assert str(own) == "noise measured in 2 places, 0.5-2 times as strong"


def test_pictures_become_sharp(models, recorded, monkeypatch):
    """Of a slope of one level a pixel 2, 3 and 4 are left, as far as there is room."""
    monkeypatch.setattr("cbsn.augmentation.clean._OTHER_LIGHT", 0)
    slope = np.tile(np.arange(128, dtype=np.float32)[:, None, None] / 255, (24, 1, 128, 3))
    for size, expected in ((16, [2, 3, 4]), (50, [2]), (100, [1])):
        _, clean = _pairs(OwnNoiseAugmentation(models(), size), slope, recorded())
        steps = np.max([np.abs(np.diff(clean, axis=a)).mean((1, 2, 3)) for a in (1, 2)], axis=0)
        assert sorted({*np.round(255 * steps, 2)}) == expected


def test_half_are_in_another_light(models, recorded):
    """Of 200 pictures 100 ± 7 are."""
    pictures = np.full((200, 64, 64, 3), 0.8, np.float32)
    _, clean = _pairs(OwnNoiseAugmentation(models(), 16), pictures, recorded())
    colors = clean.mean((1, 2)) / 0.8
    as_it_was = np.isclose(colors, 1, atol=1e-3).all(axis=1)
    assert 0.35 < as_it_was.mean() < 0.65
    others = colors[~as_it_was]
    low, _ = module._LIGHT
    assert low * 0.6 <= others.min() < 0.3 and 0.8 < others.max() <= 1
    tints = others.max(axis=1) / others.min(axis=1)
    assert 1.3 < tints.max() <= 1 / 0.6 + 1e-4


def test_gain_is_uniform_in_its_logarithm(models, recorded, monkeypatch):
    """As strong, relative to what it is at a gain of 1 with the same random numbers, as was drawn.

    The logarithms, between ±ln 2, have a mean of 0 and a standard deviation of ln 4 / √12 = 0.4: of
    256 the mean to 0.025, and the standard deviation, as of what is uniform, to 0.4 times
    √(0.8 / (4 · 256)), 0.011. Noise in linear light is not quite in proportion: 0.02 is for that.
    """
    monkeypatch.setattr("cbsn.augmentation.clean._OTHER_LIGHT", 0)
    pictures = np.full((256, SIZE, SIZE, 3), 220 / 255, np.float32)
    stds = []
    for gain in ((1.0, 1.0), (0.5, 2.0)):
        noisy, clean = _pairs(OwnNoiseAugmentation(models()[:1], SIZE, gain), pictures, recorded())
        stds.append((noisy - clean).std((1, 2, 3)))
    gains = np.log(stds[1] / stds[0])
    assert np.abs(gains).max() < np.log(2) + 0.02
    assert gains.mean() == pytest.approx(0, abs=4 * 0.025)
    assert gains.std() == pytest.approx(np.log(4) / np.sqrt(12), abs=4 * 0.011 + 0.02)


@BOTH
def test_a_step_tells_all_and_rows_do_not_depend_on_who_computes_them(models, kind, random):
    """One device with all rows, and the second of two, get the same pictures."""
    pictures = tf.constant(random.random((4, 64, 64, 3), np.float32))
    augment = kind(models(), SIZE)
    whole, again, other = (
        augment(pictures, StepRandom(1, tf.constant(step), 4)).numpy() for step in (3, 3, 4)
    )
    np.testing.assert_array_equal(whole, again)
    assert (np.abs(whole - other) > 1e-3).any((1, 2, 3)).all()
    part = augment(pictures[2:], StepRandom(1, tf.constant(3), 4, 2, 2)).numpy()
    np.testing.assert_allclose(part[..., 3:], whole[2:, ..., 3:], atol=1e-6)
    # Rounding to 8 bits apart, of which a rounding error may change the direction.
    assert (np.abs(part - whole[2:]) > 1e-5).mean() < (1e-3 if kind is PhotoAugmentation else 1e-9)


def _assert_the_same(kind, first, second):
    """Pairs that are computed in two ways from the same random numbers.

    To a rounding error: of a transform of 32 × 32 values that is 10 times 6e-8 of the largest, and
    of a power some units in the last place, which the sRGB curve makes up to 13 times as large in
    the dark. The noisy side of `PhotoAugmentation` is rounded to 8 bits, and its cosine transform
    to the steps of JPEG: a rounding error of 1e-6 decides these where a value is that close to the
    middle, for 1 of 1,000 values of which all have 255 steps, and for whole blocks of 64.
    """
    if kind is OwnNoiseAugmentation:
        np.testing.assert_allclose(first, second, atol=1e-5)
        return
    channels = first.shape[-1] // 2
    np.testing.assert_allclose(first[..., channels:], second[..., channels:], atol=1e-5)
    assert (np.abs(first - second)[..., :channels] > 1e-4).mean() < 0.01


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_xla_makes_the_same_pairs(models, kind, channels, recorded, random):
    pictures = tf.constant(random.random((16, 70, 70, channels), np.float32))
    augment = kind(models(channels), SIZE)
    plain, xla = (
        tf.function(lambda x: augment(x, recorded()), jit_compile=xla)(pictures).numpy()
        for xla in (False, True)
    )
    _assert_the_same(kind, plain, xla)


JAX = """
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
import numpy as np
from tests.augmentation.conftest import Recorded, two_models
from cbsn.augmentation import photo

kind = getattr(photo, sys.argv[2])
for channels in (1, 3):
    pictures = np.load(f"{sys.argv[1]}/pictures{channels}.npy")
    pairs = kind(two_models(channels), 32)(pictures, Recorded())
    np.save(f"{sys.argv[1]}/pairs{channels}.npy", np.asarray(pairs))
"""


@pytest.mark.slow
@BOTH
def test_jax_makes_the_same_pairs(models, kind, recorded, random, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed")
    for channels in (1, 3):
        pictures = random.random((16, 70, 70, channels), np.float32)
        np.save(tmp_path / f"pictures{channels}.npy", pictures)
    subprocess.run([sys.executable, "-c", JAX, str(tmp_path), kind.__name__], check=True)
    for channels in (1, 3):
        pictures = ops.convert_to_tensor(np.load(tmp_path / f"pictures{channels}.npy"))
        ours = ops.convert_to_numpy(kind(models(channels), SIZE)(pictures, recorded()))
        _assert_the_same(kind, ours, np.load(tmp_path / f"pairs{channels}.npy"))


_ARITHMETIC = {
    *("AddV2", "Sub", "Mul", "FloorDiv", "FloorMod", "Maximum", "Minimum", "SelectV2", "Range"),
    *("Less", "LessEqual", "Greater", "GreaterEqual", "Equal", "Neg", "Sum", "Prod"),
}


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_computed_with_int32(models, kind, channels):
    """TensorFlow does that in the host's memory, which a GPU waits for; constants it folds."""
    augment = kind(models(channels), SIZE)
    graph = (
        tf.function(lambda x, step: augment(x, StepRandom(0, step, 4)))
        .get_concrete_function(tf.TensorSpec((4, 70, 70, channels)), tf.TensorSpec((), tf.int64))
        .graph
    )

    @functools.cache
    def varies(operation):
        if operation.type == "Shape" and operation.inputs[0].shape.is_fully_defined():
            return False
        return operation.type == "Placeholder" or any(varies(x.op) for x in operation.inputs)

    found = [
        operation.name
        for operation in graph.get_operations()
        if operation.type in _ARITHMETIC
        and any(
            x.dtype == tf.int32 and varies(x.op) for x in (*operation.inputs, *operation.outputs)
        )
    ]
    assert found == []


def test_patches_must_fit_jpeg_blocks(models):
    with pytest.raises(ConfigError, match=r"multiple of 16.*--patch_size 64. Received: .* 72"):
        PhotoAugmentation(models(), 72)
