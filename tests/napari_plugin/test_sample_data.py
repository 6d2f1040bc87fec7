"""Tests of `cbsn.napari_plugin.sample_data`."""

import numpy as np
from napari.layers import Layer

from cbsn.napari_plugin.sample_data import SHAPE, make_series, noisy_and_clean


def test_the_series_is_a_layer():
    layer = Layer.create(*make_series()[0])
    assert layer.data.shape == SHAPE and layer.data.dtype == np.uint16


def test_the_same_without_noise():
    noisy, clean = noisy_and_clean((2, 64, 48))
    assert noisy.shape == clean.shape == (2, 64, 48)
    assert 0 < abs(noisy - clean).mean() < noisy.std()
