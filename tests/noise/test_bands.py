import dataclasses

import numpy as np
import pytest

from cbsn.noise.bands import BandSearch

SEEDS = range(6)


def _found(planes):
    search = BandSearch()
    for plane in planes:
        search.add(plane)
    return search.result()


def _wave(size, period, phase=0.0):
    return np.sin(2 * np.pi * np.arange(size) / period + phase)[:, None, None]


def test_noise_has_none():
    """Not with lines of their own offset, either, and not in a static scene seen often."""
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        white = random.normal(size=(256, 192, 1))
        lines = white + random.normal(size=(256, 1, 1))
        scene = 3 * random.normal(size=(256, 192, 1)).cumsum(axis=0).cumsum(axis=1) / 256
        series = [scene + random.normal(size=white.shape) for _ in range(8)]
        assert _found([white]) == _found([lines]) == _found(series) == []


@pytest.mark.parametrize("period", [3.7, 12.5, 28.4])
@pytest.mark.parametrize("size", [256, 257])
def test_period_and_strength(period, size):
    """The error of a period P over a length L is far below P²/L, the distance of frequencies."""
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        noise = random.normal(size=(size, 200, 1))
        (found,) = _found([noise + 0.4 * _wave(size, period, seed)])
        assert found.lines == "rows"
        assert found.period == pytest.approx(period, abs=0.3 * period**2 / size)
        assert found.relative == pytest.approx(0.4, rel=0.15)
        assert found.amplitude == pytest.approx(0.4, rel=0.15)


@pytest.mark.parametrize("size", [256, 257])
def test_every_second_row_is_brighter(size, random):
    pattern = 0.5 * (-1.0) ** np.arange(size)[:, None, None]
    (found,) = _found([random.normal(size=(size, 200, 1)) + pattern])
    assert (found.lines, found.period) == ("rows", 2.0)
    assert found.amplitude == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("lines", ["rows", "columns"])
@pytest.mark.parametrize("value", [0, 255])
def test_clipped_parts_do_not_count(lines, value):
    """40 % of each line, and nothing else, tell the bands and their amplitude."""
    for seed in SEEDS:
        noise = np.random.default_rng(seed).normal(100, 10, (256, 200, 1))
        plane = np.rint(noise + 4 * _wave(256, 12.5)).astype("uint8")
        plane[:, 80:] = value
        (found,) = _found([plane if lines == "rows" else plane.swapaxes(0, 1)])
        assert (found.lines, found.period) == (lines, pytest.approx(12.5, abs=0.2))
        assert found.relative == pytest.approx(0.4, rel=0.15)
        assert found.amplitude == pytest.approx(4, rel=0.15)
    assert _found([np.full((256, 200, 1), value, "uint8")]) == []


def test_columns_and_colours(random):
    bands = 0.4 * _wave(300, 10).swapaxes(0, 1)
    (found,) = _found([(random.normal(size=(200, 300, 3)) + bands).astype("float32")])
    assert (found.lines, found.period) == ("columns", pytest.approx(10, abs=0.1))
    assert found.describe().startswith(f"Vertical bands every {found.period:.4g} px, of ")
    assert found.describe().endswith("cbsn denoise --repair columns removes them.")
    slow = dataclasses.replace(found, period=17.0)
    assert "--repair" not in slow.describe()  # as it would stay in the picture
    assert found.to_dict()["period"] == found.period


def test_bands_may_move_from_frame_to_frame(random):
    """Their mean over the frames is none. One frame alone shows too little."""
    phases = random.uniform(0, 2 * np.pi, 16)
    frames = [random.normal(size=(256, 256, 1)) + 0.13 * _wave(256, 9, phase) for phase in phases]
    (found,) = _found(frames)
    assert found.period == pytest.approx(9, abs=0.1)
    assert found.relative == pytest.approx(0.13, rel=0.15)


def test_a_pattern_in_a_part_of_the_picture_is_content(random):
    """Such as a window blind, in two thirds of the width."""
    picture = random.normal(size=(256, 256, 1))
    picture[:, 85:] += _wave(256, 9)
    assert _found([picture]) == []


def test_photographs(photographs, add_noise, random):
    for picture in add_noise(photographs, 5, random):
        assert _found([picture]) == []


@pytest.mark.parametrize("shape", [(20, 300, 1), (300, 3, 1), (0, 0, 1)])
def test_planes_too_small(shape, random):
    assert _found([random.normal(size=shape)]) == []


def test_without_noise_there_is_nothing_to_compare_with():
    assert _found([np.zeros((256, 256, 1))]) == []


def test_planes_of_other_sizes_do_not_count(random):
    first = random.normal(size=(256, 200, 1)) + 0.4 * _wave(256, 9)
    assert _found([first, random.normal(size=(100, 100, 1))]) == _found([first])


@pytest.mark.parametrize("widths", [(320, 256, 1100), (1100, 256, 320)])
def test_pictures_of_other_widths_count(widths, random):
    """They are cut into as many strips. The last one has no column in common with the others."""
    planes = [random.normal(size=(256, width, 1)) + 0.4 * _wave(256, 9) for width in widths]
    (found,) = _found([*planes, random.normal(size=(64, 3, 1))])
    assert (found.lines, found.period) == ("rows", pytest.approx(9, abs=0.1))
    assert _found([plane.swapaxes(0, 1) for plane in planes]) == [
        dataclasses.replace(found, lines="columns")
    ]
