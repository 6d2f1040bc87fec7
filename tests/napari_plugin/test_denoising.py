"""Tests of `cbsn.napari_plugin.denoising`."""

import numpy as np
import pytest
from napari.layers import Image

from cbsn.errors import CbsnWarning, ImageError, ModelError
from cbsn.images.stacks.scaling import Scale, Scaling, measure_scaling
from cbsn.images.stacks.stack import array_stack
from cbsn.napari_plugin import denoising
from cbsn.napari_plugin.denoising import (
    Cancelled,
    Result,
    blended,
    check_memory,
    denoise_planes,
    explain,
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
