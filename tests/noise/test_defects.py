import numpy as np
import pytest
from scipy.special import erf

from cbsn.noise import defects as module
from cbsn.noise.cells import simulate_cells
from cbsn.noise.defects import Defects, find_defects, repair, search_defects

SEEDS = range(6)
SIDE = 96
NYQUIST = 0.85  # standard deviation in pixels of a point's image, sampled as finely as it should be


def _flat(random, planes):
    return random.normal(400, 8, (planes, SIDE, SIDE))


def _photons(random, planes, light=20.0):
    """A camera of gain 2 and offset 100, which sees `light` photons."""
    return 2.0 * random.poisson(light, (planes, SIDE, SIDE)) + 100


def _points(random, count, deviation, photons):
    """The image of points at random places of the grid, with this many photons each."""
    image = np.zeros((SIDE, SIDE))
    edges = np.arange(SIDE + 1) - 0.5
    for place in random.uniform(4, SIDE - 5, (count, 2)):
        down, across = (np.diff(erf((edges - p) / deviation / 2**0.5)) / 2 for p in place)
        image += photons * np.outer(down, across)
    return image


def _static_beads(random, planes):
    return _photons(random, planes, 5 + _points(random, 30, NYQUIST, 2000))


def _moving_beads(random, planes):
    light = (5 + _points(random, 30, NYQUIST, 2000) for _ in range(planes))
    return np.concatenate([_photons(random, 1, each) for each in light])


def _cells(random, planes):
    frames = simulate_cells(planes, SIDE, SIDE, seed=int(random.integers(1000)))
    return np.stack([noisy for noisy, _ in frames]).astype(float)


SCENES = [_flat, _photons, _static_beads, _moving_beads, _cells]


def _integers(stack, dtype="uint16"):
    return np.rint(np.clip(stack, 0, np.iinfo(dtype).max)).astype(dtype)


def _with_defects(stack, random, count=12):
    """Half of them are always 1000 brighter, half of them 0; none touches another or an edge."""
    cells = random.choice((SIDE // 8) ** 2, count, replace=False)
    rows, columns = 8 * np.array(np.divmod(cells, SIDE // 8)) + random.integers(1, 7, (2, count))
    stack = stack.copy()
    half = count // 2
    stack[:, rows[:half], columns[:half]] += 1000
    stack[:, rows[half:], columns[half:]] = 0
    kinds = {(r, c): k // half for k, (r, c) in enumerate(zip(rows, columns, strict=True))}
    return stack, kinds


@pytest.mark.parametrize("planes", [1, 2, 4, 16])
@pytest.mark.parametrize("scene", SCENES)
def test_sound_pixels_are_no_defects(scene, planes):
    """Beads survive, whether they move or not."""
    for seed in SEEDS:
        stack = _integers(scene(np.random.default_rng(seed), planes))
        assert len(find_defects(stack)) == 0


@pytest.mark.parametrize(
    ("scene", "planes"),
    [(_flat, 4), (_flat, 16), (_photons, 4), (_photons, 16), (_moving_beads, 16)],
)
def test_all_defects_are_found_and_nothing_else(scene, planes):
    """1000 is 78 standard deviations of the noise, or more; 0 is 11 below the mean, or more."""
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        stack, kinds = _with_defects(scene(random, planes), random)
        found = find_defects(_integers(stack))
        assert found.planes == planes
        assert {tuple(place[:2]) for place in found.places.tolist()} == kinds.keys()
        for (*place, _), kind in zip(found.places.tolist(), found.kinds, strict=True):
            # Where beads pass by, what is always 0 may not be far below the rest.
            assert kind == kinds[tuple(place)] or (scene, kind) == (_moving_beads, 2)


@pytest.mark.parametrize("planes", [4, 16])
@pytest.mark.parametrize("scene", [_static_beads, _cells])
def test_defects_in_the_middle_of_structure(scene, planes):
    """One within a bead may be missed, but no sound pixel is taken for one."""
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        stack, kinds = _with_defects(scene(random, planes), random)
        found = {tuple(place[:2]) for place in find_defects(_integers(stack)).places.tolist()}
        assert found <= kinds.keys()
        assert len(found) >= len(kinds) - 3


def test_how_weak_a_hot_pixel_may_be():
    """With 16 planes, from 3 standard deviations of a plane on: clearly below none, above all."""
    counts = {}
    for excess in (1.5, 6.0):
        random = np.random.default_rng(0)
        stack = _flat(random, 16)
        stack[:, 6::12, 6::12] += 8 * excess
        counts[excess] = len(find_defects(stack))
    assert counts == {1.5: 0, 6.0: (SIDE // 12) ** 2}


@pytest.mark.parametrize("planes", [1, 16])
def test_few_photons_are_no_hot_pixels(planes):
    """One in ten pixels sees one, most of the others none; but 20 photons are a hot pixel."""
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        stack = random.poisson(0.1, (planes, SIDE, SIDE)).astype("uint16")
        assert len(find_defects(stack)) == 0
        stack[:, 30, 40] = 20
        assert find_defects(stack).places.tolist() == [[30, 40, 0]]


@pytest.mark.parametrize("planes", [2, 3, 4, 5])
def test_cosmic_rays_in_few_planes_are_no_defects(planes, random):
    """In one of them; noise has half of the places above their neighbours in each other plane."""
    stack = _flat(random, planes)
    stack[0, 4::16, 4::16] += 1000
    stack[-1, 12::16, 12::16] -= 300
    assert len(find_defects(stack)) == 0
    stack[:, 50, 51] += 3000
    assert find_defects(stack).places.tolist() == [[50, 51, 0]]


@pytest.mark.parametrize(("planes", "empty"), [(4, 1), (6, 2), (20, 15)])
def test_planes_of_one_value_do_not_count(planes, empty, random):
    """As a shutter that stays closed gives, or frames that were lost."""
    stack, kinds = _with_defects(_flat(random, planes), random)
    stack[random.choice(planes, empty, replace=False)] = 0
    found = find_defects(stack)
    assert {tuple(place[:2]) for place in found.places.tolist()} == kinds.keys()
    assert len(find_defects(np.zeros((4, SIDE, SIDE)))) == 0


def test_where_values_were_filled_planes_do_not_count(random):
    """A hot pixel need not be above its neighbours in the half that was filled in 2 of 8 planes."""
    stack = _flat(random, 8)
    places = [[20, 30, 0], [60, 61, 0]]
    for row, column, _ in places:
        stack[:, row, column] += 1000
    filled = np.zeros(stack.shape, bool)
    filled[:2, :40] = True
    filled[:5, 80:] = True  # where most planes have no value, nothing is told
    stack[5:, 88, 50] += 1000
    stack[filled] = 400

    def read(number, rows, columns):
        return stack[number][rows, columns], filled[number][rows, columns]

    assert search_defects(read, 8, (SIDE, SIDE)).places.tolist() == places


def test_a_cosmic_ray_and_a_pixel_that_blinks_are_no_defects(random):
    stack = _flat(random, 16)
    stack[5, 20, 20] = 60_000
    stack[::2, 50, 50] += 1000
    assert len(find_defects(stack)) == 0


def test_two_defects_side_by_side(random):
    stack = _flat(random, 8)
    stack[:, 20, 20:22] += 1000
    stack[:, 50:52, 50] = 0
    found = find_defects(stack)
    assert [tuple(each) for each in found.places[:, :2].tolist()] == [
        *((20, 20), (20, 21), (50, 50), (51, 50))
    ]


def test_defects_at_edges_and_corners(random):
    stack = _flat(random, 8)
    places = [(0, 0), (0, 40), (50, SIDE - 1), (SIDE - 1, 0)]
    for place in places:
        stack[(slice(None), *place)] += 1000
    assert [tuple(each) for each in find_defects(stack).places[:, :2].tolist()] == places


def test_stuck_pixels(random):
    """They have the value of the mean, and so stand out in their constancy alone."""
    for planes, found in ((3, 0), (16, 2)):
        stack = _integers(_flat(random, planes))
        stack[:, 10, 10] = 400
        stack[:, 60, 61] = 404
        assert find_defects(stack).counts() == ({"stuck": found} if found else {})


def test_constant_parts_are_not_stuck(random):
    """Clipped black, and repeated frames."""
    stack = np.repeat(_flat(random, 8), 2, axis=0)
    stack[:, :40] -= 500
    assert len(find_defects(_integers(stack))) == 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_dtypes(dtype, random):
    stack = random.normal(100, 5, (8, SIDE, SIDE))
    if dtype == "int32":
        stack = stack * 1e6
    if dtype == "float64":
        stack = stack * 1e-9
    stack = stack.astype(dtype)
    stack[:, 30, 31] *= 2
    stack[:, 70, 71] = 0
    found = find_defects(stack)
    assert found.places.tolist() == [[30, 31, 0], [70, 71, 0]]
    assert found.counts() == {"hot": 1, "dead": 1}
    assert found.describe() == "1 hot pixel and 1 dead pixel"


def test_colours_of_a_stack_are_pixels_of_their_own(random):
    stack = random.normal(100, 5, (8, SIDE, SIDE, 3))
    stack[:, 30, 31, 1] = 250
    assert find_defects(stack).places.tolist() == [[30, 31, 1]]


def test_a_picture_in_colour_has_outliers_in_all_colours(random):
    picture = random.normal(100, 5, (SIDE, SIDE, 3))
    picture[30, 31, 1] = 255
    picture[50, 51] = 255
    assert find_defects([picture]).places.tolist() == [[50, 51, c] for c in range(3)]


def test_photographs_have_none(photographs, add_noise, random):
    for picture in [*photographs, *add_noise(photographs, 10, random)]:
        assert len(find_defects([picture])) <= 3  # highlights of one pixel in `coffee`


def test_a_single_picture_is_judged_by_its_own_noise():
    """From about 15 standard deviations on, as its neighbours are uncertain."""
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        stack, kinds = _with_defects(_flat(random, 1), random)
        found = {tuple(place[:2]) for place in find_defects(_integers(stack)).places.tolist()}
        assert found == kinds.keys()


def test_points_narrower_than_optics_are_the_limit():
    """At 1.2 px (full width at half maximum) neighbours have 0.23 of a point, more than 0.2."""
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        light = 5 + _points(random, 6, 0.51, 2000)
        assert len(find_defects(_photons(random, 16, light))) == 0


def test_more_than_some_are_what_is_shown(random):
    stack = _flat(random, 8)
    stack[:, ::4, ::4] += 1000
    assert len(find_defects(stack)) == 0


def test_parts_give_the_whole(random, monkeypatch):
    """Noise, limits and neighbours are those of the whole, or all but."""
    stack, kinds = _with_defects(_photons(random, 8), random)
    stack[:, 31:33, 32] += 1000  # across the border of two parts
    whole = find_defects(stack)
    monkeypatch.setattr(module, "_PART", 32)
    parts = find_defects(stack)
    assert {*map(tuple, whole.places[:, :2].tolist())} >= {*kinds, (31, 32), (32, 32)}
    np.testing.assert_array_equal(parts.places, whole.places)
    np.testing.assert_array_equal(parts.kinds, whole.kinds)


def test_parts_are_read_one_at_a_time(random, monkeypatch):
    monkeypatch.setattr(module, "_PART", 32)
    stack, sizes = _flat(random, 2), []

    def read(number, rows, columns):
        part = stack[number][rows, columns]
        sizes.append(part.shape)
        return part, None

    search_defects(read, 2, (SIDE, SIDE))
    assert len(sizes) == 2 * 9 and max(sizes) == (96, 96) and min(sizes) == (64, 64)


@pytest.mark.parametrize("shape", [(4, 3, 50), (4, 50, 4), (1, 1, 1)])
def test_planes_too_small(shape, random):
    assert len(find_defects(random.normal(size=shape))) == 0


def test_planes_of_different_shapes():
    with pytest.raises(ValueError, match=r"one shape. Received: \[\(8, 8\), \(9, 8\)\]"):
        find_defects([np.zeros((8, 8)), np.zeros((9, 8))])


def _listed(places, shape=(8, 9, 1)):
    places = np.array(places, int).reshape(-1, 3)
    return Defects(shape, places, np.zeros(len(places), int), 4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("samples", [0, 1, 3, 4])
def test_repair_changes_defects_only(dtype, samples, random):
    shape = (8, 9, samples) if samples else (8, 9)
    plane = random.integers(0, 200, shape).astype(dtype)
    places = [(0, 0, 0), (3, 4, 0), (7, 8, 0)] + [(3, 4, 2)] * (samples > 1)
    before = plane.copy()
    result = repair(plane, _listed(places, (8, 9, max(1, min(samples, 3)))))
    np.testing.assert_array_equal(plane, before)
    assert (result.dtype, result.shape) == (plane.dtype, plane.shape)
    flat, known = (each.reshape(8, 9, -1) for each in (result, plane))
    same = np.ones(flat.shape, bool)
    for row, column, channel in places:
        near = known[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2, channel].ravel()
        others = np.delete(near, 4 if len(near) == 9 else (0 if row == 0 else 3))
        expected = np.median(others.astype(float))
        expected = np.rint(expected) if plane.dtype.kind in "iu" else expected
        assert flat[row, column, channel] == expected.astype(dtype)
        same[row, column, channel] = False
    np.testing.assert_array_equal(flat[same], known[same])


def test_neighbours_that_are_defective_or_missing_do_not_count():
    plane = np.full((8, 9), 7.0)
    plane[3:5, 4] = 99
    plane[2, 3] = np.nan
    result = repair(plane, _listed([(3, 4, 0), (4, 4, 0)]))
    assert (result[3:5, 4] == 7).all() and np.isnan(result[2, 3])


def test_clusters_look_further_and_stop_at_7_by_7():
    plane = np.arange(20.0 * 20).reshape(20, 20)
    block = [(y, x, 0) for y in range(5, 8) for x in range(5, 8)]
    result = repair(plane, _listed(block, (20, 20, 1)))
    assert result[6, 6] == np.median(
        [plane[y, x] for y in range(4, 9) for x in range(4, 9) if (y, x, 0) not in block]
    )
    large = [(y, x, 0) for y in range(3, 10) for x in range(3, 10)]
    result = repair(plane, _listed(large, (20, 20, 1)))
    assert result[6, 6] == plane[6, 6] and result[3, 3] != plane[3, 3]


def test_nothing_to_repair_is_the_same_array():
    plane = np.zeros((8, 9))
    assert repair(plane, _listed([])) is plane


def test_a_part_is_repaired_as_the_whole(random):
    plane = random.normal(size=(20, 30))
    found = _listed([(5, 5, 0), (10, 12, 0), (11, 12, 0), (19, 29, 0)], (20, 30, 1))
    whole = repair(plane, found)
    rows, columns = slice(7, 15), slice(9, 16)
    inner = found.within(rows, columns)
    assert (inner.shape, inner.places.tolist()) == ((8, 7, 1), [[3, 3, 0], [4, 3, 0]])
    np.testing.assert_array_equal(repair(plane[rows, columns], inner), whole[rows, columns])


def test_words_and_json():
    found = Defects((9, 9, 1), np.array([[1, 2, 0]] * 4), np.array([0, 0, 1, 2]), 5)
    assert found.describe() == "2 hot pixels, 1 dead pixel and 1 stuck pixel"
    assert found.counts() == {"hot": 2, "dead": 1, "stuck": 1}
    assert found.to_dict()["kinds"] == ["hot", "hot", "dead", "stuck"]
    assert found.to_dict()["planes"] == 5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [2.0**600, 2.0**-600])
def test_values_whose_squares_float64_does_not_hold(random, factor):
    planes = random.poisson(100, (6, 40, 40)).astype(np.float64)
    planes[:, 20, 30] = 4000
    expected = find_defects(planes)
    assert expected.places.tolist() == [[20, 30, 0]]
    assert find_defects(planes * factor).to_dict() == expected.to_dict()
