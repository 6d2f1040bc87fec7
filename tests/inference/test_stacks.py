"""Tests of `cbsn.inference.stacks`, and of `Denoiser.scaled`."""

import dataclasses
import os

import numpy as np
import pytest
import tifffile

from cbsn.errors import CbsnWarning, ConfigError, ImageError
from cbsn.images.stacks import scaling
from cbsn.images.stacks.ome_zarr_writer import create_ome_zarr
from cbsn.images.stacks.scaling import Scale, Scaling, measure_scaling
from cbsn.images.stacks.stack import Layout, array_stack
from cbsn.inference import stack_steps, stacks
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions, open_scaled
from cbsn.inference.stacks import denoise_stack, denoise_stacks
from cbsn.recipes import customised
from tests.cases import slow_except

OPTIONS = DenoiseOptions(precision="float32", engine="tensorflow")
SCALING = Scaling("deviation", (Scale(400.0, 450.0, 400.0, 50.0), Scale(0.0, 9.0, 0.0, 9.0)))


def small(name="distill", options=OPTIONS, **changes):
    """A denoiser with a small network."""
    sizes = {"filters": 4, "channels": 1}
    sizes |= {"num_modules": 1} if name in ("cbsn", "apbsn") else {"depth": 1}
    recipe = customised(name, **sizes, **changes)
    return Denoiser(recipe, recipe.build_network(), options)


@pytest.fixture(scope="module")
def denoise():
    return small()


@pytest.fixture
def array(random):
    """TCYX, uint16."""
    return random.poisson(400, (5, 2, 24, 40)).astype(np.uint16)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint32", "float32", "float64"])
def test_all_that_is_removed_is_what_the_network_removes(random, dtype):
    """With a strength near 0, planes stay within rounding, wherever their values lie."""
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (-1e6, 1e9)
    planes = random.uniform(low, high, (3, 24, 40)).astype(dtype)
    scale = Scale(float(low), float(high), 0.0, 1.0)
    weak = small(options=dataclasses.replace(OPTIONS, strength=1e-9))
    result = weak.scaled(planes, scale)
    assert result.dtype == planes.dtype and result.shape == planes.shape
    # A unit in the last place of float32, of values up to 1 and some more by the network.
    assert abs(result.astype(float) - planes.astype(float)).max() <= 2**-22 * (high - low) + 1
    np.testing.assert_array_equal(
        small(options=dataclasses.replace(OPTIONS, strength=0.0)).scaled(planes, scale), planes
    )


def test_values_beyond_0_and_1_are_not_clipped(denoise, random):
    planes = random.normal(0, 50, (1, 24, 40)).astype(np.float32)
    result = denoise.scaled(planes, Scale(0.0, 1.0, 0.0, 1.0))
    double = denoise.scaled(2 * planes, Scale(0.0, 2.0, 0.0, 2.0))
    assert result.min() < 0 and result.max() > 1
    np.testing.assert_allclose(double, 2 * result, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["distill", "n2v-unet", "cbsn"])
def test_a_hot_pixel_stays_where_it_is(random, name):
    """The rest of the plane becomes what it becomes without it."""
    planes = random.normal(500, 20, (1, 40, 48)).astype(np.float32)
    hot = planes.copy()
    hot[0, 20, 24] = 1e6
    scale = measure_scaling(array_stack(hot, "TYX"), "deviation").of(0)
    denoiser = small(name)
    result = denoiser.scaled(hot, scale)
    assert result[0, 20, 24] == 1e6
    usual = planes.copy()
    usual[0, 20, 24] = np.median(hot[0, 19:22, 23:26])
    expected = denoiser.scaled(usual, scale)
    expected[0, 20, 24] = 1e6
    np.testing.assert_array_equal(result, expected)


def test_integers_are_rounded_and_clipped(denoise, random):
    planes = random.integers(0, 1000, (2, 24, 40)).astype(np.uint16)
    scale = Scale(0.0, 10.0, 0.0, 1.0)
    whole, exact = denoise.scaled(planes, scale), denoise.scaled(planes, scale, dtype="float64")
    np.testing.assert_array_equal(whole, np.clip(np.rint(exact), 0, 65535))
    np.testing.assert_array_equal(
        denoise.scaled(planes, scale, dtype="uint8"), np.clip(np.rint(exact), 0, 255)
    )


@pytest.mark.parametrize("name", ["distill", "cbsn", "n2v-unet", "apbsn"])
def test_a_plane_does_not_depend_on_its_neighbours(array, name):
    """Nor on its own mean: the same values become the same, or a series would flicker."""
    denoiser = small(name)
    scale = measure_scaling(array_stack(array, "TCYX"), "deviation").of(0)
    together = denoiser.scaled(array[:, 0].astype(np.float32), scale)
    alone = denoiser.scaled(array[3:4, 0].astype(np.float32), scale)
    tolerance = 1e-4 * (scale.high - scale.low)  # of batches of another size, in float32
    np.testing.assert_allclose(together[3], alone[0], atol=tolerance)


def test_samples_of_colours_and_alpha(random):
    rgba = random.integers(0, 256, (2, 24, 40, 4)).astype(np.uint8)
    recipe = customised("distill", filters=4, depth=1)
    denoiser = Denoiser(recipe, recipe.build_network(), OPTIONS)
    scale = Scale(0.0, 255.0, 0.0, 1.0)
    result = denoiser.scaled(rgba, scale)
    np.testing.assert_array_equal(result[..., 3], rgba[..., 3])
    np.testing.assert_array_equal(result[..., :3], denoiser.scaled(rgba[..., :3], scale))


def test_values_that_are_not_finite_are_refused(denoise):
    planes = np.full((1, 8, 8), np.nan, np.float32)
    with pytest.raises(ImageError, match="not finite"):
        denoise.scaled(planes, SCALING.of(0))


@pytest.mark.parametrize("name", slow_except(("distill", "n2v-unet", "cbsn", "apbsn"), "distill"))
def test_parts_of_a_large_plane_fit_together(random, monkeypatch, name):
    """They begin at multiples of what networks halve or downsample, with all that these see."""
    denoiser = small(name, patch_size=120) if name == "apbsn" else small(name)
    array = random.normal(400, 50, (1, 1100, 560)).astype(np.float32)
    stack = array_stack(array, "TYX")
    options = StackOptions(normalize="deviation")
    whole = denoise_stack(stack, [denoiser], options)
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    parts = denoise_stack(stack, [denoiser], options)
    # In float32, sums of another order: some units in the last place of 1, in deviations of 50.
    np.testing.assert_allclose(parts, whole, atol=50 * 1e-4)


def test_small_planes_are_denoised_together(array, monkeypatch):
    denoiser = small()
    seen = []
    scaled = denoiser.scaled
    monkeypatch.setattr(
        denoiser,
        "scaled",
        lambda planes, *a, **k: seen.append(len(planes)) or scaled(planes, *a, **k),
    )
    denoise_stack(array_stack(array, "TCYX"), [denoiser], StackOptions())
    assert seen == [5, 5]
    seen.clear()
    monkeypatch.setattr(stack_steps, "_AT_ONCE", 2 * 24 * 40)
    denoise_stack(array_stack(array, "TCYX"), [denoiser], StackOptions())
    assert seen == [2, 2, 1, 2, 2, 1]


def test_channels_may_have_models_of_their_own(array):
    models = [small(), small()]
    stack = array_stack(array, "TCYX")
    both = denoise_stack(stack, models, StackOptions())
    for channel, model in enumerate(models):
        alone = denoise_stack(stack, [model], StackOptions(select=f"c={channel}"))
        np.testing.assert_array_equal(both[:, channel : channel + 1], alone)
    # A selection takes the models with it.
    second = denoise_stack(stack, models, StackOptions(select="c=1"))
    np.testing.assert_array_equal(second, both[:, 1:])
    with pytest.raises(ConfigError, match="2 channels"):
        denoise_stack(stack, [*models, small()], StackOptions())


def test_a_selection_is_scaled_as_the_whole(array):
    stack = array_stack(array, "TCYX")
    denoiser = small()
    options = StackOptions(dtype="float32")
    whole = denoise_stack(stack, [denoiser], options)
    part = denoise_stack(stack, [denoiser], dataclasses.replace(options, select="t=1:3"))
    np.testing.assert_allclose(part, whole[1:3], atol=0.05)
    assert part.dtype == np.float32


def test_files_become_files(tmp_path, array, denoise, capsys):
    metadata = {"axes": "TCYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata=metadata)
    outputs = {tmp_path / "a.tif": tmp_path / "out" / "a.tif"}
    assert denoise_stacks([denoise], outputs, StackOptions()) == 0
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as file:
        assert file.imagej_metadata["spacing"] == 2.0
        expected = denoise_stack(array_stack(array, "TCYX"), [denoise], StackOptions())
        np.testing.assert_array_equal(file.asarray(), expected)
    assert "T 5, C 2, Y 24, X 40, uint16; seen as 0 and 1: " in capsys.readouterr().out
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["a.tif"]


def test_a_broken_file_does_not_stop_the_others(tmp_path, array, denoise, capsys):
    for name in "a.tif", "b.tif":
        tifffile.imwrite(tmp_path / name, array[:, 0], photometric="minisblack")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    outputs = {tmp_path / name: tmp_path / "out" / name for name in ("a.tif", "b.tif", "c.tif")}
    assert denoise_stacks([denoise], outputs, StackOptions()) == 1
    said = capsys.readouterr()
    assert "1 of 3 stacks denoised" in said.out
    assert "failed: " in said.err and "a.tif" in said.err and "c.tif: no such file" in said.err
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["b.tif"]


def test_what_is_lost_is_told(tmp_path, denoise, random, capsys, monkeypatch):
    values = random.normal(300, 20, (2, 24, 40)).astype(np.float32)
    values[1, 3, 4] = 1e9
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    outputs = {tmp_path / "a.tif": tmp_path / "b.tif"}
    assert denoise_stacks([denoise], outputs, StackOptions(dtype="uint8")) == 0
    said = capsys.readouterr().err
    assert "1 pixel far beyond the others" in said and "are clipped to what uint8 holds" in said
    scaled = denoise.scaled
    monkeypatch.setattr(denoise, "scaled", lambda *a, **k: scaled(*a, **k) * 0)
    assert denoise_stacks([denoise], outputs, StackOptions()) == 0
    assert "the mean changed by" in capsys.readouterr().err


def test_an_unexpected_error_does_not_stop_the_others(
    tmp_path, array, denoise, capsys, monkeypatch
):
    for name in "a.tif", "b.tif":
        tifffile.imwrite(tmp_path / name, array[:, 0], photometric="minisblack")
    outputs = {tmp_path / name: tmp_path / "out" / name for name in ("a.tif", "b.tif")}
    begin, seen = stacks.partial_stack_file, []

    def failing(*args):
        seen.append(args)
        if len(seen) == 1:
            raise RuntimeError("a bug")
        return begin(*args)

    monkeypatch.setattr(stacks, "partial_stack_file", failing)
    assert denoise_stacks([denoise], outputs, StackOptions()) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "a.tif: a bug" in said
    assert (tmp_path / "out" / "b.tif").exists()


def test_missing_values_are_refused_or_filled(tmp_path, array, denoise, capsys):
    values = array[:, 0].astype(np.float32)
    values[3, 5, 6] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    outputs = {tmp_path / "a.tif": tmp_path / "b.tif"}
    assert denoise_stacks([denoise], outputs, StackOptions()) == 1
    assert "--nan fill" in capsys.readouterr().err
    assert not (tmp_path / "b.tif").exists()
    assert denoise_stacks([denoise], outputs, StackOptions(nan="fill")) == 0
    assert "1 values that were not finite are filled" in capsys.readouterr().err
    assert np.isfinite(tifffile.imread(tmp_path / "b.tif")).all()


def test_a_missing_value_is_named_where_it_is(array, denoise, monkeypatch):
    """Also in a plane that the statistics are not taken of."""
    monkeypatch.setattr(scaling, "_PLANES", 1)
    values = array.astype(np.float32)
    values[3, 1, 5, 6] = np.inf
    with pytest.raises(ImageError, match="at T 3, C 1"):
        denoise_stack(array_stack(values, "TCYX"), [denoise], StackOptions())
    # In a selection, too, it is its place in the file.
    with pytest.raises(ImageError, match="at T 3, C 1"):
        denoise_stack(array_stack(values, "TCYX"), [denoise], StackOptions(select="t=2:,c=1"))


def test_a_missing_value_around_a_part_is_refused_or_filled(random, monkeypatch):
    """The network would see it."""
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    monkeypatch.setattr(scaling, "_PLANES", 1)
    values = random.normal(500, 20, (2, 520, 8)).astype(np.float32)
    values[1, 515, 4] = np.nan
    stack, model = array_stack(values, "TYX"), small("n2v-unet")
    with pytest.raises(ImageError, match=r"at T 1.*--nan fill"):
        denoise_stack(stack, [model], StackOptions())
    assert np.isfinite(denoise_stack(stack, [model], StackOptions(nan="fill"))).all()


def test_faulty_pixels_of_a_part_are_those_of_the_plane(random, monkeypatch):
    """They are looked for once, are counted once, and stay as they are."""
    values = random.normal(500, 20, (1, 1030, 12)).astype(np.float32)
    hot = [(0, 100, 5), (0, 511, 5), (0, 1025, 5)]
    for place in hot:
        values[place] = 1e6
    stack, model = array_stack(values, "TYX"), small("n2v-unet")
    with pytest.warns(CbsnWarning, match="3 pixels far beyond the others"):
        whole = denoise_stack(stack, [model], StackOptions())
    monkeypatch.setattr(stack_steps, "_BLOCK", 512)
    with pytest.warns(CbsnWarning, match="3 pixels far beyond the others"):
        parts = denoise_stack(stack, [model], StackOptions())
    assert all(whole[place] == parts[place] == 1e6 for place in hot)
    usual = np.ones(values.shape, bool)
    for place in hot:
        usual[place] = False
    np.testing.assert_allclose(parts[usual], whole[usual], rtol=1e-4)


def test_an_interrupted_file_is_continued(tmp_path, array, monkeypatch, capsys):
    monkeypatch.setattr(stack_steps, "_AT_ONCE", 1)
    tifffile.imwrite(tmp_path / "a.tif", array[:, 0], photometric="minisblack")
    outputs = {tmp_path / "a.tif": tmp_path / "b.tif"}
    denoiser, seen = small(), []
    scaled = denoiser.scaled

    def counting(planes, *rest, **options):
        if len(seen) == 3:
            seen.append("stopped")
            raise KeyboardInterrupt
        seen.append(planes)
        return scaled(planes, *rest, **options)

    monkeypatch.setattr(denoiser, "scaled", counting)
    with pytest.raises(KeyboardInterrupt):
        denoise_stacks([denoiser], outputs, StackOptions())
    assert "the same command goes on from there" in capsys.readouterr().err
    assert not (tmp_path / "b.tif").exists()
    assert denoise_stacks([denoiser], outputs, StackOptions()) == 0
    # At most the plane that was being written is denoised again.
    assert len(seen) - 1 in (5, 6)
    assert "going on" in capsys.readouterr().out
    expected = denoise_stack(
        array_stack(array[:, 0], "TYX"), [small_copy(denoiser)], StackOptions()
    )
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), expected)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_dropped_metadata_are_told(tmp_path, array, denoise, capsys):
    pytest.importorskip("zarr")
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"Info": "objective 63x"})
    for name, is_told in ("b.tif", False), ("b.ome.zarr", True):
        outputs = {tmp_path / "a.tif": tmp_path / name}
        assert denoise_stacks([denoise], outputs, StackOptions()) == 0
        note = "a.tif: the result in OME-Zarr lacks some metadata of the source: Info."
        assert (note in capsys.readouterr().err) is is_told


def _stop_early(monkeypatch, denoiser, outputs):
    """Denoises a plane or two, and is interrupted."""
    scaled, seen = denoiser.scaled, []

    def stopping(planes, *rest, **options):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(planes)
        return scaled(planes, *rest, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(denoiser, "scaled", stopping)
        denoise_stacks([denoiser], outputs, StackOptions(normalize="300,500"))


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_folder_that_has_changed_is_begun_again(
    tmp_path, array, monkeypatch, capsys, denoise, is_changed
):
    """Though the folder's own time is the same when a chunk in it is another one."""
    zarr = pytest.importorskip("zarr")
    monkeypatch.setattr(stack_steps, "_AT_ONCE", 1)
    source, target = tmp_path / "a.ome.zarr", tmp_path / "out" / "a.ome.zarr"
    layout = Layout("TYX", array[:, 0].shape, array.dtype, "array")
    file = create_ome_zarr(source, [layout], resume=False)
    for number, plane in enumerate(array[:, 0]):
        file.write(0, (number,), slice(0, 24), slice(0, 40), plane)
    file.close()
    _stop_early(monkeypatch, denoise, {source: target})
    capsys.readouterr()
    if is_changed:
        chunks = zarr.open_array(str(source / "0"), mode="r+")
        chunks[0] = chunks[0][::-1]
        # Whatever the file system's clock, this is later.
        chunk = source / "0" / "c" / "0" / "0" / "0"
        os.utime(chunk, ns=(0, chunk.stat().st_mtime_ns + 10**9))
    options = StackOptions(normalize="300,500")
    assert denoise_stacks([denoise], {source: target}, options) == 0
    assert ("going on" in capsys.readouterr().out) is not is_changed
    assert denoise_stacks([denoise], {source: tmp_path / "b.ome.zarr"}, options) == 0
    found, expected = (
        zarr.open_array(str(path / "0"), mode="r")[:] for path in (target, tmp_path / "b.ome.zarr")
    )
    np.testing.assert_array_equal(found, expected)


def test_each_file_of_a_set_counts_for_what_is_read(tmp_path):
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><UUID FileName="b.tif"/>'
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8)), description=f"{text}</OME>")
    (tmp_path / "b.tif").write_bytes(b"first")
    before = stacks.source_state(tmp_path / "a.tif")
    assert stacks.source_state(tmp_path / "a.tif") == before
    (tmp_path / "b.tif").write_bytes(b"another")
    assert stacks.source_state(tmp_path / "a.tif") != before


def small_copy(denoiser):
    return Denoiser(denoiser.recipe, denoiser.network, OPTIONS)


def test_pictures_by_a_model_of_stacks(array):
    """Their own values are what the network was trained on."""
    trained = small(scaling=SCALING.to_dict())
    picture = array[0, 0]
    expected = trained.scaled(picture[None], SCALING.of(0))[0]
    np.testing.assert_array_equal(trained(picture), expected)
    np.testing.assert_array_equal(trained.batch(picture[None, ..., None])[0, ..., 0], expected)


@pytest.fixture
def defective(random):
    """Six frames, with a hot pixel, and with a cosmic ray in one frame."""
    frames = random.poisson(400, (6, 48, 56)).astype(np.uint16)
    frames[:, 20, 30] = 3000
    frames[3, 10, 11] = 60_000
    return frames


def _repairing(denoiser, repair):
    return Denoiser(denoiser.recipe, denoiser.network, dataclasses.replace(OPTIONS, repair=repair))


def test_defects_are_repaired_before_and_told(defective, denoise):
    """The result is that of a stack without them, and no pixel stays as it is."""
    mended = defective.copy()
    for frame in mended:
        frame[20, 30] = np.rint(np.median(np.delete(frame[19:22, 29:32].ravel(), 4)))
    mended[3, 10, 11] = np.median(mended[3, 9:12, 10:13])
    scaled = StackOptions(normalize="300,500")
    with pytest.warns(CbsnWarning) as told:
        result = denoise_stack(
            array_stack(defective, "TYX"), [_repairing(denoise, "pixels")], scaled
        )
    texts = [str(each.message) for each in told]
    assert "The stack: 1 hot pixel repaired in all planes." in texts
    assert any("1 more value far beyond all others repaired" in text for text in texts)
    assert not any("stay as they are" in text for text in texts)
    expected = denoise_stack(array_stack(mended, "TYX"), [denoise], scaled)
    np.testing.assert_array_equal(result, expected)


def test_a_part_of_a_repaired_stack_is_as_in_the_whole(defective, denoise):
    """Whatever is selected, and though the hot pixel cannot be told in two frames."""
    stack, repairing = array_stack(defective, "TYX"), _repairing(denoise, "pixels,rows")
    with pytest.warns(CbsnWarning, match="1 hot pixel repaired"):
        whole = denoise_stack(stack, [repairing], StackOptions(normalize="300,500"))
        part = denoise_stack(stack, [repairing], StackOptions(normalize="300,500", select="t=3:5"))
    # Networks round otherwise where they take fewer planes at once.
    np.testing.assert_allclose(part, whole[3:5], atol=1)


def test_repairs_are_offered(defective, denoise):
    with pytest.warns(CbsnWarning) as told:
        denoise_stack(array_stack(defective, "TYX"), [denoise], StackOptions())
    texts = [str(each.message) for each in told]
    assert any("1 hot pixel in the middle of all planes" in text for text in texts)
    # The brightest one stays, as it lies far beyond the others.
    assert any("stay as they are; cbsn denoise --repair pixels" in text for text in texts)


def test_adaptation_reads_repaired_stacks(defective, denoise, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", defective, photometric="minisblack")
    for repair, value in ((None, 3000), ("pixels", 400)):
        denoisers = [_repairing(denoise, repair)]
        with open_scaled(tmp_path / "a.tif", denoisers, StackOptions()) as stacks:
            ((stack, _),) = stacks
            assert stack.read((2,))[20, 30] == pytest.approx(value, abs=100)


def test_values_beyond_a_narrower_float_are_clipped(denoise, random):
    values = random.poisson(100, (2, 24, 40)) * 1e200
    options = StackOptions(dtype="float32")
    with pytest.warns(CbsnWarning, match=r"^.*100\.0% of the values are clipped to what float32"):
        result = denoise_stack(array_stack(values, "TYX"), [denoise], options)
    assert result.dtype == np.float32 and np.isfinite(result).all()
