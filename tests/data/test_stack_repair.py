import numpy as np
import pytest

from cbsn.data import stack_repair
from cbsn.data.stack_repair import StackRepair
from cbsn.errors import ConfigError, ImageError
from cbsn.images.stacks.scaling import measure_scaling
from cbsn.images.stacks.stack import array_stack


@pytest.fixture
def series(random):
    """Two channels over six frames; a hot pixel in the first, a dead one in the second."""
    stack = 2 * random.poisson(50, (6, 2, 90, 100)) + 100
    stack[:, 0, 40, 50] = 9000
    stack[:, 1, 45, 20] = 0
    return stack.astype("uint16")


def _read_all(stack):
    return np.stack([stack.read(index) for index in stack.layout.indices()])


def test_defects_of_each_channel(series):
    work = StackRepair(array_stack(series, "TCYX"), "pixels")
    assert {channel: each.places.tolist() for channel, each in work.defects.items()} == {
        0: [[40, 50, 0]],
        1: [[45, 20, 0]],
    }
    assert [*work.notes([0, 1])] == [
        "channel 0: 1 hot pixel repaired in all planes.",
        "channel 1: 1 dead pixel repaired in all planes.",
    ]
    assert [*work.notes([1])] == ["channel 1: 1 dead pixel repaired in all planes."]
    result = _read_all(work.stack).reshape(series.shape)
    changed = np.argwhere(result != series)
    assert {tuple(place[1:]) for place in changed.tolist()} == {(0, 40, 50), (1, 45, 20)}
    for time in range(6):
        near = np.delete(series[time, 0, 39:42, 49:52].ravel(), 4)
        assert result[time, 0, 40, 50] == np.rint(np.median(near))


@pytest.mark.parametrize("repairs", ["pixels", "rows", "columns", "pixels,rows,columns"])
@pytest.mark.parametrize("samples", [0, 3, 4])
def test_a_part_is_as_in_the_whole(repairs, samples, series, random):
    """Also next to its edges, and alpha stays."""
    series = series + random.integers(0, 20, (6, 2, 90, 1)).astype("uint16")
    axes = "TCYX"
    if samples:
        series, axes = np.stack([series] * samples, axis=-1), "TCYXS"
    stack = array_stack(series, axes)
    work = StackRepair(stack, repairs)
    whole = _read_all(work.stack).reshape(series.shape)
    assert (whole != series).any() and whole.dtype == series.dtype
    if samples == 4:
        np.testing.assert_array_equal(whole[..., 3], series[..., 3])
    for rows, columns in ((slice(40, 41), slice(50, 51)), (slice(0, 9), slice(30, 100))):
        part = work.stack.read((3, 1), rows, columns)
        np.testing.assert_array_equal(part, whole[3, 1, rows, columns])
    chosen = work.stack.selected({"T": slice(2, 4), "C": slice(0, 1), "Y": slice(30, 60)})
    np.testing.assert_array_equal(chosen.read((1, 0)), whole[3, 0, 30:60])


def test_line_noise_is_removed(series, random):
    offsets = random.integers(0, 20, (6, 2, 90, 1)).astype("uint16")
    work = StackRepair(array_stack(series + offsets, "TCYX"), "rows")
    before, after = (
        np.diff(each[..., :30, :].mean(axis=-1), axis=-1).std()
        for each in (series + offsets, _read_all(work.stack).reshape(series.shape))
    )
    # That of the noise alone is 2 · √50 · √2 / 10, by the mean of 100 pixels.
    assert before > 6 and after < 2.5
    assert "--repair pixels" in next(work.notes([0]))


def test_nothing_is_read_or_changed_by_default(series, monkeypatch):
    stack = array_stack(series, "TCYX")
    monkeypatch.setattr(stack, "_read", None)
    assert StackRepair(stack, None).stack is stack


def test_defects_are_offered_to_be_repaired(series):
    work = StackRepair(array_stack(series, "TCYX"), None)
    (note,) = work.notes([0])
    assert note.startswith("channel 0: 1 hot pixel in the middle of all planes.")
    assert note.endswith("--repair pixels.")
    few = StackRepair(array_stack(series[:3], "TCYX"), None)
    assert [*few.notes([0, 1])] == []


def test_only_the_middle_of_large_planes_is_glanced_at(series, monkeypatch):
    monkeypatch.setattr(stack_repair, "_SIDE", 16)
    work = StackRepair(array_stack(series, "TCYX"), None)
    assert len([*work.notes([0, 1])]) == 1  # (40, 50) is in rows 37 to 53 and columns 42 to 58


def test_values_far_beyond_are_repaired_where_the_scale_tells(series):
    """As a cosmic ray, in one plane."""
    series[2, 0, 10, 11] = 60_000
    stack = array_stack(series, "TCYX")
    scaling = measure_scaling(stack, "deviation")
    work = StackRepair(stack, "pixels", scale_of=scaling.of)
    result = _read_all(work.stack).reshape(series.shape)
    assert result[2, 0, 10, 11] == np.median(series[2, 0, 9:12, 10:13])
    assert [*work.notes([0])][-1] == (
        "1 more value far beyond all others repaired, each in a single plane."
    )
    plain = StackRepair(stack, "pixels")
    assert plain.stack.read((2, 0))[10, 11] == 60_000


def test_values_that_are_missing(series):
    floats = series.astype("float32")
    floats[3, 0, 5, 5] = np.nan
    stack = array_stack(floats, "TCYX")
    with pytest.raises(ImageError, match="not finite"):
        StackRepair(stack, "pixels")
    work = StackRepair(stack, "pixels,rows", fills=True)
    assert 0 in work.defects
    plane = work.stack.read((3, 0))
    assert np.isnan(plane[5, 5]) and np.isfinite(plane).sum() == plane.size - 1
    assert "1 hot pixel" in next(StackRepair(stack, None).notes([0]))


@pytest.mark.parametrize("planes", [4, 6, 9])
@pytest.mark.parametrize("rows", [slice(None), slice(0, 50)])
def test_planes_without_values_do_not_count(planes, rows, random):
    """Nor do those without a value there."""
    stack = random.normal(500, 20, (planes, 90, 100)).astype("float32")
    stack[:, 40, 50] = 5000
    stack[1, rows] = np.nan
    work = StackRepair(array_stack(stack, "TYX"), "pixels", fills=True)
    assert work.defects[0].places.tolist() == [[40, 50, 0]]


def test_values_far_beyond_are_counted_once(series):
    """Also if the plane is read in parts, which overlap."""
    for place in (10, 11), (10, 90), (70, 20), (50, 52):
        series[(2, 0, *place)] = 60_000
    stack = array_stack(series, "TCYX")
    work = StackRepair(stack, "pixels", scale_of=measure_scaling(stack, "deviation").of)
    for rows in slice(0, 60), slice(45, 90):
        for columns in slice(0, 60), slice(45, 100):
            work.stack.read((2, 0), rows, columns)
    assert [*work.notes([0])][-1].startswith("4 more values far beyond")


def test_missing_values_tell_nothing_of_lines(random):
    """The rows have the offsets that their other half has alone."""
    stack = random.normal(500, 20, (1, 60, 80)) + random.normal(0, 30, (1, 60, 1))
    stack[..., 40:] = np.nan
    halves = [StackRepair(array_stack(each, "TYX"), "rows").stack for each in (stack[..., :40],)]
    whole = StackRepair(array_stack(stack, "TYX"), "rows", fills=True).stack.read((0,))
    np.testing.assert_allclose(whole[:, :40], halves[0].read((0,)), rtol=1e-12)
    assert np.isnan(whole[:, 40:]).all()


def test_planes_are_spread_over_the_whole(series, monkeypatch):
    """A pixel that is hot in the first half only is none, and a selection makes no difference."""
    monkeypatch.setattr(stack_repair, "_PLANES", 4)
    series[:3, 0, 60, 60] = 9000
    stack, seen = array_stack(series, "TCYX"), []
    read = stack._read
    monkeypatch.setattr(
        stack, "_read", lambda index, *part: [seen.append(index), read(index, *part)][1]
    )
    work = StackRepair(stack, "pixels")
    assert [index for index in seen if index[1] == 0] == [(0, 0), (1, 0), (3, 0), (4, 0)]
    assert work.defects[0].places.tolist() == [[40, 50, 0]]


def test_unknown_repairs(series):
    with pytest.raises(ConfigError, match="Received: --repair all"):
        StackRepair(array_stack(series, "TCYX"), "all")
