import numpy as np
import pytest

from cbsn.data.pipeline import RecordOrder


def _epoch(order, epoch, records, batch_size):
    """Indices by worker-agnostic position, for streams whose epochs are whole batches."""
    steps = records // batch_size
    first = epoch * steps * batch_size
    return [order.record(position) for position in range(first, first + records)]


def test_every_epoch_is_a_permutation_of_its_own():
    order = RecordOrder([5, 7], 4, seed=1)
    epochs = [_epoch(order, epoch, 12, 4) for epoch in range(5)]
    assert all(sorted(epoch) == [*range(12)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 5


def test_it_is_a_function_of_the_seed():
    one, same, other = (RecordOrder([50], 5, seed=seed) for seed in (1, 1, 2))
    positions = range(200)
    assert [*map(one.record, positions)] == [*map(same.record, positions)]
    assert [*map(one.record, positions)] != [*map(other.record, positions)]


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
    batch_size = 8
    share = batch_size // workers
    order = RecordOrder(counts, batch_size, workers, seed=3)
    for epoch in range(3):
        rows = np.reshape(_epoch(order, epoch, 32, batch_size), (-1, workers, share))
        seen = [set(rows[:, worker].ravel()) for worker in range(workers)]
        assert sum(map(len, seen)) == len(set.union(*seen)) == 32


def test_ahead_walks_round_the_epoch():
    order = RecordOrder([3, 3], 2, workers=2)
    for position in range(24):
        group = [order.record(position, ahead) for ahead in range(order.group_size(position))]
        assert sorted(group) in ([0, 1, 2], [3, 4, 5])
        assert order.record(position, 3) == group[0]
