"""Tests of `cbsn.napari_plugin.sample_data`."""

import numpy as np
from napari.layers import Layer

from cbsn.napari_plugin.sample_data import SHAPE, make_series, noisy_and_clean


def test_the_series_is_a_layer():
    layer = Layer.create(*make_series()[0])
    assert layer.data.shape == SHAPE and layer.data.dtype == np.uint16


def test_the_noise_is_that_of_photons_and_a_camera():
    noisy, clean = noisy_and_clean((8, 64, 64))
    difference = noisy - clean
    assert abs(difference.mean()) < 0.2
    dark, bright = clean < np.quantile(clean, 0.2), clean > np.quantile(clean, 0.9)
    assert difference[bright].std() > 1.3 * difference[dark].std()
