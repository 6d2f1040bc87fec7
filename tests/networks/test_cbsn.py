import keras
import numpy as np
import pytest

from cbsn.networks import ConditionalBlindSpotNetwork


@pytest.mark.parametrize("size", ["even", "odd"])
@pytest.mark.parametrize("blind", [True, False])
def test_forward_golden(golden, small_network, size, blind):
    data = np.load(golden("small/forward.npz"))
    expected = data[f"{'masked' if blind else 'unmasked'}_{size}"]
    result = small_network(data[f"x_{size}"], blind=blind)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_full_size():
    network = ConditionalBlindSpotNetwork()
    assert len(network.weights) == 98
    assert network.count_params() == 3_656_131
    assert network.receptive_field_radius == 29
    assert network.size_multiple == 6


def test_fresh_weights_have_the_papers_distribution():
    keras.utils.set_random_seed(3)
    network = ConditionalBlindSpotNetwork(filters=128, num_modules=1)
    weights = {weight.path.split("/", 1)[1]: weight.numpy() for weight in network.weights}
    for path, kernel in weights.items():
        if path.endswith("bias"):
            assert not kernel.any(), path
            continue
        expected = np.sqrt(2 / np.prod(kernel.shape[:3]))
        assert kernel.std() == pytest.approx(expected, rel=0.12), path
        # Truncated at two deviations of the wider normal it is drawn from, or not at all.
        reach = np.abs(kernel).max() / expected
        assert (reach > 3) if "masked" in path else (reach < 2.3), path


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="filters=0"):
        ConditionalBlindSpotNetwork(filters=0)
