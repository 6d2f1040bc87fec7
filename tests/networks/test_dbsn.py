import keras
import numpy as np

from cbsn.networks import DilatedBlindSpotNetwork


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
