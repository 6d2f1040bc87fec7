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


def _masks(random, shape, cell):
    masked = random.integers(0, cell**2, shape)
    return masked, (masked + random.integers(1, cell**2, shape)) % cell**2


@pytest.mark.parametrize(("size", "cell"), [((12, 8), 4), ((11, 14), 4), ((6, 6), 2), ((9, 10), 3)])
def test_masked_pixels_leave_no_trace(random, size, cell):
    """Every pixel is another number, so that each can be told wherever it turns up."""
    height, width = size
    x = np.arange(2 * height * width, dtype="float32").reshape(2, height, width, 1)
    masks = _masks(random, (2, height // cell, width // cell), cell)
    result, mask = (np.asarray(each) for each in sampling.mask_pixels(x, *masks, cell))
    hidden = mask[..., 0] == 1
    assert not np.isin(x[hidden], result).any()
    np.testing.assert_array_equal(result[~hidden], x[~hidden])
    # One in each cell, and what stands in for it is of that cell.
    inner = hidden[:, : height // cell * cell, : width // cell * cell]
    cells = inner.reshape(2, height // cell, cell, width // cell, cell)
    np.testing.assert_array_equal(cells.sum(axis=(2, 4)), 1)
    assert hidden.sum() == inner.sum()
    image, row, column = np.nonzero(hidden)
    sources = result[hidden][:, 0].astype(int)
    np.testing.assert_array_equal(sources // (height * width), image)
    np.testing.assert_array_equal(sources % (height * width) // width // cell, row // cell)
    np.testing.assert_array_equal(sources % width // cell, column // cell)


def test_masks_are_those_that_were_drawn():
    x = np.arange(8, dtype="float32").reshape(1, 2, 4, 1)
    result, mask = sampling.mask_pixels(x, np.array([[[0, 3]]]), np.array([[[1, 2]]]), 2)
    np.testing.assert_array_equal(np.asarray(result)[0, :, :, 0], [[1, 1, 2, 3], [4, 5, 6, 6]])
    np.testing.assert_array_equal(np.asarray(mask)[0, :, :, 0], [[1, 0, 0, 0], [0, 0, 0, 1]])


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
