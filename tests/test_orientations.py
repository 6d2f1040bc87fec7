import numpy as np

from cbsn.orientations import NUM_ORIENTATIONS, orient


def test_orientations_golden(golden):
    data = np.load(golden("common/augment.npz"))
    for i in range(NUM_ORIENTATIONS):
        np.testing.assert_array_equal(orient(data["x"], i), data[f"aug_{i}"])
