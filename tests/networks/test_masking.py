import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import BlindSpotUNet, masking
from cbsn.networks.masking import Masking, parse_mask_shape
from cbsn.orientations import orient
from tests.cases import slow_except

SHAPES = [
    ("point", (2, 12, 14)),
    ("x:1", (2, 9, 16)),
    ("x:3", (2, 12, 30)),
    ("y:2", (2, 20, 13)),
    ("cross:1", (2, 13, 12)),
    ("cross:2", (1, 25, 22)),
    ("square:1", (2, 18, 20)),
    ("x:2+y:1", (2, 16, 21)),
    ("1,1;-1,-1", (2, 14, 12)),
    ("0,1", (2, 12, 15)),
    ("z:1", (1, 9, 8, 12)),
    ("x:2+z:1", (1, 8, 10, 15)),
    ("square:1+z:1", (1, 9, 12, 13)),
    ("point", (2, 6, 9, 8)),
]


class Draws:
    """Draws as an objective is given them."""

    def __init__(self, seed):
        self._random = np.random.default_rng(seed)

    def integers(self, shape, high):
        return tf.constant(self._random.integers(0, high, shape), "int32")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("point", ()),
        ("x:1", ((0, -1), (0, 1))),
        ("Y:1", ((-1, 0), (1, 0))),
        ("cross:1", ((-1, 0), (0, -1), (0, 1), (1, 0))),
        ("x:1 + y:1", ((-1, 0), (0, -1), (0, 1), (1, 0))),
        ("0,2;0,-2;0,0", ((0, -2), (0, 2))),
        ("point+0,3", ((0, 3),)),
    ],
)
def test_shapes(text, expected):
    assert parse_mask_shape(text) == expected


def test_shapes_of_volumes_lie_in_plane_unless_they_name_z():
    assert parse_mask_shape("z:1", 3) == ((-1, 0, 0), (1, 0, 0))
    assert len(parse_mask_shape("square:2", 3)) == 24
    assert {offset[0] for offset in parse_mask_shape("square:2+x:5", 3)} == {0}
    assert parse_mask_shape("1,0,-2", 3) == ((1, 0, -2),)


@pytest.mark.parametrize(
    ("text", "dimensions"),
    [
        *(("", 2), ("x", 2), ("x:", 2), ("x:-1", 2), ("z:1", 2), ("ring:2", 2), ("1,2,3", 2)),
        *(("1,2", 3), ("x:1,y:1", 2), ("x:65", 2), ("0,65", 2), ("square:1000000", 2)),
    ],
)
def test_bad_shapes_are_named(text, dimensions):
    with pytest.raises(ValueError, match="Received: ") as caught:
        parse_mask_shape(text, dimensions)
    assert str(caught.value).endswith(f"Received: {text}")
    assert ("three dimensions" in str(caught.value)) == (text == "z:1")


def _hidden(mask, offsets):
    """Where a mask [N, *size, 1] hides pixels."""
    hidden = np.zeros(mask.shape, bool)
    for place in np.argwhere(mask[..., 0] == 1):
        for offset in ((0,) * (mask.ndim - 2), *offsets):
            there = place[1:] + offset
            if np.all(there >= 0) and np.all(there < mask.shape[1:-1]):
                hidden[(place[0], *there)] = True
    return hidden


@pytest.mark.parametrize("replacement", slow_except(("random", "median"), "random"))
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_the_masked_input_never_holds_what_is_hidden(random, shape, size, replacement):
    """By the values themselves: what is hidden may be anything, and the input stays the same."""
    masking = Masking(shape, 4, replacement, dimensions=len(size) - 1)
    x = random.normal(size=(*size, 2)).astype("float32")
    count, seen = 0, 0
    for seed in range(4):
        result, mask = (np.asarray(each) for each in masking(tf.constant(x), Draws(seed)))
        assert set(np.unique(mask)) <= {0.0, 1.0}
        hidden = _hidden(mask, masking.offsets)
        changed = np.where(hidden, 1e3 + random.normal(size=x.shape), x).astype("float32")
        again, same_mask = masking(tf.constant(changed), Draws(seed))
        np.testing.assert_array_equal(same_mask, mask)
        np.testing.assert_array_equal(again, result, err_msg=str(seed))
        # What is visible is mostly as it was: the rest are pixels of masks that are not counted,
        # as they reach into a margin.
        np.testing.assert_array_equal((result != x).all(-1)[hidden[..., 0]], True)
        seen += np.mean((result == x).all(-1))
        count += mask.mean()
    assert count > 0
    assert seen / 4 >= 1 / 4


@pytest.mark.parametrize(
    ("shape", "dimensions", "count", "flips"),
    [
        ("point", 2, 8, True),
        ("x:2", 2, 4, True),
        ("cross:2", 2, 8, True),
        ("x:3+y:1", 2, 4, True),
        ("1,1;-1,-1", 2, 4, True),
        ("0,1", 2, 2, True),
        ("1,2", 2, 1, True),
        ("y:1+z:2", 3, 4, True),
        ("1,0,0", 3, 8, False),
    ],
)
def test_orientations_in_which_the_mask_stays_the_same(shape, dimensions, count, flips):
    """As a picture of the hidden pixels is turned."""
    masking = Masking(shape, dimensions=dimensions)
    volume = np.zeros((7, 7, 7), bool)
    for offset in masking.offsets:
        volume[tuple(3 + step for step in (0, *offset)[-3:])] = True
    plane = np.moveaxis(volume, 0, 2)
    same = [n for n in range(8) if np.array_equal(orient(plane, n), plane)]
    assert [*masking.orientations] == same and len(same) == count
    assert masking.flips_z == np.array_equal(volume, volume[::-1]) == flips


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_every_cell_keeps_a_quarter_in_sight(shape, size):
    """Also at the worst places of masks, all of which are tried for one cell and its neighbours."""
    masking = Masking(shape, 2, dimensions=len(size) - 1)
    sides = np.array(masking.sides)
    worst = 0
    for around in np.ndindex(*[3] * len(sides)):
        hit = [
            sum(
                np.all((place + np.array(o)) // sides == np.array(around) - 1)
                for o in ((0,) * len(sides), *masking.offsets)
            )
            for place in np.ndindex(*sides)
        ]
        worst += max(hit)
    assert worst <= 0.75 * np.prod(sides)


def _most_hidden(shape, sides):
    """How many pixels of a cell may be hidden at most, counted one by one."""
    most = {}
    for place in np.ndindex(*sides):
        cells = [tuple((np.array(place) + o) // sides) for o in shape]
        for cell in {*cells}:
            most[cell] = max(most.get(cell, 0), cells.count(cell))
    return sum(most.values())


@pytest.mark.parametrize(
    ("shape", "dimensions"),
    [
        *(("point", 2), ("x:3", 2), ("square:2", 2), ("cross:4", 2), ("x:2+y:5", 2), ("0,1", 2)),
        *(("1,1;-1,-1", 2), ("2,5;0,-1;1,0", 2), ("z:2", 3), ("square:1+z:2", 3), ("1,0,-2", 3)),
    ],
)
def test_hidden_pixels_are_counted_by_sums_as_one_by_one(shape, dimensions):
    """Also where a mask reaches over more than one cell."""
    zero = (0,) * dimensions
    shape = [*parse_mask_shape(shape, dimensions), zero]
    reaches = tuple(map(int, np.abs(shape).max(axis=0)))
    sums = masking._summed(shape, reaches)
    for sides in itertools.product((2, 3, 7), repeat=dimensions):
        assert masking._worst(sums, reaches, sides) == _most_hidden(shape, sides)


@pytest.mark.slow
def test_the_largest_masks_have_cells():
    """Their pixels times the pixels of a cell would be 1.5 billion, more than memory holds."""
    found = Masking("square:64")
    count = np.prod(found.sides)
    assert len(found.offsets) == 129**2 - 1
    assert 4 / 3 * 129**2 < count < 8 * 129**2
    assert Masking("x:64+y:64+z:64", dimensions=3).sides == (129, 129, 129)


def test_every_place_of_a_cell_is_masked_as_often(random):
    masking = Masking("x:1", 4)
    size = [5 * side for side in masking.sides]
    x = random.normal(size=(400, *size, 1)).astype("float32")
    _, mask = masking(tf.constant(x), Draws(1))
    places = np.asarray(mask).reshape(400, 5, masking.sides[0], 5, masking.sides[1])
    np.testing.assert_array_equal(places.sum(axis=(2, 4)), 1)
    counts = places.sum(axis=(0, 1, 3)).ravel()
    expected = counts.sum() / counts.size
    # Six standard deviations of a count.
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


@pytest.mark.parametrize(("size", "cell"), [((12, 8), 4), ((11, 14), 4), ((6, 6), 2), ((9, 10), 3)])
def test_each_cell_hides_one_pixel_behind_another_of_its_own(size, cell):
    """Every pixel is another number, so that each can be told wherever it turns up."""
    height, width = size
    x = np.arange(2 * height * width, dtype="float32").reshape(2, height, width, 1)
    result, mask = (np.asarray(each) for each in Masking(cell=cell)(tf.constant(x), Draws(1)))
    hidden = mask[..., 0] == 1
    assert not np.isin(x[hidden], result).any()
    np.testing.assert_array_equal(result[~hidden], x[~hidden])
    inner = hidden[:, : height // cell * cell, : width // cell * cell]
    cells = inner.reshape(2, height // cell, cell, width // cell, cell)
    np.testing.assert_array_equal(cells.sum(axis=(2, 4)), 1)
    assert hidden.sum() == inner.sum()
    image, row, column = np.nonzero(hidden)
    sources = result[hidden][:, 0].astype(int)
    np.testing.assert_array_equal(sources // (height * width), image)
    np.testing.assert_array_equal(sources % (height * width) // width // cell, row // cell)
    np.testing.assert_array_equal(sources % width // cell, column // cell)


def test_the_median_is_that_of_the_visible_neighbours(random):
    masking = Masking("point", 4, "median")
    x = random.normal(size=(2, 16, 16, 2)).astype("float32")
    result, mask = (np.asarray(each) for each in masking(tf.constant(x), Draws(3)))
    visible = np.pad(
        np.where(mask == 1, np.nan, x), ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=np.nan
    )
    for n, row, column in np.argwhere(mask[..., 0] == 1):
        around = visible[n, row : row + 5, column : column + 5].reshape(25, 2)
        np.testing.assert_allclose(result[n, row, column], np.nanmedian(around, axis=0), rtol=1e-6)


def test_hidden_neighbours_get_different_pixels():
    """A run of equal values would tell where a mask is."""
    masking = Masking("x:2", 4)
    x = np.arange(4 * 100 * 2, dtype="float32").reshape(1, 8, 100, 1)
    result, mask = (np.asarray(each) for each in masking(tf.constant(x), Draws(0)))
    height, width = masking.sides
    cells = result.reshape(1, 8 // height, height, 100 // width, width)
    changed = (result != x).reshape(cells.shape)
    for row, column in np.ndindex(8 // height, 100 // width):
        values = cells[0, row, :, column][changed[0, row, :, column]]
        assert len({*values}) == len(values)
    assert mask.sum() > 0


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_a_network_is_blind_to_the_shape_by_gradient(shape, size):
    dimensions = len(size) - 1
    keras.utils.set_random_seed(1)
    network = BlindSpotUNet(
        filters=8,
        depth=1,
        channels=1,
        mask_shape=shape,
        dimensions=dimensions,
        **({"z_halvings": 1} if dimensions == 3 else {}),
    )
    x = tf.random.stateless_normal((1, *size[1:], 1), (1, 2))
    _, mask = network.blind_pass(x, Draws(5))
    places = np.argwhere(np.asarray(mask)[0, ..., 0] == 1)
    assert len(places)
    seen = 0
    with tf.device("CPU:0"):  # where what has no influence has a gradient of exactly 0
        for place in places[:6]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = network.blind_pass(x, Draws(5))[0][(0, *place, 0)]
            gradient = np.asarray(tape.gradient(y, x))[0, ..., 0]
            for offset in ((0,) * dimensions, *network.masking.offsets):
                there = place + offset
                if np.all(there >= 0) and np.all(there < gradient.shape):
                    assert gradient[tuple(there)] == 0
            seen += np.count_nonzero(gradient)
    assert seen  # or the test would pass for a network whose ReLUs are all 0


def test_patches_smaller_than_a_cell_are_refused():
    with pytest.raises(ValueError, match=r"need 4 × 21 pixels or more\. Received: 16 × 16"):
        Masking("x:10")(tf.zeros((1, 16, 16, 1)), Draws(0))


@pytest.mark.parametrize(
    ("bad", "text"), [({"cell": 1}, "mask_cell=1"), ({"replacement": "mean"}, "'mean'")]
)
def test_bad_values_are_named(bad, text):
    with pytest.raises(ValueError, match=text):
        Masking(**bad)
