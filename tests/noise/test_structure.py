import dataclasses

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from cbsn.errors import DataError
from cbsn.networks.masking import parse_mask_shape
from cbsn.noise.structure import (
    NoiseStructure,
    choose_mask,
    correlated_offsets,
    mask_for,
    measure_structure,
)
from cbsn.noise.survey import TooFewBlocksError

SEEDS = range(3)
OFFSETS = 4.0


def _box(height, width):
    return lambda noise: uniform_filter(noise, (height, width, 0))


def _diagonal(noise):
    return noise + np.roll(noise, (1, 1), (0, 1))


def _white(noise):
    return noise


def _noisy(walls, smooth=_white, seed=0, *, rows=0.0, columns=0.0, times=1):
    """Walls with noise of σ 10, and offsets of rows, or of columns that are those of all walls."""
    random = np.random.default_rng(seed)
    pattern = columns * random.normal(size=(1, 256, 1))
    pictures = []
    for wall in [*walls] * times:
        noise = smooth(random.normal(size=wall.shape))
        offsets = rows * random.normal(size=(256, 1, 1)) + pattern
        pictures.append(((wall + 10 * noise / noise.std() + offsets) / 255).astype("float32"))
    return pictures


def _measured(pictures, **options) -> NoiseStructure:
    return measure_structure(lambda: pictures, **options)


def _mask(pictures):
    structure = _measured(pictures)
    return mask_for(structure.estimate, structure.found_lines)


@pytest.mark.parametrize(
    ("smooth", "expected"),
    [
        (_white, "point"),
        (_box(1, 2), "x:1"),
        (_box(1, 3), "x:2"),
        (_box(3, 1), "y:2"),
        (_box(5, 1), "y:4"),
        (_diagonal, "1,1;-1,-1"),
    ],
)
def test_one_direction(smooth, expected, walls):
    """The noise of n pixels that are averaged reaches n − 1 pixels, and no further."""
    for seed in SEEDS:
        mask = _mask(_noisy(walls, smooth, seed))
        assert (mask.shape, mask.fits) == (expected, True)
        assert mask.in_one_direction == (expected != "point")
    words = {
        "point": "The noise of neighbouring pixels is independent",
        "1,1;-1,-1": "along diagonals only",
        "x:2": "over 2 px along rows only: 0.6",
        "y:2": "over 2 px along columns only: 0.6",
    }
    assert words.get(expected, "The noise is correlated over") in mask.reasons[0]


@pytest.mark.parametrize("reach", [1, 2])
def test_squares(reach, walls):
    """Of (reach + 1)² pixels that are averaged. Content may make it one pixel more."""
    for seed in SEEDS:
        mask = _mask(_noisy(walls, _box(reach + 1, reach + 1), seed))
        hidden = {*parse_mask_shape(mask.shape)}
        assert {*parse_mask_shape(f"square:{reach}")} <= hidden
        assert hidden <= {*parse_mask_shape(f"square:{reach + 1}")}
        assert not mask.in_one_direction
        assert "along rows and" in mask.reasons[0]


def test_a_cross(walls):
    """Noise along rows and other noise along columns: pixels on diagonals share nothing."""

    random = np.random.default_rng(1)
    noises = [
        _box(1, 3)(random.normal(size=wall.shape)) + _box(3, 1)(random.normal(size=wall.shape))
        for wall in walls
    ]
    pictures = [
        ((wall + 10 * noise / noise.std()) / 255).astype("float32")
        for wall, noise in zip(walls, noises, strict=True)
    ]
    mask = _mask(pictures)
    assert mask.shape == "cross:2"
    assert "but not diagonally" in mask.reasons[0]


def test_offsets_are_those_of_the_kernel(walls):
    for smooth, expected in (
        (_box(1, 3), "x:2"),
        (_diagonal, "1,1;-1,-1"),
        (_box(2, 2), "square:1"),
    ):
        estimate = _measured(_noisy(walls, smooth)).estimate
        assert correlated_offsets(estimate) == {*parse_mask_shape(expected)}


@pytest.mark.parametrize(
    ("lines", "smooth", "shape"),
    [
        ({"rows": OFFSETS}, _white, "x:8"),
        ({"rows": OFFSETS}, _box(1, 3), "x:8"),
        ({"rows": OFFSETS}, _box(3, 1), "x:8+y:2"),
        ({"columns": OFFSETS}, _white, "y:8"),
        ({"columns": OFFSETS}, _box(1, 3), "x:2+y:8"),
        ({"rows": OFFSETS, "columns": OFFSETS}, _white, "cross:8"),
    ],
)
def test_lines(lines, smooth, shape, walls):
    """They pass for no correlation of any reach, and the other noise is seen as without them."""
    for seed in SEEDS:
        structure = _measured(_noisy(walls, smooth, seed, **lines))
        assert {each.lines for each in structure.found_lines} == lines.keys()
        for each in structure.found_lines:
            assert each.is_fixed == (each.lines == "columns")
        assert structure.estimate.level[0] == pytest.approx(10, rel=0.03)
        without = _measured(_noisy(walls, smooth, seed)).estimate
        difference = structure.estimate.correlation[:2] - without.correlation[:2]
        error = np.hypot(structure.estimate.deviation[:2], without.deviation[:2])
        assert (abs(difference) < 4 * error).all()
        mask = mask_for(structure.estimate, structure.found_lines)
        assert (mask.shape, mask.fits) == (shape, True)
    told = " ".join(mask.reasons)
    assert ("Line noise, new in each plane" in told) == ("rows" in lines)
    assert ("Column noise, the same in all planes: the camera's" in told) == ("columns" in lines)
    assert "Part of the offsets remains" in told


def test_strong_line_noise_hides_no_flat_blocks(walls):
    """As strong as the other noise."""
    structure = _measured(_noisy(walls, rows=10.0))
    assert structure.estimate.level[0] == pytest.approx(10, rel=0.05)
    assert [each.lines for each in structure.found_lines] == ["rows"]


def test_photographs_keep_their_noise(photographs, add_noise, random):
    """That of photographs is isotropic and gets no line."""
    smooth = _box(3, 3)
    structure = _measured(add_noise(photographs, 20, random, smooth))
    assert structure.found_lines == () and structure.bands == []
    mask = mask_for(structure.estimate)
    assert mask.shape.startswith("square:") and not mask.in_one_direction


def test_bands_disturb_no_other_noise(walls):
    wave = 8 * np.sin(np.arange(256) * 2 * np.pi / 10)[:, None, None]
    structure = _measured([each + wave.astype("float32") / 255 for each in _noisy(walls)])
    (found,) = structure.bands
    assert (found.lines, found.period) == ("rows", pytest.approx(10, abs=0.1))
    assert structure.estimate.level[0] == pytest.approx(10, rel=0.03)
    assert mask_for(structure.estimate).shape == "point"


def test_noise_that_reaches_too_far(walls):
    estimate = _measured(_noisy(walls)).estimate
    far = estimate.correlation.copy()
    far[:, :9] = np.linspace(0.7, 0.05, 9)
    mask = mask_for(dataclasses.replace(estimate, correlation=far))
    assert (mask.shape, mask.fits) == ("point", False)
    assert "cbsn train --recipe cbsn --stride_b auto" in mask.reasons[-1]


def test_masks_for_training(walls):
    shape, reasons = choose_mask(lambda: iter(_noisy(walls, _box(1, 3))))
    assert (shape, len(reasons)) == ("x:2", 1)
    with pytest.raises(DataError, match="No picture has 32 × 32 pixels"):
        choose_mask(lambda: [wall[:20] for wall in walls])


def test_lines_alone_are_enough_for_a_mask(walls, monkeypatch):
    """Where nothing is flat enough to measure the other noise."""

    def nothing(pictures):
        assert len([*pictures]) == 6
        raise TooFewBlocksError("There are too few flat blocks.")

    monkeypatch.setattr("cbsn.noise.structure.estimate_noise", nothing)
    structure = _measured(_noisy(walls, rows=OFFSETS))
    assert structure.estimate is None and structure.reason == "There are too few flat blocks."
    assert mask_for(None, structure.found_lines).shape == "x:8"


@pytest.mark.parametrize(("shared", "expected"), [(0.0, "x:2"), (1.0, "x:2+z:1")])
def test_planes_along_z(shared, expected, random):
    """Each plane takes as much of its own noise as of the plane's before, or none of it."""
    fresh = _box(1, 3)(random.normal(size=(10 * 17, 128, 128, 1)).reshape(-1, 128, 1))
    fresh = fresh.reshape(10, 17, 128, 128, 1)
    volumes = 0.5 + 0.05 * (fresh[:, 1:] + shared * fresh[:, :-1])
    shape, reasons = choose_mask(lambda: iter(volumes[:, 8]), iter(volumes))
    assert shape == expected
    assert ("planes is independent" in reasons[-1]) == (shared == 0)
    assert parse_mask_shape(shape, 3)


def test_offsets_of_volumes_have_three_numbers(walls):
    estimate = _measured(_noisy(walls, _diagonal)).estimate
    assert mask_for(estimate, dimensions=3).shape == "0,1,1;0,-1,-1"


def test_values_that_are_not_finite_are_told(walls):
    bad = walls[0].astype("float32")
    bad[3, 4] = np.nan
    with pytest.raises(DataError, match="in picture 2"):
        choose_mask(lambda: [walls[0].astype("float32"), bad])


def test_few_blocks_are_uncertain(random):
    picture = random.normal(128, 5, (96, 96, 1)) / 255
    shape, reasons = choose_mask(lambda: [picture])
    assert "uncertain, because it comes from only" in reasons[-1]
    pictures = random.normal(128, 5, (16, 256, 256, 1)) / 255
    shape, reasons = choose_mask(lambda: pictures)
    assert shape == "point" and "uncertain" not in " ".join(reasons)
