import keras
import numpy as np
import pytest

from cbsn.networks import ConditionalBlindSpotNetwork, DilatedBlindSpotNetwork

FILES = {"apbsn": "dbsnl.npz", "ssbsn": "ssbsnl.npz"}


@pytest.fixture(scope="module", params=sorted(FILES))
def case(request, golden, torch_model):
    """A network of the PyTorch code, and what it made of pictures."""
    file = FILES[request.param]
    data = np.load(golden(f"{request.param}/{file}"))
    return torch_model(request.param, file)[1], data


@pytest.mark.parametrize("size", ["60x60", "61x47", "10x13"])
def test_forward_golden(case, size):
    network, data = case
    result = network(data[f"x_{size}"])
    np.testing.assert_allclose(result, data[f"y_{size}"], rtol=0, atol=5e-3)


def test_intermediates_golden(case):
    network, data = case
    head = network.head(data["x_10x13"])
    np.testing.assert_allclose(head, data["head_10x13"], rtol=0, atol=5e-3)
    for number, branch in enumerate(network.branches, 1):
        result = branch(head, blind=True)
        np.testing.assert_allclose(result, data[f"branch{number}_10x13"], rtol=0, atol=5e-3)


def test_full_size_of_apbsn():
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


@pytest.mark.parametrize("size", ["even", "odd"])
@pytest.mark.parametrize("blind", [True, False])
def test_forward_golden_of_cbsn(golden, small_network, size, blind):
    data = np.load(golden("small/forward.npz"))
    expected = data[f"{'masked' if blind else 'unmasked'}_{size}"]
    result = small_network(data[f"x_{size}"], blind=blind)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_full_size_of_cbsn():
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
