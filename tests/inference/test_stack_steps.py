"""Tests of `cbsn.inference.stack_steps`, and of stacks that are denoised as volumes."""

import dataclasses
import tracemalloc
import types

import numpy as np
import pytest
import tifffile

from cbsn.errors import CbsnWarning, ImageError
from cbsn.images.stacks import scaling
from cbsn.images.stacks.stack import Layout, Stack, array_stack
from cbsn.inference import stack_steps
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions
from cbsn.inference.stack_steps import plan_steps
from cbsn.inference.stacks import StackWork, denoise_stack, denoise_stacks
from cbsn.recipes import customised

OPTIONS = DenoiseOptions(precision="float32", engine="tensorflow")
FLOATS = StackOptions(dtype="float32")


@pytest.fixture
def denoiser(volume_model):
    return Denoiser(*volume_model, OPTIONS)


def _of_planes(**changes):
    recipe = customised("distill", filters=4, depth=1, channels=1, **changes)
    return Denoiser(recipe, recipe.build_network(), OPTIONS)


def _by_network(denoiser, volume):
    x = volume.astype(np.float32)[None, ..., None]
    return np.array(denoiser.network(x))[0, ..., 0]


def _small_slabs(monkeypatch, voxels=40 * 520 * 8):
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    monkeypatch.setattr(stack_steps, "_VOXELS", voxels)


def test_slabs_and_parts_fit_together(denoiser, random, monkeypatch):
    """To the last bit; along z and in plane."""
    volume = random.integers(0, 8, (57, 520, 7)).astype(np.uint8)
    _small_slabs(monkeypatch, 40 * 520 * 7)
    stack = array_stack(volume, "ZYX")
    steps = [*plan_steps(stack.layout, lambda index: denoiser)]
    assert len(steps) > 8
    assert {len(step.indices) for step in steps} == {8, 1}
    np.testing.assert_array_equal(
        denoise_stack(stack, [denoiser], FLOATS), _by_network(denoiser, volume)
    )


@pytest.mark.parametrize("axes", ["TZCYX", "CZTYX", "ZTCYX"])
def test_every_time_and_channel_is_a_volume(denoiser, random, axes):
    array = random.integers(0, 8, (2, 9, 3, 20, 18)).astype(np.uint16)  # TZCYX
    order = ["TZCYX".index(axis) for axis in axes]
    stack = array_stack(array.transpose(order), axes)
    result = denoise_stack(stack, [denoiser], FLOATS).transpose(np.argsort(order))
    for time in range(2):
        for channel in range(3):
            expected = _by_network(denoiser, array[time, :, channel])
            np.testing.assert_array_equal(result[time, :, channel], expected)


def test_a_selection_is_all_that_the_network_sees(denoiser, random):
    """As of rows and columns."""
    volume = random.integers(0, 8, (40, 30, 28)).astype(np.uint16)
    stack = array_stack(volume, "ZYX")
    for options, part in (
        (StackOptions(select="z=10:20", dtype="float32"), np.s_[10:20]),
        (StackOptions(select="z=3", roi="2:20,:", dtype="float32"), np.s_[3:4, 2:20]),
    ):
        result = denoise_stack(stack, [denoiser], options)
        np.testing.assert_array_equal(result, _by_network(denoiser, volume[part]))


def test_models_of_planes_and_of_volumes_by_channel(denoiser, random):
    array = random.integers(0, 8, (9, 2, 20, 18)).astype(np.uint16)
    flat = _of_planes(scaling=denoiser.recipe.scaling)
    stack = array_stack(array, "ZCYX")
    result = denoise_stack(stack, [denoiser, flat], FLOATS)
    np.testing.assert_array_equal(result[:, 0], _by_network(denoiser, array[:, 0]))
    expected = flat.scaled(array[:, 1], flat.scaling.of(0), dtype=np.float32)
    np.testing.assert_array_equal(result[:, 1], expected)
    alone = denoise_stack(stack, [denoiser, flat], dataclasses.replace(FLOATS, select="c=1"))
    np.testing.assert_array_equal(alone[:, 0], expected)


@pytest.mark.parametrize("axes", ["TYX", "YX"])
def test_stacks_without_planes_along_z_are_refused(denoiser, random, axes):
    array = random.integers(0, 8, (5, 12, 12)[-len(axes) :]).astype(np.uint16)
    with pytest.raises(ImageError, match=r"axis Z, and this one has none .*--axes ZYX"):
        denoise_stack(array_stack(array, axes), [denoiser], StackOptions())


def test_a_file_whose_axes_are_named(denoiser, random, tmp_path, capsys):
    array = random.integers(0, 8, (5, 24, 22)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    outputs = {tmp_path / "a.tif": tmp_path / "b.tif"}
    assert denoise_stacks([denoiser], outputs, StackOptions()) == 1
    assert "a.tif: This model denoises volumes" in capsys.readouterr().err
    assert denoise_stacks([denoiser], outputs, StackOptions(axes="ZYX", dtype="float32")) == 0
    assert "Z 5, Y 24, X 22, float32, as volumes; seen as 0 and 1" in capsys.readouterr().out
    result = tifffile.imread(tmp_path / "b.tif")
    np.testing.assert_array_equal(result, _by_network(denoiser, array))


@pytest.mark.parametrize("target", ["b.tif", "b.ome.zarr"])
def test_an_interrupted_volume_is_continued(
    denoiser, random, tmp_path, monkeypatch, capsys, target
):
    if target.endswith("zarr"):
        zarr = pytest.importorskip("zarr")
    array = random.integers(0, 8, (57, 520, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata={"axes": "ZYX"})
    outputs = {tmp_path / "a.tif": tmp_path / target}
    _small_slabs(monkeypatch)
    options = StackOptions(axes="ZYX")
    work = StackWork(array_stack(array, "ZYX"), [denoiser], options, tmp_path)
    count, seen, scaled = len([*work.steps()]), [], denoiser.scaled

    def counting(*args, **kwargs):
        if len(seen) == 5:
            seen.append("stopped")
            raise KeyboardInterrupt
        seen.append(args)
        return scaled(*args, **kwargs)

    monkeypatch.setattr(denoiser, "scaled", counting)
    with pytest.raises(KeyboardInterrupt):
        denoise_stacks([denoiser], outputs, options)
    assert denoise_stacks([denoiser], outputs, options) == 0
    # At most the slab that was being written is denoised again.
    assert len(seen) - 1 in (count, count + 1)
    assert "going on" in capsys.readouterr().out
    expected = _by_network(denoiser, array).clip(0, 65535)
    if target == "b.tif":
        np.testing.assert_array_equal(tifffile.imread(tmp_path / target), expected)
    else:
        np.testing.assert_array_equal(zarr.open(str(tmp_path / target / "0"))[:], expected)


def test_values_in_the_margin_of_a_slab(denoiser, random, monkeypatch):
    """Those that are not finite are named or filled, and counted once; as are faulty ones."""
    _small_slabs(monkeypatch)
    monkeypatch.setattr(scaling, "_PLANES", 1)
    array = random.integers(0, 8, (57, 520, 8)).astype(np.float32)
    array[30, 515, 4] = np.nan
    stack = array_stack(array, "ZYX")
    with pytest.raises(ImageError, match=r"at Z 30.*--nan fill"):
        denoise_stack(stack, [denoiser], StackOptions())
    with pytest.warns(CbsnWarning, match="^The stack: 1 values that were not finite"):
        result = denoise_stack(stack, [denoiser], StackOptions(nan="fill"))
    assert np.isfinite(result).all()
    array[30, 515, 4] = 1e6
    with pytest.warns(CbsnWarning, match="^The stack: 1 pixel far beyond"):
        result = denoise_stack(stack, [denoiser], StackOptions())
    array[30, 515, 4] = np.median(array[30, 514:517, 3:6])
    expected = _by_network(denoiser, array)
    expected[30, 515, 4] = 1e6
    np.testing.assert_array_equal(result, expected)


def test_a_large_volume_is_never_in_memory(monkeypatch):
    """500 planes of 2048 × 2048: what is planned of it, and what is read at once."""
    layout = Layout("ZYX", (500, 2048, 2048), np.dtype("uint16"), "array")
    network = types.SimpleNamespace(halo=72, grid=8, z_halo=22, z_grid=2)
    stand_in = types.SimpleNamespace(of_volumes=True, network=network)
    filled, most = 0, 0
    for step in plan_steps(layout, lambda index: stand_in):
        rows, columns = step.rows, step.columns
        filled += len(step.indices) * (rows.stop - rows.start) * (columns.stop - columns.start)
        seen = len(step.seen) * (rows.stop - rows.start + 2 * 72) * (columns.stop - columns.start)
        most = max(most, seen)
        assert step.indices[0][0] % 2 == 0 and rows.start % 8 == 0 and columns.start % 8 == 0
    assert filled == 500 * 2048**2
    assert most <= 2**26 < 500 * 2048**2 / 30


@pytest.mark.slow
def test_memory_does_not_grow_with_the_planes(denoiser, monkeypatch):
    """What Python's arrays take, of a volume that is made as it is read."""

    def peak(depth):
        layout = Layout("ZYX", (depth, 512, 16), np.dtype("uint16"), "array")
        stack = Stack(
            layout,
            lambda index, rows, columns: np.full(
                (rows.stop - rows.start, columns.stop - columns.start), index[0] % 8, np.uint16
            ),
        )
        work = StackWork(stack, [denoiser], StackOptions(), "made")
        tracemalloc.start()
        for step in work.steps():
            work.denoise(step, work.read(step))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    _small_slabs(monkeypatch, 40 * 512 * 16)
    peak(60)  # which makes the graph
    assert peak(120) <= 1.1 * peak(60)
