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
        epoch, place = divmod(position, len(self.records))
        patch = self.records[int(self._order(epoch)[place])]
        random = np.random.Generator(np.random.Philox(key=(self.seed << 64) + position))
        room = self.records.patch_size - self.patch_size + 1
        top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
        patch = patch[top : top + self.patch_size, left : left + self.patch_size]
        return orient(patch, orientation)

    def batch(self, step: int) -> np.ndarray:
        """Returns the batch of a step: [batch_size, patch_size, patch_size, 3]."""
        start = step * self.batch_size
        return np.stack([self.crop(start + i) for i in range(self.batch_size)])

    def dataset(self, start: int = 0) -> tf.data.Dataset:
        """Returns the batches from step `start` on, as an endless dataset."""
        shape = (self.batch_size, self.patch_size, self.patch_size, 3)
        dtype = tf.as_dtype(self.records.dtype)

        def load(step: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(self._load, [step], dtype), shape)

        steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
        return steps.map(load, num_parallel_calls=2, deterministic=True).prefetch(tf.data.AUTOTUNE)

    def guard(self, batches: Iterator[tf.Tensor]) -> Iterator[tf.Tensor]:
        """Passes batches on; turns what tf.data makes of a `DataError` back into one."""
        try:
            yield from batches
        except tf.errors.OpError as error:
            raise self._error or error from None

    def _load(self, step: np.int64) -> np.ndarray:
        try:
            return self.batch(int(step))
        except DataError as error:
            self._error = error
            raise

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.records))
