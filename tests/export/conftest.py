"""Small denoisers, and the SavedModel of one."""

import dataclasses

import keras
import numpy as np
import pytest

from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.recipes import customised
from tests.known_noise import know_noise


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
        if hasattr(network, "noise"):
            # Samples around the middle of the range, of noise that is neither clear nor hidden.
            kernel, bias = network.head.trainable_variables
            x = random.random((1, 32, 32, network.channels), np.float32)
            samples = np.asarray(network.head(network.features(x)))
            factor = 0.2 / samples.std()
            kernel.assign(kernel * factor)
            bias.assign(0.5 + (bias - samples.mean(axis=(0, 1, 2))) * factor)
            know_noise(network, 0.2)
        if recipe.normalization == "0-255":
            kernel, bias = network.tail[-1].trainable_variables
            outputs = network(255 * random.random((1, 30, 30, network.channels), np.float32))
            factor = 40 / np.std(outputs, axis=(0, 1, 2))
            kernel.assign(kernel * factor)
            bias.assign(128 + (bias - np.mean(outputs, axis=(0, 1, 2))) * factor)
        return Denoiser(recipe, network, DenoiseOptions(**options))

    return make


STACKS = Scaling(
    "percentile", (Scale(-20.5, 90.25, 30.0, 12.0), Scale(1000.0, 4000.5, 1800.0, 700.0))
)
"""How the stacks were scaled, of two channels."""


@pytest.fixture(scope="session")
def make_stack_denoiser(make_denoiser):
    """Makes one as if it was trained on stacks, whose results lie within and beyond 0 and 1."""

    def make(name="cbsn", network_config=None, scaling=STACKS, normalization="0-1", **options):
        sizes = network_config or {"filters": 4, "num_modules": 1, "channels": 1}
        trained = make_denoiser(name, sizes, **options)
        facts = {"scaling": scaling.to_dict(), "normalization": normalization}
        recipe = dataclasses.replace(trained.recipe, **facts)
        return Denoiser(recipe, trained.network, trained.options)

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
