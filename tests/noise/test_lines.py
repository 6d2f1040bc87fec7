import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from cbsn.noise import lines as module
from cbsn.noise.lines import REACH, LineSearch, line_offsets, without_lines
from cbsn.value_range import to_unit

SEEDS = range(8)
SIGMA = 10.0  # of the pixels' noise, in levels
OFFSETS = 4.0  # of lines


def _planes(seed, count=4, size=(192, 192), *, rows=0.0, columns=0.0, fixed=False, walls=None):
    """In units of white: noise of pixels, offsets of rows that are new, and of columns."""
    random = np.random.default_rng(seed)
    here = columns * random.normal(size=(1, size[1], 1))
    for number in range(count):
        if not fixed:
            here = columns * random.normal(size=(1, size[1], 1))
        plane = walls[number][: size[0], : size[1]] if walls else 100.0
        noise = SIGMA * random.normal(size=(*size, 1))
        yield (plane + noise + rows * random.normal(size=(size[0], 1, 1)) + here) / 255


def _found(planes, **options):
    search = LineSearch(**options)
    for plane in planes:
        search.add(plane)
    return search.result()


def test_chance_is_no_line_noise():
    """Of 16 shares, the largest is expected at 1.8 errors, and beyond 4 once in 2000 tests."""
    found = [each for seed in SEEDS for each in _found(_planes(seed))]
    ratios = [each.share / each.error for each in found]
    assert max(ratios) < 4 and not any(each.counts for each in found)
    # The errors are those of repetitions: the deviation of 16 values is uncertain by 18 %.
    assert 0.5 < np.std(ratios) < 1.6


@pytest.mark.parametrize(("rows", "columns"), [(OFFSETS, 0.0), (0.0, OFFSETS), (OFFSETS, OFFSETS)])
def test_offsets_of_rows_and_columns(rows, columns, walls):
    """Second differences across lines keep white noise and white offsets in their proportion."""
    for seed in SEEDS:
        found = _found(_planes(seed, rows=rows, columns=columns, walls=walls))
        for each, offsets, others in zip(found, (rows, columns), (columns, rows), strict=True):
            assert each.counts == (offsets > 0)
            expected = offsets**2 / (SIGMA**2 + offsets**2 + others**2)
            # The offsets themselves are a sample: 768 lines, of which differences are 2/3 as many.
            spread = expected * np.sqrt(2 / 500)
            assert abs(each.share - expected) < 4 * np.hypot(each.error, spread)
            if offsets:
                assert each.level == pytest.approx(offsets, rel=0.2)


def test_weak_offsets_do_not_matter():
    """A share of 0.01, half of what counts, which many lines show for sure."""
    rows, _ = _found(_planes(0, 16, (256, 256), rows=1.0))
    assert rows.share > 4 * rows.error
    assert rows.share == pytest.approx(0.01, abs=0.004) and not rows.counts


def test_pattern_of_the_camera_is_told_from_new_offsets():
    for seed in SEEDS:
        rows, columns = _found(_planes(seed, rows=OFFSETS, columns=OFFSETS, fixed=True))
        assert not rows.is_fixed and columns.is_fixed
    assert rows.describe().startswith("Line noise, new in each plane: each row has")
    assert columns.describe(10, "picture").startswith(
        "Column noise, the same in all pictures: the camera's: each column has an offset of its own"
    )
    assert f"of {columns.level / 10:.2f} times that" in columns.describe(10)


def test_too_few_planes_and_places_of_their_own_do_not_tell():
    for planes, options in (
        (_planes(0, 3, columns=OFFSETS, fixed=True), {}),
        (_planes(0, columns=OFFSETS, fixed=True), {"aligned": False}),
    ):
        _, columns = _found(planes, **options)
        assert columns.counts and columns.fixed is None
        assert columns.describe().startswith("Column noise: each column")


def test_blurred_noise_is_no_line_noise():
    """Also along the lines, over 7 pixels."""
    for seed in SEEDS:
        blurred = [uniform_filter(plane, (1, 7, 0)) for plane in _planes(seed)]
        assert not any(each.counts for each in _found(blurred))


def test_pictures_without_noise_have_no_line_noise(walls):
    """Though all pixels of a row have the same brightness in one of these."""
    for dtype in ("uint8", "float32"):
        for wall in walls:
            assert not any(each.counts for each in _found([wall.astype(dtype)]))


def test_photographs_have_no_line_noise(photographs, add_noise, random):
    for pictures in (photographs, add_noise(photographs, 10, random)):
        for picture in pictures:
            assert not any(each.counts for each in _found([picture]))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_levels_are_of_8_bits(dtype):
    planes = [*_planes(0, rows=OFFSETS)]
    if dtype == "float32":
        planes = [plane.astype(dtype) for plane in planes]
    else:
        planes = [np.rint(plane * np.iinfo(dtype).max).clip(0).astype(dtype) for plane in planes]
    rows, _ = _found(planes)
    assert rows.level == pytest.approx(OFFSETS, rel=0.1)


def test_colours_count_as_one():
    """Channels that are equal tell no more than one of them."""
    gray = _found(_planes(0, rows=OFFSETS))
    colour = _found(np.repeat(plane, 3, axis=2) for plane in _planes(0, rows=OFFSETS))
    for one, three in zip(gray, colour, strict=True):
        assert three.share == pytest.approx(one.share, abs=1e-4)
        assert three.error == pytest.approx(one.error, rel=1e-2)


@pytest.mark.parametrize("shape", [(3, 400, 1), (64, 20, 1), (0, 0, 1)])
def test_planes_too_small_to_tell(shape, random):
    for each in _found([random.normal(size=shape)]):
        assert (each.share, each.fixed, each.counts) == (0.0, None, False)
    assert not any(each.counts for each in _found([np.zeros((256, 256, 1))]))


def test_json():
    rows, _ = _found(_planes(0, rows=OFFSETS))
    assert rows.to_dict()["lines"] == "rows"
    assert rows.to_dict()["share"] == pytest.approx(rows.share, abs=1e-6)


def test_offsets_are_recovered(walls, random):
    """Up to the error of a mean of 256 pixels, which sums of differences and medians raise."""
    for wall in walls:
        truth = OFFSETS * random.normal(size=(256, 1, 1))
        noisy = wall + truth + SIGMA * random.normal(size=(256, 256, 1))
        left = (truth[:, 0] - line_offsets(noisy))[:, 0]
        # What changes slowly stays in the picture.
        quick = left - uniform_filter(left, 2 * REACH + 1)
        assert quick[REACH:-REACH].std() < 3 * SIGMA / 256**0.5


def test_edges_and_slopes_stay():
    """A step along all of a row, a slope, and a bright line over a third of a row."""
    plane = np.zeros((64, 64, 1))
    plane[30:] += 50
    plane += np.arange(64)[:, None, None]
    plane[10, :20] = 99
    np.testing.assert_allclose(line_offsets(plane)[REACH:-REACH], 0, atol=1e-9)


def test_a_part_of_the_rows_has_the_offsets_of_the_whole(random):
    plane = random.normal(size=(100, 64, 3))
    whole = line_offsets(plane)
    np.testing.assert_allclose(
        line_offsets(plane[40 - REACH : 60 + REACH])[REACH:-REACH], whole[40:60], atol=1e-12
    )
    np.testing.assert_allclose(line_offsets(plane[: 20 + REACH])[:20], whole[:20], atol=1e-12)


@pytest.mark.parametrize("value", [0, 255, np.nan])
def test_clipped_and_missing_values_do_not_count(value, random):
    """The offsets are those of the other pixels alone; of very few, there are none."""
    plane = random.normal(100, 5, (64, 100, 3)) + random.normal(0, 8, (64, 1, 1))
    plane = plane.astype(np.float32) if np.isnan(value) else np.rint(plane).astype(np.uint8)
    for known in slice(0, 40), slice(50, 63):
        partly = np.full_like(plane, value)
        partly[:, known] = plane[:, known]
        offsets = line_offsets(partly)
        assert abs(offsets).max() > 5
        np.testing.assert_allclose(offsets, line_offsets(plane[:, known]), rtol=0, atol=1e-9)
    plane[:, 12:] = value  # 12 of 100 are less than an eighth
    assert not line_offsets(plane).any()
    plane[:] = value
    assert not line_offsets(plane).any()


def test_lines_that_are_clipped_end_to_end(random):
    """They, and nothing else, are as the row above."""
    plane = np.rint(random.normal(100, 5, (64, 100, 1))).astype(np.uint8)
    whole = line_offsets(plane)
    plane[40:43] = 255
    assert np.isfinite(line_offsets(plane)).all()
    # Sums from there on differ by a constant, which medians of rows beyond take away again.
    kept = [*range(40 - REACH), *range(43 + REACH, 64)]
    np.testing.assert_allclose(line_offsets(plane)[kept], whole[kept], rtol=0, atol=1e-9)


def test_pixels_that_do_not_count(random):
    plane = random.normal(size=(64, 100, 1)) + random.normal(size=(64, 1, 1))
    counts = np.zeros((64, 100, 1), bool)
    counts[:, 60:] = True
    before = plane.copy()
    np.testing.assert_allclose(
        line_offsets(plane, counts), line_offsets(plane[:, 60:]), rtol=0, atol=1e-12
    )
    np.testing.assert_array_equal(plane, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_offsets_depend_on_values_only(channels, random, monkeypatch):
    """Not on blocks, nor on how the plane lies in memory."""
    plane = random.normal(size=(50, 70, channels)).swapaxes(0, 1)
    whole = line_offsets(plane)
    np.testing.assert_array_equal(line_offsets(np.ascontiguousarray(plane)), whole)
    for block in (1, 50 * channels * 9):
        monkeypatch.setattr(module, "_BLOCK", block)
        np.testing.assert_array_equal(line_offsets(plane), whole)


@pytest.mark.parametrize("lines", ["rows", "columns"])
def test_what_is_removed_is_gone(lines, walls):
    planes = [*_planes(3, size=(256, 256), **{lines: OFFSETS}, walls=walls)]
    place = ("rows", "columns").index(lines)
    assert _found(planes)[place].counts
    after = _found([without_lines(plane, (lines,)) for plane in planes])[place]
    # The mean of a line's noise goes, too: 1/256 of its variance.
    assert abs(after.share) < 1 / 256 + 4 * after.error


def test_clipped_values_stay():
    plane = np.full((64, 64, 1), 100, np.uint8)
    plane[::2] = 103
    plane[5, 6:9, 0] = (0, 255, 100)
    result = without_lines(plane)
    assert result.dtype == np.float32
    assert [*result[5, 6:8, 0]] == [0, 1]
    assert result[5, 8, 0] != np.float32(to_unit(plane)[5, 8, 0])
