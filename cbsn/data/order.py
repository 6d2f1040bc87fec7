"""The order in which a training sees the records of a data set."""

import functools
from collections.abc import Sequence

import numpy as np

_EVEN = 0.9
"""Files are dealt out to workers only if none gets less than this part of what another gets."""


class RecordOrder:
    """Which record stands at each place of an endless stream of batches.

    It is a function of the seed and the position alone, so that a stream can start anywhere. In
    each epoch every record comes once. With several workers, each takes its share of the rows of
    every batch, worker 0 the first ones:

    - where the files can be dealt out to the workers evenly, each worker draws its rows from files
      of its own, which no other worker reads, in epochs of its own length;
    - where they cannot, the stream is that of a single worker, cut up; so the weights are those of
      a single worker, too.

    Args:
        counts: records in each file; a record's index counts through all of them.
        batch_size: int, rows of a batch, over all workers; a multiple of `workers`.
        workers: int ≥ 1.
        seed: int ≥ 0.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, workers: int = 1, seed: int = 0):
        self._seed = seed
        self._share = batch_size // workers
        files = _deal(counts, workers) if workers > 1 else None
        self.by_file = files is not None
        """Whether each worker has files of its own."""
        if files is None:
            self._share = batch_size
            self._groups = [np.arange(sum(counts))]
        else:
            starts = np.cumsum([0, *counts])
            self._groups = [
                np.concatenate([np.arange(starts[f], starts[f + 1]) for f in sorted(group)])
                for group in files
            ]
        self._permutation = functools.lru_cache(maxsize=2 * len(self._groups))(self._permute)

    def record(self, position: int, ahead: int = 0) -> int:
        """Returns the index of the record at a position.

        Args:
            position: int ≥ 0, row `position % batch_size` of batch `position // batch_size`.
            ahead: int ≥ 0, take instead the record so many places later in the same epoch (from
                its end on, at its start) of the same worker.
        """
        rows, row = divmod(position, self._share)
        step, group = divmod(rows, len(self._groups))
        epoch, place = divmod(step * self._share + row, len(self._groups[group]))
        place = (place + ahead) % len(self._groups[group])
        return int(self._groups[group][self._permutation(epoch, group)[place]])

    def group_size(self, position: int) -> int:
        """How many records the worker at a position draws from."""
        return len(self._groups[position // self._share % len(self._groups)])

    def _permute(self, epoch: int, group: int) -> np.ndarray:
        key = (self._seed, epoch, group) if self.by_file else (self._seed, epoch)
        return np.random.default_rng(key).permutation(len(self._groups[group]))


def _deal(counts: Sequence[int], workers: int) -> list[list[int]] | None:
    """Deals files out, the largest first, each to who has least; None if that is not even."""
    hands: list[list[int]] = [[] for _ in range(workers)]
    sums = [0] * workers
    for file in sorted(range(len(counts)), key=lambda f: (-counts[f], f)):
        least = sums.index(min(sums))
        hands[least].append(file)
        sums[least] += counts[file]
    return hands if min(sums) >= _EVEN * max(sums) and min(sums) > 0 else None
