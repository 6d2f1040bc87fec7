"""From patch records to batches: random crops in random orientations, in a random order.

Everything is a function of the seed and of the position in the stream. So a run that starts at
any step gets what it would have got had it come there by itself, without a shuffle buffer to
save; and every epoch is a full permutation, however the patches lie in the files.
"""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from cbsn.data.paired_records import PairedRecords
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError
from cbsn.noise.camera import PictureNoise, Retake
from cbsn.orientations import NUM_ORIENTATIONS, orient

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


_CROPS_AT_ONCE, _BYTES_AT_ONCE = 128, 2**23
"""Crops that tf.data asks Python for in one call at most, as every call has its price."""

_BATCHES_AHEAD = 4

_MOST_IN_MEMORY = 2 << 30
"""Bytes of whole patches that are read once and kept."""

_INDICES_AT_ONCE = 1024


class PatchPipeline:
    """An endless stream of training batches.

    Args:
        records: the patches of the data set: `PatchRecords`, or `PairedRecords` for two shots.
        patch_size: int, side of the crops in pixels; at most that of the records.
        batch_size: int, crops in a batch, over all workers.
        seed: int ≥ 0, seed of order, crops and orientations.
        worker: int, number of this process among the workers, who share each batch; this one
            gets `batch_size / workers` rows of it. See `RecordOrder` for who reads what.
        workers: int ≥ 1, a divisor of `batch_size`.
        skip_bad_records: whether to take the next record of the epoch in place of a damaged one.
        channels: int, 3 (RGB), or 1: gray, the luma (Rec. 601) of what has colours.
        noise: what is added to the crops, which are clean then; None for nothing. It is drawn anew
            each time, a function of seed and position. Of pairs the second pictures are taken, and
            made into `Retake`s with that noise.
        shots: int, noisy shots of each crop, one after the other in the channels. Two come of
            `PairedRecords`, or of noise drawn twice.
        whole: whether to give patches as they are recorded, one shot, of pairs the second, for an
            augmentation that cuts and turns them on the device that trains; nothing else is done
            here then. They are all in memory, if they fit into 2 GiB, so that no Python code
            slows a GPU down. Default False.

    Attributes:
        bad_records: dict, what is wrong with each damaged record that was skipped, by its index.

    Raises:
        ConfigError: if the crops are larger than the recorded patches, the batch cannot be shared
            out evenly, or the noise is not for so many channels.
    """

    def __init__(
        self,
        records: PatchRecords | PairedRecords,
        patch_size: int,
        batch_size: int,
        seed: int = 0,
        *,
        worker: int = 0,
        workers: int = 1,
        skip_bad_records: bool = False,
        channels: int = 3,
        noise: PictureNoise | None = None,
        shots: int = 1,
        whole: bool = False,
    ):
        if patch_size > records.patch_size:
            raise ConfigError(
                f"The data set holds patches of {records.patch_size} pixels: take --patchsize "
                f"{records.patch_size} or less, or give the folder of larger ones, as `python "
                f"prepare_dataset.py --dataset PICTURES --patchsize {patch_size} --out FOLDER` "
                f"makes them. Received: --patchsize {patch_size}"
            )
        if batch_size % workers:
            raise ConfigError(
                f"--batchsize is shared out over {workers} workers, so it must be a multiple of "
                f"{workers}. Received: batch_size={batch_size}"
            )
        if noise:
            noise.check(channels)
        self.records = records
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.seed = seed
        self.bad_records: dict[int, str] = {}
        self._rows = batch_size // workers
        self._first_row = worker * self._rows
        self._order = RecordOrder(records.counts, batch_size, workers, seed)
        self._skip_bad_records = skip_bad_records
        self._channels = channels
        self._noise = noise
        self._retake = Retake(noise, patch_size) if noise else None
        self._shots = 1 if whole else shots
        self._whole = whole
        self._error: DataError | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches it takes to see every recorded patch once, rounded up."""
        return -(-len(self.records) // self.batch_size)

    def crop(self, position: int) -> np.ndarray:
        """Returns the crop at a position of the stream.

        Args:
            position: int ≥ 0, row `position % batch_size` of batch `position // batch_size`.

        Returns:
            [patch_size, patch_size, shots·channels] in the records' dtype; with noise float32 in
            units of [0, 1], not clipped.

        Raises:
            DataError: if the record is damaged.
        """
        return self._crops([position])[0]

    def batch(self, step: int) -> np.ndarray:
        """Returns this worker's rows of a batch, as `crop` has them, stacked."""
        start = step * self._rows
        return self._crops(self._positions(range(start, start + self._rows)))

    def dataset(self, start: int = 0) -> tf.data.Dataset:
        """Returns this worker's rows of the batches from step `start` on, as an endless dataset.

        It reads ahead: a damaged record may end it some batches before the one with its crop.
        """
        if self._whole and len(self.records) * self._record_bytes <= _MOST_IN_MEMORY:
            return self._from_memory(start)
        shape = self._crop_shape
        dtype = tf.as_dtype(np.float32 if self._noise else self.records.dtype)
        fit = _BYTES_AT_ONCE // (math.prod(shape) * dtype.size)
        count = max(1, min(_CROPS_AT_ONCE, fit))

        def load(place: tf.Tensor) -> tf.Tensor:
            crops = tf.numpy_function(self._load, [place, count], dtype)
            return tf.ensure_shape(crops, (count, *shape))

        places = tf.data.Dataset.range(start * self._rows, np.iinfo(np.int64).max, count)
        # Not several calls at a time: they would wait for each other, at Python's lock, at twice
        # the cost.
        crops = places.map(load)
        batches = crops.rebatch(self._rows, drop_remainder=True).prefetch(_BATCHES_AHEAD)
        # There is nothing to tune, and to end an iterator may take 10 s while its tuner sleeps.
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.with_options(options)

    def example(self, position: int) -> np.ndarray:
        """Returns the first shot of the crop at a position, to be shown: [P, P, channels]."""
        if not self._whole:
            return self.crop(position)[..., : self._channels]
        patch = self._find(position)[1][..., :3]
        return luma(patch) if self._channels == 1 else patch

    def guard(self, batches: Iterator[tf.Tensor]) -> Iterator[tf.Tensor]:
        """Passes batches on; turns what tf.data makes of a `DataError` back into one."""
        try:
            yield from batches
        except tf.errors.OpError as error:
            raise self._error or error from None

    def sources(self, step: int) -> list[str]:
        """Says where each row of a step's batch, of all workers, comes from.

        Returns:
            A line for each row. If any of them hold values that are not finite, only those.
        """
        first = step * self.batch_size
        found = [self._find(first + row) for row in range(self.batch_size)]
        bad = [index for index, patch in found if not np.isfinite(patch).all()]
        if bad:
            note = ", which holds values that are not finite"
            return [self.records.describe(index) + note for index in bad]
        return [self.records.describe(index) for index, _ in found]

    def _positions(self, places: range) -> Iterable[int]:
        """Positions in the stream of all workers, by places in this worker's."""
        for place in places:
            step, row = divmod(place, self._rows)
            yield step * self.batch_size + self._first_row + row

    def _load(self, place: np.int64, count: np.int64) -> np.ndarray:
        with self._keep_error():
            return self._crops(self._positions(range(place, place + count)))

    @contextlib.contextmanager
    def _keep_error(self) -> Iterator[None]:
        """Keeps a `DataError` for `guard`, as tf.data makes one of its own out of it."""
        try:
            yield
        except DataError as error:
            self._error = error
            raise

    def _from_memory(self, start: int) -> tf.data.Dataset:
        """As `dataset`, of patches that are read once, before the first step."""
        patches = np.empty((len(self.records), *self._crop_shape), self.records.dtype)
        for index in range(len(patches)):
            try:
                patches[index] = self._cut(self.records[index], None)
            except DataError as error:
                if not self._skip_bad_records:
                    raise
                self.bad_records[index] = str(error)
        with tf.device("CPU"):
            patches = tf.constant(patches)

        def find(place: np.int64, count: np.int64) -> np.ndarray:
            positions = self._positions(range(place, place + count))
            with self._keep_error():
                return np.array([self._index(position) for position in positions], np.int64)

        def indices(place: tf.Tensor) -> tf.Tensor:
            found = tf.numpy_function(find, [place, _INDICES_AT_ONCE], tf.int64)
            return tf.ensure_shape(found, (_INDICES_AT_ONCE,))

        places = tf.data.Dataset.range(start * self._rows, np.iinfo(np.int64).max, _INDICES_AT_ONCE)
        rows = places.map(indices).rebatch(self._rows, drop_remainder=True)
        batches = rows.map(lambda each: tf.gather(patches, each)).prefetch(_BATCHES_AHEAD)
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.with_options(options)

    @property
    def _crop_shape(self) -> tuple[int, int, int]:
        size = self.records.patch_size if self._whole else self.patch_size
        return size, size, self._shots * self._channels

    @property
    def _record_bytes(self) -> int:
        return math.prod(self._crop_shape) * self.records.dtype.itemsize

    def _crops(self, positions: Iterable[int]) -> np.ndarray:
        positions = list(positions)
        dtype = np.float32 if self._noise else self.records.dtype
        crops = np.empty((len(positions), *self._crop_shape), dtype)
        bits = np.random.Philox(key=0)
        random, state = np.random.Generator(bits), bits.state
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

    def _cut(self, patch: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
        """A crop of a patch, or of a pair of them, turned, with noise; or all of it, as it is."""
        if self._whole:
            return luma(patch[..., -3:]) if self._channels == 1 else patch[..., -3:]
        if self._retake and patch.shape[-1] > 3:
            second = patch[..., 3:]
            return self._retake(luma(second) if self._channels == 1 else second, random)
        size, room = self.patch_size, len(patch) - self.patch_size + 1
        top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
        patch = orient(patch[top : top + size, left : left + size], orientation)
        if self._channels == 1:
            patch = luma(patch)
        if not self._noise:
            return patch
        return np.concatenate([self._noise(patch, random) for _ in range(self._shots)], axis=-1)

    def _find(self, position: int) -> tuple[int, np.ndarray]:
        """Index and patch at a position, or the next good ones where damaged ones are skipped."""
        while True:
            index = self._index(position)
            try:
                return index, self.records[index]
            except DataError as error:
                if not self._skip_bad_records:
                    raise
                self.bad_records[index] = str(error)

    def _index(self, position: int) -> int:
        """Index of the patch at a position, or of the next one that is not known to be damaged."""
        for ahead in range(self._order.group_size(position)):
            index = self._order.record(position, ahead)
            if index not in self.bad_records:
                return index
        raise DataError(
            f"All {len(self.bad_records)} records are damaged. The last one: "
            f"{[*self.bad_records.values()][-1]}"
        )


def luma(patch: np.ndarray) -> np.ndarray:
    """Returns the luma of colours.

    Args:
        patch: [H, W, 3·n], uint8, uint16 or float: red, green and blue of n shots.

    Returns:
        [H, W, n] of the same dtype, by Rec. 601; gray stays what it is.
    """
    red, green, blue = (patch[..., channel::3].astype(np.float64) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return (np.rint(luma) if patch.dtype.kind == "u" else luma).astype(patch.dtype)
