"""A small denoiser, and the SavedModel of it."""

import keras
import numpy as np
import pytest

from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.recipes import customised


@pytest.fixture(scope="session")
def make_denoiser():
    """Makes a denoiser of random weights, whose pictures are neither flat nor clipped."""

    def make(name, network_config=None, **options):
        recipe = customised(name, **(network_config or {}))
        keras.utils.set_random_seed(1)
        network = recipe.build_network()
        random = np.random.default_rng(1)
        for variable in network.trainable_variables:
            variable.assign(variable + 0.05 * random.standard_normal(variable.shape))
        if recipe.normalization == "0-255":
            kernel, bias = network.tail[-1].trainable_variables
            outputs = network(255 * random.random((1, 30, 30, network.channels), np.float32))
            factor = 40 / np.std(outputs, axis=(0, 1, 2))
            kernel.assign(kernel * factor)
            bias.assign(128 + (bias - np.mean(outputs, axis=(0, 1, 2))) * factor)
        return Denoiser(recipe, network, DenoiseOptions(**options))

    return make


@pytest.fixture(scope="session")
def denoiser(make_denoiser):
    """C-BSN's, of 4 channels, in tiles of 24 pixels."""
    return make_denoiser("cbsn", {"filters": 4, "num_modules": 1}, tile=24)


@pytest.fixture(scope="session")
def saved_model(denoiser, tmp_path_factory):
    """Its SavedModel, version 1 in a folder named `denoiser`."""
    from cbsn.export.export import write_saved_model

    folder = tmp_path_factory.mktemp("served") / "denoiser"
    folder.mkdir()
    write_saved_model(folder / "1", denoiser, max_pixels=100_000)
    return folder / "1"
