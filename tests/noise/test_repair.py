import tracemalloc

import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.noise import lines as lines_module
from cbsn.noise.repair import parse_repairs, repair_picture, without_offsets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ()),
        ("", ()),
        ("pixels", ("pixels",)),
        ("rows, Pixels", ("pixels", "rows")),
        ("columns,rows,rows", ("rows", "columns")),
    ],
)
def test_what_may_be_repaired(text, expected):
    assert parse_repairs(text) == expected


@pytest.mark.parametrize("text", ["all", "pixel", "pixels+rows", "pixels,", "1"])
def test_other_texts(text):
    with pytest.raises(ConfigError, match=r"such as pixels,rows\. Received: --repair "):
        parse_repairs(text)


def _picture(random, dtype, channels):
    """Noise of σ 5 around 100; one pixel is 250, and one of alpha 0 is, too."""
    picture = random.normal(100, 5, (64, 64, channels))
    colors = 3 if channels > 2 else 1
    picture[20, 30, :colors] = picture[50, 50, :colors] = 250
    if channels % 2 == 0:
        picture[..., -1] = 255
        picture[50, 50, -1] = 0
    if dtype == "float32":
        return (picture / 255).astype(dtype)
    scale = 257 if dtype == "uint16" else 1
    return np.rint(picture * scale).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_outliers_of_a_picture(dtype, channels, random):
    """Nothing else changes, and neither do alpha and what it hides, which does not count."""
    picture = _picture(random, dtype, channels)
    before = picture.copy()
    assert repair_picture(picture, ("pixels",)) == (1 if channels % 2 == 0 else 2)
    changed = np.argwhere((picture != before).any(axis=-1)).tolist()
    assert changed == ([[20, 30]] if channels % 2 == 0 else [[20, 30], [50, 50]])
    colors = 3 if channels > 2 else 1
    near = np.delete(before[19:22, 29:32, :colors].reshape(9, -1), 4, axis=0)
    median = np.median(near.astype(float), axis=0)
    expected = median if dtype == "float32" else np.rint(median)
    np.testing.assert_array_equal(picture[20, 30, :colors], expected.astype(dtype))


def test_offsets_of_lines(random):
    """What is left is the error of a mean of 200 pixels; outliers are told first."""
    for lines, axis in (("rows", 1), ("columns", 0)):
        shape = [200, 200, 1]
        shape[axis] = 1
        offsets = random.normal(0, 3, shape)
        picture = (random.normal(100, 5, (200, 200, 1)) + offsets).astype("float32")
        before = picture.copy()
        assert repair_picture(picture, (lines,)) == 0
        removed = (before - picture).mean(axis=axis)
        assert np.ptp(before - picture, axis=axis).max() < 1e-4
        # The median of 17 offsets stays, whose deviation is 0.3 times theirs.
        assert np.corrcoef(removed.ravel(), offsets.ravel())[0, 1] > 0.85
        assert (
            np.diff(picture.mean(axis=axis), axis=0).std()
            < np.diff(offsets, axis=1 - axis).std() / 3
        )


@pytest.mark.parametrize("hides", [0, 250, np.nan])
@pytest.mark.parametrize("lines", ["rows", "columns"])
def test_what_is_hidden_makes_no_difference_to_lines(lines, hides, random):
    """Offsets are those of the visible part alone: 50 of 128 columns."""
    shown = random.normal(100, 5, (128, 50, 1)) + random.normal(0, 12, (128, 1, 1))
    picture = np.full((128, 128, 2), hides, np.float32)
    picture[:, :50, :1], picture[..., 1] = shown, 0
    picture[:, :50, 1] = 1
    alone, before = picture[:, :50, :1].copy(), picture.copy()
    repair_picture(picture, (lines,))
    repair_picture(alone, (lines,))
    assert (alone != before[:, :50, :1]).any()
    np.testing.assert_allclose(picture[:, :50, :1], alone, rtol=1e-6)
    np.testing.assert_array_equal(picture[:, 50:], before[:, 50:])
    np.testing.assert_array_equal(picture[..., 1], before[..., 1])


@pytest.mark.parametrize("hides", [0, 250, np.nan])
@pytest.mark.parametrize("width", [2, 5, 20])
def test_what_is_hidden_makes_no_difference_to_outliers(width, hides):
    """Noise in narrow stripes has none, and one at the edge of what is visible is found."""
    for seed in range(6):
        picture = np.random.default_rng(seed).normal(100, 5, (96, 96, 2)).astype("float32")
        picture[..., 1] = np.arange(96) % (2 * width) < width
        picture[picture[..., 1] == 0, 0] = hides
        before = picture.copy()
        assert repair_picture(picture, ("pixels",)) == 0
        picture[40, 0, 0] = 1000
        assert repair_picture(picture, ("pixels",)) == 1
        picture[40, 0, 0] = before[40, 0, 0]
        np.testing.assert_array_equal(picture, before)
    picture[..., 1] = 0
    assert repair_picture(picture, ("pixels", "rows")) == 0


@pytest.mark.parametrize("lines", [("rows",), ("columns",), ("rows", "columns")])
def test_lines_of_large_pictures_need_little_memory(lines, random, monkeypatch):
    """Twice the picture: the result, and of 3 bytes a pixel one that says whether it is visible."""
    monkeypatch.setattr(lines_module, "_BLOCK", 2**11)
    picture = random.integers(90, 110, (512, 512, 3), "uint8")
    tracemalloc.start()
    repair_picture(picture, lines)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * picture.nbytes


def test_missing_values_and_no_repairs_change_nothing(random):
    picture = _picture(random, "float32", 1)
    before = picture.copy()
    assert repair_picture(picture, ()) == 0
    np.testing.assert_array_equal(picture, before)
    picture[3, 3] = np.nan
    before = picture.copy()
    assert repair_picture(picture, ("pixels", "rows")) == 0
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
def test_blocks_give_the_whole(shape, random, monkeypatch):
    values = random.integers(0, 256, shape, "uint8")
    rows, columns = random.normal(0, 9, (40, 1, 1)), random.normal(0, 9, (1, 30, 1))
    offsets = [each.reshape(each.shape[: len(shape)]) for each in (rows, columns)]
    whole = np.clip(np.rint(values - sum(offsets)), 0, 255)
    whole = np.where((values == 0) | (values == 255), values, whole)
    monkeypatch.setattr(lines_module, "_BLOCK", 300)
    np.testing.assert_array_equal(without_offsets(values, *offsets), whole)


def test_integers_are_rounded_and_clipped():
    values = np.array([[0, 1, 100, 254, 255]], "uint8")
    np.testing.assert_array_equal(without_offsets(values, np.float64(2.6)), [[0, 0, 97, 251, 255]])
    np.testing.assert_array_equal(
        without_offsets(values, np.float64(-2.6)), [[0, 4, 103, 255, 255]]
    )
    floats = np.array([[0.0, 1.0]], "float32")
    result = without_offsets(floats.repeat(2, axis=0), np.array([[0.5], [0.25]]))
    np.testing.assert_array_equal(result, [[-0.5, 0.5], [-0.25, 0.75]])
    assert result.dtype == np.float32
