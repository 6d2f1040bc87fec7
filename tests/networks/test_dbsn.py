import keras
import numpy as np
import pytest

from cbsn.networks import DilatedBlindSpotNetwork


@pytest.fixture(scope="module")
def network(torch_model):
    return torch_model("apbsn", "dbsnl.npz")[1]


@pytest.mark.parametrize("size", ["60x60", "61x47", "10x13"])
def test_forward_golden(golden, network, size):
    data = np.load(golden("apbsn/dbsnl.npz"))
    result = network(data[f"x_{size}"])
    np.testing.assert_allclose(result, data[f"y_{size}"], rtol=0, atol=5e-3)


def test_intermediates_golden(golden, network):
    data = np.load(golden("apbsn/dbsnl.npz"))
    head = network.head(data["x_10x13"])
    np.testing.assert_allclose(head, data["head_10x13"], rtol=0, atol=5e-3)
    for number, branch in enumerate(network.branches, 1):
        result = branch(head, blind=True)
        np.testing.assert_allclose(result, data[f"branch{number}_10x13"], rtol=0, atol=5e-3)


def test_full_size():
    network = DilatedBlindSpotNetwork()
    assert len(network.weights) == 98
    assert network.count_params() == 3_656_131
    assert network.receptive_field_radius == 29
    assert network.size_multiple == 6


def test_fresh_weights_are_those_of_pytorch():
    """Uniform in ±1 / sqrt(fan in): the residuals would blow values of 0 to 255 up otherwise."""
    keras.utils.set_random_seed(3)
    network = DilatedBlindSpotNetwork(filters=64, num_modules=2)
    kernels = [weight.numpy() for weight in network.weights if weight.path.endswith("kernel")]
    for kernel in kernels:
        bound = 1 / np.sqrt(np.prod(kernel.shape[:3]))
        assert 0.9 * bound < np.abs(kernel).max() <= bound
    firsts = {tuple(kernel.ravel()[:3]) for kernel in kernels}
    assert len(firsts) == len(kernels)  # no two layers start equal
