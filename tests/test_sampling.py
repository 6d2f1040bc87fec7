import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn import sampling


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_space_to_batch_golden(golden, factor):
    data = np.load(golden("common/s2b_b2s.npz"))
    result = sampling.space_to_batch(data["x"], factor)
    np.testing.assert_array_equal(result, data[f"s2b_{factor}"])


@pytest.mark.parametrize("factor", [2, 5])
def test_batch_to_space_golden(golden, factor):
    data = np.load(golden("common/s2b_b2s.npz"))
    result = sampling.batch_to_space(data[f"b2s_{factor}_in"], factor)
    np.testing.assert_array_equal(result, data[f"b2s_{factor}_out"])


@pytest.mark.parametrize("factor", [2, 5])
def test_random_subsample_golden(golden, factor):
    data = np.load(golden("common/subimage.npz"))
    result = sampling.random_subsample(data["x"], data[f"rand_mask_{factor}"], factor)
    np.testing.assert_array_equal(result, data[f"sub_{factor}"])


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_pixel_shuffle_golden(golden, factor):
    data = np.load(golden("common/pd.npz"))
    np.testing.assert_array_equal(
        sampling.pixel_shuffle_down(data["x"], factor), data[f"pd_{factor}"]
    )
    np.testing.assert_array_equal(
        sampling.pixel_shuffle_up(data["x"], factor), data[f"pdinv_{factor}"]
    )


@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("factor", [2, 5])
def test_padded_pixel_shuffle_golden(golden, factor, pad):
    data = np.load(golden("apbsn/pd.npz"))
    case = f"f{factor}_pad{pad}"
    down = sampling.pixel_shuffle_down(data["x"], factor, pad)
    np.testing.assert_array_equal(down, data[f"down_{case}"])
    up = sampling.pixel_shuffle_up(data[f"upin_{case}"], factor, pad)
    np.testing.assert_array_equal(up, data[f"up_{case}"])


@pytest.mark.parametrize(
    ("size", "sides"), [((12, 8), (4, 4)), ((6, 10), (3, 5)), ((4, 6, 10), (2, 3, 1)), ((6,), (2,))]
)
def test_cells_hold_their_pixels_in_order(random, size, sides):
    x = random.normal(size=(2, *size, 3)).astype("float32")
    cells = np.asarray(sampling.to_cells(x, sides))
    grid = tuple(length // side for length, side in zip(size, sides, strict=True))
    assert cells.shape == (2, *grid, np.prod(sides), 3)
    for cell in np.ndindex(*grid):
        slices = (slice(c * s, (c + 1) * s) for c, s in zip(cell, sides, strict=True))
        expected = x[(slice(None), *slices)].reshape(2, -1, 3)
        np.testing.assert_array_equal(cells[(slice(None), *cell)], expected)
    np.testing.assert_array_equal(sampling.from_cells(cells, sides), x)


def test_cells_must_fit():
    with pytest.raises(ValueError, match="height=5, factor=2"):
        sampling.to_cells(np.zeros((1, 2, 5, 4, 1), "float32"), (2, 2, 2))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_depth_to_space_is_tensorflows(random, factor):
    x = random.normal(size=(2, 3, 5, 2 * factor**2)).astype("float32")
    expected = tf.nn.depth_to_space(x, factor) if factor > 1 else x
    np.testing.assert_array_equal(sampling.depth_to_space(x, factor), expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_round_trips(random, factor):
    x = random.normal(size=(2, 12, 24, 3)).astype("float32")
    phases = sampling.space_to_batch(x, factor)
    assert phases.shape == (2 * factor**2, 12 // factor, 24 // factor, 3)
    np.testing.assert_array_equal(sampling.batch_to_space(phases, factor), x)
    mosaic = sampling.pixel_shuffle_down(x, factor)
    np.testing.assert_array_equal(
        mosaic[:, : 12 // factor, : 24 // factor], x[:, ::factor, ::factor]
    )
    np.testing.assert_array_equal(sampling.pixel_shuffle_up(mosaic, factor), x)
    padded = sampling.pixel_shuffle_down(x, factor, 3)
    assert padded.shape == (2, 12 + 6 * factor, 24 + 6 * factor, 3)
    np.testing.assert_array_equal(sampling.pixel_shuffle_up(padded, factor, 3), x)


def test_random_subsample_takes_the_named_pixel(random):
    x = random.normal(size=(1, 6, 6, 2)).astype("float32")
    for dy in range(3):
        for dx in range(3):
            indices = np.full((1, 2, 2), 3 * dy + dx)
            result = sampling.random_subsample(x, indices, 3)
            np.testing.assert_array_equal(result, x[:, dy::3, dx::3])


def test_random_subsample_gradient_goes_to_the_chosen_pixels():
    import tensorflow as tf

    x = tf.zeros((1, 4, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = sampling.random_subsample(x, np.array([0, 1, 2, 3]), 2)
        total = tf.reduce_sum(y * tf.reshape([1.0, 2.0, 3.0, 4.0], (1, 2, 2, 1)))
    expected = [[1, 0, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]
    np.testing.assert_array_equal(tape.gradient(total, x)[0, :, :, 0], expected)


def test_sizes_unknown_in_the_graph(random):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def round_trip(x):
        return sampling.pixel_shuffle_up(
            sampling.batch_to_space(sampling.space_to_batch(x, 2), 2), 2
        )

    x = random.normal(size=(2, 8, 6, 3)).astype("float32")
    expected = sampling.pixel_shuffle_up(x, 2)
    np.testing.assert_array_equal(round_trip(x), expected)


@pytest.mark.parametrize("op", [sampling.space_to_batch, sampling.pixel_shuffle_down])
def test_indivisible_sizes_are_refused(op):
    with pytest.raises(ValueError, match="height=7, factor=2"):
        op(keras.ops.zeros((1, 7, 8, 3)), 2)
