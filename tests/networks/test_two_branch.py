import numpy as np
import pytest

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
