import numpy as np
import pytest
import tifffile

from cbsn.data.pairs import PairedRecords
from cbsn.data.pipeline import PatchPipeline
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.data.stack_records import (
    NextFrames,
    Subset,
    describe_stacks,
    hold_out,
    is_of_stacks,
    split,
)
from cbsn.errors import ConfigError, DataError
from data_prep.prepare import prepare


@pytest.fixture
def open_stack(tmp_path):
    """Opens the records of stacks whose planes are filled with their numbers, 16 × 32."""

    def begin(*sizes, patch_size=16, **flags):
        folder = tmp_path / "stacks"
        folder.mkdir(exist_ok=True)
        for number, size in enumerate(sizes):
            axes, shape = "".join(size), (*size.values(), 16, 32)
            planes = int(np.prod(shape[:-2]))
            pixels = np.arange(planes, dtype="float32")[:, None, None] + np.zeros((16, 32), "f4")
            pixels[:, :, 16:] += 0.5  # the second place in each plane
            path = folder / f"{number}.tif"
            metadata = {"axes": f"{axes}YX"}
            tifffile.imwrite(path, pixels.reshape(shape), ome=True, metadata=metadata)
        flags.setdefault("normalize", "0,1")
        prepare(folder, out=tmp_path / "out", patch_size=patch_size, **flags)
        return PatchRecords.open(tmp_path / "out")

    return begin


def _values(patches):
    return sorted(float(patch[0, 0, 0]) for patch in patches)


@pytest.mark.parametrize(
    ("sizes", "share", "expected"),
    [
        ([{"T": 30}], 0.1, [4, 14, 24]),
        ([{"T": 5}], 0.1, [4]),
        ([{"T": 4}], 0.1, []),
        ([{"T": 30}], 0, []),
        ([{"T": 8}], 0.25, [1, 5]),
        ([{"T": 8}], 0.5, [0, 2, 4, 6]),
        ([{"T": 20}], 0.01, [10]),
        ([{"T": 5, "C": 2}], 0.1, [8, 9]),  # all channels of a frame
        ([{"C": 2, "T": 5}], 0.1, [4, 9]),
        ([{"T": 3, "Z": 4}], 0.1, [4]),
        ([{"C": 9}], 0.1, []),
        ([{"T": 3}, {"Z": 3}], 0.1, [1]),  # the planes are counted through all files
    ],
)
def test_which_planes_are_held_out(open_stack, sizes, share, expected):
    records = open_stack(*sizes)
    held = hold_out(records, share)
    found = [records[index][0, 0, 0] for index in np.flatnonzero(held.records)]
    assert sorted({float(value) // 1 for value in found}) == expected
    total = sum(int(np.prod([*size.values()])) for size in sizes)
    assert (held.number, held.of) == (len(expected), total)
    assert len(found) == 2 * len(expected)


def test_both_parts_are_all(open_stack):
    records = open_stack({"T": 20}, {"T": 7})
    training, held_out, planes = split(records, 0.2)
    assert _values([*training, *held_out]) == _values(records)
    assert is_of_stacks(training) and is_of_stacks(held_out)
    assert sum(training.counts) == len(training) == 2 * (27 - planes.number)
    assert len(training.counts) == len(records.counts)
    assert training.describe(0).startswith("record ") and ", T " in training.describe(0)


def test_no_patch_of_a_held_out_plane_is_ever_drawn(open_stack):
    training, held_out, _ = split(open_stack({"T": 10}), 0.3)
    pipeline = PatchPipeline(training, 8, 4, channels=1)
    drawn = {float(value) for step in range(20) for value in pipeline.batch(step)[:, 0, 0, 0]}
    assert drawn == {*_values(training)}
    assert drawn.isdisjoint(_values(held_out))


@pytest.mark.parametrize("size", [{"T": 6}, {"T": 6, "C": 2}, {"Z": 2, "T": 6}])
def test_pairs_are_at_the_same_place_one_frame_apart(open_stack, size):
    records = open_stack(size)
    pairs = NextFrames(records)
    axis = [*size].index("T")
    step = int(np.prod([*size.values()][axis + 1 :]))
    found = set()
    for pair in pairs:
        first, second = (float(each) for each in pair[0, 0])
        assert abs(first - second) == step
        frames = [int(value // step) % 6 for value in (first, second)]
        assert abs(frames[0] - frames[1]) == 1
        found.add((first, second))
    # Each once in each order.
    others = int(np.prod([*size.values()])) // 6
    assert len(pairs) == len(found) == 2 * 2 * 5 * others
    assert found == {(second, first) for first, second in found}
    assert sum(pairs.counts) == len(pairs)
    assert pairs.describe(0).count("T ") == 2


def test_no_pair_trained_on_has_a_held_out_frame(open_stack):
    pairs = NextFrames(open_stack({"T": 10}))
    training, held_out, _ = split(pairs, 0.1)
    used = {float(value) // 1 for pair in training for value in pair[0, 0]}
    assert used == {*range(10)} - {4}
    assert {float(value) // 1 for pair in held_out for value in pair[0, 0]} == {3, 4, 5}
    assert training.shots == 2


def test_pairs_need_two_frames(open_stack):
    with pytest.raises(ConfigError, match=r"needs stacks with the axis T.*0.tif: Z 4, Y 16"):
        NextFrames(open_stack({"Z": 4}))


def test_nothing_left_to_train_on_is_refused(open_stack):
    with pytest.raises(ConfigError, match="for 6 planes"):
        split(NextFrames(open_stack({"T": 6})), 0.5)


def test_pairs_are_gray_or_rgb(open_stack):
    pairs = NextFrames(open_stack({"T": 3}))
    batch = PatchPipeline(pairs, 8, 2, channels=1, shots=2).batch(0)
    assert batch.shape == (2, 8, 8, 2)
    with pytest.raises(ConfigError, match="--no-gray"):
        PatchPipeline(pairs, 8, 2, channels=3, shots=2)


def test_second_shots_get_the_scaling_of_the_first(tmp_path, random):
    """Two folders, each scaled by its own values."""
    clean = random.normal(100, 20, (5, 2, 16, 16))
    opened = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        noisy = (clean + random.normal(0, 5, clean.shape)).astype("float32")
        tifffile.imwrite(tmp_path / name / "a.tif", noisy, ome=True, metadata={"axes": "TCYX"})
        prepare(tmp_path / name, out=tmp_path / f"{name}-out", patch_size=16)
        opened.append((noisy, PatchRecords.open(tmp_path / f"{name}-out")))
    (first, records), (second, others) = opened
    pairs = PairedRecords(records, others)
    from cbsn.images.stacks.scaling import Scaling

    scaling = Scaling.from_dict(records.manifest.scaling)
    for index, (_, number) in enumerate(records.patches()):
        t, c = divmod(number, 2)
        for shot, noisy in enumerate((first, second)):
            expected = scaling.of(c).apply(noisy[t, c])
            np.testing.assert_allclose(pairs[index][..., shot], expected, atol=1e-5)
    assert len(split(pairs, 0.2)[1]) == 2


def test_stacks_do_not_pair_with_pictures(open_stack, tmp_path):
    with RecordWriter(tmp_path / "a.tfrecords") as writer:
        writer.write(np.zeros((16, 16, 3), "float32"))
    pictures = PatchRecords([tmp_path / "a.tfrecords"], 16, np.dtype("float32"))
    with pytest.raises(DataError, match="channels 1 and 3"):
        PairedRecords(open_stack({"T": 2}), pictures)


def test_what_there_is_in_words(open_stack):
    (line,) = describe_stacks(open_stack({"T": 2}, normalize="auto").manifest)
    assert line == "0.tif: T 2, Y 16, X 32, float32; scaled by mean 0.75 and deviation 0.55902"
    lines = describe_stacks(open_stack(*[{"T": 2, "C": 2}] * 12, force=True).manifest)
    assert lines[8:] == [
        "and 4 more",
        "All are scaled in channel 0 from 0 to 1, in channel 1 from 0 to 1",
    ]


def test_subsets_count_by_file(open_stack):
    records = open_stack({"T": 3}, {"T": 3})
    assert records.counts == [6, 6]
    part = Subset(records, np.array([0, 5, 6, 11]))
    assert part.counts == [2, 2] and len(part) == 4
    np.testing.assert_array_equal(part[2], records[6])


def test_stacks_of_one_color_are_written_and_read(tmp_path, random):
    patches = random.normal(size=(3, 8, 8, 1)).astype("float32")
    with RecordWriter(tmp_path / "a.tfrecords") as writer:
        for patch in patches:
            writer.write(patch)
        with pytest.raises(DataError, match=r"must be float32 of shape \(8, 8, 1\)"):
            writer.write(np.zeros((8, 8, 3), "float32"))


@pytest.fixture
def open_volumes(tmp_path, random):
    """Opens records of volumes whose voxels all differ."""

    def begin(*shapes, axes="ZYX", **flags):
        folder = tmp_path / "volumes"
        folder.mkdir()
        first = 0
        for number, shape in enumerate(shapes):
            voxels = first + np.arange(np.prod(shape), dtype="float32").reshape(shape)
            first += voxels.size
            metadata = {"axes": axes}
            tifffile.imwrite(folder / f"{number}.tif", voxels, ome=True, metadata=metadata)
        flags = {"normalize": "0,1", "patch_size": 16, "patch_depth": 4, **flags}
        prepare(folder, out=tmp_path / "out", **flags)
        return PatchRecords.open(tmp_path / "out")

    return begin


@pytest.mark.parametrize(
    ("shapes", "share", "flags", "count", "others"),
    [
        ([(12, 48, 64)], 0.1, {}, 4, 0),
        ([(12, 48, 64)], 0.5, {}, 18, 0),
        ([(12, 48, 64)], 0, {}, 0, 0),
        ([(4, 32, 32)], 0.1, {}, 0, 0),  # too few
        ([(8, 32, 32), (4, 16, 16)], 0.1, {}, 1, 0),
        ([(14, 50, 50)], 0.1, {}, 6, None),  # patches at the edges overlap others
        ([(12, 48, 64)], 0.02, {"stride": 8}, 2, None),
        ([(6, 24, 24)], 0.1, {}, 0, 0),  # all overlap
    ],
)
def test_patches_of_volumes_are_held_out_with_all_that_overlap(
    open_volumes, shapes, share, flags, count, others
):
    """No voxel is both trained on and held out."""
    records = open_volumes(*shapes, **flags)
    held = hold_out(records, share)
    assert (held.number, held.of) == (count, len(records))
    assert held.records.sum() == count
    training, held_out, again = split(records, share)
    assert again.number == count
    if not count:
        assert training is records and held_out is None
        return
    assert not (held.records & held.overlapping).any()
    if others is not None:
        assert held.overlapping.sum() == others
    voxels = [{*np.concatenate(each, axis=None).tolist()} for each in ([*training], [*held_out])]
    assert not voxels[0] & voxels[1]
    # And no patch is omitted without need.
    for index in np.flatnonzero(held.overlapping):
        assert voxels[1] & {*records[index].ravel().tolist()}
    assert len(training) + len(held_out) + held.overlapping.sum() == len(records)
    assert (training.patch_depth, training[0].shape) == (4, (4, 16, 16, 1))


def test_all_channels_of_a_place_are_held_out(open_volumes):
    records = open_volumes((2, 8, 3, 32, 32), axes="TZCYX")
    held = hold_out(records, 0.2)
    assert held.number == held.records.sum() == 3 * 3 and held.of == 3 * 16
    places = {}
    for index in np.flatnonzero(held.records):
        patch = records[index][0, 0, 0, 0]
        channel, place = patch // 1024 % 3, patch - patch // 1024 % 3 * 1024
        places.setdefault(float(place), set()).add(float(channel))
    assert len(places) == 3
    assert all(channels == {0, 1, 2} for channels in places.values())


def test_volumes_have_no_next_frames(open_volumes):
    with pytest.raises(ConfigError, match=r"cbsn prepare without --patch_depth.*4 × 16 × 16"):
        NextFrames(open_volumes((2, 4, 16, 16), axes="TZYX"))


def test_pairs_of_volumes(open_volumes, random, tmp_path):
    records = open_volumes((8, 32, 32))
    noisy = np.arange(8 * 32 * 32, dtype="float32").reshape(8, 32, 32) + 0.5
    (tmp_path / "second").mkdir()
    tifffile.imwrite(tmp_path / "second/0.tif", noisy, ome=True, metadata={"axes": "ZYX"})
    flags = {"normalize": "0,1", "patch_size": 16}
    for depth, out in ((4, "volumes"), (1, "planes")):
        folder = tmp_path / f"second-{out}"
        prepare(tmp_path / "second", out=folder, patch_depth=depth, **flags)
        other = PatchRecords.open(folder)
        if depth == 1:
            with pytest.raises(DataError, match="patch_depth 4 and 1"):
                PairedRecords(records, other)
            continue
        pairs = PairedRecords(records, other)
        for pair in pairs:
            np.testing.assert_array_equal(pair[..., 1], pair[..., 0] + 0.5)
        batch = PatchPipeline(pairs, 8, 2, channels=1, shots=2, patch_depth=3).batch(0)
        assert batch.shape == (2, 3, 8, 8, 2)
        np.testing.assert_array_equal(batch[..., 1], batch[..., 0] + 0.5)
