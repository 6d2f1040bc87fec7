"""How far apart float32 results may be that are summed in different orders.

A sum of n products, taken in any order, is off by n roundings of 2⁻²⁴ at most, relative to the sum
of the products' sizes. GPUs, XLA and other batch sizes change the order. So the bounds here hold
for any of them, and for Winograd's and FFT's convolutions, whose larger errors are random: they add
up as the square root of n does. The sums of sizes are taken to be as large as the largest result.
"""

import numpy as np

ROUNDING = 2.0**-24
"""Half the distance from 1 to the next float32, the most that rounding changes a number by."""


def of_outputs(network, *, more=0):
    """Bound on the error of a network's outputs, relative to the largest of them.

    The errors of all layers in a row go the same way at worst. `more` is the number of further
    summands, such as an attention's.
    """
    kernels = [w for w in network.weights if len(w.shape) > 1]
    return (sum(np.prod(w.shape[:-1]) + 1 for w in kernels) + more) * ROUNDING


def of_gradients(network, pixels):
    """Bound on the error of gradients with respect to weights, relative to their norm.

    There are the sums of the way forth, those of the way back, and the one over all pixels.
    """
    return 2 * of_outputs(network) + pixels * ROUNDING


def of_adam(error, path):
    """Bound on the root mean square of the error of the weights after some steps of Adam.

    Adam divides gradients by their own size, so that a weight whose gradient is all rounding moves
    as far as any, by up to the learning rate each step, and to either side: single weights are as
    far apart as they can get. But there are few of them. With gradients of a standard deviation of
    1 that are normally distributed, and off by ε, a step is off by ε / |g| of the rate, and by 2 at
    most. The mean of the square of that is 8 ε / √(2π) or 3.2 ε, and its root 1.8 √ε.

    Args:
        error: float, ε.
        path: float, the sum of the learning rates of all steps.
    """
    return 2 * np.sqrt(error) * path


def rms(x):
    return np.sqrt(np.mean(np.square(x)))
