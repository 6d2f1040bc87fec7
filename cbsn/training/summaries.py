"""TensorBoard events of a run."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from cbsn.value_range import value_range


class Summaries:
    """Writes scalars and pictures for TensorBoard.

    Args:
        folder: where the event files go; made if need be.
    """

    def __init__(self, folder: Path):
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes named scalars, such as `{"loss/total": 1.2}`, of a step."""
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def pictures(self, step: int, name: str, pictures: Sequence[np.ndarray]) -> None:
        """Writes pictures side by side as one.

        Args:
            step: of the training.
            name: such as "validation/0".
            pictures: each [H, W, C] of one size; uint8, uint16 or float in [0, 1], which is
                clipped to that.
        """
        rows = [np.clip(p.astype(np.float32) / value_range(p.dtype), 0, 1) for p in pictures]
        with self._writer.as_default(step):
            tf.summary.image(name, np.concatenate(rows, axis=1)[None])

    def flush(self) -> None:
        """Writes out what is still in memory."""
        self._writer.flush()

    def close(self) -> None:
        """Writes out the rest, if it can: the log is not worth an error after all else."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()
