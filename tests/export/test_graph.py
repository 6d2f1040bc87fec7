import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.export.graph import GraphDenoiser
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines.engine import frozen_in_float32, make_graph
from cbsn.inference.options import DenoiseOptions
from cbsn.networks import layers
from cbsn.value_range import value_range
from tests.cases import slow_except

SMALL = {
    "cbsn": {"filters": 4, "num_modules": 1},
    "apbsn": {"filters": 4, "num_modules": 1},
    "ssbsn": {"filters": 4, "num_modules": 2, "num_attention": 1},
    "tmbsn": {"filters": 4, "depth": 2},
    "n2v-unet": {"filters": 4, "depth": 2},
    "pn2v-unet": {"filters": 4, "depth": 2, "samples": 4},
    "n2n-resunet": {"filters": 8, "depth": 2},
}
"""A recipe of every network."""

SIZES = ((1, 1, 1, 3), (2, 13, 29, 3), (1, 50, 27, 1), (1, 2, 30, 4), (3, 5, 4, 2))


def _graph(denoiser, dtype, **options):
    spec = tf.TensorSpec((None, None, None, None), dtype)
    return tf.function(GraphDenoiser(denoiser, **options), input_signature=[spec], autograph=False)


def _assert_equal(graph, denoiser, pictures, atol):
    # A served model takes the whole range of the dtype, however dark a picture is.
    white = value_range(pictures.dtype)
    expected = np.stack([denoiser(picture, white=white) for picture in pictures])
    result = graph(pictures).numpy()
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result.astype(float), expected.astype(float), rtol=0, atol=atol)
    return expected


@pytest.mark.parametrize("name", slow_except(SMALL, "cbsn", "n2v-unet"))
def test_equals_the_denoiser(make_denoiser, random, name):
    denoiser = make_denoiser(name, SMALL[name], tile=24, seed=3)
    graph = _graph(denoiser, tf.float32)
    for shape in SIZES:
        pictures = random.random(shape, np.float32)
        expected = _assert_equal(graph, denoiser, pictures, 1e-4)
        if pictures[..., 0].size > 100:
            assert 0.01 < expected[..., 0].std() < 0.5  # so it is neither flat nor clipped


def _operations(function):
    """How many of each kind are in a concrete function and in what it calls."""
    graph = function.graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(each.node_def for each in graph.library.function))
    return collections.Counter(node.op for node in nodes)


@pytest.mark.slow
@pytest.mark.parametrize("loops", [True, False])
def test_it_has_the_same_form_wherever_it_is_made(make_denoiser, monkeypatch, loops):
    """Also for other engines: ONNX Runtime has no convolutions that are dilated and padded."""
    denoiser = make_denoiser("apbsn", SMALL["apbsn"], tile=24, r3=False)
    recipe, network = denoiser.recipe, denoiser.network
    spec = tf.TensorSpec((1, 20, 20, 3), tf.float32)
    exported, converted, own = [], [], []
    for there in (False, True):
        monkeypatch.setattr(layers, "has_gpu", lambda there=there: there)
        graph = tf.function(GraphDenoiser(denoiser, loops=loops), input_signature=[spec])
        exported.append(_operations(graph.get_concrete_function()))
        converted.append(_operations(frozen_in_float32(recipe, network, blind=True)()))
        own.append(_operations(make_graph(recipe, network, blind=True).get_concrete_function()))
    assert exported[0] == exported[1]
    assert converted[0] == converted[1]
    assert own[0] != own[1]


@pytest.mark.parametrize("dtype", [tf.uint8, tf.uint16])
def test_integers_equal_to_a_level(denoiser, random, dtype):
    graph = _graph(denoiser, dtype)
    highest = dtype.max
    for shape in SIZES:
        pictures = random.integers(0, highest, shape, dtype.as_numpy_dtype, endpoint=True)
        _assert_equal(graph, denoiser, pictures, 1)


@pytest.mark.parametrize("channels", [2, 4])
def test_hidden_pixels_do_not_count(denoiser, random, channels):
    graph = _graph(denoiser, tf.uint8)
    pictures = random.integers(0, 256, (5, 33, 47, channels)).astype(np.uint8)
    y, x = np.mgrid[:33, :47]
    pictures[0, ..., -1] *= np.hypot(y - 16, x - 20) < 11
    pictures[1, ..., -1] *= random.random((33, 47)) < 0.02  # a few visible ones
    pictures[2, ..., -1] = 0
    pictures[3, ..., -1] *= (y == 5) & (x == 40)
    expected = _assert_equal(graph, denoiser, pictures, 1)
    hidden = pictures[..., -1] == 0
    np.testing.assert_array_equal(expected[hidden], pictures[hidden])
    found = graph(pictures).numpy()
    np.testing.assert_array_equal(found[hidden], pictures[hidden])
    others = np.where(hidden[..., None], pictures[..., -1:], pictures)  # black where hidden
    others[..., -1] = pictures[..., -1]
    np.testing.assert_array_equal(graph(others).numpy()[~hidden], found[~hidden])


def test_a_network_for_gray_takes_colours_one_by_one(make_denoiser, random):
    denoiser = make_denoiser("cbsn", {**SMALL["cbsn"], "channels": 1}, tile=24)
    graph = _graph(denoiser, tf.float32)
    for shape in SIZES:
        _assert_equal(graph, denoiser, random.random(shape, np.float32), 1e-4)


def test_self_ensemble_rounding_and_the_whole_in_one_piece(make_denoiser, random):
    options = {"tile": 0, "self_ensemble": True, "rounding": "truncate"}
    denoiser = make_denoiser("cbsn", SMALL["cbsn"], **options)
    pictures = random.integers(0, 255, (2, 21, 34, 3), np.uint8)
    _assert_equal(_graph(denoiser, tf.uint8), denoiser, pictures, 1)


def test_the_authors_vectors(golden, torch_model, random):
    """AP-BSN's, whose R3 draws other numbers: so the pass before it is compared."""
    data = np.load(golden("apbsn/wrapper_denoise.npz"))
    recipe, network = torch_model("apbsn")
    graph = _graph(Denoiser(recipe, network, DenoiseOptions(r3=False, tile=20)), tf.float32)
    for size in ("even", "odd"):
        expected = np.clip(data[f"y_{size}_noR3"] / 255, 0, 1)
        result = graph((data[f"x_{size}"] / 255).astype("float32"))
        np.testing.assert_allclose(result, expected, rtol=0, atol=5e-3 / 255)


def test_statistics_do_not_lose_a_flat_picture_to_rounding(denoiser):
    """A deviation of a thousandth around a mean of 1, in a picture of several blocks."""
    picture = np.full((1, 1200, 1300, 3), 0.999, np.float32)
    picture[:, ::2] += 1e-3
    graph = GraphDenoiser(denoiser)
    mean, deviation = graph._statistics(tf.constant(picture))
    expected = denoiser.recipe.build_normalization().statistics(picture[0])
    np.testing.assert_allclose(np.squeeze(mean), expected[0], rtol=1e-6)
    np.testing.assert_allclose(np.squeeze(deviation), expected[1], rtol=1e-5)


def test_weights_that_are_broken_are_told(make_denoiser):
    denoiser = make_denoiser("cbsn", SMALL["cbsn"])
    denoiser.network.set_weights([weight * np.nan for weight in denoiser.network.get_weights()])
    with pytest.raises(tf.errors.InvalidArgumentError, match="weights may be broken"):
        GraphDenoiser(denoiser)(tf.zeros((1, 5, 5, 3)))


@pytest.mark.slow
def test_memory_is_bounded_by_the_tile(run_python):
    """What the whole takes at once, a graph of tiles does not.

    In a process of its own: another one may have what it needs from what ran there before.
    """
    result = run_python(
        """
        import tensorflow as tf
        from cbsn.export.graph import GraphDenoiser
        from cbsn.inference.denoiser import Denoiser
        from cbsn.inference.options import DenoiseOptions
        from cbsn.devices import peak_memory, reset_peak_memory
        from cbsn.recipes import customised

        recipe = customised("cbsn", filters=16, num_modules=1)
        picture = tf.fill((1, 1000, 1000, 3), tf.constant(99, tf.uint8))
        spec = tf.TensorSpec((None, None, None, None), tf.uint8)
        for tile in (200, 0):
            options = DenoiseOptions(tile=tile)
            denoiser = Denoiser(recipe, recipe.build_network(), options)
            graph = tf.function(GraphDenoiser(denoiser), input_signature=[spec], autograph=False)
            graph(picture[:, :20, :20])  # so that the graph itself is in memory
            reset_peak_memory()
            before = peak_memory()
            graph(picture)
            print(peak_memory() - before)
        """
    )
    assert result.returncode == 0, result.stderr[-3000:]
    tiled, whole = map(float, result.stdout.split())
    assert tiled < 0.1 < 0.3 < whole


@pytest.mark.parametrize(
    ("name", "dtype"),
    slow_except([("cbsn", tf.uint8), ("n2v-unet", tf.float32)], ("cbsn", tf.uint8)),
)
def test_strength_is_the_denoisers_or_an_input(make_denoiser, random, name, dtype):
    white = value_range(dtype.as_numpy_dtype)
    denoiser = make_denoiser(name, SMALL[name], tile=24)
    specs = [tf.TensorSpec((None,) * rank, kind) for rank, kind in ((4, dtype), (1, tf.float32))]
    by_input = tf.function(
        GraphDenoiser(denoiser), input_signature=[*specs, specs[-1]], autograph=False
    )
    for luma, color in ((0.2, 0.9), (1, 0)):
        options = {"strength": luma, "color_strength": color}
        weaker = Denoiser(denoiser.recipe, denoiser.network, DenoiseOptions(tile=24, **options))
        graph = _graph(weaker, dtype) if luma == 0.2 else None
        for shape in SIZES[1:3]:
            pictures = (random.random(shape) * white).astype(dtype.as_numpy_dtype)
            shares = (np.full(len(pictures), share, np.float32) for share in (luma, color))
            result = by_input(pictures, *shares).numpy()
            atol = 1e-4 if dtype.is_floating else 1
            expected = np.stack([weaker(picture, white=white) for picture in pictures])
            np.testing.assert_allclose(
                result.astype(float), expected.astype(float), rtol=0, atol=atol
            )
            if graph:
                np.testing.assert_array_equal(graph(pictures), result)


def test_each_picture_has_its_strength(denoiser, random):
    graph = GraphDenoiser(denoiser)
    floats = random.random((4, 30, 29, 3), np.float32)
    floats[0, 0, :2] = [[-4e-7], [1.0000004]]  # which are in range but for rounding
    for pictures in (floats, (floats.clip(0, 1) * 255).astype(np.uint8)):
        whole = graph(tf.constant(pictures)).numpy()
        shares = tf.constant([0, 0, 1, 0.5]), tf.constant([0, 1, 1, 0.5])
        result = graph(tf.constant(pictures), *shares).numpy()
        np.testing.assert_array_equal(result[0], pictures[0])  # nothing is removed
        np.testing.assert_array_equal(result[2], whole[2])  # all is
        white = value_range(pictures.dtype)
        half = (pictures[3].astype(float) + whole[3]) / 2
        # Of integers the whole was rounded by half a level, and the half is by another.
        atol = 1e-6 if white == 1 else 0.75 + 1e-4
        np.testing.assert_allclose(result[3], half, rtol=0, atol=atol)


def test_strength_of_a_self_ensemble(make_denoiser, random):
    options = {"tile": 20, "self_ensemble": True, "strength": 0.3, "color_strength": 0.8}
    denoiser = make_denoiser("cbsn", SMALL["cbsn"], **options)
    pictures = random.random((2, 21, 34, 3), np.float32)
    _assert_equal(_graph(denoiser, tf.float32), denoiser, pictures, 1e-4)


def _planes(random, shape, scale, dtype=np.float32):
    """Some with the statistics of a scale."""
    planes = random.normal(scale.mean, scale.deviation, shape)
    if np.dtype(dtype).kind == "u":
        planes = np.clip(np.rint(planes), 0, np.iinfo(dtype).max)
    return planes.astype(dtype)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("normalization", ["0-1", "standardize"])
@pytest.mark.parametrize("name", slow_except(("cbsn", "apbsn", "n2v-unet"), "cbsn"))
def test_planes_of_a_stack_are_denoised_as_by_scaled(
    make_stack_denoiser, random, name, normalization
):
    denoiser = make_stack_denoiser(
        name, {**SMALL[name], "channels": 1}, normalization=normalization, tile=24
    )
    for channel, loops in ((0, True), (1, True), (1, False)):
        scale = denoiser.scaling.of(channel)
        span = scale.high - scale.low
        graph = GraphDenoiser(denoiser, channel=channel, loops=loops)
        for shape in ((1, 1, 1), (3, 33, 47)):
            planes = _planes(random, shape, scale)
            planes[-1] += span  # no plane has its own statistics
            expected = denoiser.scaled(planes, scale)
            result = graph(tf.constant(planes[..., None])).numpy()[..., 0]
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * span)
        assert expected.std() > 5e-3 * span  # so it is not flat


@pytest.mark.parametrize("dtype", [tf.uint8, tf.uint16])
@pytest.mark.parametrize("rounding", ["round", "truncate"])
def test_integers_of_a_stack_are_taken_as_they_are(make_stack_denoiser, random, dtype, rounding):
    denoiser = make_stack_denoiser(rounding=rounding, strength=0.5, tile=24)
    channel = int(dtype == tf.uint16)
    scale = denoiser.scaling.of(channel)
    planes = _planes(random, (2, 33, 47), scale, dtype.as_numpy_dtype)
    planes[1, :9] = dtype.max  # results beyond 0 are clipped
    result = GraphDenoiser(denoiser, channel=channel)(tf.constant(planes[..., None])).numpy()
    expected = denoiser.scaled(planes, scale)
    assert result.dtype == planes.dtype
    assert np.abs(result[..., 0].astype(int) - expected).max() <= 1
    assert expected.std() > 1


def test_a_stack_in_colour_and_a_network_for_colour(make_stack_denoiser, random):
    for channels in (1, 3):
        denoiser = make_stack_denoiser("cbsn", {**SMALL["cbsn"], "channels": channels}, tile=24)
        scale = denoiser.scaling.of(0)
        graph = _graph(denoiser, tf.float32)
        for shape in ((2, 21, 30, 3), (2, 21, 30, 1)):
            planes = _planes(random, shape, scale)
            np.testing.assert_allclose(graph(planes), denoiser.scaled(planes, scale), atol=1e-2)


@pytest.mark.parametrize("loops", [True, False])
def test_strength_and_self_ensemble_of_a_stack(make_stack_denoiser, random, loops):
    denoiser = make_stack_denoiser(strength=0.4, self_ensemble=True, tile=24)
    scale = denoiser.scaling.of(1)
    graph = GraphDenoiser(denoiser, channel=1, loops=loops)
    planes = _planes(random, (2, 21, 34), scale)
    planes[1] += 2 * (scale.high - scale.low)
    expected = denoiser.scaled(planes, scale)
    assert expected.max() > scale.high  # so it is not clipped
    result = graph(tf.constant(planes[..., None])).numpy()[..., 0]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * (scale.high - scale.low))
    shares = tf.constant([0.0, 1.0])
    nothing, all_ = graph(tf.constant(planes[..., None]), shares, shares).numpy()[..., 0]
    np.testing.assert_array_equal(nothing, planes[0])
    whole = Denoiser(denoiser.recipe, denoiser.network, DenoiseOptions(self_ensemble=True))
    np.testing.assert_allclose(all_, whole.scaled(planes, scale)[1], rtol=0, atol=0.3)


@pytest.mark.parametrize("loops", [True, False])
def test_small_differences_of_large_values_are_kept(make_stack_denoiser, random, loops):
    """In float32, a lower end of 1e6 + 1/3 is off by 1/50, a tenth of the range here."""
    scale = Scale(1e6 + 1 / 3, 1e6 + 1 / 3 + 0.25, 1e6 + 0.5, 0.1)
    denoiser = make_stack_denoiser(scaling=Scaling("given", (scale,)), tile=24)
    planes = _planes(random, (1, 20, 30), scale)
    result = GraphDenoiser(denoiser, loops=loops)(tf.constant(planes[..., None])).numpy()[..., 0]
    # Neighbours in float32 are 1/16 apart.
    np.testing.assert_allclose(result, denoiser.scaled(planes, scale), rtol=0, atol=1 / 16)
    assert len(np.unique(planes)) > 3


@pytest.mark.parametrize("channel", [-1, 2])
def test_a_channel_that_is_not_there(make_stack_denoiser, denoiser, channel):
    with pytest.raises(ConfigError, match=rf"2 channels, counted from 0.*channel {channel}$"):
        GraphDenoiser(make_stack_denoiser(), channel=channel)
    with pytest.raises(ConfigError, match=r"trained on pictures.*Received: --stack_channel 0"):
        GraphDenoiser(denoiser, channel=0)
