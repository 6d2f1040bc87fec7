"""From patch records to batches: random crops in random orientations, in a random order.

Everything is a function of the seed and of the position in the stream. So a run that starts at
any step gets what it would have got had it come there by itself, without a shuffle buffer to
save; and every epoch is a full permutation, however the patches lie in the files.
"""

import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cbsn.data.augment import NUM_ORIENTATIONS, orient
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError

_CROPS_AT_ONCE, _BYTES_AT_ONCE = 128, 2**23
"""Crops that tf.data asks Python for in one call at most, as every call has its price."""


class PatchPipeline:
    """An endless stream of training batches.

    Args:
        records: the patches of the data set.
        patch_size: int, side of the crops in pixels; at most that of the records.
        batch_size: int, crops in a batch.
        seed: int ≥ 0, seed of order, crops and orientations.

    Raises:
        ConfigError: if the crops are larger than the recorded patches.
    """

    def __init__(self, records: PatchRecords, patch_size: int, batch_size: int, seed: int = 0):
        if patch_size > records.patch_size:
            raise ConfigError(
                f"The data set holds patches of {records.patch_size} pixels: take --patchsize "
                f"{records.patch_size} or less, or prepare larger ones (prepare_dataset.py "
                f"--patchsize). Received: patch_size={patch_size}"
            )
        self.records = records
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.seed = seed
        self._order = functools.lru_cache(maxsize=2)(self._permutation)
        self._error: DataError | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches it takes to see every recorded patch once, rounded up."""
        return -(-len(self.records) // self.batch_size)

    def crop(self, position: int) -> np.ndarray:
        """Returns the crop at a position of the stream.

        Args:
            position: int ≥ 0; epoch `position // len(records)` sees each record once.

        Returns:
            [patch_size, patch_size, 3] in the records' dtype.

        Raises:
            DataError: if the record is damaged.
        """
        return self._crops(range(position, position + 1))[0]

    def batch(self, step: int) -> np.ndarray:
        """Returns the batch of a step: [batch_size, patch_size, patch_size, 3]."""
        start = step * self.batch_size
        return self._crops(range(start, start + self.batch_size))

    def dataset(self, start: int = 0) -> tf.data.Dataset:
        """Returns the batches from step `start` on, as an endless dataset.

        It reads ahead: a damaged record may end it some batches before the one with its crop.
        """
        size = self.patch_size
        dtype = tf.as_dtype(self.records.dtype)
        fit = _BYTES_AT_ONCE // (size * size * 3 * dtype.size)
        count = max(1, min(_CROPS_AT_ONCE, fit))

        def load(position: tf.Tensor) -> tf.Tensor:
            crops = tf.numpy_function(self._load, [position, count], dtype)
            return tf.ensure_shape(crops, (count, size, size, 3))

        positions = tf.data.Dataset.range(start * self.batch_size, np.iinfo(np.int64).max, count)
        # One call at a time: two would wait for each other, at Python's lock, at twice the cost.
        crops = positions.map(load, num_parallel_calls=1, deterministic=True)
        batches = crops.rebatch(self.batch_size, drop_remainder=True)
        return batches.prefetch(tf.data.AUTOTUNE)

    def guard(self, batches: Iterator[tf.Tensor]) -> Iterator[tf.Tensor]:
        """Passes batches on; turns what tf.data makes of a `DataError` back into one."""
        try:
            yield from batches
        except tf.errors.OpError as error:
            raise self._error or error from None

    def _load(self, position: np.int64, count: np.int64) -> np.ndarray:
        try:
            return self._crops(range(position, position + count))
        except DataError as error:
            self._error = error
            raise

    def _crops(self, positions: range) -> np.ndarray:
        size = self.patch_size
        room = self.records.patch_size - size + 1
        crops = np.empty((len(positions), size, size, 3), self.records.dtype)
        bits = np.random.Philox(key=0)
        random, state = np.random.Generator(bits), bits.state
        for crop, position in zip(crops, positions, strict=True):
            epoch, place = divmod(position, len(self.records))
            patch = self.records[self._order(epoch)[place]]
            # As `Philox(key=(seed << 64) + position)`, which would take several times longer:
            # it asks the system for entropy that it does not use.
            state["state"]["key"] = position, self.seed
            bits.state = state
            top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
            patch = orient(patch[top : top + size, left : left + size], orientation)
            # Channel by channel: NumPy would copy a turned patch in runs of one pixel's three
            # values, several times slower.
            for channel in range(3):
                crop[..., channel] = patch[..., channel]
        return crops

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.records))
