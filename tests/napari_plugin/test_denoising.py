"""Tests of `cbsn.napari_plugin.denoising`."""

import dataclasses

import numpy as np
import pytest
from napari.layers import Image

from cbsn.errors import CbsnWarning, ImageError, ModelError
from cbsn.images.stacks.scaling import Scale, Scaling, measure_scaling
from cbsn.images.stacks.stack import array_stack
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.napari_plugin import denoising
from cbsn.napari_plugin.denoising import (
    Cancelled,
    ModelFacts,
    Result,
    blended,
    check_memory,
    denoise_planes,
    explain,
    facts_of,
    measure_scale,
)
from cbsn.napari_plugin.layers import layer_planes

VALUES = np.random.default_rng(1).integers(100, 900, (3, 2, 16, 20)).astype(np.uint16)
SCALE = Scale(0.0, 1.0, 0.0, 1.0)
PLANES = layer_planes(Image(VALUES))


def half(planes, scale, on_tile):
    on_tile(0.5)
    on_tile(0.5)
    return planes // 2


@pytest.mark.parametrize("pixels", [1, 2 * 16 * 20, 10**6])
def test_planes_are_denoised_in_groups(monkeypatch, pixels):
    monkeypatch.setattr(denoising, "_AT_ONCE", pixels)
    shares = []
    result = denoise_planes(PLANES, [5, 0, 3], half, SCALE, shares.append)
    np.testing.assert_array_equal(result, VALUES.reshape(6, 16, 20)[[5, 0, 3]] // 2)
    assert shares == sorted(shares) and shares[-1] == 1


@pytest.mark.parametrize("z_axis", [0, 1])
@pytest.mark.parametrize("slab", [1, 4, 100])
@pytest.mark.parametrize("numbers", [None, [13], [40, 3, 4]])
def test_planes_of_volumes_are_what_they_are_in_the_whole(
    volume_model, monkeypatch, random, z_axis, slab, numbers
):
    """With the planes around them, whether all or only some are wanted, in any order."""
    denoiser = Denoiser(*volume_model, DenoiseOptions(precision="float32", engine="tensorflow"))
    facts = facts_of(denoiser)
    monkeypatch.setattr(denoising, "_VOXELS", (2 * facts.z_halo + slab) * 12 * 9)
    array = random.integers(0, 8, (2, 45, 12, 9) if z_axis else (45, 2, 12, 9)).astype("float32")
    labels = ("t", "z", "y", "x") if z_axis else ("z", "t", "y", "x")
    planes = dataclasses.replace(layer_planes(Image(array)), z_axis=labels.index("z"))
    whole = np.moveaxis(array, z_axis, 1)
    expected = np.stack([denoiser.scaled(volume, SCALE) for volume in whole])
    expected = np.moveaxis(expected, 1, z_axis).reshape(90, 12, 9)
    numbers = [*range(90)] if numbers is None else numbers
    shares = []
    result = denoise_planes(planes, numbers, denoiser.scaled, SCALE, shares.append, facts)
    np.testing.assert_array_equal(result, expected[numbers])
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_layer_without_z_is_no_volume():
    planes = dataclasses.replace(PLANES, z_axis=None)
    with pytest.raises(ImageError, match="no axis of this layer is z"):
        denoise_planes(planes, [0], half, SCALE, facts=ModelFacts(None, 16, 2))


def test_a_report_ends_the_work():
    def report(share):
        raise Cancelled

    with pytest.raises(Cancelled):
        denoise_planes(PLANES, [0], half, SCALE, report)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_strength_of_a_result(strength):
    full = VALUES.reshape(6, 16, 20)[1:5] // 2
    result = Result(PLANES, [1, 2, 3, 4], full, (2, 2))
    shown = np.asarray(result.at(strength))
    noisy = VALUES.reshape(6, 16, 20)[1:5].astype(float)
    expected = np.rint(noisy + strength * (full - noisy))
    np.testing.assert_array_equal(shown.reshape(4, 16, 20), expected)
    assert (shown.dtype, result.strength) == (np.uint16, strength)


def test_a_single_plane_has_a_strength_too():
    result = Result(layer_planes(Image(VALUES[0, 0])), [0], VALUES[0, :1] // 2, ())
    assert np.asarray(result.at(0.5)).shape == result.at(1).shape == (16, 20)


def test_colours_are_blended():
    noisy, denoised = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 200, np.uint8)
    np.testing.assert_array_equal(blended(noisy, denoised, 0.25), np.full((2, 2, 3), 125))


def test_the_scale_is_that_of_the_whole_layer():
    expected = measure_scaling(array_stack(VALUES, "TZYX"), "range").of(0)
    assert measure_scale(PLANES, None) == expected
    colors = np.zeros((4, 8, 8, 3), np.uint8)
    assert measure_scale(layer_planes(Image(colors, rgb=True)), None).high == 255


def test_the_scale_of_a_model_that_was_trained_on_stacks():
    here = measure_scaling(PLANES.stack, "deviation")
    assert measure_scale(PLANES, here) == here.of(0)
    far = Scaling("deviation", (Scale(1e5, 2e5, 1e5, 1e5),))
    with pytest.warns(CbsnWarning, match="tick “Scale by this layer” under “Advanced”"):
        found = measure_scale(PLANES, far)
    assert (found.low, found.high, found.mean) == (1e5, 2e5, 1e5)
    assert found.most == here.of(0).most  # which pixels are faulty is a matter of the layer
    assert measure_scale(PLANES, far, own=True) == here.of(0)
    several = Scaling("deviation", far.channels * 2)
    assert measure_scale(PLANES, several) == here.of(0)
    given = Scaling("given", far.channels)
    assert measure_scale(PLANES, given, own=True) == measure_scale(PLANES, None)


def test_results_that_are_too_large():
    check_memory(PLANES, 6)
    with pytest.raises(ImageError, match=r"GiB are free\. Denoise the current"):
        check_memory(PLANES, 10**15)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModelError("No model.\nThere"), "No model. There"),
        (MemoryError(), "Memory ran out."),
        (RuntimeError("OOM: out of memory on GPU"), "Memory ran out."),
        (KeyError("x"), "This did not work (KeyError: 'x')."),
    ],
)
def test_errors_in_one_sentence(error, text):
    assert explain(error).startswith(text) and "\n" not in explain(error)
