"""Tests of `cbsn.images.stacks.scaling`."""

import numpy as np
import pytest

from cbsn.errors import ConfigError, ImageError
from cbsn.images.stacks import scaling as module
from cbsn.images.stacks.scaling import (
    Scale,
    Scaling,
    count_missing,
    fill_missing,
    measure_scaling,
    parse_scaling,
    pooled_scaling,
)
from cbsn.images.stacks.stack import array_stack


@pytest.fixture
def array(random):
    """TCYX; the second channel has a range of its own."""
    values = random.normal(500, 50, (6, 2, 40, 50))
    values[:, 1] = values[:, 1] * 1000 - 1e6
    return values.astype(np.float32)


def test_statistics_are_those_of_all_planes_of_a_channel(array):
    found = measure_scaling(array_stack(array, "TCYX"), "deviation")
    for channel, scale in enumerate(found.channels):
        values = array[:, channel].astype(np.float64)
        assert scale.mean == pytest.approx(values.mean(), rel=1e-6)
        assert scale.deviation == pytest.approx(values.std(), rel=1e-6)
        assert (scale.low, scale.high) == (scale.mean, scale.mean + scale.deviation)
    percentiles = measure_scaling(array_stack(array, "TCYX"), "percentile").of(1)
    expected = np.percentile(array[:, 1].astype(np.float64), (0.1, 99.9))
    np.testing.assert_allclose((percentiles.low, percentiles.high), expected)
    given = measure_scaling(array_stack(array, "TCYX"), (10.0, 20.0))
    assert given.method == "given" and {(s.low, s.high) for s in given.channels} == {(10, 20)}


def test_single_pixels_do_not_decide_the_range(random):
    array = random.integers(100, 200, (3, 40, 50)).astype(np.uint16)
    array[0, :4, :4] = 1000  # a spot, which is no single pixel
    array[1, 20, 20], array[2, 5, 5] = 65535, 0
    scale = measure_scaling(array_stack(array, "TYX"), "range").of(0)
    assert 100 <= scale.low < 150 and scale.high == 1000


def test_hot_pixels_are_found_and_do_not_count(random):
    array = random.normal(500, 20, (4, 40, 50)).astype(np.float32)
    clean = measure_scaling(array_stack(array, "TYX"), "deviation").of(0)
    assert clean.faulty(array[0]) is None
    hot = array.copy()
    hot[:, 20, 20], hot[1, 5, 6] = 65535, -9999
    scale = measure_scaling(array_stack(hot, "TYX"), "deviation").of(0)
    assert scale.mean == pytest.approx(clean.mean, abs=0.1)
    assert scale.deviation == pytest.approx(clean.deviation, rel=0.01)
    where, repaired = scale.faulty(hot[1])
    assert [*zip(*np.nonzero(where), strict=True)] == [(5, 6), (20, 20)]
    assert repaired.dtype == np.float32
    np.testing.assert_array_equal(repaired[~where], hot[1][~where])
    assert 400 < repaired[20, 20] < 600


def test_bright_structure_is_no_fault(random):
    """Also in a plane that is brighter than those that were looked at."""
    scale = measure_scaling(array_stack(random.normal(500, 20, (40, 50)), "YX"), "range").of(0)
    plane = random.normal(500, 20, (40, 50))
    plane[10:20, 10:20] = 1e6
    where, repaired = scale.faulty(plane) or (np.zeros(plane.shape, bool), plane)
    assert not where[11:19, 11:19].any()
    np.testing.assert_array_equal(repaired[11:19, 11:19], 1e6)


def test_sparse_signal_has_its_range(random):
    """Where medians see nothing, single pixels are what there is."""
    array = np.zeros((2, 64, 64), np.float32)
    array[random.uniform(size=array.shape) < 0.02] = 1e-4
    scale = measure_scaling(array_stack(array, "TYX"), "range").of(0)
    assert (scale.low, scale.high) == (0, array.max())
    assert scale.faulty(array[0]) is None


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32"])
def test_what_a_dtype_holds(dtype):
    scale = measure_scaling(array_stack(np.zeros((8, 8), dtype), "YX"), "dtype").of(0)
    assert (scale.low, scale.high) == (np.iinfo(dtype).min, np.iinfo(dtype).max)


@pytest.mark.parametrize("value", [0, -5, 2**31 - 1, 1e30])
@pytest.mark.parametrize("method", ["deviation", "percentile", "range"])
def test_flat_channels_have_a_range(value, method):
    dtype = np.int32 if isinstance(value, int) else np.float64
    array = np.full((2, 8, 8), value, dtype)
    scale = measure_scaling(array_stack(array, "TYX"), method).of(0)
    assert scale.low < scale.high
    scaled = scale.apply(array)
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scale.undo(scaled), array, rtol=1e-6)


def test_scaling_and_back_keeps_values_to_float32s_precision(array):
    """Half a unit in the last place of float32, of values of up to a few deviations."""
    found = measure_scaling(array_stack(array, "TCYX"), "deviation")
    for channel in range(2):
        scale = found.of(channel)
        scaled = scale.apply(array[:, channel])
        assert scaled.dtype == np.float32
        error = abs(scale.undo(scaled) - array[:, channel]).max()
        assert error <= abs(scaled).max() * 2**-24 * (scale.high - scale.low)


def test_large_integers_keep_their_differences():
    array = (np.arange(64, dtype=np.int32) + 2**30).reshape(8, 8)
    scale = measure_scaling(array_stack(array, "YX"), "percentile").of(0)
    np.testing.assert_array_equal(np.rint(scale.undo(scale.apply(array))), array)


def test_large_stacks_are_looked_at_in_parts(random, monkeypatch):
    monkeypatch.setattr(module, "_VALUES", 2 * 64 * 64 * 4)
    monkeypatch.setattr(module, "_WINDOW", 64)
    monkeypatch.setattr(module, "_PLANES", 2)
    array = random.normal(0, 1, (5, 300, 400)).astype(np.float32)
    stack = array_stack(array, "TYX")
    read, seen = stack.read, []
    monkeypatch.setattr(stack, "read", lambda *at: seen.append(at) or read(*at))
    found = measure_scaling(stack, "deviation").of(0)
    assert {index for index, *_ in seen} == {(0,), (2,)}
    assert sum((r.stop - r.start) * (c.stop - c.start) for _, r, c in seen) == 2 * 64 * 64 * 4
    assert max(r.stop for _, r, _ in seen) == 300 and max(c.stop for *_, c in seen) == 400
    # Five standard errors.
    count = 2 * 64 * 64 * 4
    assert abs(found.mean) < 5 / count**0.5 and abs(found.deviation - 1) < 5 / (2 * count) ** 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(array, bad):
    array[2, 0, 3, 4] = bad
    stack = array_stack(array, "TCYX")
    with pytest.raises(ImageError, match="--nan fill"):
        measure_scaling(stack, "deviation")
    for method in "deviation", "percentile", "range":
        scale = measure_scaling(stack, method, ignore_nan=True).of(0)
        assert np.isfinite([scale.low, scale.high, scale.mean]).all() and scale.low < scale.high
    finite = array[:, 0][np.isfinite(array[:, 0])].astype(np.float64)
    scale = measure_scaling(stack, "deviation", ignore_nan=True).of(0)
    assert scale.mean == pytest.approx(finite.mean(), rel=1e-6)


def test_missing_values_are_filled_from_around():
    plane = np.arange(64, dtype=np.float32).reshape(8, 8)
    holes = plane.copy()
    holes[3, 3] = np.nan
    holes[0, :5] = np.inf
    assert count_missing(holes) == 6 and count_missing(plane.astype(int)) == 0
    filled = fill_missing(holes)
    assert filled.dtype == np.float32 and np.isfinite(filled).all()
    np.testing.assert_allclose(
        filled[3, 3], plane[3, 3]
    )  # of a slope, the mean around is the value
    kept = np.isfinite(holes)
    np.testing.assert_array_equal(filled[kept], plane[kept])
    assert fill_missing(plane) is plane
    np.testing.assert_array_equal(fill_missing(np.full((4, 4), np.nan)), np.zeros((4, 4)))
    single = np.full((9, 9), np.nan)
    single[8, 0] = 7
    np.testing.assert_allclose(fill_missing(single), 7)


def test_pooling_is_as_of_all_values(array):
    parts = [array_stack(part, "TCYX") for part in (array[:2], array[2:])]
    pooled = pooled_scaling([measure_scaling(part, "deviation") for part in parts], [2, 4])
    whole = measure_scaling(array_stack(array, "TCYX"), "deviation")
    for one, other in zip(pooled.channels, whole.channels, strict=True):
        np.testing.assert_allclose(
            [one.low, one.high, one.mean, one.deviation],
            [other.low, other.high, other.mean, other.deviation],
        )


def test_a_scaling_is_stored_as_plain_values():
    scaling = Scaling("deviation", (Scale(1.0, 2.0, 1.0, 1.0), Scale(-3.0, 5.0, -3.0, 8.0)))
    assert Scaling.from_dict(scaling.to_dict()) == scaling
    assert scaling.of(1) is scaling.channels[1]
    assert Scaling("given", scaling.channels[:1]).of(3) is scaling.channels[0]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"method": "range", "channels": []},
        {"method": "range", "channels": [{"low": 0}]},
        {"method": "range", "channels": [{"low": 1, "high": 1, "mean": 0, "deviation": 1}]},
        {"method": "range", "channels": [{"low": 0, "high": "x", "mean": 0, "deviation": 1}]},
        {"method": "r", "channels": [{"low": 0, "high": np.inf, "mean": 0, "deviation": 1}]},
        {"method": "range", "channels": 3},
        {"method": "range", "channels": [3]},
    ],
)
def test_what_is_no_scaling_is_refused(values):
    with pytest.raises(ConfigError, match="Not a scaling"):
        Scaling.from_dict(values)


def test_flags_are_parsed():
    assert parse_scaling("percentile") == "percentile"
    assert parse_scaling("-5,1e3") == (-5.0, 1000.0)


@pytest.mark.parametrize("text", ["", "mean", "5", "5,", "5,5", "9,1", "0,inf", "nan,1", "0,1,2"])
def test_other_flags_are_refused(text):
    with pytest.raises(ConfigError, match="--normalize"):
        parse_scaling(text)


@pytest.mark.filterwarnings("error")
def test_the_deviation_of_values_whose_squares_float64_does_not_hold(random):
    values = random.poisson(100, (2, 16, 20)).astype(np.float64)
    expected = measure_scaling(array_stack(values, "TYX"), "deviation").of(0)
    found = measure_scaling(array_stack(values * 2.0**600, "TYX"), "deviation").of(0)
    assert found.deviation == expected.deviation * 2.0**600
