import collections
import hashlib

import numpy as np
import pytest

from cbsn.data.manifest import DTYPES
from cbsn.data.paired_records import PairedRecords
from cbsn.data.pipeline import PatchPipeline, RecordOrder, luma
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import ConfigError, DataError
from cbsn.noise.synthetic import Noise
from cbsn.orientations import orient

COUNT = 7


@pytest.fixture
def records(tmp_path, random):
    """Patches that carry their number in every pixel, and their place in two channels."""
    rows, columns = np.indices((256, 256)).astype("uint8")
    with RecordWriter(tmp_path / "some.tfrecords") as writer:
        for number in range(COUNT):
            writer.write(np.stack([np.full_like(rows, number), rows, columns], axis=-1))
    return PatchRecords.open(tmp_path)


@pytest.fixture(autouse=True)
def short_calls(monkeypatch):
    """So that a test's few batches come of several calls."""
    monkeypatch.setattr("cbsn.data.pipeline._CROPS_AT_ONCE", 16)


def _take(pipeline, count, start=0):
    return list(pipeline.guard(iter(pipeline.dataset(start).take(count).as_numpy_iterator())))


def test_every_epoch_is_a_permutation(records):
    pipeline = PatchPipeline(records, 20, 1, seed=3)
    orders = [
        [int(pipeline.crop(epoch * COUNT + i)[0, 0, 0]) for i in range(COUNT)] for epoch in range(6)
    ]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len(set(map(tuple, orders))) > 3


def test_crops_are_cut_anywhere_and_turned_every_way(records):
    pipeline = PatchPipeline(records, 250, 1)
    corners, turns = set(), collections.Counter()
    for position in range(600):
        crop = pipeline.crop(position).astype(int)
        corners.add((crop[..., 1].min(), crop[..., 2].min()))
        down, right = crop[1, 0, 1:] - crop[0, 0, 1:], crop[0, 1, 1:] - crop[0, 0, 1:]
        turns[tuple(down), tuple(right)] += 1
        assert crop.shape == (250, 250, 3)
        assert len(np.unique(crop[..., 0])) == 1
    assert corners == {(y, x) for y in range(7) for x in range(7)}
    assert len(turns) == 8
    assert min(turns.values()) > 40


@pytest.fixture
def noise(tmp_path):
    """A function (dtype) → records of random values, in two files."""

    def make(dtype):
        values = np.random.default_rng(1).integers(0, 256, (5, 256, 256, 3), np.uint8)
        for name, patches in (("a", values[:2]), ("b", values[2:])):
            with RecordWriter(tmp_path / f"{name}.tfrecords") as writer:
                for patch in patches:
                    writer.write(patch.astype(DTYPES[dtype]))
        return PatchRecords.open(tmp_path)

    return make


@pytest.mark.parametrize(
    ("seed", "start", "digest"),
    [(0, 0, "07903b2d1fcdd21b"), (2**40 + 3, 10**12, "a382c8fa92e5b4cb")],
)
def test_a_seed_gives_the_stream_it_always_gave(noise, seed, start, digest):
    batches = _take(PatchPipeline(noise("uint8"), 120, 4, seed), 20, start)
    assert hashlib.sha256(np.stack(batches).tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize("size", [119, 256])
def test_what_is_sampled_depends_on_seed_and_position_alone(noise, dtype, size):
    records = noise(dtype)
    pipeline = PatchPipeline(records, size, 1, seed=5)
    for position in (*range(12), 2**40 + 1):
        epoch, place = divmod(position, len(records))
        patch = records[np.random.default_rng((5, epoch)).permutation(len(records))[place]]
        random = np.random.Generator(np.random.Philox(key=(5 << 64) + position))
        top, left, orientation = random.integers(0, (257 - size, 257 - size, 8))
        expected = orient(patch[top : top + size, left : left + size], orientation)
        crop = pipeline.crop(position)
        np.testing.assert_array_equal(crop, expected)
        assert crop.dtype == records.dtype


def test_a_stream_started_later_goes_on_the_same(records):
    pipeline = PatchPipeline(records, 24, 3, seed=5)
    whole = _take(pipeline, 30)
    np.testing.assert_array_equal(whole[4:], _take(PatchPipeline(records, 24, 3, seed=5), 26, 4))
    assert not np.array_equal(whole, _take(PatchPipeline(records, 24, 3, seed=6), 30))


@pytest.mark.parametrize("batch_size", [1, 5, 32, 70])
def test_dataset_batches_and_crops_are_one_stream(records, batch_size):
    pipeline = PatchPipeline(records, 24, batch_size)
    steps = range(3, 3 + -(-100 // batch_size))
    crops = [pipeline.crop(i) for i in range(3 * batch_size, steps.stop * batch_size)]
    stream = np.reshape(crops, (len(steps), batch_size, 24, 24, 3))
    np.testing.assert_array_equal(_take(pipeline, len(steps), 3), stream)
    np.testing.assert_array_equal([pipeline.batch(step) for step in steps], stream)


def test_shape_and_dtype_are_known_to_the_graph(records):
    spec = PatchPipeline(records, 24, 3).dataset().element_spec
    assert (spec.shape, spec.dtype.name) == ((3, 24, 24, 3), "uint8")


def test_steps_per_epoch_rounds_up(records):
    assert [PatchPipeline(records, 24, n).steps_per_epoch for n in (1, 2, 7, 8)] == [7, 4, 1, 1]


def test_crops_larger_than_the_patches_are_refused(records):
    with pytest.raises(ConfigError, match=r"--patchsize 256 or less.*--patchsize 300"):
        PatchPipeline(records, 300, 4)


def test_a_damaged_record_is_named(records):
    path = records.paths[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"Record 3 of .*some\.tfrecords"):
        _take(PatchPipeline(PatchRecords.open(path.parent), 24, COUNT), 1)


def _damage(path, number):
    data = bytearray(path.read_bytes())
    size = len(data) // COUNT
    data[number * size + size // 2] ^= 4
    path.write_bytes(data)


def test_damaged_records_are_skipped_and_counted(records):
    path = records.paths[0]
    _damage(path, 3)
    pipeline = PatchPipeline(PatchRecords.open(path.parent), 24, COUNT, skip_bad_records=True)
    whole = PatchPipeline(records, 24, COUNT)
    for step, batch in enumerate(_take(pipeline, 3)):
        numbers = [int(crop[0, 0, 0]) for crop in batch]
        wanted = [whole._order.record(step * COUNT + row) for row in range(COUNT)]
        replacement = wanted[(wanted.index(3) + 1) % COUNT]
        assert numbers == [replacement if number == 3 else number for number in wanted]
    assert [*pipeline.bad_records] == [3]
    assert "Record 3 of" in pipeline.bad_records[3]


def test_nothing_but_damaged_records_is_an_error(records):
    for number in range(COUNT):
        _damage(records.paths[0], number)
    pipeline = PatchPipeline(records, 24, COUNT, skip_bad_records=True)
    with pytest.raises(DataError, match="All 7 records are damaged"):
        _take(pipeline, 1)


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
        with RecordWriter(tmp_path / f"{name}.tfrecords") as writer:
            for number in numbers:
                writer.write(np.full((256, 256, 3), number, "uint8"))
    records = PatchRecords.open(tmp_path)
    seen = []
    for worker in range(2):
        batches = _take(PatchPipeline(records, 24, 4, worker=worker, workers=2), 6)
        numbers = np.stack(batches)[:, :, 0, 0, 0]
        assert numbers.shape == (6, 2)
        epochs = [*numbers.reshape(3, 4)]
        assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
        seen.append(sorted(epochs[0]))
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_batches_that_cannot_be_shared_out_are_refused(records):
    with pytest.raises(ConfigError, match=r"--batchsize.*2 workers.*batch_size=5"):
        PatchPipeline(records, 24, 5, workers=2)


def test_sources_name_every_row_of_a_batch(records):
    pipeline = PatchPipeline(records, 24, 3)
    lines = pipeline.sources(5)
    for line, crop in zip(lines, pipeline.batch(5), strict=True):
        assert line == f"record {crop[0, 0, 0]} of {records.paths[0]}"


def test_sources_name_those_that_are_not_finite(tmp_path):
    with RecordWriter(tmp_path / "some.tfrecords") as writer:
        for number in range(3):
            writer.write(np.full((256, 256, 3), np.nan if number == 1 else 0, "float32"))
    (line,) = PatchPipeline(PatchRecords.open(tmp_path), 24, 3).sources(0)
    assert line.startswith("record 1 of ")
    assert line.endswith("not finite")


def test_noise_is_added_in_float_and_is_new_at_every_position(noise):
    records = noise("uint8")
    clean = PatchPipeline(records, 64, 4, seed=2)
    noisy = PatchPipeline(records, 64, 4, seed=2, noise=Noise.parse("gaussian", "20", None))
    again = PatchPipeline(records, 64, 4, seed=2, noise=Noise.parse("gaussian", "20", None))
    differences = []
    for step in range(3):
        batch = noisy.batch(step)
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(batch, again.batch(step))
        differences.append(batch - clean.batch(step) / np.float32(255))
    differences = np.concatenate(differences)
    np.testing.assert_allclose(differences.std(axis=(1, 2, 3)), 20 / 255, rtol=0.05)
    assert noisy.batch(0).min() < -0.1  # not clipped
    flat = differences.reshape(12, -1)
    correlations = np.corrcoef(flat)[~np.eye(12, dtype=bool)]
    assert np.abs(correlations).max() < 0.05
    for a, b in zip(_take(noisy, 2, 1), (noisy.batch(1), noisy.batch(2)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_workers_share_the_noise_of_one(noise):
    options = {"seed": 2, "noise": Noise.parse(None, "5-50", None)}
    whole = PatchPipeline(noise("uint8"), 40, 4, **options)
    parts = [
        PatchPipeline(noise("uint8"), 40, 4, **options, worker=worker, workers=2)
        for worker in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate([part.batch(7) for part in parts]), whole.batch(7))


def test_two_shots_differ_in_their_noise_only(noise):
    records = noise("uint8")
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
def test_gray_is_the_luma(noise, dtype):
    records = noise(dtype)
    color = PatchPipeline(records, 50, 2).batch(1)
    gray = PatchPipeline(records, 50, 2, channels=1).batch(1)
    assert (gray.shape, gray.dtype) == ((2, 50, 50, 1), color.dtype)
    luma = color.astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(gray[..., 0], luma, atol=0.51 if dtype == "uint8" else 1e-3)


def test_gray_pictures_stay_as_they_are(tmp_path):
    ramp = np.broadcast_to(np.arange(256, dtype="uint8")[:, None, None], (256, 256, 3))
    with RecordWriter(tmp_path / "ramp.tfrecords") as writer:
        writer.write(ramp)
    pipeline = PatchPipeline(PatchRecords.open(tmp_path), 256, 1, channels=1)
    assert set(np.unique(pipeline.batch(0))) == set(range(256))
    assert np.abs(np.diff(pipeline.batch(0)[0, :, :, 0].astype(int))).max() <= 1


def test_camera_noise_for_gray_is_refused_at_once(records):
    with pytest.raises(ConfigError, match="needs pictures in colour"):
        PatchPipeline(records, 20, 1, channels=1, noise=Noise.parse("camera", None, None))


@pytest.mark.parametrize(("channels", "kind"), [(3, "camera"), (1, "gaussian")])
def test_pairs_are_made_anew_from_what_is_clean(tmp_path, random, channels, kind):
    records = []
    for name, value in (("noisy", 30), ("denoised", 200)):
        with RecordWriter(tmp_path / f"{name}.tfrecords") as writer:
            for _ in range(20):
                writer.write(np.full((24, 24, 3), value, np.uint8))
        records.append(PatchRecords([tmp_path / f"{name}.tfrecords"], 24, np.uint8))
    pairs = PairedRecords(*records, range(20))
    noise = Noise.parse(kind, "2", None)
    pipeline = PatchPipeline(pairs, 8, 200, 4, channels=channels, shots=2, noise=noise)
    crops = pipeline.batch(3)
    assert crops.dtype == np.float32 and crops.shape == (200, 8, 8, 2 * channels)
    noisy, clean = np.split(crops, 2, axis=-1)
    assert 0.5 < clean.max() * 255 / 200 < 1.01  # whatever its light
    assert np.abs(noisy - clean).mean() < 0.15
    assert (noisy != clean).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(pipeline.crop(601), crops[1])


SIZE = 40


def _write_patches(path, dtype, seed):
    random = np.random.default_rng(seed)
    with RecordWriter(path) as writer:
        for _ in range(COUNT):
            patch = random.random((SIZE, SIZE, 3)).astype("float32")
            writer.write(patch if dtype == "float32" else (patch * 255).astype(dtype))
    return PatchRecords([path], SIZE, np.dtype(dtype))


@pytest.fixture
def single(tmp_path):
    return _write_patches(tmp_path / "single.tfrecords", "uint8", 0)


@pytest.fixture(params=["uint8", "float32"])
def pairs(request, tmp_path):
    records = [
        _write_patches(tmp_path / f"{seed}.tfrecords", request.param, seed) for seed in (0, 1)
    ]
    return PairedRecords(*records, range(COUNT))


@pytest.fixture(params=["from memory", "record by record"])
def either_way(request, monkeypatch):
    """Both ways in which whole patches come."""
    monkeypatch.setattr("cbsn.data.pipeline._INDICES_AT_ONCE", 16)
    if request.param == "record by record":
        monkeypatch.setattr("cbsn.data.pipeline._MOST_IN_MEMORY", 0)
    return request.param


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_patches_are_the_second_of_each_pair(pairs, either_way, channels):
    """In the order of the stream, neither cut nor turned; for a gray network their luma."""
    pipeline = PatchPipeline(pairs, 16, 3, seed=5, channels=channels, shots=2, whole=True)
    order = RecordOrder(pairs.counts, 3, 1, 5)
    for start in (0, 4):
        batches = _take(pipeline, 8, start)
        for step, batch in enumerate(batches, start):
            assert batch.shape == (3, SIZE, SIZE, channels)
            assert batch.dtype == pairs.dtype
            second = [pairs[order.record(3 * step + row)][..., 3:] for row in range(3)]
            if channels == 1:
                second = [luma(patch) for patch in second]
            np.testing.assert_array_equal(batch, second)
            np.testing.assert_array_equal(pipeline.batch(step), second)
    assert pipeline.dataset().element_spec.shape == (3, SIZE, SIZE, channels)


def test_whole_patches_without_a_second_shot(single, either_way):
    pipeline = PatchPipeline(single, 16, COUNT, whole=True)
    (batch,) = _take(pipeline, 1)
    order = [pipeline._order.record(row) for row in range(COUNT)]
    np.testing.assert_array_equal(batch, [single[index] for index in order])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_of_whole_patches_is_the_first_of_a_pair(pairs, channels):
    pipeline = PatchPipeline(pairs, 16, 3, channels=channels, shots=2, whole=True)
    for position in (0, 11):
        first = pairs[pipeline._order.record(position)][..., :3]
        expected = luma(first) if channels == 1 else first
        np.testing.assert_array_equal(pipeline.example(position), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_of_crops_is_their_first_shot(pairs, channels):
    pipeline = PatchPipeline(pairs, 16, 3, channels=channels, shots=2)
    for position in (0, 11):
        crop = pipeline.crop(position)
        assert crop.shape[-1] == 2 * channels
        np.testing.assert_array_equal(pipeline.example(position), crop[..., :channels])


def test_workers_share_whole_patches(single, either_way):
    options = {"seed": 2, "whole": True}
    parts = [
        _take(PatchPipeline(single, 16, 6, **options, worker=worker, workers=2), 5, 3)
        for worker in range(2)
    ]
    whole = _take(PatchPipeline(single, 16, 6, **options), 5, 3)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_a_damaged_whole_patch_is_named(single, either_way):
    _damage(single.paths[0], 3)
    with pytest.raises(DataError, match=r"Record 3 of .*single\.tfrecords"):
        _take(PatchPipeline(single, 16, COUNT, whole=True), 1)


def test_damaged_whole_patches_are_skipped_and_named(single, either_way):
    """And replaced by what crops would be replaced by."""
    for number in (3, 5):
        _damage(single.paths[0], number)
    pipeline = PatchPipeline(single, 16, 4, skip_bad_records=True, whole=True)
    crops = PatchPipeline(single, SIZE, 4, skip_bad_records=True)
    for step, batch in enumerate(_take(pipeline, 9)):
        for row, patch in enumerate(batch):
            index, expected = crops._find(4 * step + row)
            assert index not in (3, 5)
            np.testing.assert_array_equal(patch, expected)
    assert sorted(pipeline.bad_records) == [3, 5]
    assert all(f"Record {n} of" in pipeline.bad_records[n] for n in (3, 5))


def test_nothing_but_damaged_whole_patches_is_an_error(single, either_way):
    for number in range(COUNT):
        _damage(single.paths[0], number)
    pipeline = PatchPipeline(single, 16, COUNT, skip_bad_records=True, whole=True)
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
