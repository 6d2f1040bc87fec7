import numpy as np
import pytest

from cbsn.noise.survey import Survey


@pytest.fixture
def clean(random):
    """256 × 256, left half flat, right half texture."""
    picture = np.full((256, 256, 1), 100, "float32")
    texture = 40 * np.sign(random.normal(size=(32, 16, 1)))
    picture[:, 128:] += np.kron(texture, np.ones((8, 8, 1)))
    return picture


@pytest.fixture
def noisy(clean, random):
    """With white noise of σ 10."""
    noise = 10 * random.standard_normal(clean.shape, "float32")
    return np.rint(clean + noise).astype("uint8")


def _look(noisy, denoised=None):
    """The blocks found, the mean brightness of those that are not clipped, and the counts."""
    survey = Survey()
    survey.add(noisy, denoised)
    return survey.blocks, survey.brightness[0], survey.counts


def test_blocks_are_those_of_the_flat_half(noisy):
    found, brightness, counts = _look(noisy)
    assert len(brightness) == counts["all"] == 15**2
    assert 60 < len(found) <= 115
    assert counts["uneven"] == 225 - len(found)
    assert (found.corner[:, 1] * 16 + 32 <= 128).mean() > 0.95
    assert found.quiet.mean() == pytest.approx(100, rel=0.1)
    assert found.covariance.shape[1:] == (1, 15, 29)
    assert np.median(found.covariance[:, 0, 0, 14]) == pytest.approx(100, rel=0.05)
    row, column = found.corner[0] * 16
    block = noisy[row : row + 32, column : column + 32]
    assert found.brightness[0, 0] == pytest.approx(block.mean(), abs=0.01)


def test_clipped_and_silent_blocks_are_left_out(noisy):
    flat = np.concatenate([noisy[:, :128]] * 2, axis=1)
    flat[:64] = 0
    flat[-64:] = 100
    found, brightness, counts = _look(flat)
    rows = found.corner[:, 0] * 16
    assert counts["clipped"] == 4 * 15
    assert counts["silent"] == 3 * 15
    assert len(brightness) == 11 * 15
    assert rows.min() >= 64
    assert rows.max() + 32 <= 256 - 32


def test_channels_are_clipped_separately(noisy):
    picture = np.concatenate([noisy] * 3, axis=2)
    picture[..., 1] = 255
    found, brightness, counts = _look(picture)
    assert len(found) == len(brightness) == 0
    assert counts["clipped"] == 225


def test_of_a_denoised_picture(clean, random):
    """The noise is the difference; the flattest blocks of the denoised picture are taken."""
    denoised = np.concatenate([clean] * 3) / 255
    noisy = denoised + 5 / 255 * random.standard_normal(denoised.shape, "float32")
    found, brightness, counts = _look(noisy, denoised)
    assert len(found) == 512
    assert counts["all"] == len(brightness) == 47 * 15
    flat = found.corner[:, 1] * 16 + 32 <= 128
    assert flat.sum() == 47 * 7
    assert found.content[flat].max() < 0.01 < 1 < found.content[~flat].min()
    assert found.covariance[:, 0, 0, 14].mean() == pytest.approx(25, rel=0.03)
    np.testing.assert_allclose(found.brightness[flat, 0], 100, rtol=1e-6)


def test_nothing_but_silence():
    found, brightness, counts = _look(np.full((40, 50, 3), 7, "uint8"))
    assert len(found) == 0
    assert brightness.shape == (2, 3)
    assert counts == {"all": 2, "clipped": 0, "silent": 2, "uneven": 0}
