"""From patch records to batches: random crops in random orientations, in a random order.

Everything is a function of the seed and of the position in the stream: a run that starts at any
step gets what it would have got had it come there by itself, without a shuffle buffer to save.
"""

import dataclasses
import functools
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cbsn.colors import luma
from cbsn.data.records import Patches
from cbsn.errors import ConfigError, DataError
from cbsn.noise.synthetic import Noise, retake
from cbsn.orientations import NUM_ORIENTATIONS, orient

_EVEN = 0.9  # a worker gets no less than this part of what another gets, to have its own files
# What tf.data asks Python for in one call at most, as every call has its price.
_CROPS_AT_ONCE, _BYTES_AT_ONCE, _INDICES_AT_ONCE = 128, 2**23, 1024
_BATCHES_AHEAD = 4
_MOST_IN_MEMORY = 2 << 30  # bytes of whole patches that are read once and kept


class RecordOrder:
    """Which record stands at each place of an endless stream of batches.

    In each epoch every record comes once. With several workers, each takes its share of the rows of
    every batch, worker 0 the first ones:

    - where the files can be dealt out to the workers evenly (`by_file`), each worker draws its rows
      from files of its own, which no other worker reads, in epochs of its own length;
    - where they cannot, the stream is that of a single worker, cut up, and so are the weights.

    A record's index counts through all files, which have `counts` records. `batch_size` is that
    over all workers, and a multiple of their number.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, workers: int = 1, seed: int = 0):
        self._seed = seed
        files = _deal(counts, workers) if workers > 1 else None
        self.by_file = files is not None
        hands = files or [[*range(len(counts))]]
        starts = np.cumsum([0, *counts])
        self._groups = [
            np.concatenate([np.arange(starts[f], starts[f + 1]) for f in sorted(hand)])
            for hand in hands
        ]
        self._share = batch_size // len(hands)
        self._permutation = functools.lru_cache(maxsize=2 * len(hands))(self._permute)

    def candidates(self, position: int) -> Iterator[int]:
        """Yields the index of the record at a position, then the others of its epoch and worker.

        The position is row `position % batch_size` of batch `position // batch_size`.
        """
        rows, row = divmod(position, self._share)
        step, number = divmod(rows, len(self._groups))
        group = self._groups[number]
        epoch, place = divmod(step * self._share + row, len(group))
        order = self._permutation(epoch, number)
        for ahead in range(len(group)):
            yield int(group[order[(place + ahead) % len(group)]])

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


@dataclasses.dataclass(eq=False)
class PatchPipeline:
    """An endless stream of training batches, each a function of the seed and its step.

    ConfigError if crops, workers or noise do not go with the records, batch or channels.

    Attributes:
        bad_records: by the indices of the damaged records found so far, what is wrong with each.
    """

    records: Patches
    patch_size: int  # side of the crops in pixels; at most that of the records
    batch_size: int  # crops in a batch, over all workers
    seed: int = 0  # ≥ 0, of order, crops, orientations and noise
    _: dataclasses.KW_ONLY
    worker: int = 0  # number of this process among all
    workers: int = 1  # who share each batch as `RecordOrder` says
    skip_bad_records: bool = False  # take the next record of the epoch in place of a damaged one
    channels: int = 3  # RGB; or 1: gray, the luma (Rec. 601) of what has colours
    # What is added to the crops, which are clean then, drawn anew each time. Of pairs the second
    # pictures are taken, and taken anew with that noise, as `retake` does.
    noise: Noise | None = None
    shots: int = 1  # noisy shots of each crop, in the channels: of pairs, or of noise drawn twice
    # Give patches as they are recorded, one shot, of pairs the second, for an augmentation on the
    # device that trains. If they fit into 2 GiB, they are all in memory, so that no Python code
    # slows a GPU down.
    whole: bool = False

    def __post_init__(self) -> None:
        records, patch_size = self.records, self.patch_size
        if patch_size > records.patch_size:
            raise ConfigError(
                f"The data set holds patches of {records.patch_size} pixels: take --patchsize "
                f"{records.patch_size} or less, or give the folder of larger ones, as `python "
                f"prepare_dataset.py --dataset PICTURES --patchsize {patch_size} --out FOLDER` "
                f"makes them. Received: --patchsize {patch_size}"
            )
        if self.batch_size % self.workers:
            raise ConfigError(
                f"--batchsize is shared out over {self.workers} workers, so it must be a multiple "
                f"of {self.workers}. Received: batch_size={self.batch_size}"
            )
        if self.noise:
            self.noise.check(self.channels)
        self.bad_records: dict[int, str] = {}
        self._rows = self.batch_size // self.workers
        self._order = RecordOrder(records.counts, self.batch_size, self.workers, self.seed)
        side, shots = (records.patch_size, 1) if self.whole else (patch_size, self.shots)
        self._shape: tuple[int, ...] = side, side, shots * self.channels
        is_noisy = self.noise and not self.whole
        self._dtype: np.dtype = np.dtype(np.float32) if is_noisy else records.dtype
        self._error: DataError | None = None

    def batch(self, step: int) -> np.ndarray:
        """Returns this worker's rows of a batch: [rows, patch_size, patch_size, shots·channels].

        They have the records' dtype; with noise they are float32 in [0, 1], not clipped.
        """
        return self._crops(self._positions(step * self._rows, self._rows))

    def example(self, position: int) -> np.ndarray:
        """Returns the first shot of the crop at a position, to be shown: [P, P, channels]."""
        if not self.whole:
            return self._crops([position])[0, ..., : self.channels]
        return self._colors(self._find(position)[1][..., :3])

    def sources(self, step: int) -> list[str]:
        """Says in a line where each row of a step's batch, of all workers, comes from.

        If some of them hold values that are not finite, it names only these.
        """
        first = step * self.batch_size
        found = [self._find(first + row) for row in range(self.batch_size)]
        bad = [index for index, patch in found if not np.isfinite(patch).all()]
        note = ", which holds values that are not finite" if bad else ""
        return [self.records.describe(i) + note for i in bad or [index for index, _ in found]]

    def dataset(self, start: int = 0) -> tf.data.Dataset:
        """Returns this worker's rows of the batches from step `start` on, as an endless dataset.

        It reads ahead: a damaged record may end it some batches before the one with its crop.
        """
        size = math.prod(self._shape) * self._dtype.itemsize
        count = max(1, min(_CROPS_AT_ONCE, _BYTES_AT_ONCE // size))
        shape, dtype = self._shape, self._dtype
        in_memory = self.whole and len(self.records) * size <= _MOST_IN_MEMORY
        if in_memory:
            with tf.device("CPU"):
                patches = tf.constant(self._all_patches())
            count, shape, dtype = _INDICES_AT_ONCE, (), np.dtype(np.int64)

        def load(place: int) -> np.ndarray:
            positions = self._positions(place, count)
            try:
                if in_memory:
                    return np.array([self._index(position) for position in positions], np.int64)
                return self._crops(positions)
            except DataError as error:
                self._error = error  # for `guard`
                raise

        def load_graph(place: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(load, [place], dtype), (count, *shape))

        places = tf.data.Dataset.range(start * self._rows, np.iinfo(np.int64).max, count)
        # Not several calls at a time: they would wait for each other at Python's lock.
        batches = places.map(load_graph).rebatch(self._rows, drop_remainder=True)
        if in_memory:
            batches = batches.map(lambda indices: tf.gather(patches, indices))
        # There is nothing to tune, and to end an iterator may take 10 s while its tuner sleeps.
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.prefetch(_BATCHES_AHEAD).with_options(options)

    def guard(self, batches: Iterator[tf.Tensor]) -> Generator[tf.Tensor, None, None]:
        """Passes batches on; turns what tf.data makes of a `DataError` back into one."""
        try:
            yield from batches
        except tf.errors.OpError as error:
            raise self._error or error from None

    def _positions(self, place: int, count: int) -> list[int]:
        """Positions in the stream of all workers, of places in this worker's."""
        first = self.worker * self._rows
        places = (divmod(each, self._rows) for each in range(place, place + count))
        return [step * self.batch_size + first + row for step, row in places]

    def _crops(self, positions: Sequence[int]) -> np.ndarray:
        crops = np.empty((len(positions), *self._shape), self._dtype)
        bits = np.random.Philox(key=0)
        random = np.random.Generator(bits)
        state: Any = bits.state
        for crop, position in zip(crops, positions, strict=True):
            _, patch = self._find(position)
            # As `Philox(key=(seed << 64) + position)`, which would take several times longer:
            # it asks the system for entropy that it does not use.
            state["state"]["key"] = position, self.seed
            bits.state = state
            patch = self._cut(patch, random)
            # Channel by channel: NumPy would copy a turned patch in runs of one pixel's three
            # values, several times slower.
            for channel in range(crop.shape[-1]):
                crop[..., channel] = patch[..., channel]
        return crops

    def _cut(self, patch: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A crop of a patch, or of a pair of them, turned, with noise; or all of it, as it is."""
        if self.whole:
            return self._colors(patch[..., -3:])
        if self.noise and self.records.shots == 2:
            return retake(self._colors(patch[..., 3:]), self.patch_size, self.noise, random)
        size, room = self.patch_size, len(patch) - self.patch_size + 1
        top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
        patch = self._colors(orient(patch[top : top + size, left : left + size], orientation))
        if not self.noise:
            return patch
        return np.concatenate([self.noise(patch, random) for _ in range(self.shots)], axis=-1)

    def _colors(self, patch: np.ndarray) -> np.ndarray:
        return luma(patch) if self.channels == 1 else patch

    def _all_patches(self) -> np.ndarray:
        """All whole patches; those of damaged records that are skipped hold anything."""
        patches = np.empty((len(self.records), *self._shape), self._dtype)
        for index, place in enumerate(patches):
            if (patch := self._read(index)) is not None:
                place[:] = self._colors(patch[..., -3:])
        return patches

    def _find(self, position: int) -> tuple[int, np.ndarray]:
        """Index and patch at a position, or the next good ones where damaged ones are skipped."""
        while True:
            index = self._index(position)
            if (patch := self._read(index)) is not None:
                return index, patch

    def _index(self, position: int) -> int:
        """Index of the patch at a position, or of the next one that is not known to be damaged."""
        for index in self._order.candidates(position):
            if index not in self.bad_records:
                return index
        raise DataError(
            f"All {len(self.bad_records)} records are damaged. The last one: "
            f"{[*self.bad_records.values()][-1]}"
        )

    def _read(self, index: int) -> np.ndarray | None:
        """A patch, or None for a damaged one that is skipped."""
        try:
            return self.records[index]
        except DataError as error:
            if not self.skip_bad_records:
                raise
            self.bad_records[index] = str(error)
            return None
