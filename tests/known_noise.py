"""Noise for networks that look at a pixel only once they know its noise."""

import numpy as np


def know_noise(network, deviation=3.0):
    """Fits the noise model of a network, if it has one, to noise that grows with the signal.

    Its samples, which begin close together, get the contrast of a trained network's.
    """
    if not hasattr(network, "noise"):
        return
    network.head.kernel.assign(10 * network.head.kernel)
    random = np.random.default_rng(2)
    signal = random.uniform(-2, 2, (1000, network.channels))
    observed = random.normal(signal, deviation * (1 + signal**2 / 3))
    network.noise.set_weights(network.noise.fit(observed, signal))
