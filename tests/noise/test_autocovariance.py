import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from cbsn.noise.autocovariance import (
    BLOCK,
    DISTANCES,
    PAIRS,
    REACH,
    autocovariance,
    polynomials,
    smooth_energy,
    split,
    structure,
    without_bias,
)

# Noise that a box of 3 × 3 has smeared is correlated by (3 − |d|) / 3 along each axis.
TRIANGLE = np.clip(1 - abs(np.arange(-REACH, REACH + 1)) / 3, 0, None)
BOX = np.outer(TRIANGLE[REACH:], TRIANGLE)


@pytest.fixture(scope="module")
def white():
    return np.random.default_rng(0).normal(size=(1500, BLOCK**2)).astype("float32")


@pytest.fixture(scope="module")
def smeared():
    noise = np.random.default_rng(1).normal(size=(1500, BLOCK + 2, BLOCK + 2))
    blocks = 3 * uniform_filter(noise, (0, 3, 3))[:, 1:-1, 1:-1]
    return blocks.reshape(len(blocks), -1).astype("float32")


def test_polynomials_are_an_orthonormal_basis_by_degree():
    basis = polynomials().astype(float)
    np.testing.assert_allclose(basis.T @ basis, np.eye(15), atol=1e-6)
    rows, columns = np.mgrid[0:BLOCK, 0:BLOCK] / BLOCK
    for degree, number in ((0, 1), (1, 3), (2, 6), (3, 10), (4, 15)):
        term = (1 + rows - 2 * columns).ravel() ** degree
        rest = term - basis[:, :number] @ (basis[:, :number].T @ term)
        assert abs(rest).max() < 1e-4


def test_split_tells_shading_content_and_the_rest_apart(white):
    basis = polynomials()
    energy, rest = split(white)
    np.testing.assert_allclose(rest @ basis, 0, atol=1e-4)
    assert energy.mean() == pytest.approx(1, abs=0.05)
    shaded = white + 200 + 50 * basis[:, 1] - 70 * basis[:, 2]
    for after, before in zip(split(shaded), (energy, rest), strict=True):
        np.testing.assert_allclose(after, before, atol=0.01)
    bent = white + 60 * basis[:, 4]
    assert split(bent)[0].mean() == pytest.approx(1 + 3600 / 12, rel=0.05)
    np.testing.assert_allclose(split(bent)[1], rest, atol=0.001)


def test_autocovariance_is_the_mean_product(white):
    block = white[0].reshape(BLOCK, BLOCK)
    found = autocovariance(white[:1])[0]
    for down, right in ((0, 0), (0, 3), (5, 0), (2, 4), (REACH, REACH)):
        product = block[down:, right:] * block[: BLOCK - down, : BLOCK - right]
        assert found[down, REACH + right] == pytest.approx(product.mean(), abs=1e-5)
        product = block[down:, : BLOCK - right] * block[: BLOCK - down, right:]
        assert found[down, REACH - right] == pytest.approx(product.mean(), abs=1e-5)
        assert PAIRS[down, REACH - right] == product.size
    np.testing.assert_allclose(found[0], found[0, ::-1], atol=1e-5)


def test_each_distance_is_there_once():
    assert np.count_nonzero(DISTANCES) == ((2 * REACH + 1) ** 2 - 1) // 2
    assert DISTANCES[3, REACH - 4] == 5
    assert not DISTANCES[0, : REACH + 1].any()


def test_bias_of_white_noise(white):
    covariance = autocovariance(split(white)[1]).mean(axis=0)
    assert covariance[0, REACH] == pytest.approx(1 - 15 / BLOCK**2, abs=0.003)
    assert covariance[0, REACH + 2] < -0.005
    expected = np.zeros((REACH + 1, 2 * REACH + 1))
    expected[0, REACH] = 1
    np.testing.assert_allclose(without_bias(covariance), expected, atol=0.005)


def test_bias_of_correlated_noise(smeared):
    covariance = autocovariance(split(smeared)[1]).mean(axis=0)
    assert covariance[0, REACH + 4] < -0.05
    near = (DISTANCES < 7) & (DISTANCES > 0)
    unbiased = without_bias(covariance)
    np.testing.assert_allclose(unbiased[near], BOX[near], atol=0.015)
    assert unbiased[0, REACH] == pytest.approx(1, abs=0.02)
    stacked = without_bias(np.stack([covariance, 2 * covariance]))
    np.testing.assert_allclose(stacked, [unbiased, 2 * unbiased], rtol=1e-6)


def test_smooth_energy_is_predicted(white, smeared):
    for blocks in (white, smeared):
        energy, rest = split(blocks)
        predicted = smooth_energy(without_bias(autocovariance(rest).mean(axis=0)))
        assert predicted == pytest.approx(energy.mean(), rel=0.05)
    assert predicted > 5


def test_structure(white, smeared):
    for blocks in (white, smeared):
        found = structure(autocovariance(split(blocks)[1]))
        assert found.mean() == pytest.approx(0.9, abs=0.06)
        assert np.mean(found > 1.3) < 0.1
    rows, columns = np.mgrid[0:BLOCK, 0:BLOCK]
    for content in ((columns // 4) % 2, rows > columns, (rows // 8 + columns // 8) % 2):
        striped = white[:100] + 2 * content.ravel().astype("float32")
        assert np.median(structure(autocovariance(split(striped)[1]))) > 1.3
