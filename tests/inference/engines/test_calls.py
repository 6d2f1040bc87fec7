"""Tiles for which there is too little memory."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import CbsnWarning
from cbsn.inference import passes
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import tensorflow as tensorflow_engine
from cbsn.inference.engines.calls import Calls
from cbsn.inference.engines.tensorflow import TensorFlow
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.passes import AUTO_TILE
from cbsn.inference.tiling import Tiling
from cbsn.recipes import customised

SMALL = {
    "cbsn": {"filters": 4, "num_modules": 1},
    "apbsn": {"filters": 4, "num_modules": 1},
    "photo": {"filters": 4, "depth": 1},
}
"""Networks that are local, with a border of each kind."""


class Device:
    """Runs a network, and has memory for a number of pixels at once.

    Args:
        run: the network's pass.
        pixels: how many; None for as many as there are.
        late: whether it finds out only when the result is fetched, as GPUs may.
    """

    def __init__(self, run, pixels, late=False):
        self.run, self.pixels, self.late = run, pixels, late
        self.calls = []

    def __call__(self, x):
        self.calls.append(x.shape[:3])
        given = x.copy()
        if self.pixels is None or np.prod(x.shape[:3]) <= self.pixels:
            return self.run(x)

        class Result:
            def __array__(result, dtype=None, copy=None):  # noqa: N805
                np.testing.assert_array_equal(x, given)
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

        return Result() if self.late else np.asarray(Result())


TILING = Tiling(border="zeros", side=None, halo=2, multiple=2)


@pytest.fixture(scope="module")
def models():
    """A recipe and its network by name, and the graphs that there are of it."""
    keras.utils.set_random_seed(1)
    recipes = {name: customised(name, **config) for name, config in SMALL.items()}
    return {name: (recipe, recipe.build_network(), {}) for name, recipe in recipes.items()}


@pytest.fixture
def limited(monkeypatch, models):
    """Makes a denoiser whose networks have memory for a number of pixels."""
    compile_network = TensorFlow.compile

    def make(name, pixels=None, late=False, **options):
        recipe, network, graphs = models[name]
        devices = []

        def compile_limited(*args, blind, **kwargs):
            if blind not in graphs:
                graphs[blind] = compile_network(*args, blind=blind, **kwargs)
            devices.append(Device(graphs[blind], pixels, late))
            return devices[-1]

        monkeypatch.setattr(TensorFlow, "compile", compile_limited)
        return Denoiser(recipe, network, DenoiseOptions(**options)), devices

    return make


def _denoise(denoise, images):
    if images.ndim == 4:
        return denoise.batch(images, white=1.0)
    return denoise(images.copy(), in_place=True, white=1.0)


@pytest.mark.parametrize(
    ("name", "options", "on_gpu"),
    [
        ("cbsn", {}, False),
        ("cbsn", {"r3": True}, True),
        ("apbsn", {}, True),  # with R3
        ("apbsn", {"self_ensemble": True, "r3": False}, False),
        ("photo", {}, False),
        ("photo", {"self_ensemble": True}, True),
    ],
)
def test_pixels_stay_the_same(limited, random, monkeypatch, name, options, on_gpu):
    """With room for some tiles, for half a tile, and for less; which GPUs may find out late."""
    monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda: on_gpu)
    for shape in ((70, 83, 3), (3, 20, 30, 3), (60, 70, 1)):
        images = random.random(shape).astype(np.float32)
        expected = _denoise(limited(name, **options)[0], images)
        for tile, pixels in ((24, 3000), (0, 3600)):
            denoise, devices = limited(name, pixels, on_gpu, tile=tile, **options)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = _denoise(denoise, images)
            np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)
            largest = max(np.prod(call) for device in devices for call in device.calls)
            assert {each.category for each in caught} == (
                {CbsnWarning} if largest > pixels else set()
            )


def test_what_does_not_fit_is_said_once_and_not_tried_again(limited, random, monkeypatch):
    monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda: False)
    denoise, [device] = limited("cbsn", 3000, tile=24)
    picture = random.random((200, 200, 3))
    with pytest.warns(CbsnWarning) as caught:
        denoise(picture)
        denoise(picture)
    [note] = caught
    assert "Too little memory" in str(note.message)
    too_many = [call for call in device.calls if np.prod(call) > 3000]
    # Each failure halves what is tried, until it fits.
    assert len(too_many) == len(set(too_many)) <= 6
    monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda: True)
    monkeypatch.setattr(passes, "GPU_PIXELS", AUTO_TILE**2)
    denoise, _ = limited("photo", 7000, tile=96)
    with pytest.warns(CbsnWarning, match=r"cbsn denoise --tile \d+ does so") as caught:
        denoise(picture)
    [note] = caught
    tile = int(str(note.message).split("--tile ")[1].split()[0])
    again, [device] = limited("photo", 7000, tile=tile)
    again(picture)
    assert len(device.calls) > 1 and max(np.prod(call) for call in device.calls) <= 7000


@pytest.mark.parametrize("name", SMALL)
def test_not_even_the_smallest_part_fits(limited, random, name):
    denoise, _ = limited(name, 100)
    with pytest.raises(MemoryError, match=r"too little memory even for \d+ × \d+ pixels"):
        denoise(random.random((80, 80, 3)))


def test_what_else_goes_wrong_is_raised(random):
    def broken(x):
        raise tf.errors.InvalidArgumentError(None, None, "a bug")

    with pytest.raises(tf.errors.InvalidArgumentError, match="a bug"):
        Calls([TILING] * 2, 100).start(broken, random.random((1, 8, 8, 3)))


def test_fewer_tiles_are_given_once_there_was_too_little_memory():
    tried = []

    def run(x):
        tried.append(len(x))
        if len(x) > 7:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return x

    calls = Calls([TILING] * 2, 1000)
    assert (calls.tiles(10, 10), calls.tiles(100, 100)) == (10, 1)
    x = np.zeros((8, 10, 10, 3))
    with pytest.warns(CbsnWarning, match="8 × 10 × 10 pixels at once: using 4 × 10 × 10"):
        assert calls.finish(run, x, calls.start(run, x)).shape == x.shape
    assert calls.tiles(10, 10) == 4
    assert calls.start(run, x) is None and calls.start(run, x[1:]) is not None
    assert tried == [8, 4, 4, 7]
