"""Tests of `cbsn.inference.volumes`, and of `Denoiser` with a network of volumes."""

import dataclasses
import math
import pickle
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import CbsnWarning, ConfigError, ImageError
from cbsn.images.stacks.scaling import Scale
from cbsn.images.stacks.stack import Layout
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES, choice
from cbsn.inference.engines import tensorflow as tensorflow_engine
from cbsn.inference.engines.choice import check, is_worth_measuring, measure
from cbsn.inference.engines.tensorflow import TensorFlow
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.passes import Passes
from cbsn.inference.tiling import Axis, Spans
from cbsn.inference.volumes import check_z, slabs, tile_sides, turned, volume_tilings
from cbsn.orientations import NUM_ORIENTATIONS, orient
from cbsn.recipes import customised
from tests.cases import slow_except

AS_IT_IS = Scale(0.0, 1.0, 0.0, 1.0)
SIZES = [(43, 75, 70), (1, 90, 66), (70, 1, 3), (5, 7, 101)]


def _denoiser(model, **options):
    return Denoiser(
        *model, DenoiseOptions(precision="float32", **{"engine": "tensorflow"} | options)
    )


def _volume(random, size):
    return random.integers(0, 8, size).astype(np.float32)


def _by_network(network, volume):
    """The whole volume at once."""
    return np.asarray(network(volume[None, ..., None]))[0, ..., 0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tile", [0, 8, 13, "auto"])
def test_tiles_equal_the_whole(volume_model, random, tile, size):
    """To the last bit, along all axes."""
    volume = _volume(random, size)
    shares = []
    result = _denoiser(volume_model, tile=tile).scaled(volume, AS_IT_IS, shares.append)
    np.testing.assert_array_equal(result, _by_network(volume_model[1], volume))
    assert math.fsum(shares) == pytest.approx(1)
    inside = [max(1, each - 2 * halo) for each, halo in zip(size, (16, 32, 32), strict=True)]
    if tile == 8:
        assert len(shares) == math.prod(-(-each // 8) for each in inside)
    elif tile in (0, "auto"):
        assert len(shares) == 1


@pytest.mark.parametrize(("name", "lacks"), [("halo", 16), ("z_halo", 8)])
def test_less_context_is_too_little(volume_model, random, monkeypatch, name, lacks):
    """So the test above would find it."""
    network, whole = volume_model[1], getattr(volume_model[1], name)
    monkeypatch.setattr(type(network), name, property(lambda self: whole - lacks))
    volume = _volume(random, (43, 75, 70))
    result = _denoiser(volume_model, tile=8).scaled(volume, AS_IT_IS)
    assert (result != _by_network(network, volume)).any()


@pytest.mark.parametrize("z_halvings", [0, 2])
def test_tiles_of_other_grids_along_z(random, z_halvings):
    """Within rounding, of weights of any size."""
    recipe = customised("n2v-unet-3d", filters=4, depth=2, channels=1, z_halvings=z_halvings)
    network = recipe.build_network()
    volume = random.normal(size=(2 * network.z_halo + 9, 71, 73)).astype(np.float32)
    expected = _by_network(network, volume)
    result = _denoiser((recipe, network), tile=4).scaled(volume, AS_IT_IS)
    # Each of 13 layers adds up to 27 · 24 products, in an order that the size of the tile decides.
    bound = 13 * 648 * 2.0**-24 * abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("engine", slow_except(("openvino", "onnxruntime"), "onnxruntime"))
def test_engines_compute_the_same(volume_model, random, needs_engine, engine):
    """In a form for one shape, and in one for all; the check of their results accepts them."""
    needs_engine(engine, "float32")
    recipe, network = volume_model
    run = ENGINES[engine].compile(recipe, network, blind=False)
    for size in [(12, 40, 36), (5, 13, 9), (1, 1, 1)]:
        volume = _volume(random, size)
        np.testing.assert_array_equal(
            np.asarray(run(volume[None, ..., None]))[0, ..., 0], _by_network(network, volume)
        )
    volume = _volume(random, (43, 75, 70))
    result = _denoiser(volume_model, engine=engine, tile=8).scaled(volume, AS_IT_IS)
    np.testing.assert_array_equal(result, _by_network(network, volume))
    check(ENGINES[engine], recipe, network)


def test_engines_are_compared_on_a_volume(volume_model, monkeypatch):
    recipe, network = volume_model
    assert not is_worth_measuring(network, 10**6) and is_worth_measuring(network, 10**9)
    shapes = []

    def timed(run, x):
        shapes.append(x.shape)
        return np.asarray(run(x)), 1.0

    monkeypatch.setattr(choice, "ENGINES", {"tensorflow": ENGINES["tensorflow"]})
    monkeypatch.setattr(choice, "_timed", timed)
    assert "s per megavoxel" in measure("float32", recipe, network).why
    [(_, *size, _)] = shapes
    assert len(size) == 3 and all(each % 2 for each in size)  # sizes that need padding, too


def test_all_tiles_of_a_volume_have_one_shape(volume_model, random, monkeypatch):
    """On a GPU, too, to which each new one costs a while."""
    monkeypatch.setattr(tensorflow_engine, "has_gpu", lambda: True)
    shapes, compile_network = set(), TensorFlow.compile

    def counting(*args, **options):
        run = compile_network(*args, **options)
        return lambda x: shapes.add(x.shape) or run(x)

    monkeypatch.setattr(TensorFlow, "compile", counting)
    volume = _volume(random, (43, 75, 78))
    denoise = _denoiser(volume_model, tile=8)
    for part in (volume, volume[:, :74]):
        np.testing.assert_array_equal(
            denoise.scaled(part, AS_IT_IS), _by_network(volume_model[1], part)
        )
        assert len(shapes) == 1
        shapes.clear()


def test_of_too_little_memory_tiles_become_smaller(volume_model, random, monkeypatch):
    volume = _volume(random, (72, 136, 24))
    room, compile_network = 140_000, TensorFlow.compile

    def limited(*args, **options):
        run = compile_network(*args, **options)

        def call(x):
            if x.size > room:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
            return run(x)

        return call

    expected = _by_network(volume_model[1], volume)
    monkeypatch.setattr(TensorFlow, "compile", limited)
    with pytest.warns(CbsnWarning, match=r"72 × 136 × 24 pixels at once.*--tile \d+") as caught:
        result = _denoiser(volume_model, tile=0).scaled(volume, AS_IT_IS)
    np.testing.assert_array_equal(result, expected)
    tile = int(str(caught[0].message).split("--tile ")[1].split()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = _denoiser(volume_model, tile=tile).scaled(volume, AS_IT_IS)
    np.testing.assert_array_equal(result, expected)
    room = 1000
    with pytest.raises(MemoryError, match=r"\d+ × \d+ × \d+ pixels"):
        _denoiser(volume_model, tile=0).scaled(volume, AS_IT_IS)


def test_the_self_ensemble_turns_planes(volume_model, random):
    """In their eight orientations, never upside down."""
    volume = _volume(random, (9, 24, 31))
    results = []
    for orientation in range(NUM_ORIENTATIONS):
        planes = np.stack([orient(plane[..., None], orientation)[..., 0] for plane in volume])
        seen = turned(volume[..., None], orientation)
        np.testing.assert_array_equal(seen[..., 0], planes)
        results.append(_by_network(volume_model[1], np.ascontiguousarray(planes)))
    total = np.zeros(volume.shape, np.float32)
    for orientation, result in enumerate(results):
        turned(total[..., None], orientation)[..., 0] += result
    result = _denoiser(volume_model, self_ensemble=True, tile=16).scaled(volume, AS_IT_IS)
    np.testing.assert_array_equal(result, total / NUM_ORIENTATIONS)  # by 8, which is exact
    assert (result != _by_network(volume_model[1], volume)).any()


def test_integers_strength_and_faulty_pixels(volume_model, random):
    volume = _volume(random, (6, 24, 31)).astype(np.uint16)
    whole = _by_network(volume_model[1], volume.astype(np.float32))
    denoise = _denoiser(volume_model)
    result = denoise.scaled(volume, AS_IT_IS)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, whole.clip(0, 65535))
    half = _denoiser(volume_model, strength=0.5).scaled(volume, AS_IT_IS, dtype=np.float32)
    np.testing.assert_array_equal(half, (volume + whole) / 2)
    none = _denoiser(volume_model, strength=0).scaled(volume, AS_IT_IS)
    np.testing.assert_array_equal(none, volume)
    hot = volume.copy()
    hot[3, 10, 11] = 60000
    scale = dataclasses.replace(AS_IT_IS, most=1000.0)
    usual = volume.copy()
    usual[3, 10, 11] = np.median(hot[3, 9:12, 10:13])
    expected = denoise.scaled(usual, AS_IT_IS)
    expected[3, 10, 11] = 60000
    np.testing.assert_array_equal(denoise.scaled(hot, scale), expected)


def test_colours_by_networks_of_gray_and_of_colours(volume_model, random):
    """A gray network takes them one by one; alpha stays as it is."""
    volume = random.integers(0, 8, (5, 20, 17, 4)).astype(np.uint16)
    denoise = _denoiser(volume_model)
    result = denoise.scaled(volume, AS_IT_IS)
    for channel in range(3):
        np.testing.assert_array_equal(
            result[..., channel], denoise.scaled(volume[..., channel], AS_IT_IS)
        )
    np.testing.assert_array_equal(result[..., 3], volume[..., 3])
    recipe = customised("n2v-unet-3d", filters=4, depth=1, z_halvings=1, channels=3)
    network = recipe.build_network()
    gray = volume[..., 0].astype(np.float32)
    expected = np.asarray(network(np.repeat(gray[None, ..., None], 3, -1)))[0].mean(-1)
    result = _denoiser((recipe, network)).scaled(gray, AS_IT_IS)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_a_denoiser_of_volumes_is_pickled(volume_model, random):
    volume = _volume(random, (4, 12, 13))
    denoise = _denoiser(volume_model)
    again = pickle.loads(pickle.dumps(denoise))
    np.testing.assert_array_equal(again.scaled(volume, AS_IT_IS), denoise.scaled(volume, AS_IT_IS))


@pytest.mark.parametrize("call", [lambda d, x: d(x), lambda d, x: d.batch(x[None])])
def test_pictures_are_refused(volume_model, call):
    with pytest.raises(ImageError, match=r"denoises volumes.*--axes ZYX"):
        call(_denoiser(volume_model), np.zeros((8, 8, 1), np.uint8))


def test_stacks_without_planes_are_refused():
    with pytest.raises(ImageError, match=r"none \(T 5, Y 8, X 9, uint8\).*--axes ZYX"):
        check_z(Layout("TYX", (5, 8, 9), np.dtype("uint8"), "array"))
    check_z(Layout("ZYX", (1, 8, 9), np.dtype("uint8"), "array"))


def test_what_there_is_only_for_pictures(volume_model):
    recipe, network = volume_model
    with pytest.raises(ConfigError, match="--r3"):
        _denoiser(volume_model, r3=True)
    for changes in ({"denoise_stride": 2}, {"denoise_pad": 1}, {"border": "reflect"}):
        with pytest.raises(ConfigError, match="Networks of volumes"):
            Passes(
                dataclasses.replace(recipe, **changes), network, ENGINES["tensorflow"], side=None
            )


@pytest.mark.parametrize("voxels", [1, 10**6, 10**7])
@pytest.mark.parametrize("size", [(3, 2048, 2048), (40, 512, 700), (500, 2048, 2048), (9, 9, 9)])
def test_tiles_take_the_least_work_that_fits(size, voxels):
    network = types.SimpleNamespace(
        halo=32, grid=4, size_multiple=4, z_halo=16, z_grid=2, padding_mode="reflect"
    )

    def windows(sides):
        """Returns the number and the size of the windows along each axis, as tiles are made."""
        for n, tiling in zip(size, volume_tilings(network, sides, windows=True), strict=True):
            spans = Spans(Axis(n), tiling)
            span = spans.span(0)
            yield spans.count, span.stop - span.first

    sides = tile_sides(network, size, voxels)
    counts, lengths = zip(*windows(sides), strict=True)
    limit = max(voxels, 4 * 16 * (4 * 32) ** 2)  # where tiles are as small as the halo
    assert math.prod(lengths) <= limit
    assert all(side >= min(n, rim) for n, side, rim in zip(size, sides, (16, 32, 32), strict=True))
    work = math.prod(counts) * math.prod(lengths)
    for planes in {size[0], *range(16, min(400, size[0]), 2)}:
        for side in range(32, min(2048, max(size[1:])) + 4, 44):
            counts, lengths = zip(*windows((planes, side, side)), strict=True)
            if math.prod(lengths) <= voxels:
                assert work <= math.prod(counts) * math.prod(lengths)


@pytest.mark.parametrize(
    ("depth", "planes", "halo"), [(1, 2, 4), (9, 2, 4), (20, 6, 0), (20, 50, 4)]
)
def test_slabs_fill_a_volume_once(depth, planes, halo):
    found = [*slabs(depth, planes, halo)]
    assert [z for slab in found for z in slab.filled] == [*range(depth)]
    for slab in found:
        assert [*slab.seen][slab.own] == [*slab.filled]
        assert slab.seen.start == max(0, slab.filled.start - halo)
        assert slab.seen.stop == min(depth, slab.filled.stop + halo)
        assert slab.filled.start % planes == 0
