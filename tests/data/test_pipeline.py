import collections

import numpy as np
import pytest

from cbsn.data.pipeline import PatchPipeline
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import ConfigError, DataError

COUNT = 7


@pytest.fixture
def records(tmp_path, random):
    """Patches that carry their number in every pixel, and their place in two channels."""
    rows, columns = np.indices((256, 256)).astype("uint8")
    with RecordWriter(tmp_path / "some.tfrecords") as writer:
        for number in range(COUNT):
            writer.write(np.stack([np.full_like(rows, number), rows, columns], axis=-1))
    return PatchRecords.open(tmp_path)


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


def test_a_stream_started_later_goes_on_the_same(records):
    pipeline = PatchPipeline(records, 24, 3, seed=5)
    whole = _take(pipeline, 9)
    np.testing.assert_array_equal(whole[4:], _take(PatchPipeline(records, 24, 3, seed=5), 5, 4))
    assert not np.array_equal(whole, _take(PatchPipeline(records, 24, 3, seed=6), 9))


def test_batches_are_the_stream_in_pieces(records):
    two, six = (np.concatenate(_take(PatchPipeline(records, 24, n), 6 // n)) for n in (2, 6))
    np.testing.assert_array_equal(two, six)


def test_shape_and_dtype_are_known_to_the_graph(records):
    spec = PatchPipeline(records, 24, 3).dataset().element_spec
    assert (spec.shape, spec.dtype.name) == ((3, 24, 24, 3), "uint8")


def test_steps_per_epoch_rounds_up(records):
    assert [PatchPipeline(records, 24, n).steps_per_epoch for n in (1, 2, 7, 8)] == [7, 4, 1, 1]


def test_crops_larger_than_the_patches_are_refused(records):
    with pytest.raises(ConfigError, match=r"--patchsize 256 or less.*patch_size=300"):
        PatchPipeline(records, 300, 4)


def test_a_damaged_record_is_named(records):
    path = records.paths[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"Record 3 of .*some\.tfrecords"):
        _take(PatchPipeline(PatchRecords.open(path.parent), 24, COUNT), 1)
