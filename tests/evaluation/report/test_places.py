import itertools

import numpy as np
import pytest

from cbsn.evaluation.report.pictures import ReportPicture, find_places


def _corners(places):
    return [(rows.start, columns.start) for rows, columns in places]


def test_the_largest_errors_are_found(random):
    clean = random.integers(0, 256, (200, 300, 3), "uint8")
    denoised = clean.copy()
    denoised[20:84, 200:264] ^= 16
    denoised[130:194, 10:74] ^= 32
    methods = {"first": denoised, "second": clean ^ 128}
    picture = ReportPicture("", clean, methods, clean, {})
    assert _corners(find_places(picture, 64, 2)) == [(130, 10), (20, 200)]


def test_structure_is_found_without_a_clean_picture(random):
    # Strong noise was taken away on the left, and weak structure on the right.
    removed = random.normal(0, [[[0.1]] * 80 + [[0.01]] * 80], (120, 160, 3))
    removed[48:72, 120:136] += 0.1
    picture = ReportPicture("", 0.5 + removed, {"first": np.full((120, 160, 3), 0.5)}, None, {})
    rows, columns = find_places(picture, 40, 1)[0]
    assert rows.start <= 48 < 72 <= rows.stop
    assert columns.start <= 120 < 136 <= columns.stop


@pytest.mark.parametrize("size", [16, 33])
def test_places_do_not_overlap(make_picture, size):
    picture = make_picture((100, 70))
    places = find_places(picture, size, 5)
    assert len(places) == 5
    for (rows, columns), (others, other_columns) in itertools.combinations(places, 2):
        apart = abs(rows.start - others.start), abs(columns.start - other_columns.start)
        assert max(apart) >= size
    for rows, columns in places:
        assert picture.noisy[rows, columns].shape[:2] == (size, size)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    ("size", "count"), [((1, 1), 1), ((8, 8), 1), ((100, 1), 1), ((320, 9), 3)]
)
def test_small_pictures_have_fewer_places(make_picture, size, count, clean):
    picture = make_picture(size, channels=1, clean=clean)
    places = find_places(picture, 64, 3)
    assert len(places) == count
    shape = picture.noisy[places[0]].shape
    assert shape == (min(64, size[0]), min(64, size[1]), 1)


def test_a_perfect_picture_has_places_too(make_picture):
    clean = make_picture().clean
    assert len(find_places(ReportPicture("", clean, {"first": clean}, clean, {}), 32, 3)) == 3
