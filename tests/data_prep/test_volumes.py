"""Patches of volumes, from the file to the record."""

import itertools
import json
import re

import numpy as np
import pytest
import tifffile

from cbsn.data.manifest import MANIFEST_NAME, Manifest
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.images.stacks.scaling import Scaling
from cbsn.images.stacks.stack import Stack, array_stack, parse_selection
from cbsn.recipes import customised
from data_prep.prepare import depth_for, prepare, prepared_folder
from data_prep.stack_sources import ReadingOptions
from data_prep.volumes import check_depth, first_planes, slabs

SIZE = {"patch_size": 16, "patch_depth": 4}


@pytest.fixture
def save_stack(tmp_path):
    """Writes an array as an OME-TIFF stack; returns its path."""

    def write(array, axes="ZYX", name="a.tif"):
        path = tmp_path / "stacks" / name
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, array, ome=True, metadata={"axes": axes})
        return path

    return write


@pytest.mark.parametrize(
    ("planes", "depth", "expected"),
    [(12, 4, [0, 4, 8]), (13, 4, [0, 4, 8, 9]), (4, 4, [0]), (3, 4, [0]), (5, 4, [0, 1])],
)
def test_patches_reach_the_last_plane(planes, depth, expected):
    assert first_planes(planes, depth) == expected


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "ZTYX", "TZCYX", "CZTYX"])
@pytest.mark.parametrize("planes", [3, 4, 9])
def test_planes_come_in_their_order_and_are_read_once(axes, planes):
    """Also where Z is not the last of the outer axes."""
    sizes = {"T": 2, "Z": planes, "C": 3, "Y": 2, "X": 2}
    shape = [sizes[axis] for axis in axes]
    values = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    stack = array_stack(values, axes)
    read = []

    def read_plane(index):
        read.append(index)
        return stack.read(index)[..., None]

    volumes = np.moveaxis(values, axes.index("Z"), -3).reshape(-1, planes, 2, 2, 1)
    volumes = np.pad(volumes, [(0, 0), (0, max(0, 4 - planes)), *[(0, 0)] * 3], mode="reflect")
    expected = [v[z : z + 4] for v in volumes for z in first_planes(planes, 4)]
    found = [each.copy() for each in slabs(stack.layout, 4, read_plane)]
    np.testing.assert_array_equal(found, expected)
    assert sorted(read) == sorted({*read}) and len(read) == stack.layout.planes


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ("TYX", (20, 8, 8), "no axis Z for patches of 8 planes, but T 20.*--axes ZYX"),
        ("TCYX", (20, 2, 8, 8), "--axes ZCYX"),
        ("CYX", (20, 8, 8), "--axes ZYX"),
        ("ZYX", (4, 8, 8), "too few planes along Z for patches of 8: 4. Use --patch_depth 7 or l"),
        ("ZYX", (3, 8, 8), "Use --patch_depth 5 or less, or a network in two dimensions"),
        ("ZYX", (2, 8, 8), "--patch_depth 3 or less with cbsn train --mask_cell 3, or"),
        ("ZYX", (1, 8, 8), "1. Use a network in two dimensions"),
    ],
)
def test_stacks_without_depth_are_refused(axes, shape, message):
    with pytest.raises(ImageError, match=message):
        check_depth(array_stack(np.zeros(shape, "uint8"), axes).layout, 8)


@pytest.mark.parametrize("planes", [2, 3, 5, 20])
def test_what_is_advised_for_thin_stacks_works(save_stack, out, planes):
    path = save_stack(np.zeros((planes, 16, 16), "uint8"))
    depths = {"patch_size": 16, "patch_depth": 64}
    with pytest.raises(ConfigError) as caught:
        prepare(path, out=out, **depths)
    advised = dict(re.findall(r"--(patch_depth|mask_cell) (\d+)(?: or|,)", str(caught.value)))
    advised = {name: int(value) for name, value in advised.items()}
    assert customised("n2v-unet-3d", **advised).build_network()
    depth = advised["patch_depth"]
    with pytest.raises(ConfigError, match="too few planes"):
        prepare(path, out=out, patch_size=16, patch_depth=depth + 1)
    prepare(path, out=out, patch_size=16, patch_depth=depth)
    assert PatchRecords.open(out).patch_depth == depth


def test_reflections_are_fewer_than_the_planes():
    check_depth(array_stack(np.zeros((5, 8, 8), "uint8"), "ZYX").layout, 8)


@pytest.mark.parametrize(
    ("axes", "select"),
    [("ZYX", None), ("TZCYX", None), ("CZYX", "c=1"), ("TCZYX", "t=1,z=2:"), ("ZCYX", "y=8:")],
)
@pytest.mark.parametrize("stride", [16, 10])
def test_records_hold_the_scaled_voxels(save_stack, random, out, axes, select, stride):
    """At the places that the manifest states; they cover all voxels of each channel."""
    sizes = {"T": 2, "Z": 10, "C": 2, "Y": 40, "X": 48}
    shape = [sizes[axis] for axis in axes]
    values = random.normal(100, 20, shape).astype("float32")
    prepare(save_stack(values, axes), out=out, select=select, stride=stride, **SIZE)
    records = PatchRecords.open(out)
    manifest = records.manifest
    scaling = Scaling.from_dict(manifest.scaling)
    stack = array_stack(values, axes).selected(parse_selection(select))
    (source,) = manifest.sources
    others = [axis for axis in source.axes if axis != "Z"]
    covered = {}
    for (_, number), patch in zip(records.patches(), records, strict=True):
        counts = *map(stack.layout.size, others), *map(len, source.corners)
        place = np.unravel_index(number, counts)
        position = dict(zip(others, place, strict=False))
        z, y, x = (axis[n] for axis, n in zip(source.corners, place[len(others) :], strict=True))
        for plane in range(4):
            at = {**position, "Z": z + plane}
            whole = stack.read([at[axis] for axis in stack.layout.outer])
            scale = scaling.of(position.get("C", 0))
            expected = scale.apply(whole[y : y + 16, x : x + 16])
            np.testing.assert_array_equal(patch[plane, ..., 0], expected)
            done = covered.setdefault(tuple(at.values()), np.zeros(whole.shape, bool))
            done[y : y + 16, x : x + 16] = True
    assert len(covered) == stack.layout.planes
    assert all(each.all() for each in covered.values())
    assert (manifest.patch_depth, records.patch_depth, manifest.patch_size) == (4, 4, 16)
    assert patch.shape == (4, 16, 16, 1)
    assert source.pixels == stack.layout.planes * whole.size and not source.uncovered


def test_thin_volumes_are_reflected(save_stack, random, out):
    values = random.random((3, 10, 20)).astype("float32")
    report = prepare(save_stack(values), out=out, normalize="0,1", **SIZE)
    assert "2 patches of 4x16x16 float32" in str(report) and "reflect-padded: 1" in str(report)
    for patch in PatchRecords.open(out):
        np.testing.assert_array_equal(patch[3], patch[1])
        np.testing.assert_array_equal(patch[:, 9:, :], patch[:, 9:2:-1, :])
    (source,) = Manifest.read(out).sources
    assert source.pixels == 4 * 16 * 20


def test_colours_are_kept(random, out, tmp_path):
    pixels = random.integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    prepare(path, out=out, axes="ZYXS", normalize="0,1", **SIZE)
    (patch,) = PatchRecords.open(out)
    np.testing.assert_array_equal(patch, pixels)


def test_values_that_are_not_finite_count_once(save_stack, random, out):
    """Though their plane lies in two patches."""
    values = random.normal(size=(5, 16, 16)).astype("float32")
    values[2, 3, 3:6] = np.nan
    path = save_stack(values)
    with pytest.raises(DataError, match="--nan fill"):
        prepare(path, out=out, **SIZE)
    report = prepare(path, out=out, nan="fill", **SIZE)
    assert "a.tif: 3 values that are not finite" in str(report)
    assert all(np.isfinite(patch).all() for patch in PatchRecords.open(out))


def test_memory_is_that_of_a_patch_deep(save_stack, random, out, monkeypatch):
    """Planes are read when they are needed; those before are gone by then."""
    path = save_stack(random.random((12, 32, 32)).astype("float32"))
    events = []
    read = Stack.read
    monkeypatch.setattr(Stack, "read", lambda *given: events.append(given[1]) or read(*given))
    prepare(path, out=out, **SIZE)
    assert events[-12:] == [(z,) for z in range(12)]


def test_depth_is_the_axis_that_it_is_named(save_stack, random, out):
    """A series in time serves as a volume on demand."""
    path = save_stack(random.random((6, 16, 16)).astype("float32"), "TYX")
    with pytest.raises(ConfigError, match=r"a.tif: has no axis Z.*--axes ZYX.*--patch_depth 4"):
        prepare(path, out=out, **SIZE)
    assert not out.exists()
    prepare(path, out=out, axes="ZYX", **SIZE)
    assert len(PatchRecords.open(out)) == 2


def test_stacks_that_are_too_thin_are_reported(save_stack, random, out):
    values = random.random((6, 16, 16)).astype("float32")
    save_stack(values)
    thin = save_stack(values[:2], name="thin.tif")
    report = prepare(out.parent / "stacks", out=out, **SIZE)
    assert [each.path for each in report.failed] == ["thin.tif"]
    assert "too few planes along Z for patches of 4: 2" in report.failed[0].reason
    assert len(PatchRecords.open(out)) == 2
    with pytest.raises(ConfigError, match=r"thin.tif: has too few planes"):
        prepare(thin, out=out.with_name("other"), **SIZE)
    with pytest.raises(ConfigError, match="Nothing is selected on the axis Z"):
        prepare(thin, out=out.with_name("other"), select="z=9", **SIZE)


@pytest.mark.parametrize("dataset", ["photos", "SIDD_VAL"])
def test_pictures_have_no_depth(photos, out, dataset):
    dataset = photos if dataset == "photos" else dataset
    with pytest.raises(ConfigError, match=r"pictures, which have no depth.*--patch_depth 4"):
        prepare(dataset, out=out, **SIZE)
    assert not out.exists()


def test_each_depth_has_a_data_set(save_stack, random, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save_stack(random.random((6, 32, 32)).astype("float32"))
    folders = [prepare(path, patch_depth=depth, patch_size=16).out for depth in (1, 3, 4)]
    assert [each.name for each in folders] == ["stacks16", "stacks3x16", "stacks4x16"]
    assert prepared_folder(path, 16, patch_depth=3) == folders[1]
    assert "already done: 1" in str(prepare(path, patch_depth=3, patch_size=16))
    with pytest.raises(ConfigError, match=r"patch_depth 3 \(now 4\).*--patch_depth 4 .*--force"):
        prepare(path, out=folders[1], patch_depth=4, patch_size=16)


@pytest.mark.parametrize(
    ("planes", "expected"), [([40], 32), ([20], 20), ([40, 20], 20), ([40, 9], 16), ([10], 16)]
)
def test_patches_are_deeper_than_their_crops(save_stack, planes, expected):
    """As deep as the stacks allow, up to twice the crop; too thin ones do not count."""
    for number, count in enumerate([*planes, 5]):
        save_stack(np.zeros((count, 8, 8), "uint8"), name=f"{number}.tif")
    folder = str(save_stack(np.zeros((99, 8, 8), "uint8")).parent)
    assert depth_for(folder, 16, ReadingOptions()) == expected


def test_manifests_of_planes_are_as_before(save_stack, random, out):
    prepare(save_stack(random.random((6, 16, 16)).astype("float32")), out=out, patch_size=16)
    fields = json.loads((out / MANIFEST_NAME).read_text())
    assert [*fields][-6:] == ["white", "channels", "axes", "select", "normalize", "scaling"]
    assert [*fields["sources"][0]][-5:] == ["image", "stack", "axes", "shape", "filled"]


@pytest.mark.parametrize(
    "change",
    [
        {"patch_depth": 0},
        {"patch_depth": 1},
        {"patch_depth": 5},
        {"patch_depth": 10**9},
        {"patch_depth": "4"},
        {"kind": "folder"},
        *(
            {"sources": each}
            for each in (
                {"axes": "Z"},
                {"axes": "ZT"},
                {"shape": [2, 9]},
                {"shape": [3, 10]},
                {"corners": []},
                {"corners": 3},
                {"corners": [[0, 4, 6], [0, 16], []]},
                {"corners": [[0, 4, 6], [0, 16], [0, 16.0]]},
                {"corners": [[0, 4, 7], [0, 16], [0, 16]]},
                {"corners": [[0, 6, 4], [0, 16], [0, 16]]},
                {"corners": [[0, 4, 6], [0, 16], [-1, 16]]},
                {"corners": [[0, 4, 6], [0, 16], [0]]},
                {"patches": 12},
            )
        ),
    ],
)
def test_damaged_manifests_are_noticed(save_stack, random, out, change):
    prepare(save_stack(random.random((2, 10, 32, 32)).astype("float32"), "TZYX"), out=out, **SIZE)
    fields = json.loads((out / MANIFEST_NAME).read_text())
    assert fields["sources"][0]["corners"] == [[0, 4, 6], [0, 16], [0, 16]]
    assert Manifest.read(out).sources[0].shape == (2, 10)
    change = dict(change)
    fields["sources"][0].update(change.pop("sources", {}))
    fields.update(change)
    (out / MANIFEST_NAME).write_text(json.dumps(fields))
    with pytest.raises(DataError, match="cannot be used as the manifest"):
        Manifest.read(out)


def test_what_a_patch_is_from_in_words(save_stack, random, out):
    values = random.random((2, 10, 16, 16)).astype("float32")
    prepare(save_stack(values, "CZYX"), out=out, **SIZE)
    records = PatchRecords.open(out)
    found = {records.describe(index).rsplit("a.tif, ")[1] for index in range(len(records))}
    places = itertools.product(range(2), (0, 4, 6))
    assert found == {f"C {c}, Z {z})" for c, z in places}
