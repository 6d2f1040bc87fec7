import collections
import hashlib

import numpy as np
import pytest

from cbsn.colors import luma
from cbsn.data.manifest import DTYPES
from cbsn.data.pairs import PairedRecords
from cbsn.data.pipeline import PatchPipeline, RecordOrder
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import ConfigError, DataError
from cbsn.noise.synthetic import Noise
from cbsn.orientations import orient

COUNT, SIZE = 7, 40


@pytest.fixture(autouse=True)
def short_calls(monkeypatch):
    """So that a test's few batches come of several calls."""
    for name in ("_CROPS_AT_ONCE", "_INDICES_AT_ONCE"):
        monkeypatch.setattr(f"cbsn.data.pipeline.{name}", 16)


def _write(path, patches):
    with RecordWriter(path) as writer:
        for patch in patches:
            writer.write(patch)
    return PatchRecords([path], len(patches[0]), patches[0].dtype)


def _take(pipeline, count, start=0):
    return list(pipeline.guard(iter(pipeline.dataset(start).take(count).as_numpy_iterator())))


def _order(pipeline, positions):
    order = RecordOrder(pipeline.records.counts, pipeline.batch_size, 1, pipeline.seed)
    return [next(order.candidates(position)) for position in positions]


def _damage(path, number):
    data = bytearray(path.read_bytes())
    size = len(data) // COUNT
    data[number * size + size // 2] ^= 4
    path.write_bytes(data)


def _epochs(order, count, records=12):
    """Indices by position, for streams whose epochs are whole batches."""
    found = [next(order.candidates(position)) for position in range(count * records)]
    return np.reshape(found, (count, records))


def test_every_epoch_is_a_permutation_of_its_own():
    epochs = _epochs(RecordOrder([5, 7], 4, seed=1), 5)
    assert all(sorted(epoch) == [*range(12)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 5


def test_it_is_a_function_of_the_seed():
    one, same, other = (_epochs(RecordOrder([12], 4, seed=s), 9) for s in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("counts", "workers", "by_file"),
    [
        ([10, 10], 2, True),
        ([10, 9], 2, True),
        ([10, 8], 2, False),
        ([10], 2, False),
        ([10, 5, 5], 2, True),
        ([10, 10, 10], 2, False),
        ([10, 10], 1, False),
        ([0, 0], 2, False),
    ],
)
def test_files_are_dealt_out_where_that_is_even(counts, workers, by_file):
    assert RecordOrder(counts, 4, workers).by_file == by_file


@pytest.mark.parametrize("counts", [[8, 8, 8, 8], [32]])
@pytest.mark.parametrize("workers", [2, 4])
def test_no_worker_sees_anothers_records_in_an_epoch(counts, workers):
    for epoch in _epochs(RecordOrder(counts, 8, workers, seed=3), 3, 32):
        rows = epoch.reshape(-1, workers, 8 // workers)
        seen = [set(rows[:, worker].ravel()) for worker in range(workers)]
        assert sum(map(len, seen)) == len(set.union(*seen)) == 32


def test_candidates_walk_round_the_epoch():
    order = RecordOrder([3, 3], 2, workers=2)
    for position in range(24):
        group = [*order.candidates(position)]
        assert sorted(group) in ([0, 1, 2], [3, 4, 5])


@pytest.fixture
def records(tmp_path):
    """Patches that carry their number in every pixel, and their place in two channels."""
    rows, columns = np.indices((SIZE, SIZE)).astype("uint8")
    patches = [np.stack([np.full_like(rows, n), rows, columns], axis=-1) for n in range(COUNT)]
    return _write(tmp_path / "some.tfrecords", patches)


@pytest.fixture
def random_records(tmp_path):
    """A function (dtype) → records of random values, in two files."""

    def make(dtype):
        values = np.random.default_rng(1).integers(0, 256, (5, 256, 256, 3), np.uint8)
        for name, patches in (("a", values[:2]), ("b", values[2:])):
            _write(tmp_path / f"{name}.tfrecords", patches.astype(DTYPES[dtype]))
        return PatchRecords.open(tmp_path)

    return make


@pytest.mark.parametrize("orientations", [range(8), (0, 2, 4, 6), (0, 6)])
def test_crops_are_cut_anywhere_and_turned_every_way(records, orientations):
    crops = PatchPipeline(records, SIZE - 6, 600, orientations=orientations).batch(0)
    corners, turns = set(), collections.Counter()
    for crop in crops.astype(int):
        corners.add((crop[..., 1].min(), crop[..., 2].min()))
        down, right = crop[1, 0, 1:] - crop[0, 0, 1:], crop[0, 1, 1:] - crop[0, 0, 1:]
        turns[tuple(down), tuple(right)] += 1
        assert crop.shape == (SIZE - 6, SIZE - 6, 3)
        assert len(np.unique(crop[..., 0])) == 1
    assert corners == {(y, x) for y in range(7) for x in range(7)}
    assert len(turns) == len(orientations)
    assert min(turns.values()) > 40
    if not any(orientation % 2 for orientation in orientations):
        assert all(down[1] == 0 for down, _ in turns)  # rows stay rows


@pytest.mark.parametrize(
    ("seed", "start", "digest"),
    [(0, 0, "07903b2d1fcdd21b"), (2**40 + 3, 10**12, "a382c8fa92e5b4cb")],
)
def test_a_seed_gives_the_stream_it_always_gave(random_records, seed, start, digest):
    batches = _take(PatchPipeline(random_records("uint8"), 120, 4, seed), 20, start)
    assert hashlib.sha256(np.stack(batches).tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize("size", [119, 256])
def test_what_is_sampled_depends_on_seed_and_position_alone(random_records, dtype, size):
    records = random_records(dtype)
    pipeline = PatchPipeline(records, size, 1, seed=5)
    for position in (*range(12), 2**40 + 1):
        epoch, place = divmod(position, len(records))
        patch = records[np.random.default_rng((5, epoch)).permutation(len(records))[place]]
        random = np.random.Generator(np.random.Philox(key=(5 << 64) + position))
        top, left, orientation = random.integers(0, (257 - size, 257 - size, 8))
        expected = orient(patch[top : top + size, left : left + size], orientation)
        (crop,) = pipeline.batch(position)
        np.testing.assert_array_equal(crop, expected)
        assert crop.dtype == records.dtype


def test_a_stream_started_later_goes_on_the_same(records):
    pipeline = PatchPipeline(records, 24, 3, seed=5)
    whole = _take(pipeline, 30)
    np.testing.assert_array_equal(whole[4:], _take(PatchPipeline(records, 24, 3, seed=5), 26, 4))
    assert not np.array_equal(whole, _take(PatchPipeline(records, 24, 3, seed=6), 30))


@pytest.mark.parametrize("batch_size", [1, 5, 32, 70])
def test_dataset_batches_and_crops_are_one_stream(records, batch_size):
    pipeline, single = (PatchPipeline(records, 24, size) for size in (batch_size, 1))
    steps = range(3, 3 + -(-100 // batch_size))
    crops = [single.batch(i)[0] for i in range(3 * batch_size, steps.stop * batch_size)]
    stream = np.reshape(crops, (len(steps), batch_size, 24, 24, 3))
    np.testing.assert_array_equal(_take(pipeline, len(steps), 3), stream)
    np.testing.assert_array_equal([pipeline.batch(step) for step in steps], stream)


def test_shape_and_dtype_are_known_to_the_graph(records):
    spec = PatchPipeline(records, 24, 3).dataset().element_spec
    assert (spec.shape, spec.dtype.name) == ((3, 24, 24, 3), "uint8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 300}, r"--patch_size 40 or less.*--patch_size 300"),
        ({"workers": 2}, r"--batch_size.*2 workers.*batch_size=5"),
        (
            {"channels": 1, "noise": Noise.parse("camera", None, None)},
            "needs pictures in colour",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_once(records, options, message):
    with pytest.raises(ConfigError, match=message):
        PatchPipeline(records, **{"patch_size": 20, "batch_size": 5, **options})


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_without_files_of_their_own_share_the_stream_of_one(records, workers):
    pipelines = [
        PatchPipeline(records, 24, 6, seed=2, worker=worker, workers=workers)
        for worker in range(workers)
    ]
    parts = [_take(pipeline, 9, 4) for pipeline in pipelines]
    np.testing.assert_array_equal(
        np.concatenate(parts, axis=1), _take(PatchPipeline(records, 24, 6, seed=2), 9, 4)
    )
    for step, batch in enumerate(parts[1], 4):
        np.testing.assert_array_equal(pipelines[1].batch(step), batch)


def test_workers_read_files_of_their_own(tmp_path):
    for name, numbers in (("a", range(4)), ("b", range(4, 6)), ("c", range(6, 8))):
        patches = [np.full((SIZE, SIZE, 3), number, "uint8") for number in numbers]
        _write(tmp_path / f"{name}.tfrecords", patches)
    records = PatchRecords(sorted(tmp_path.iterdir()), SIZE, np.dtype("uint8"))
    seen = []
    for worker in range(2):
        batches = _take(PatchPipeline(records, 24, 4, worker=worker, workers=2), 6)
        numbers = np.stack(batches)[:, :, 0, 0, 0]
        assert numbers.shape == (6, 2)
        epochs = [*numbers.reshape(3, 4)]
        assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
        seen.append(sorted(epochs[0]))
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_sources_name_every_row_of_a_batch(records):
    pipeline = PatchPipeline(records, 24, 3)
    for line, crop in zip(pipeline.sources(5), pipeline.batch(5), strict=True):
        assert line == f"record {crop[0, 0, 0]} of {records.paths[0]}"


def test_sources_name_those_that_are_not_finite(tmp_path):
    patches = [np.full((SIZE, SIZE, 3), value, "float32") for value in (0, np.nan, 0)]
    (line,) = PatchPipeline(_write(tmp_path / "some.tfrecords", patches), 24, 3).sources(0)
    assert line.startswith("record 1 of ")
    assert line.endswith("not finite")


def test_noise_is_added_in_float_and_is_new_at_every_position(random_records):
    records = random_records("uint8")
    clean = PatchPipeline(records, 64, 4, seed=2)
    noisy, again = (
        PatchPipeline(records, 64, 4, seed=2, noise=Noise.parse("gaussian", "20", None))
        for _ in range(2)
    )
    differences = []
    for step in range(3):
        batch = noisy.batch(step)
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(batch, again.batch(step))
        differences.append(batch - clean.batch(step) / np.float32(255))
    differences = np.concatenate(differences)
    np.testing.assert_allclose(differences.std(axis=(1, 2, 3)), 20 / 255, rtol=0.05)
    assert noisy.batch(0).min() < -0.1  # not clipped
    correlations = np.corrcoef(differences.reshape(12, -1))[~np.eye(12, dtype=bool)]
    assert np.abs(correlations).max() < 0.05
    np.testing.assert_array_equal(_take(noisy, 2, 1), [noisy.batch(1), noisy.batch(2)])


def test_workers_share_the_noise_of_one(records):
    options = {"seed": 2, "noise": Noise.parse(None, "5-50", None)}
    whole = PatchPipeline(records, SIZE, 4, **options)
    parts = [PatchPipeline(records, SIZE, 4, **options, worker=w, workers=2) for w in range(2)]
    np.testing.assert_array_equal(np.concatenate([part.batch(7) for part in parts]), whole.batch(7))


def test_two_shots_differ_in_their_noise_only(random_records):
    records = random_records("uint8")
    pipeline = PatchPipeline(records, 64, 2, noise=Noise.parse(None, "10", None), shots=2)
    clean = PatchPipeline(records, 64, 2).batch(3) / np.float32(255)
    batch = pipeline.batch(3)
    assert batch.shape == (2, 64, 64, 6)
    first, second = batch[..., :3] - clean, batch[..., 3:] - clean
    for shot in (first, second):
        assert shot.std() == pytest.approx(10 / 255, rel=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    assert _take(pipeline, 1)[0].shape == (2, 64, 64, 6)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_gray_is_the_luma(random_records, dtype):
    records = random_records(dtype)
    color = PatchPipeline(records, 50, 2).batch(1)
    gray = PatchPipeline(records, 50, 2, channels=1).batch(1)
    assert (gray.shape, gray.dtype) == ((2, 50, 50, 1), color.dtype)
    expected = color.astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(gray[..., 0], expected, atol=0.51 if dtype == "uint8" else 1e-3)


def test_gray_pictures_stay_as_they_are():
    ramp = np.broadcast_to(np.arange(256, dtype="uint8")[:, None, None], (256, 9, 3))
    np.testing.assert_array_equal(luma(ramp), ramp[..., :1])


@pytest.mark.parametrize(("channels", "kind"), [(3, "camera"), (1, "gaussian")])
def test_pairs_are_made_anew_from_what_is_clean(tmp_path, channels, kind):
    noisy, denoised = (
        _write(tmp_path / str(value), [np.full((24, 24, 3), value, np.uint8)] * 20)
        for value in (30, 200)
    )
    pairs = PairedRecords(noisy, denoised, range(20))
    noise = Noise.parse(kind, "2", None)
    options = {"seed": 4, "channels": channels, "shots": 2, "noise": noise}
    crops = PatchPipeline(pairs, 8, 200, **options).batch(3)
    assert crops.dtype == np.float32 and crops.shape == (200, 8, 8, 2 * channels)
    noisy, clean = np.split(crops, 2, axis=-1)
    assert 0.5 < clean.max() * 255 / 200 < 1.01  # whatever its light
    assert np.abs(noisy - clean).mean() < 0.15
    assert (noisy != clean).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(PatchPipeline(pairs, 8, 1, **options).batch(601), crops[1:2])


def _random_patches(path, dtype, seed):
    random = np.random.default_rng(seed)
    patches = [random.random((SIZE, SIZE, 3)).astype("float32") for _ in range(COUNT)]
    if dtype != "float32":
        patches = [(patch * 255).astype(dtype) for patch in patches]
    return _write(path, patches)


@pytest.fixture
def single(tmp_path):
    return _random_patches(tmp_path / "single.tfrecords", "uint8", 0)


@pytest.fixture(params=["uint8", "float32"])
def pairs(request, tmp_path):
    shots = [_random_patches(tmp_path / str(seed), request.param, seed) for seed in (0, 1)]
    return PairedRecords(*shots, range(COUNT))


@pytest.fixture(params=["crops", "whole, from memory", "whole, record by record"])
def options(request, monkeypatch):
    """All ways in which patches come."""
    if request.param == "whole, record by record":
        monkeypatch.setattr("cbsn.data.pipeline._MOST_IN_MEMORY", 0)
    return {"patch_size": SIZE, "whole": request.param != "crops"}


@pytest.mark.parametrize("limit", [0, 2**30])
@pytest.mark.parametrize("channels", [1, 3])
def test_whole_patches_are_the_second_of_each_pair(pairs, channels, limit, monkeypatch):
    """In the order of the stream, neither cut nor turned; for a gray network their luma."""
    monkeypatch.setattr("cbsn.data.pipeline._MOST_IN_MEMORY", limit)
    pipeline = PatchPipeline(pairs, 16, 3, seed=5, channels=channels, shots=2, whole=True)
    for start in (0, 4):
        for step, batch in enumerate(_take(pipeline, 8, start), start):
            assert batch.shape == (3, SIZE, SIZE, channels)
            assert batch.dtype == pairs.dtype
            indices = _order(pipeline, range(3 * step, 3 * step + 3))
            second = [pairs[index][..., 3:] for index in indices]
            if channels == 1:
                second = [luma(patch) for patch in second]
            np.testing.assert_array_equal(batch, second)
            np.testing.assert_array_equal(pipeline.batch(step), second)
    assert pipeline.dataset().element_spec.shape == (3, SIZE, SIZE, channels)


def test_whole_patches_without_a_second_shot(single):
    pipeline = PatchPipeline(single, 16, COUNT, whole=True)
    expected = [single[index] for index in _order(pipeline, range(COUNT))]
    np.testing.assert_array_equal(_take(pipeline, 1), [expected])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_is_the_first_shot(pairs, channels):
    whole = PatchPipeline(pairs, 16, 3, channels=channels, shots=2, whole=True)
    crops = PatchPipeline(pairs, 16, 3, channels=channels, shots=2)
    for position in (0, 11):
        (index,) = _order(whole, [position])
        first = pairs[index][..., :3]
        expected = luma(first) if channels == 1 else first
        np.testing.assert_array_equal(whole.example(position), expected)
        crop = crops.batch(position // 3)[position % 3]
        assert crop.shape[-1] == 2 * channels
        np.testing.assert_array_equal(crops.example(position), crop[..., :channels])


def test_workers_share_whole_patches(single, options):
    parts = [
        _take(PatchPipeline(single, batch_size=6, seed=2, worker=w, workers=2, **options), 5, 3)
        for w in range(2)
    ]
    whole = _take(PatchPipeline(single, batch_size=6, seed=2, **options), 5, 3)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_a_damaged_record_is_named(single, options):
    _damage(single.paths[0], 3)
    with pytest.raises(DataError, match=r"Record 3 of .*single\.tfrecords"):
        _take(PatchPipeline(single, batch_size=COUNT, **options), 1)


def test_damaged_records_are_skipped_and_named(records, options):
    """And replaced by the next good ones of the epoch."""
    bad = (3, 5)
    for number in bad:
        _damage(records.paths[0], number)
    pipeline = PatchPipeline(records, batch_size=4, skip_bad_records=True, **options)
    order = RecordOrder(records.counts, 4)
    for step, batch in enumerate(_take(pipeline, 9)):
        for row, patch in enumerate(batch):
            candidates = order.candidates(4 * step + row)
            assert patch[0, 0, 0] == next(index for index in candidates if index not in bad)
    assert sorted(pipeline.bad_records) == [*bad]
    assert all(f"Record {n} of" in pipeline.bad_records[n] for n in bad)


def test_nothing_but_damaged_records_is_an_error(single, options):
    for number in range(COUNT):
        _damage(single.paths[0], number)
    pipeline = PatchPipeline(single, batch_size=COUNT, skip_bad_records=True, **options)
    with pytest.raises(DataError, match="All 7 records are damaged"):
        _take(pipeline, 1)


def test_patches_from_memory_are_read_once(single, monkeypatch):
    """What the memory is for; a limit below their size, and they are read when they are due."""
    reads = []
    read = PatchRecords.__getitem__

    def count(self, index):
        reads.append(index)
        return read(self, index)

    monkeypatch.setattr(PatchRecords, "__getitem__", count)
    size = COUNT * SIZE * SIZE * 3
    for limit, from_memory in ((size, True), (size - 1, False)):
        monkeypatch.setattr("cbsn.data.pipeline._MOST_IN_MEMORY", limit)
        reads.clear()
        _take(PatchPipeline(single, 16, COUNT, whole=True), 5)
        assert (len(reads) == COUNT) == from_memory


class Volumes:
    """Volumes [4, 6, 6, 3] whose voxels hold their number and place, as `Patches` in memory."""

    shots, channels, patch_size, patch_depth = 1, 3, 6, 4
    dtype = np.dtype("float32")
    counts = (COUNT,)

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        places = np.indices((4, 6, 6)).astype("float32")
        places[0] += 10 * index
        return np.moveaxis(places, 0, -1)

    def describe(self, index):
        return f"volume {index}"


def test_crops_of_volumes_begin_anywhere_and_are_turned_in_plane_and_flipped():
    """Everything that leaves planes planes: 8 orientations, each with Z in both directions."""
    crops = PatchPipeline(Volumes(), 4, 3000, patch_depth=3).batch(0).astype(int)
    assert crops.shape == (3000, 3, 4, 4, 3)
    corners, turns = set(), collections.Counter()
    for crop in crops:
        corners.add((crop[..., 0].min() % 10, crop[..., 1].min(), crop[..., 2].min()))
        first = crop[0, 0, 0]
        deeper, down, right = crop[1, 0, 0] - first, crop[0, 1, 0] - first, crop[0, 0, 1] - first
        turns[tuple(deeper), tuple(down), tuple(right)] += 1
        whole = np.sort((crop - crop.min(axis=(0, 1, 2))).reshape(-1, 3), axis=0)
        assert len(np.unique(crop[..., 0] // 10)) == 1
        np.testing.assert_array_equal(
            whole, np.sort(np.indices((3, 4, 4)).reshape(3, -1).T, axis=0)
        )
    assert corners == {(z, y, x) for z in range(2) for y in range(3) for x in range(3)}
    assert {deeper for deeper, _, _ in turns} == {(1, 0, 0), (-1, 0, 0)}
    assert len(turns) == 16
    assert min(turns.values()) > 100


def test_crops_of_volumes_depend_on_seed_and_position_alone():
    pipeline = PatchPipeline(Volumes(), 4, 2, seed=5, patch_depth=3)
    whole = _take(pipeline, 30)
    np.testing.assert_array_equal(whole[4:], _take(pipeline, 26, 4))
    for step in (0, 7):
        np.testing.assert_array_equal(whole[step], pipeline.batch(step))
    for position in (0, 9):
        random = np.random.Generator(np.random.Philox(key=(5 << 64) + position))
        z, y, x, orientation, flips = random.integers(0, (2, 3, 3, 8, 2))
        patch = Volumes()[_order(pipeline, [position])[0]][z : z + 3, y : y + 4, x : x + 4]
        patch = patch[::-1] if flips else patch
        expected = np.stack([orient(plane, orientation) for plane in patch])
        np.testing.assert_array_equal(whole[position // 2][position % 2], expected)
    spec = pipeline.dataset().element_spec
    assert spec.shape == (2, 3, 4, 4, 3)


def test_gray_crops_of_volumes_and_their_example():
    colors, gray = (
        PatchPipeline(Volumes(), 4, 2, channels=channels, patch_depth=3) for channels in (3, 1)
    )
    np.testing.assert_array_equal(gray.batch(1), luma(colors.batch(1)))
    np.testing.assert_array_equal(colors.example(3), colors.batch(1)[1])


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (1, r"patches of 4 × 6 × 6 voxels: train one in three.*a network in two dimensions"),
        (5, r"4 × 6 × 6 voxels: use --patch_depth 4 or less, or cut .*--patch_depth 5"),
    ],
)
def test_depths_that_do_not_fit_volumes_are_refused(depth, message):
    with pytest.raises(ConfigError, match=message):
        PatchPipeline(Volumes(), 4, 2, patch_depth=depth)


def test_flat_patches_are_no_volumes(records):
    with pytest.raises(ConfigError, match=r"patches of 40 px: cut .*--patch_depth 2`"):
        PatchPipeline(records, 24, 2, patch_depth=2)
