"""Against the true noise of real pictures, where there is one."""

from pathlib import Path

import numpy as np
import pytest

from cbsn.images.finding import find_images
from cbsn.images.image_files import read_picture
from cbsn.noise import advise, estimate_noise, estimate_noise_of_residuals
from cbsn.noise.synthetic import neighbour_correlation

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def _read(folder, step=1):
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder} is not here")
    return [read_picture(path).color for path in find_images(DATA / folder)[::step]]


def _truth(noisy, clean):
    """Along rows and along columns [2, 6], and the median σ of a picture in each channel."""
    noise = [a.astype(float) - b for a, b in zip(noisy, clean, strict=True)]
    power = [np.mean((each - each.mean(axis=(0, 1))) ** 2) for each in noise]
    rho = [
        np.average([neighbour_correlation(turn(each), 6) for each in noise], 0, power)
        for turn in (np.asarray, lambda each: each.swapaxes(0, 1))
    ]
    return np.array(rho), np.median([each.std(axis=(0, 1)) for each in noise], axis=0)


def test_sidd():
    noisy, clean = _read("sidd_val32/noisy"), _read("sidd_val32/clean")
    rho, sigma = _truth(noisy, clean)
    estimate = estimate_noise(noisy)
    np.testing.assert_allclose(estimate.correlation[:2, :6], rho, atol=0.025)
    np.testing.assert_allclose(estimate.correlation[:2, 2:6], rho[:, 2:], atol=0.006)
    # Clipped parts, which do not count, are noisier than the rest.
    np.testing.assert_allclose(estimate.level, sigma, rtol=0.1)
    advice = advise(estimate)
    assert (advice.stride_b, advice.stride_i, advice.recipe) == (5, 2, "cbsn")


def test_dnd():
    """There is no clean side; that of the README's table has some content in it."""
    estimate = estimate_noise(_read("dnd_crops", 6))
    for values in estimate.correlation[:2]:
        np.testing.assert_allclose(values[:2], [0.50, 0.11], atol=0.04)
        np.testing.assert_allclose(values[2:5], [0.03, 0.02, 0], atol=0.01)
        assert abs(values[5:]).max() < 0.01
    advice = advise(estimate)
    assert (advice.stride_b, advice.recipe) == (5, "cbsn")


def test_cc15():
    noisy, clean = _read("cc15/noisy"), _read("cc15/clean")
    rho, sigma = _truth(noisy[::3], clean[::3])
    truth = estimate_noise_of_residuals(zip(noisy[::3], clean[::3], strict=True))
    np.testing.assert_allclose(truth.correlation[:2, :6], rho, atol=0.05)
    np.testing.assert_allclose(truth.level, sigma, rtol=0.15)
    estimate = estimate_noise(noisy)
    # Seen in few blocks, and in those with the least of the long correlation.
    np.testing.assert_allclose(estimate.correlation[:2, :6], rho, atol=0.15)
    assert (estimate.correlation[:2, :4] < rho[:, :4]).all()
    for advice in (advise(truth), advise(estimate)):
        assert 6 <= advice.stride_b <= 10
        assert "JPEG" in " ".join(advice.reasons)


def test_weak_white_noise_on_bsd68(add_noise, random):
    estimate = estimate_noise(add_noise(_read("bsd68", 2), 5, random))
    assert estimate.level[0] == pytest.approx(5, rel=0.03)
    assert advise(estimate).stride_b == 1
