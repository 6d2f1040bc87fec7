import dataclasses
import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from cbsn.evaluation.microscopy import MicroSSIMFit, fit_micro_ssim, micro_ssim, si_psnr


def _hashed(shape, seed):
    """Even noise of ±1 that does not depend on any library's generator."""
    numbers = np.arange(math.prod(shape)) * 7919 + seed * 104729
    return (numbers * numbers % 65521 / 32760 - 1).reshape(shape)


def _pair(name):
    """A clean picture and a denoised one, as they were given to the authors' package."""
    y, x = np.mgrid[:40, :52]
    if name == "cells":  # integers with a detector's offset; half as bright, and noisy
        cells = np.exp(-((x % 17 - 8) ** 2 + (y % 13 - 6) ** 2) / 12) * (x + 20) * 30
        clean = np.rint(100 + cells).astype(np.uint16)
        return clean, (0.5 * clean + 30 + 40 * _hashed(clean.shape, 1)).astype(np.float64)
    if name == "waves":  # floats below 0, and in another unit
        clean = np.sin(x / 3) + np.cos(y / 4 + x / 9)
        return clean, 8 * clean + 4 * _hashed(clean.shape, 2) + 7
    clean = np.minimum((x + y) * 3 % 255, 200).astype(np.uint8)  # "ramps", 8 bits
    noise = 60 * _hashed(clean.shape, 3)
    return clean, np.clip(clean + noise, 0, 255).astype(np.uint8)


CASES = ("cells", "waves", "ramps")


def _set():
    """Two such pairs with the same range of clean values."""
    clean, denoised = _pair("cells")
    return [(clean, denoised), (clean[::-1], denoised[::-1] + 25 * _hashed(clean.shape, 4))]


@pytest.fixture
def pair(random):
    clean = random.random((24, 30)) * 3 - 1
    return clean, clean + random.normal(scale=0.2, size=clean.shape)


def test_si_psnr_by_hand():
    clean = np.array([[0, 2], [4, 2]])
    # Less its mean it is −1, −1, 1, 1; the best scale is 1, and the errors are ±1 of a range of 4.
    denoised = np.array([[1, 1], [3, 3]])
    assert si_psnr(clean, denoised) == pytest.approx(20 * math.log10(4))
    for scale, offset in ((10, 0), (1, -7), (0.01, 3), (-2, 5)):
        assert si_psnr(clean, denoised * scale + offset) == pytest.approx(20 * math.log10(4))


def test_si_psnr_is_that_of_the_best_scale_and_offset(pair):
    clean, denoised = pair
    matrix = np.stack([denoised.ravel(), np.ones(denoised.size)], axis=1)
    _, squares, _, _ = np.linalg.lstsq(matrix, clean.ravel(), rcond=None)
    expected = 20 * math.log10(np.ptp(clean) / math.sqrt(squares[0] / clean.size))
    assert si_psnr(clean, denoised) == pytest.approx(expected, abs=1e-9)
    # PSNR of what was not fitted is lower, that of another scale, too.
    assert 20 * math.log10(np.ptp(clean) / np.std(clean - denoised)) < expected


@pytest.mark.parametrize("case", CASES)
def test_si_psnr_is_that_of_the_papers_code(case):
    """As RangeInvariantPsnr and `scale_invariant_psnr` do it: in units of the deviation."""
    clean, denoised = (each.astype(float) for each in _pair(case))
    unit = (clean - clean.mean()) / clean.std()
    other = denoised - denoised.mean()
    error = unit - other * (unit * other).sum() / (other * other).sum()
    expected = 20 * math.log10(np.ptp(clean) / clean.std() / math.sqrt((error**2).mean()))
    assert si_psnr(clean, denoised) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("scale", "offset"), [(0.001, 0), (50, -3), (1, 1e4), (-1, 0)])
def test_si_psnr_disregards_brightness(pair, scale, offset):
    clean, denoised = pair
    expected = pytest.approx(si_psnr(clean, denoised), abs=1e-6)
    assert si_psnr(clean, denoised * scale + offset) == expected
    assert si_psnr(clean * scale + offset, denoised) == expected


def test_si_psnr_of_an_exact_fit_is_infinite(pair):
    clean, _ = pair
    for scale, offset in ((1, 0), (3.7, 1e3), (1e-6, -4)):
        assert si_psnr(clean, clean * scale + offset) == math.inf
    assert si_psnr(clean, clean * (1 + 1e-9 * np.sign(clean))) < 250


def test_pictures_of_one_value():
    ramp = np.add.outer(np.arange(12.0), np.arange(14.0))
    flat = np.full_like(ramp, 0.1)
    for metric in (si_psnr, micro_ssim):
        assert math.isnan(metric(flat, ramp)) and math.isnan(metric(flat, flat))
    # A flat result is fitted by the offset alone.
    expected = 20 * math.log10(np.ptp(ramp) / np.std(ramp))
    assert si_psnr(ramp, flat) == pytest.approx(expected)
    assert 0 < micro_ssim(ramp, flat) < 0.5
    assert fit_micro_ssim([(ramp, flat)])[0].scale == 1


def test_micro_ssim_needs_values_above_the_background():
    clean = np.full((12, 12), 5.0)
    clean[0, :5] = 1  # more than 3 % of the pixels
    assert micro_ssim(clean, clean) == pytest.approx(1)
    clean[0, 4] = 5  # now the background is 5
    assert math.isnan(micro_ssim(clean, clean))
    assert fit_micro_ssim([(clean, clean)]) == (None,)


@pytest.mark.parametrize("metric", [si_psnr, micro_ssim])
def test_channels_count_by_themselves(random, metric):
    clean = random.random((24, 30, 3))
    denoised = clean * [1, 20, 0.1] + [0, 5, 9] + random.normal(size=clean.shape) * [0.1, 4, 0.005]
    each = [metric(clean[..., c], denoised[..., c]) for c in range(3)]
    assert metric(clean, denoised) == pytest.approx(np.mean(each), abs=1e-9)
    assert metric(clean[..., :1], denoised[..., :1]) == pytest.approx(each[0], abs=1e-9)
    clean[..., 1] = 0  # as where two fluorescent dyes are red and blue
    assert metric(clean, denoised) == pytest.approx((each[0] + each[2]) / 2, abs=1e-9)


@pytest.mark.parametrize("metric", [si_psnr, micro_ssim])
def test_any_dtype_and_unit_will_do(random, metric):
    clean = random.integers(0, 200, (24, 30)).astype(np.uint8)
    denoised = np.clip(clean + random.normal(scale=20, size=clean.shape), 0, 255)
    denoised = np.rint(denoised).astype(np.uint8)
    expected = pytest.approx(metric(clean, denoised), abs=1e-5)
    for dtype in (np.int32, np.uint16, np.float16, np.float64):
        assert metric(clean, denoised.astype(dtype)) == expected
        assert metric(clean.astype(dtype), denoised) == expected
    assert metric(clean / np.float32(255), denoised / np.float32(255)) == expected
    assert metric(clean * 100.0 - 5000, denoised * 100.0 - 5000) == expected


@pytest.mark.parametrize("metric", [si_psnr, micro_ssim])
def test_pictures_that_cannot_be_compared(metric):
    good = np.zeros((12, 14))
    with pytest.raises(ValueError, match=r"same shape.*\(12, 14\).*\(12, 13\)"):
        metric(good, good[:, 1:])
    for bad in (np.zeros(12), np.zeros((12, 12, 1, 1)), np.zeros((0, 12))):
        with pytest.raises(ValueError, match=r"takes \[H, W\] or \[H, W, C\]"):
            metric(bad, bad)
    broken = good.copy()
    broken[1, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        metric(good, broken)


def test_micro_ssim_needs_room_for_a_window():
    clean = np.add.outer(np.arange(11.0), np.arange(11.0))
    assert micro_ssim(clean, clean) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"MicroSSIM needs .* 11 px a side\. Received: \(10, 11\)"):
        micro_ssim(clean[1:], clean[1:])


AUTHORS = {
    "cells": (101.0, 52.37505494505495, 1859.0, 1.6596340635554176, 0.8303371384370405),
    "waves": (
        -1.7653131931692867,
        -7.759252684019965,
        3.7604709473491846,
        0.11344989611337881,
        0.7895379950550198,
    ),
    "ramps": (24.0, 8.0, 176.0, 0.36891830340379556, 0.19717061661733007),
}
"""By the package microssim 0.0.5 (BSD-3-Clause), NumPy 2.4.6, SciPy 1.17.1, scikit-image 0.26.0:
the offsets, the peak and the scale that `MicroSSIM().fit` finds, and the score."""

AUTHORS_OF_SET = (
    (101.0, 50.16711843711843, 1859.0, 1.6447984563805047),
    (0.8244850650184896, 0.8122701439823029),
)
"""By the same, for `_set`, given as two lists."""


@pytest.mark.parametrize("case", CASES)
def test_micro_ssim_is_that_of_the_authors_package(case):
    """The package stops its search where the gradient is below 10⁻⁵: the scale is off by 6e-7 of
    its value, and the score by 4e-8. Other windows for one of the two change it by 3e-4 or more.
    """
    *fit, score = AUTHORS[case]
    clean, denoised = _pair(case)
    (found,) = fit_micro_ssim([(clean, denoised)])
    assert dataclasses.astuple(found) == pytest.approx(fit, rel=1e-5)
    assert micro_ssim(clean, denoised) == pytest.approx(score, abs=1e-6)
    assert micro_ssim(clean, denoised, [found]) == micro_ssim(clean, denoised)


def test_a_fit_to_several_pictures_is_that_of_the_authors_package():
    expected, scores = AUTHORS_OF_SET
    fits = fit_micro_ssim(iter(_set()))
    (fit,) = fits
    assert dataclasses.astuple(fit) == pytest.approx(expected, rel=1e-5)
    assert [micro_ssim(*pair, fits) for pair in _set()] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_micro_ssim_by_its_formula(case):
    """The scores are those of scikit-image for pictures that were brought to the same units."""
    clean, denoised = (each.astype(float) for each in _pair(case))
    (fit,) = fit_micro_ssim([(clean, denoised)])
    x = (clean - np.percentile(clean, 3)) / (clean.max() - np.percentile(clean, 3))
    y = (denoised - np.percentile(denoised, 3)) / (clean.max() - np.percentile(clean, 3))
    span = np.ptp(x)

    def score(scale, **settings):
        return structural_similarity(x, scale * y, data_range=span, **settings)

    expected = score(fit.scale, gaussian_weights=True, sigma=1.5)
    assert micro_ssim(clean, denoised) == pytest.approx(expected, abs=1e-9)
    best = score(fit.scale)
    assert all(score(fit.scale * factor) < best for factor in (0.1, 0.9, 0.999, 1.001, 1.1, 10))


def test_micro_ssim_disregards_brightness(pair):
    """However far off it is; the package's search does not get from 1 to a scale of 1/1000."""
    clean, denoised = pair
    expected = pytest.approx(micro_ssim(clean, denoised), abs=1e-9)
    for scale, offset in ((1e-4, 0), (1000, -3), (1, 1e3)):
        assert micro_ssim(clean, denoised * scale + offset) == expected
        assert micro_ssim(clean * scale + offset, denoised) == expected


def test_a_fit_to_several_pictures_keeps_their_brightness(pair):
    """One that is too dark counts as an error, unlike with a fit to each."""
    clean, _ = pair
    pairs = [(clean, clean), (clean, clean * 0.5)]
    assert [micro_ssim(*each) for each in pairs] == pytest.approx([1, 1])
    fits = fit_micro_ssim(pairs)
    assert max(micro_ssim(*each, fits) for each in pairs) < 0.99


def test_a_fit_skips_pictures_of_one_value(pair):
    clean, denoised = pair
    black = np.full_like(clean, clean.min())
    fits = fit_micro_ssim([(clean, denoised), (black, denoised)])
    assert isinstance(fits[0], MicroSSIMFit)
    assert 0 < micro_ssim(clean, denoised, fits) < 1
    assert math.isnan(micro_ssim(black, denoised, fits))
    (fit,) = fit_micro_ssim([(black, denoised), (black + 1, denoised)])
    assert fit.scale == 1


def test_fits_are_of_the_same_channels(pair):
    clean, denoised = pair
    color = np.stack([clean] * 3, axis=-1)
    with pytest.raises(ValueError, match="Received: no pictures"):
        fit_micro_ssim([])
    with pytest.raises(ValueError, match=r"same number of channels\. Received: 1, 3"):
        fit_micro_ssim([(clean, denoised), (color, color)])
    with pytest.raises(ValueError, match=r"fitted to 1 channels\. Received: 3 channels"):
        micro_ssim(color, color, fit_micro_ssim([(clean, denoised)]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [2.0**600, 2.0**-600])
def test_values_whose_squares_float64_does_not_hold(random, factor):
    clean, noisy = random.uniform(0, 100, (2, 24, 24))
    found = si_psnr(clean * factor, noisy * factor)
    assert found == pytest.approx(si_psnr(clean, noisy), rel=1e-9)
