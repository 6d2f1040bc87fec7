"""Tests of `cbsn.noise.cells`."""

import numpy as np

from cbsn.noise.cells import simulate_cells


def test_frames_are_noisy_counts_of_photons_that_move():
    frames = [*simulate_cells(4, 96, 128, seed=3)]
    noisy, clean = (np.stack(each).astype(float) for each in zip(*frames, strict=True))
    assert frames[0][0].dtype == np.uint16 and frames[0][1].dtype == np.float32
    assert noisy.shape == clean.shape == (4, 96, 128)
    # Gain 2: the variance of the counts is twice their mean above the offset, and the read noise's.
    ratio = (noisy - clean) ** 2 / (2 * (clean - 100) + 9 + 1 / 12)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / ratio.size**0.5
    assert abs((noisy - clean).mean()) < 5 * (noisy - clean).std() / noisy.size**0.5
    assert abs(clean[3] - clean[0]).max() > 20


def test_the_seed_decides():
    one, same, other = (next(simulate_cells(1, 64, 64, seed=s))[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
