"""A network that is a linear filter, so that the error of its results is known."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.recipes import RECIPES

EVEN = np.outer([1, 2, 1], [1, 2, 1]) / 16
"""The same in all eight orientations."""

ROW = np.zeros((5, 5))
ROW[2] = 1 / 5
"""The mean of five pixels in a row, which is horizontal in half of the orientations."""


class Filter:
    """Stands in for a network."""

    size_multiple, grid, padding_mode = 1, 1, "reflect"
    blindness = "none"
    is_local = True
    dimensions = 2
    orientations = range(8)
    dtype_policy = keras.DTypePolicy("float32")

    def __init__(self, kernel, channels=1):
        self.kernel, self.channels = kernel, channels
        self.halo = self.receptive_field_radius = len(kernel) // 2

    def __call__(self, x, blind, padding):
        assert not blind and padding == "valid"
        kernel = np.stack([self.kernel] * self.channels, axis=-1)[..., None]
        return tf.nn.depthwise_conv2d(x, kernel.astype(np.float32), [1] * 4, "VALID")

    def get_weights(self):
        return [self.kernel]


def linear(kernel, channels=1, **options):
    """Returns a `Denoiser` that filters, without normalisation."""
    recipe = dataclasses.replace(RECIPES["distill"], normalization="0-1", border="reflect")
    return Denoiser(
        recipe, Filter(kernel, channels), DenoiseOptions(engine="tensorflow", **options)
    )


def of_ensemble(kernel):
    """Returns the kernel of the mean over the eight orientations."""
    turned = [np.rot90(kernel, n) for n in range(4)]
    return np.mean([each[:, ::step] for each in turned for step in (1, -1)], axis=0)


def gain(kernel):
    """Returns how many times stronger white noise is after a filter."""
    return float(np.sqrt(np.square(kernel).sum()))
