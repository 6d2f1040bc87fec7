import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tifffile
import zarr

from cbsn.errors import CbsnWarning
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.stack import array_stack
from cbsn.inference import stack_steps
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stack_uncertainty import UncertainWork
from cbsn.inference.stacks import (
    StackWork,
    denoise_stack,
    denoise_stack_with_uncertainty,
    denoise_stacks,
)
from cbsn.recipes import customised
from tests.inference.linear import EVEN, gain, linear

OPTIONS = DenoiseOptions(precision="float32", engine="tensorflow")
EIGHT = dataclasses.replace(OPTIONS, self_ensemble=True)
FLOATS = StackOptions(dtype="float32")


def small(name="n2v-unet", **changes):
    keras.utils.set_random_seed(1)
    recipe = customised(name, filters=4, depth=1, channels=1, **changes)
    return Denoiser(recipe, recipe.build_network(), OPTIONS)


def by_eight(denoiser):
    return Denoiser(denoiser.recipe, denoiser.network, EIGHT)


@pytest.fixture
def flat(random):
    """TCYX, uint16: two channels, of which the second is darker, and twice as noisy."""
    values = np.empty((5, 2, 96, 128))
    values[:, 0] = random.normal(4000, 40, values[:, 0].shape)
    values[:, 1] = random.normal(700, 80, values[:, 1].shape)
    return np.rint(values).astype(np.uint16)


def rms(values):
    return float(np.sqrt(np.nanmean(np.square(values, dtype=np.float64))))


def test_each_channel_has_a_calibration_in_units_of_the_file(flat):
    """The error of a linear filter on flat planes is known; see `test_uncertainty`."""
    clean, sigma = denoise_stack_with_uncertainty(array_stack(flat, "TCYX"), [linear(EVEN)], FLOATS)
    assert clean.dtype == sigma.dtype == np.float32 and clean.shape == sigma.shape == flat.shape
    for channel, noise in enumerate((40, 80)):
        assert rms(sigma[:, channel]) == pytest.approx(noise * gain(EVEN), rel=0.25)
        # All planes alike: a series does not flicker.
        each = [rms(plane) for plane in sigma[:, channel]]
        np.testing.assert_allclose(each, each[0], rtol=0.02)


@pytest.mark.parametrize("dtype", ["same", "uint8", "float32"])
def test_the_result_is_that_of_the_self_ensemble(flat, dtype):
    denoiser = small()
    options = StackOptions(dtype=dtype)
    stack = array_stack(flat % 200, "TCYX")
    clean, sigma = denoise_stack_with_uncertainty(stack, [denoiser], options)
    expected = denoise_stack(stack, [by_eight(denoiser)], options)
    np.testing.assert_array_equal(clean, expected)
    assert clean.dtype == expected.dtype and sigma.dtype == np.float32


def test_integers_are_less_sure_by_their_rounding(flat):
    dim = (flat[:, 0] // 40).astype(np.uint16)  # with a standard deviation of 1
    stack = array_stack(dim, "TYX")
    exact, whole = (
        denoise_stack_with_uncertainty(stack, [linear(EVEN)], options)[1]
        for options in (FLOATS, StackOptions())
    )
    np.testing.assert_allclose(whole**2, exact**2 + 1 / 12, rtol=1e-4)


def test_pixels_that_stay_as_they_are_have_no_number(flat):
    hot = flat[:, 0].astype(np.float32)
    hot[2, 30, 40] = 1e7
    with pytest.warns(CbsnWarning, match="1 pixel far beyond"):
        clean, sigma = denoise_stack_with_uncertainty(
            array_stack(hot, "TYX"), [linear(EVEN)], FLOATS
        )
    assert clean[2, 30, 40] == 1e7
    assert np.argwhere(np.isnan(sigma)).tolist() == [[2, 30, 40]]


@pytest.mark.parametrize("name", ["n2v-unet", "n2v-unet-3d"])
def test_what_is_missing_has_no_number_and_makes_no_difference(flat, name):
    """Missing are a whole plane, and a part of another one, which no window is taken from."""
    denoiser = linear(EVEN) if name == "n2v-unet" else small(name)
    axes = "TYX" if name == "n2v-unet" else "ZYX"
    options = dataclasses.replace(FLOATS, nan="fill", normalize="0,8000")
    planes = np.concatenate([flat[:, 0], flat[:1, 0]]).astype(np.float32)
    planes[2] = np.nan
    planes[4, :3, :5] = np.nan
    with pytest.warns(CbsnWarning, match="values that were not finite are filled"):
        _, sigma = denoise_stack_with_uncertainty(array_stack(planes, axes), [denoiser], options)
    np.testing.assert_array_equal(np.isnan(sigma), np.isnan(planes))
    if name == "n2v-unet":
        seen = np.delete(planes, 2, axis=0)
        _, others = denoise_stack_with_uncertainty(array_stack(seen, axes), [denoiser], options)
        assert rms(sigma) == pytest.approx(rms(others), rel=0.1)


def test_where_all_is_missing_there_is_no_number():
    options = dataclasses.replace(FLOATS, nan="fill", normalize="0,1")
    planes = np.full((2, 64, 64), np.nan, np.float32)
    with pytest.warns(CbsnWarning, match="not finite"):
        clean, sigma = denoise_stack_with_uncertainty(
            array_stack(planes, "TYX"), [linear(EVEN)], options
        )
    assert np.isfinite(clean).all() and np.isnan(sigma).all()


def test_alpha_is_sure(random):
    rgba = random.normal(99, 9, (2, 96, 104, 4)).astype(np.uint8)
    _, sigma = denoise_stack_with_uncertainty(
        array_stack(rgba, "TYXS"), [linear(EVEN, channels=3)], FLOATS
    )
    assert sigma.shape == rgba.shape and sigma[..., :3].min() > 0
    assert not sigma[..., 3].any()


def test_parts_of_a_large_plane_fit_together(random, monkeypatch):
    denoiser = small()
    stack = array_stack(random.normal(400, 50, (1, 600, 64)).astype(np.float32), "TYX")
    _, whole = denoise_stack_with_uncertainty(stack, [denoiser], FLOATS)
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    _, parts = denoise_stack_with_uncertainty(stack, [denoiser], FLOATS)
    np.testing.assert_allclose(parts, whole, rtol=1e-3)


def test_a_part_has_the_calibration_of_its_own_values(flat):
    """What is selected is what is calibrated, so planes that are not selected are not read."""
    stack = array_stack(flat, "TCYX")
    options = dataclasses.replace(FLOATS, select="c=1,t=1:4", roi="8:90,8:120")
    clean, sigma = denoise_stack_with_uncertainty(stack, [linear(EVEN)], options)
    assert clean.shape == sigma.shape == (3, 1, 82, 112)
    assert rms(sigma) == pytest.approx(80 * gain(EVEN), rel=0.25)


def test_channels_may_have_models_of_their_own(flat):
    wide = np.full((3, 3), 1 / 9)
    models = [linear(EVEN), linear(wide)]
    _, sigma = denoise_stack_with_uncertainty(array_stack(flat, "TCYX"), models, FLOATS)
    for channel, (noise, kernel) in enumerate([(40, EVEN), (80, wide)]):
        assert rms(sigma[:, channel]) == pytest.approx(noise * gain(kernel), rel=0.25)


def test_volumes(random):
    volume = random.normal(500, 30, (2, 20, 48, 40)).astype(np.float32)
    denoiser = small("n2v-unet-3d")
    stack = array_stack(volume, "TZYX")
    clean, sigma = denoise_stack_with_uncertainty(stack, [denoiser], FLOATS)
    np.testing.assert_array_equal(clean, denoise_stack(stack, [by_eight(denoiser)], FLOATS))
    assert sigma.shape == volume.shape and sigma.dtype == np.float32
    assert np.isfinite(sigma).all() and sigma.min() > 0


def test_where_the_noise_cannot_be_measured_that_is_told(random):
    stack = array_stack(random.integers(0, 99, (3, 2, 20, 24)).astype(np.uint16), "TCYX")
    told = r"The stack: channel 1: the noise cannot be measured.*too small\."
    with pytest.warns(CbsnWarning, match=told):
        denoise_stack_with_uncertainty(stack, [small()], StackOptions())


def test_few_windows_are_looked_at(flat, monkeypatch):
    """They are spread over the planes of the channel, and no others are read."""
    stack = array_stack(np.concatenate([flat] * 8)[:, :1], "TCYX")
    denoiser, read = linear(EVEN), []
    work = StackWork(stack, [denoiser], FLOATS, Path("a.tif"))
    whole = work.stack.read
    monkeypatch.setattr(work.stack, "read", lambda i, *rest: read.append(i) or whole(i, *rest))
    UncertainWork(work, [denoiser], [*work.steps()])
    assert len(read) <= 2 * 16
    frames = {index[0] for index in read}
    assert min(frames) == 0 and max(frames) >= 37 and len(frames) >= 16


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_files_have_axes_and_metadata_of_the_result(tmp_path, flat, kind):
    metadata = {"axes": "TCYX", "spacing": 2.0, "unit": "um", "min": 100.0, "max": 5000.0}
    if kind == "ome":
        metadata = {"axes": "TCYX", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm"}
    source = tmp_path / ("a.tif" if kind == "imagej" else "a.ome.tif")
    tifffile.imwrite(source, flat, **{kind: True}, metadata=metadata, resolution=(3, 3))
    target, second = tmp_path / "out" / source.name, tmp_path / "out" / "sigma.tif"
    denoiser = small()
    outputs, uncertainties = {source: target}, {source: second}
    assert denoise_stacks([denoiser], outputs, StackOptions(), uncertainties) == 0
    clean, sigma = denoise_stack_with_uncertainty(
        array_stack(flat, "TCYX"), [denoiser], StackOptions()
    )
    with tifffile.TiffFile(target) as result, tifffile.TiffFile(second) as found:
        np.testing.assert_array_equal(result.asarray(), clean)
        np.testing.assert_array_equal(found.asarray(), sigma)
        assert found.series[0].axes == result.series[0].axes
        if kind == "imagej":
            assert found.imagej_metadata["spacing"] == 2.0
            # Contrast that would show it as black is not kept.
            assert result.imagej_metadata["max"] == 5000.0 and "max" not in found.imagej_metadata
        else:
            assert 'PhysicalSizeX="0.3"' in found.ome_metadata
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [source.name, "sigma.tif"]


def test_ome_zarr(tmp_path, flat):
    tifffile.imwrite(tmp_path / "a.tif", flat, imagej=True, metadata={"axes": "TCYX"})
    source, out = tmp_path / "a.tif", tmp_path / "out"
    denoiser = small()
    uncertainties = {source: out / "a.uncertainty.ome.zarr"}
    outputs = {source: out / "a.ome.zarr"}
    assert denoise_stacks([denoiser], outputs, StackOptions(), uncertainties) == 0
    with open_stacks(out / "a.uncertainty.ome.zarr") as stacks:
        layout = stacks[0].layout
        assert (layout.axes, layout.shape, layout.dtype) == ("TCYX", flat.shape, np.float32)
    found = zarr.open_group(out / "a.uncertainty.ome.zarr", mode="r")["0"][:]
    _, sigma = denoise_stack_with_uncertainty(array_stack(flat, "TCYX"), [denoiser], StackOptions())
    np.testing.assert_array_equal(found, sigma)


def test_both_files_go_on_where_they_were(tmp_path, flat, monkeypatch, capsys):
    """Interrupted after some planes, and done by a second run: as if there had been one run."""
    monkeypatch.setattr(stack_steps, "_AT_ONCE", 1)  # plane by plane
    tifffile.imwrite(tmp_path / "a.tif", flat, imagej=True, metadata={"axes": "TCYX"})
    out = tmp_path / "out"
    outputs = {tmp_path / "a.tif": out / "b.tif"}
    uncertainties = {tmp_path / "a.tif": out / "b.uncertainty.tif"}
    denoiser = small()
    steps, denoise = [], UncertainWork.denoise

    def counting(self, step, *rest):
        steps.append(step)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return denoise(self, step, *rest)

    monkeypatch.setattr(UncertainWork, "denoise", counting)
    with pytest.raises(KeyboardInterrupt):
        denoise_stacks([denoiser], outputs, StackOptions(), uncertainties)
    assert "the same command goes on from there" in capsys.readouterr().err
    assert not any(path.exists() for path in (*outputs.values(), *uncertainties.values()))
    assert denoise_stacks([denoiser], outputs, StackOptions(), uncertainties) == 0
    assert "going on" in capsys.readouterr().out
    assert len(steps) - 1 in (10, 11)
    clean, sigma = denoise_stack_with_uncertainty(
        array_stack(flat, "TCYX"), [denoiser], StackOptions()
    )
    np.testing.assert_array_equal(tifffile.imread(out / "b.tif"), clean)
    np.testing.assert_array_equal(tifffile.imread(out / "b.uncertainty.tif"), sigma)
    assert sorted(each.name for each in out.iterdir()) == ["b.tif", "b.uncertainty.tif"]


def test_a_run_without_the_estimate_is_not_gone_on_with(tmp_path, flat, monkeypatch):
    """Nor one whose second file is gone: both begin anew."""
    monkeypatch.setattr(stack_steps, "_AT_ONCE", 1)
    tifffile.imwrite(tmp_path / "a.tif", flat[:, 0], imagej=True, metadata={"axes": "TYX"})
    out = tmp_path / "out"
    outputs = {tmp_path / "a.tif": out / "b.tif"}
    uncertainties = {tmp_path / "a.tif": out / "b.uncertainty.tif"}
    denoiser = by_eight(small())
    scaled, seen = denoiser.scaled, []

    def stopping(planes, *rest, **options):
        seen.append(len(planes))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return scaled(planes, *rest, **options)

    monkeypatch.setattr(denoiser, "scaled", stopping)
    with pytest.raises(KeyboardInterrupt):
        denoise_stacks([denoiser], outputs, StackOptions())
    assert denoise_stacks([denoiser], outputs, StackOptions(), uncertainties) == 0
    _, sigma = denoise_stack_with_uncertainty(
        array_stack(flat[:, 0], "TYX"), [denoiser], StackOptions()
    )
    np.testing.assert_array_equal(tifffile.imread(out / "b.uncertainty.tif"), sigma)
