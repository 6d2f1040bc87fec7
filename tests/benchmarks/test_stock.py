import dataclasses

import numpy as np
import pytest

from benchmarks.step import OURS, STOCK, StepSpec
from benchmarks.stock import StockNetwork
from cbsn.networks import ConditionalBlindSpotNetwork


@pytest.fixture
def networks(random):
    """Both networks, of the same weights; and the weights."""
    pair = ConditionalBlindSpotNetwork(4, 2), StockNetwork(4, 2)
    weights = [random.normal(size=weight.shape) * 0.3 for weight in pair[0].get_weights()]
    for network in pair:
        network.set_weights(weights)
    return pair


@pytest.mark.parametrize("blind", [True, False])
@pytest.mark.parametrize("size", [(24, 30), (17, 13)])
def test_same_output(networks, random, blind, size):
    x = random.normal(size=(2, *size, 3)).astype("float32")
    ours, stock = (np.asarray(network(x, blind=blind)) for network in networks)
    np.testing.assert_allclose(stock, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


def test_same_tiles(networks, random):
    ours, stock = networks
    assert stock.receptive_field_radius == ours.receptive_field_radius == 8
    assert stock.size_multiple == ours.size_multiple
    x = random.normal(size=(1, 28, 34, 3)).astype("float32")
    ours, stock = (np.asarray(n(x, blind=False, padding="valid")) for n in networks)
    assert stock.shape == (1, 12, 18, 3)
    np.testing.assert_allclose(stock, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


@pytest.mark.slow
def test_same_loss_and_the_same_step(random):
    spec = StepSpec(OURS, "float32", filters=4, num_modules=1, batch_size=1, patch_size=30)
    trainers = [dataclasses.replace(spec, network=name).trainer() for name in (OURS, STOCK)]
    weights = [random.normal(size=w.shape) * 0.3 for w in trainers[0].network.get_weights()]
    for trainer in trainers:
        trainer.network.set_weights(weights)
    # The second step's loss depends on the gradients of the first.
    for _ in range(2):
        ours, stock = (trainer.train_step(spec.batch()) for trainer in trainers)
        assert ours["skipped"] == stock["skipped"] == 0
        for name, value in ours.items():
            np.testing.assert_allclose(stock[name], value, rtol=1e-4, err_msg=name)
