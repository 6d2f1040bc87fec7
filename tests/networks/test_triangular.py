import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks.layers import HE, Convolution
from cbsn.networks.triangular import (
    TriangularConvolution,
    TriangularMaskedBlindSpotNetwork,
    moved,
)

HOLES = [0, 1, 3, 5, 7, 9, 11, 13]


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    network = TriangularMaskedBlindSpotNetwork(filters=6, depth=2, hole=13, denoise_hole=1)
    generator = np.random.default_rng(2)
    for weight in network.weights:
        if weight.path.endswith("bias"):  # fresh biases are 0, and would hide one that leaks
            weight.assign(generator.normal(size=weight.shape))
    return network


def _influence(run, x, places):
    """How much each pixel of x [1, H, W, C] influences the output at places: [places, H, W]."""
    with tf.device("CPU:0"), tf.GradientTape() as tape:
        copies = tf.constant(np.repeat(x, len(places), axis=0))
        tape.watch(copies)
        result = run(copies)
        own = [result[(number, *place)] for number, place in enumerate(places)]
    return np.abs(tape.gradient(own, copies)).sum(axis=-1)


def _distance(size, place):
    """|x| + |y| of each pixel from a place: [H, W]."""
    rows, columns = np.indices(size)
    return abs(rows - place[0]) + abs(columns - place[1])


@pytest.mark.parametrize("hole", HOLES)
def test_the_blind_spot_is_a_diamond_of_any_width(network, random, hole):
    """Nothing inside has any influence, and everything around has: at each place of the grid."""
    size = (25, 23)  # padded to multiples of 4
    x = random.normal(size=(1, *size, 3)).astype("float32")
    places = [(12, 13), (13, 12), (15, 14), (0, 0), (24, 22)]
    influences = _influence(lambda x: network(x, hole=hole), x, places)
    for place, influence in zip(places, influences, strict=True):
        distance = _distance(size, place)
        hidden = distance < (hole + 1) // 2
        assert hidden.sum() == (hole**2 + 1) // 2 or place in ((0, 0), (24, 22))
        assert not influence[hidden].any(), place
        assert influence[distance == (hole + 1) // 2].all(), place


def test_a_call_takes_the_hole_that_the_network_says(network, random):
    x = random.normal(size=(1, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(network(x, blind=True), network(x, hole=13))
    np.testing.assert_array_equal(network(x, blind=False), network(x, hole=1))
    prediction, valid = network.blind_pass(x, None)
    np.testing.assert_array_equal(prediction, network(x, hole=13))
    assert valid is None


def test_several_holes_give_what_each_gives(network, random):
    x = random.normal(size=(2, 13, 18, 3)).astype("float32")
    for hole, result in zip((9, 0, 3), network.with_holes(x, (9, 0, 3)), strict=True):
        np.testing.assert_array_equal(result, network(x, hole=hole))
    side = network.size_multiple + 2 * network.receptive_field_radius
    x = random.normal(size=(1, side, side, 3)).astype("float32")
    inside = slice(network.receptive_field_radius, -network.receptive_field_radius)
    for hole, result in zip((13, 5), network.with_holes(x, (13, 5), "valid"), strict=True):
        # The same numbers but for how the sums are ordered.
        np.testing.assert_allclose(result, network(x, hole=hole)[:, inside, inside], atol=1e-5)


def test_the_trunk_runs_once_for_all_holes(network, random, monkeypatch):
    calls = []
    features = type(network).features
    monkeypatch.setattr(
        type(network),
        "features",
        lambda self, x, **how: calls.append(1) or features(self, x, **how),
    )
    network.with_holes(random.normal(size=(1, 8, 8, 3)).astype("float32"), (1, 3, 5, 7, 9))
    assert len(calls) == 4  # directions


@pytest.mark.parametrize("turns", range(4))
def test_a_convolution_sees_one_side_of_a_diagonal(random, turns):
    convolution = TriangularConvolution(4)
    x = random.normal(size=(1, 5, 5, 2)).astype("float32")
    (influence,) = _influence(lambda x: convolution(x, turns=turns), x, [(2, 2)])
    expected = np.zeros((5, 5), bool)
    expected[1:4, 1:4] = np.rot90(np.triu(np.ones((3, 3), bool)), turns)
    np.testing.assert_array_equal(influence > 0, expected)


@pytest.mark.parametrize("turns", range(4))
def test_the_directions_share_their_weights(random, turns):
    """Looking in another direction is looking in the first at a turned picture."""
    convolution = TriangularConvolution(4)
    x = random.normal(size=(1, 6, 7, 2)).astype("float32")
    turned = np.rot90(convolution(np.rot90(x, -turns, (1, 2)).copy()), turns, (1, 2))
    np.testing.assert_allclose(convolution(x, turns=turns), turned, atol=1e-5)


def test_features_start_with_the_variance_of_a_convolution_without_mask():
    keras.utils.set_random_seed(3)
    triangular, plain = TriangularConvolution(512), Convolution(512, 3, kernel_initializer=HE)
    for layer in (triangular, plain):
        layer.build((None, None, None, 64))
    seen = np.triu(np.ones((3, 3)))[..., None, None]
    sums = [np.sum(np.square(kernel)) / 512 for kernel in (triangular.kernel * seen, plain.kernel)]
    # Each is a sum of 200,000 squares or more, whose relative standard error is sqrt(2 / 200,000).
    assert sums == pytest.approx([2, 2], rel=0.02)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (-2, 3), (2, -1), (9, 0)])
def test_moved(random, down, right):
    x = random.normal(size=(1, 5, 6, 2)).astype("float32")
    expected = np.zeros_like(x)
    for y in range(5):
        for z in range(6):
            if 0 <= y + down < 5 and 0 <= z + right < 6:
                expected[0, y, z] = x[0, y + down, z + right]
    np.testing.assert_array_equal(moved(x, down, right), expected)


@pytest.mark.parametrize("hole", [-1, 2, 8, 129])
@pytest.mark.parametrize("name", ["hole", "denoise_hole"])
def test_holes_that_cannot_be(network, name, hole):
    with pytest.raises(ValueError, match=f"{name} must be odd and at most 127.*: {name} {hole}"):
        TriangularMaskedBlindSpotNetwork(filters=4, **{name: hole})
    with pytest.raises(ValueError, match="or 0 for none"):
        network(np.zeros((1, 8, 8, 3), "float32"), hole=hole)


def test_a_blind_call_needs_a_hole():
    with pytest.raises(ValueError, match="hole must be odd and at most 127, its width in pixels"):
        TriangularMaskedBlindSpotNetwork(filters=4, hole=0)


def test_a_larger_hole_does_not_fit_a_tile(network):
    side = network.size_multiple + 2 * network.receptive_field_radius
    with pytest.raises(ValueError, match=r"at most that of the network, 13.*hole=15"):
        network(np.zeros((1, side, side, 3), "float32"), padding="valid", hole=15)


def test_blindness_follows_from_the_holes():
    for hole, denoise_hole, blindness in ((9, 9, "always"), (9, 3, "switched"), (9, 0, "switched")):
        network = TriangularMaskedBlindSpotNetwork(4, 1, hole, denoise_hole)
        assert network.blindness == blindness


def test_size():
    """The paper's teacher has 1.35 million parameters."""
    network = TriangularMaskedBlindSpotNetwork()
    assert network.count_params() == 1_218_675
    assert len(network.weights) == 40
