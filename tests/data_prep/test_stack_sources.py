import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.manifest import MANIFEST_NAME, STACK, Manifest
from cbsn.data.records import PatchRecords, channel_of
from cbsn.errors import ConfigError, DataError
from cbsn.images.stacks.scaling import Scaling
from cbsn.images.stacks.stack import parse_selection
from data_prep import convert
from data_prep.prepare import prepare, prepared_folder
from data_prep.stack_sources import ReadingOptions

SIZE = {"patch_size": 16}


@pytest.fixture
def save_stack(tmp_path):
    """Writes an array as an OME-TIFF stack; returns its path."""

    def write(name, array, axes):
        path = tmp_path / "stacks" / name
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, array, ome=True, metadata={"axes": axes})
        return path

    return write


@pytest.fixture
def series(random):
    """Two channels of different ranges, int16, TCYX."""
    values = random.normal(0, 300, (6, 2, 32, 48)) + np.array([0, 9000])[:, None, None]
    return values.astype("int16")


def _patches(out):
    """All patches by stack, plane and place."""
    records = PatchRecords.open(out)
    found = {}
    for (source, number), patch in zip(records.patches(), records, strict=True):
        found[source.path, source.image, number] = source, patch
    return found


def _cut(plane, size=16):
    return [
        plane[top : top + size, left : left + size]
        for top in range(0, plane.shape[0] - size + 1, size)
        for left in range(0, plane.shape[1] - size + 1, size)
    ]


@pytest.mark.parametrize("select", [None, "c=1", "t=2:5,c=0:1", "y=16:,c=0:2"])
@pytest.mark.parametrize("normalize", ["auto", "percentile", "range", "dtype", "-5,90000.5"])
def test_records_hold_the_exact_scaled_values(save_stack, series, out, select, normalize):
    """Neither clipped nor rounded; the scaling is that of all planes, whatever is selected."""
    path = save_stack("a.tif", series, "TCYX")
    prepare(path, out=out, select=select, normalize=normalize, **SIZE)
    manifest = Manifest.read(out)
    chosen = parse_selection(select)
    part = series[tuple(chosen.get(axis, slice(None)) for axis in "TCYX")]
    scaling = Scaling.from_dict(manifest.scaling)
    assert len(scaling.channels) == part.shape[1]
    of_all = np.arange(2)[chosen.get("C", slice(None))]
    for scale, channel in zip(scaling.channels, of_all, strict=True):
        values = series[:, channel].astype(float)
        assert (scale.mean, scale.deviation) == pytest.approx((values.mean(), values.std()))
        expected = {
            "auto": (values.mean(), values.mean() + values.std()),
            "percentile": tuple(np.percentile(values, (0.1, 99.9))),
            "dtype": (-32768, 32767),
            "-5,90000.5": (-5, 90000.5),
            "range": (scale.low, scale.high),
        }
        assert (scale.low, scale.high) == pytest.approx(expected[normalize])
    found = _patches(out)
    number = 0
    for t in range(part.shape[0]):
        for c in range(part.shape[1]):
            for corner in _cut(part[t, c]):
                source, patch = found["a.tif", 0, number]
                assert channel_of(source, number) == c
                np.testing.assert_array_equal(patch[..., 0], scaling.of(c).apply(corner))
                number += 1
    assert len(found) == number
    assert (manifest.kind, manifest.channels, manifest.dtype) == (STACK, 1, "float32")


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
def test_any_range_is_kept(save_stack, random, out, dtype):
    values = (random.normal(1e6, 30, (5, 16, 16))).astype(dtype)
    prepare(save_stack("a.tif", values, "ZYX"), out=out, **SIZE)
    scale = Scaling.from_dict(Manifest.read(out).scaling).of(0)
    patches = {number: patch for (_, _, number), (_, patch) in _patches(out).items()}
    for number, plane in enumerate(values):
        np.testing.assert_array_equal(patches[number][..., 0], scale.apply(plane))
        back = scale.undo(patches[number][..., 0])
        np.testing.assert_allclose(back, plane.astype(float), atol=1e-3)


def test_several_files_have_one_scaling(save_stack, random, out):
    """That of all values together."""
    parts = [random.normal(size * 10, size, (size, 16, 16)).astype("float32") for size in (3, 6)]
    for number, part in enumerate(parts):
        save_stack(f"{number}.tif", part, "TYX")
    report = prepare(out.parent / "stacks", out=out, **SIZE)
    values = np.concatenate(parts).astype(float)
    scale = Scaling.from_dict(Manifest.read(out).scaling).of(0)
    expected = [values.mean(), values.std(), values.mean(), values.mean() + values.std()]
    assert [scale.mean, scale.deviation, scale.low, scale.high] == pytest.approx(expected)
    assert "9 patches of 16x16 float32 from 2 of 2 images" in str(report)
    assert "1.tif: T 6, Y 16, X 16, float32\nAll are scaled by mean" in str(report)


@pytest.mark.parametrize(("method", "expected"), [("range", (0, 90)), ("percentile", (5, 65))])
def test_ranges_hold_all_and_percentiles_are_averaged(save_stack, out, method, expected):
    flat = np.ones((1, 16, 16), "uint8")
    save_stack("0.tif", np.concatenate([0 * flat, 40 * flat]), "TYX")
    save_stack("1.tif", np.concatenate([10 * flat, 90 * flat]), "TYX")
    prepare(out.parent / "stacks", out=out, normalize=method, **SIZE)
    scale = Scaling.from_dict(Manifest.read(out).scaling).of(0)
    assert (scale.low, scale.high) == pytest.approx(expected)


def test_rgb_keeps_its_colours_without_alpha(save_stack, random, out, tmp_path):
    pixels = random.integers(0, 256, (3, 16, 16, 4)).astype("uint8")
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"])
    prepare(path, out=out, **SIZE)
    manifest = Manifest.read(out)
    assert manifest.channels == 3
    scale = Scaling.from_dict(manifest.scaling).of(0)
    for (_, _, number), (_, patch) in _patches(out).items():
        np.testing.assert_array_equal(patch, scale.apply(pixels[number, ..., :3]))


def test_small_planes_are_padded_and_patches_reach_all_edges(save_stack, random, out):
    report = prepare(
        save_stack("a.tif", random.random((2, 40, 300)).astype("float32"), "TYX"), out=out
    )
    manifest = Manifest.read(out)
    assert (manifest.patch_size, manifest.stride) == (128, 128)
    assert len(PatchRecords.open(out)) == 2 * 3  # in each plane at 0, 128 and 172
    assert "reflect-padded: 1" in str(report)
    _, patch = _patches(out)["a.tif", 0, 0]
    np.testing.assert_array_equal(patch[39:79], patch[39::-1][:40])


def test_values_that_are_not_finite(save_stack, random, out):
    """Refused by default; filled if wanted, which is said."""
    values = random.normal(size=(4, 16, 16)).astype("float32")
    save_stack("good.tif", values, "TYX")
    values[2, 3, 3:5] = np.nan, np.inf
    save_stack("bad.tif", values, "TYX")
    folder = out.parent / "stacks"
    report = prepare(folder, out=out, **SIZE)
    assert [each.path for each in report.failed] == ["bad.tif"]
    assert "--nan fill" in report.failed[0].reason
    assert len(PatchRecords.open(out)) == 4  # none of the planes before
    report = prepare(folder, out=out, nan="fill", **SIZE)
    assert "bad.tif: 2 values that are not finite" in str(report)
    assert all(np.isfinite(patch).all() for patch in PatchRecords.open(out))
    assert len(PatchRecords.open(out)) == 8
    assert len(prepare(folder, out=out, **SIZE).failed) == 1
    with pytest.raises(DataError, match="--nan fill"):
        prepare(folder / "bad.tif", **SIZE)


def test_stacks_and_pictures_are_not_mixed(save_stack, series, out):
    save_stack("a.tif", series, "TCYX")
    Image.new("RGB", (32, 32)).save(out.parent / "stacks/b.png")
    with pytest.raises(
        DataError, match=r"stacks, such as .*a\.tif, and pictures, such as .*b\.png"
    ):
        prepare(out.parent / "stacks", out=out, **SIZE)


def test_a_damaged_stack_among_pictures_does_not_stop_them(save_stack, series, out):
    path = save_stack("a.tif", series, "TCYX")
    Image.new("RGB", (32, 32)).save(out.parent / "stacks/b.png")
    whole = path.read_bytes()
    # The first page claims a compression that there is not.
    at = whole.index(b"\x03\x01\x03\x00\x01\x00\x00\x00")
    path.write_bytes(whole[: at + 8] + b"\x77\x77" + whole[at + 10 :])
    report = prepare(out.parent / "stacks", out=out, **SIZE)
    assert [each.path for each in report.failed] == ["a.tif"]
    assert Manifest.read(out).kind == "folder"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"white": 255.0}, "omit --white"),
        ({"select": "c=5"}, r"a.tif: Nothing is selected on the axis C"),
        ({"select": "z=1"}, r"no axis Z"),
        ({"select": "huh"}, "--select takes"),
        ({"axes": "TT"}, "Axes are letters"),
        ({"normalize": "model"}, "--normalize model"),
        ({"normalize": "2,1"}, "--normalize takes"),
        ({"nan": "keep"}, "--nan takes"),
    ],
)
def test_what_does_not_fit_stacks_is_refused(save_stack, series, out, flags, message):
    path = save_stack("a.tif", series, "TCYX")
    with pytest.raises(ConfigError, match=message):
        prepare(path, out=out, **SIZE, **flags)
    assert not (out / MANIFEST_NAME).exists()


def test_different_channels_are_refused(save_stack, series, out):
    save_stack("a.tif", series, "TCYX")
    save_stack("b.tif", series[:, 0], "TYX")
    with pytest.raises(ConfigError, match="2 channels and 1 channel"):
        prepare(out.parent / "stacks", out=out, **SIZE)


@pytest.mark.parametrize("flags", [{"axes": "TYX"}, {"select": "t=1"}, {"nan": "fill"}])
def test_flags_for_stacks_are_refused_with_pictures(photos, out, flags):
    with pytest.raises(ConfigError, match="are for stacks: omit them"):
        prepare(photos, out=out, **SIZE, **flags)


def test_axes_make_stacks_of_single_planes(random, out, tmp_path):
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", random.poisson(300, (40, 40)).astype("uint16"))
    prepare(f"{tmp_path}/*.tif", out=out, axes="YX", **SIZE)
    manifest = Manifest.read(out)
    assert (manifest.kind, len(manifest.sources)) == (STACK, 2)
    assert Scaling.from_dict(manifest.scaling).of(0).mean == pytest.approx(300, rel=0.05)


def test_axes_name_those_of_plain_files(random, out, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random.random((5, 16, 16)).astype("float32"))
    prepare(tmp_path / "a.tif", out=out, axes="zyx", **SIZE)
    assert Manifest.read(out).sources[0].axes == "Z"


@pytest.mark.parametrize(
    "flags", [{"select": "c=1"}, {"normalize": "range"}, {"axes": "TZYX"}, {"stride": 8}]
)
def test_other_settings_are_noticed(random, out, tmp_path, flags):
    """In a folder that the user names; by default they have one of their own."""
    tifffile.imwrite(tmp_path / "a.tif", random.random((2, 2, 16, 16)).astype("float32"))
    given = {"axes": "TCYX", **SIZE}
    prepare(tmp_path / "a.tif", out=out, **given)
    changed = {**given, **flags}
    with pytest.raises(ConfigError, match=next(iter(flags))):
        prepare(tmp_path / "a.tif", out=out, **changed)
    prepare(tmp_path / "a.tif", out=out, force=True, **changed)
    prepare(tmp_path / "a.tif", out=out, **changed)


def test_each_selection_has_a_folder(save_stack, series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save_stack("a.tif", series, "TCYX")
    first = prepare(path).out
    assert first.name == "stacks128"
    second = prepare(path, select="C=1, t=0:3").out
    assert second != first
    assert prepare(path, select="t=0:3,c=1").out == second
    assert "already done: 1" in str(prepare(path))
    for select, folder in ((None, first), ("c=1,t=0:3", second)):
        assert prepared_folder(path, stacks=ReadingOptions(select=select)) == folder


def test_an_interrupted_preparation_goes_on(save_stack, series, out, monkeypatch):
    """File by file, with the same records."""
    for number in range(3):
        save_stack(f"{number}.tif", series + number, "TCYX")
    folder = out.parent / "stacks"
    whole = out.with_name("whole")
    prepare(folder, out=whole, **SIZE)
    write, calls = convert.write_chunk, []

    def stop_at_the_second(chunk):
        calls.append(chunk)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(chunk)

    monkeypatch.setattr(convert, "write_chunk", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, out=out, **SIZE)
    monkeypatch.setattr(convert, "write_chunk", write)
    assert "already done: 1," in str(prepare(folder, out=out, **SIZE))
    first, second = _patches(whole), _patches(out)
    assert first.keys() == second.keys()
    for key, (_, patch) in first.items():
        np.testing.assert_array_equal(patch, second[key][1])


def test_a_new_file_changes_the_scaling_of_all(save_stack, series, out):
    save_stack("a.tif", series, "TCYX")
    folder = out.parent / "stacks"
    prepare(folder, out=out, **SIZE)
    save_stack("b.tif", series + 1000, "TCYX")
    assert "already done: 0" in str(prepare(folder, out=out, **SIZE))
    scaling = Scaling.from_dict(Manifest.read(out).scaling)
    assert scaling.of(0).mean == pytest.approx(series[:, 0].mean() + 500)
    patch = _patches(out)["a.tif", 0, 0][1]
    np.testing.assert_array_equal(patch[..., 0], scaling.of(0).apply(series[0, 0, :16, :16]))


def test_nothing_is_measured_if_all_is_done(save_stack, series, out, monkeypatch):
    path = save_stack("a.tif", series, "TCYX")
    prepare(path, out=out, **SIZE)
    monkeypatch.setattr("data_prep.stack_sources.measure_scaling", None)
    assert "already done: 1" in str(prepare(path, out=out, **SIZE))


def test_one_plane_at_a_time(save_stack, random, out, monkeypatch):
    """Each is read once, and none while another is being cut."""
    path = save_stack("a.tif", random.random((5, 32, 32)).astype("float32"), "TYX")
    events = []
    from cbsn.images.stacks.stack import Stack

    read = Stack.read
    monkeypatch.setattr(Stack, "read", lambda *given: events.append(given[1]) or read(*given))
    prepare(path, out=out, **SIZE)
    assert events[-5:] == [(t,) for t in range(5)]


def test_manifests_of_pictures_lack_what_is_of_stacks(photos, out):
    prepare(photos, out=out, **SIZE)
    fields = json.loads((out / MANIFEST_NAME).read_text())
    names = ("format", "version", "kind", "root", "patch_size", "stride", "offset", "dtype")
    assert [*fields] == [*names, "sources", "shards", "failed", "white"]
    assert [*fields["sources"][0]] == [
        *("path", "size", "mtime_ns", "patches", "padded", "chunk", "first", "dtype", "black"),
        *("white", "pixels", "height", "width", "uncovered"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 2},
        {"scaling": {}},
        {"axes": 3},
        {"dtype": "uint8"},
        {"sources": {"shape": [0, 2]}},
        {"sources": {"shape": [6]}},
        {"sources": {"shape": [7, 2]}},
        {"sources": {"image": "a"}},
    ],
)
def test_damaged_manifests_are_noticed(save_stack, series, out, change):
    prepare(save_stack("a.tif", series, "TCYX"), out=out, **SIZE)
    fields = json.loads((out / MANIFEST_NAME).read_text())
    Manifest.read(out)
    change = dict(change)
    fields["sources"][0].update(change.pop("sources", {}))
    fields.update(change)
    (out / MANIFEST_NAME).write_text(json.dumps(fields))
    with pytest.raises(DataError, match="cannot be used as the manifest"):
        Manifest.read(out)


def test_ome_zarr_folders(random, out, tmp_path):
    zarr = pytest.importorskip("zarr")
    pixels = random.integers(0, 9999, (5, 16, 16)).astype("uint16")
    path = tmp_path / "cells.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array("0", shape=pixels.shape, dtype="uint16")
    array[:] = pixels
    axes = [{"name": name} for name in "tyx"]
    scales = [{"type": "scale", "scale": [1, 1, 1]}]
    datasets = [{"path": "0", "coordinateTransformations": scales}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    prepare(path, out=out, **SIZE)
    manifest = Manifest.read(out)
    assert [source.path for source in manifest.sources] == ["cells.ome.zarr"]
    assert manifest.root == str(tmp_path)
    assert "already done: 1" in str(prepare(path, out=out, **SIZE))
    array[0] = 0
    assert "already done: 0" in str(prepare(path, out=out, **SIZE))


@pytest.fixture
def hot(random):
    """Eight frames with a hot pixel, int32."""
    values = random.normal(500, 20, (8, 32, 48))
    values[:, 10, 20] = 900
    return values.astype("int32")


def test_defects_are_repaired_and_told(save_stack, hot, out):
    path = save_stack("a.tif", hot, "TYX")
    report = prepare(path, out=out, repair="rows,pixels", normalize="0,1", **SIZE)
    assert "a.tif: defective pixels repaired: 1." in str(report)
    manifest = Manifest.read(out)
    assert (manifest.repair, manifest.sources[0].repaired) == ("pixels,rows", 1)
    assert max(patch.max() for _, patch in _patches(out).values()) < 700


def test_data_sets_differ_by_what_is_repaired(save_stack, hot, out, tmp_path, monkeypatch):
    path = save_stack("a.tif", hot, "TYX")
    prepare(path, out=out, **SIZE)
    with pytest.raises(ConfigError, match=r"repair not given \(now pixels\).*--repair pixels"):
        prepare(path, out=out, repair="pixels", **SIZE)
    assert "repair" not in json.loads((out / MANIFEST_NAME).read_text())
    monkeypatch.chdir(tmp_path)
    plain = prepare(path, **SIZE).out
    mended = prepare(path, repair="pixels", **SIZE).out
    assert plain != mended
    for repair, folder in ((None, plain), ("pixels", mended)):
        assert prepared_folder(path, 16, ReadingOptions(repair=repair)).samefile(folder)
        assert "already done: 1" in str(prepare(path, repair=repair, **SIZE))


def test_outliers_of_pictures_are_repaired(tmp_path, out, random):
    pixels = random.normal(100, 5, (64, 64)).astype("uint8")
    pixels[20, 30] = 250
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos/a.png")
    report = prepare(tmp_path / "photos", out=out, repair="pixels", **SIZE)
    assert "a.png: defective pixels repaired: 1." in str(report)
    assert max(patch.max() for patch in PatchRecords.open(out)) < 150
    assert Manifest.read(out).repair == "pixels"


@pytest.mark.parametrize("name", ["SIDD", "DND"])
def test_benchmarks_are_not_repaired(golden, out, name):
    with pytest.raises(ConfigError, match=f"{name} is a benchmark.*omit --repair"):
        prepare(name, source=golden("records/prep_input"), out=out, repair="pixels")
