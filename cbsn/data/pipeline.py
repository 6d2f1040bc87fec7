"""Turns patch records into batches: random crops in random orientations, in a random order.

Everything depends only on the seed and the position in the stream. So a run that resumes at any
step gets the same batches as an uninterrupted run, without a shuffle buffer to save.
"""

import dataclasses
import functools
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cbsn.colors import luma
from cbsn.data.records import Patches, size_text
from cbsn.errors import ConfigError, DataError
from cbsn.noise.synthetic import Noise, retake
from cbsn.orientations import NUM_ORIENTATIONS, orient

_EVEN = 0.9  # workers get their own files if each has at least this share of any other's records
# The most that tf.data requests from Python in one call. Every call has a cost, so it is large.
_CROPS_AT_ONCE, _BYTES_AT_ONCE, _INDICES_AT_ONCE = 128, 2**23, 1024
_BATCHES_AHEAD = 4
_MOST_IN_MEMORY = 2 << 30  # bytes; if whole patches take more, they are not kept in memory


class RecordOrder:
    """Assigns a record to each position in an endless stream of batches.

    Every record comes once per epoch. With several workers, each takes its share of the rows of
    every batch, worker 0 the first ones:

    - If the files can be dealt out evenly (`by_file`), each worker draws its rows from its own
      files, which no other worker reads. Its epochs have their own length.
    - Otherwise, the workers split the stream of a single worker, so the weights are the same.

    A record's index counts through all files, which have `counts` records. `batch_size` is the
    total over all workers, and a multiple of their number.
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
    """Deals files out, largest first, each to the worker with the least; None if uneven."""
    hands: list[list[int]] = [[] for _ in range(workers)]
    sums = [0] * workers
    for file in sorted(range(len(counts)), key=lambda f: (-counts[f], f)):
        least = sums.index(min(sums))
        hands[least].append(file)
        sums[least] += counts[file]
    return hands if min(sums) >= _EVEN * max(sums) and min(sums) > 0 else None


@dataclasses.dataclass(eq=False)
class PatchPipeline:
    """An endless stream of training batches, each of which depends only on the seed and its step.

    Raises ConfigError if crops, workers or noise do not fit the records, batch or channels.

    Attributes:
        bad_records: what is wrong with each damaged record found so far, by its index.
    """

    records: Patches
    patch_size: int  # side of the crops in pixels; at most that of the records
    batch_size: int  # number of crops in a batch, over all workers
    seed: int = 0  # ≥ 0, for order, crops, orientations and noise
    _: dataclasses.KW_ONLY
    worker: int = 0  # index of this process
    workers: int = 1  # number of processes that share each batch, see `RecordOrder`
    skip_bad_records: bool = False  # replace a damaged record by the next one of the epoch
    channels: int = 3  # 3 for RGB; 1 for gray, the luma (Rec. 601) of colours
    # Noise to add to the crops, which must then be clean; drawn anew each time. Of pairs, `retake`
    # uses the second pictures.
    noise: Noise | None = None
    shots: int = 1  # noisy shots of each crop, as channels: the pair's, or with noise drawn twice
    # Return whole patches as recorded, with one shot (of pairs, the second), for an augmentation on
    # the training device. If they fit into 2 GiB, all are kept in memory, so that no Python code
    # slows a GPU down.
    whole: bool = False
    # Planes of the crops along Z. Above 1 the records are volumes.
    patch_depth: int = 1
    # The orientations that crops are turned to, see `orient`, and whether volumes are also flipped.
    orientations: Sequence[int] = range(NUM_ORIENTATIONS)
    flips_z: bool = True

    def __post_init__(self) -> None:
        records, patch_size = self.records, self.patch_size
        self._check_depth()
        if patch_size > records.patch_size:
            pictures, depth = "PICTURES", ""
            if self.patch_depth > 1:
                pictures, depth = "STACKS", f" --patch_depth {records.patch_depth}"
            raise ConfigError(
                f"The data set holds patches of {records.patch_size} pixels: use --patch_size "
                f"{records.patch_size} or less, or prepare larger patches with `cbsn prepare "
                f"{pictures} --patch_size {patch_size}{depth} --out FOLDER`. "
                f"Received: --patch_size {patch_size}"
            )
        if self.batch_size % self.workers:
            raise ConfigError(
                f"--batch_size is divided among {self.workers} workers, so it must be a multiple "
                f"of {self.workers}. Received: batch_size={self.batch_size}"
            )
        if self.noise:
            self.noise.check(self.channels)
        if self.channels > records.channels:
            raise ConfigError(
                "The patches are gray, so the network must be for gray: omit --no-gray, or use "
                f"another model for --init. Received: {self.channels} channels"
            )
        self.bad_records: dict[int, str] = {}
        self._rows = self.batch_size // self.workers
        self._order = RecordOrder(records.counts, self.batch_size, self.workers, self.seed)
        side, shots = (records.patch_size, 1) if self.whole else (patch_size, self.shots)
        planes = (self.patch_depth,) if self.patch_depth > 1 else ()
        self._shape: tuple[int, ...] = *planes, side, side, shots * self.channels
        is_noisy = self.noise and not self.whole
        self._dtype: np.dtype = np.dtype(np.float32) if is_noisy else records.dtype
        self._error: DataError | None = None

    def _check_depth(self) -> None:
        """Raises a ConfigError unless the crops fit into the records along Z."""
        depth, most = self.patch_depth, self.records.patch_depth
        if depth == most == 1 or 1 < depth <= most:
            return
        command = "cbsn prepare STACKS --out FOLDER"
        if depth == 1:
            received = "a network in two dimensions"
            advice = f"train one in three, such as --recipe n2v-unet-3d, or cut planes: `{command}`"
        else:
            received = f"--patch_depth {depth}"
            advice = f"cut patches of that depth: `{command} --patch_depth {depth}`"
            if most > 1:
                advice = f"use --patch_depth {most} or less, or {advice}"
        raise ConfigError(
            f"The data set holds patches of {size_text(self.records.patch_size, most)}: {advice}. "
            f"Received: {received}"
        )

    def batch(self, step: int) -> np.ndarray:
        """Returns this worker's rows of a batch: [rows, patch_size, patch_size, shots·channels].

        Crops of volumes are [rows, patch_depth, patch_size, patch_size, shots·channels]. All have
        the records' dtype or, with noise, are float32 with white at 1, see `Noise`.
        """
        return self._crops(self._positions(step * self._rows, self._rows))

    def example(self, position: int) -> np.ndarray:
        """Returns the first shot of the crop at a position, for display.

        It is [P, P, channels], or of a volume [D, P, P, channels].
        """
        if not self.whole:
            return self._crops([position])[0, ..., : self.channels]
        return self._colors(self._find(position)[1][..., : self.records.channels])

    def sources(self, step: int) -> list[str]:
        """Returns a line for each row of a step's batch, over all workers: where it comes from.

        If some rows hold values that are not finite, only these are listed.
        """
        first = step * self.batch_size
        found = [self._find(first + row) for row in range(self.batch_size)]
        bad = [index for index, patch in found if not np.isfinite(patch).all()]
        note = ", which holds values that are not finite" if bad else ""
        return [self.records.describe(i) + note for i in bad or [index for index, _ in found]]

    def dataset(self, start: int = 0) -> tf.data.Dataset:
        """Returns this worker's rows of the batches from step `start` on, as an endless dataset.

        It reads ahead, so a damaged record may end it some batches before the one with its crop.
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
        # No parallel calls: they would wait for each other at Python's global lock.
        batches = places.map(load_graph).rebatch(self._rows, drop_remainder=True)
        if in_memory:
            batches = batches.map(lambda indices: tf.gather(patches, indices))
        # There is nothing to tune, and ending an iterator may take 10 s while its tuner sleeps.
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.prefetch(_BATCHES_AHEAD).with_options(options)

    def guard(self, batches: Iterator[tf.Tensor]) -> Generator[tf.Tensor, None, None]:
        """Passes batches on. Raises the original `DataError` in place of tf.data's error."""
        try:
            yield from batches
        except tf.errors.OpError as error:
            raise self._error or error from None

    def _positions(self, place: int, count: int) -> list[int]:
        """Converts places in this worker's stream to positions in the stream of all workers."""
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
            # Same as `Philox(key=(seed << 64) + position)`, which takes several times longer,
            # because it asks the system for entropy that it does not use.
            state["state"]["key"] = position, self.seed
            bits.state = state
            patch = self._cut(patch, random)
            # Channel by channel, because NumPy would copy a turned patch in runs of one pixel's
            # three values, which is several times slower.
            for channel in range(crop.shape[-1]):
                crop[..., channel] = patch[..., channel]
        return crops

    def _cut(self, patch: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a turned crop of a patch or pair, with any noise; or the whole patch as it is."""
        if self.whole:
            return self._colors(patch[..., -self.records.channels :])
        if self.noise and self.records.shots == 2:
            second = self._colors(patch[..., self.records.channels :])
            return retake(second, self.patch_size, self.noise, random)
        size, room = self.patch_size, self.records.patch_size - self.patch_size + 1
        if self.patch_depth > 1:
            return self._colors(self._cut_volume(patch, room, random))
        top, left, place = random.integers(0, (room, room, len(self.orientations)))
        orientation = self.orientations[place]
        patch = self._colors(orient(patch[top : top + size, left : left + size], orientation))
        if not self.noise:
            return patch
        return np.concatenate([self.noise(patch, random) for _ in range(self.shots)], axis=-1)

    def _cut_volume(self, patch: np.ndarray, room: int, random: np.random.Generator) -> np.ndarray:
        """Returns a crop of a volume [D, P, P, C], turned in plane and perhaps flipped along Z."""
        size, depth = self.patch_size, self.patch_depth
        deep = self.records.patch_depth - depth + 1
        first, top, left, place, flips = random.integers(
            0, (deep, room, room, len(self.orientations), 1 + self.flips_z)
        )
        orientation = self.orientations[place]
        crop = patch[first : first + depth, top : top + size, left : left + size]
        if flips:
            crop = crop[::-1]
        return np.moveaxis(orient(np.moveaxis(crop, 0, 2), orientation), 2, 0)

    def _colors(self, patch: np.ndarray) -> np.ndarray:
        return luma(patch) if self.channels < self.records.channels else patch

    def _all_patches(self) -> np.ndarray:
        """Returns all whole patches, with arbitrary values for damaged records that are skipped."""
        patches = np.empty((len(self.records), *self._shape), self._dtype)
        for index, place in enumerate(patches):
            if (patch := self._read(index)) is not None:
                place[:] = self._colors(patch[..., -self.records.channels :])
        return patches

    def _find(self, position: int) -> tuple[int, np.ndarray]:
        """Returns index and patch at a position, or the next good ones if bad ones are skipped."""
        while True:
            index = self._index(position)
            if (patch := self._read(index)) is not None:
                return index, patch

    def _index(self, position: int) -> int:
        """Returns the index of the patch at a position, or of the next not known to be damaged."""
        for index in self._order.candidates(position):
            if index not in self.bad_records:
                return index
        raise DataError(
            f"All {len(self.bad_records)} records are damaged. The last one: "
            f"{[*self.bad_records.values()][-1]}"
        )

    def _read(self, index: int) -> np.ndarray | None:
        """Returns a patch, or None for a damaged one that is skipped."""
        try:
            return self.records[index]
        except DataError as error:
            if not self.skip_bad_records:
                raise
            self.bad_records[index] = str(error)
            return None
