"""The random numbers of one training step."""

import math
from typing import Any

import tensorflow as tf

Tensor = Any

_FLOATS = 2**24  # number of different floats to draw; float32 holds them without rounding


class StepRandom:
    """Random numbers that depend on the seed, the step, and the position in the global batch.

    Numbers are drawn for the whole global batch, and each replica takes its rows, so they do
    not depend on how many replicas share the work. Nothing is kept between steps.

    Each call draws new, independent numbers. The first axis of their shape runs over this replica's
    rows of the batch, once or several times, in the order of `cbsn.sampling.space_to_batch`.

    Args:
        seed: seed of the run; any int ≥ 0.
        step: integer scalar tensor, number of steps done.
        batch_size: number of rows of the global batch.
        start, rows: this replica's first row (an integer scalar tensor) and number of rows.
        first_draw: offset below 1000 that keeps its draws apart from those of another object at
            the same step.
    """

    def __init__(
        self,
        seed: int,
        step: Tensor,
        batch_size: int,
        start: Tensor = 0,
        rows: int | None = None,
        first_draw: int = 0,
    ):
        self._seed = seed
        self._step = tf.cast(step, tf.int64)
        self._batch_size = batch_size
        self._start = start
        self._rows = batch_size if rows is None else rows
        self._draws = first_draw

    def integers(self, shape: tuple[int, ...], high: int) -> Tensor:
        """Draws int32 in [0, high)."""
        length, *rest = shape
        times = length // self._rows
        # Half of the key numbers the draws of a step, half is the step, so that none repeats.
        key = tf.stack([tf.constant(self._seed * 1000 + self._draws, tf.int64), self._step])
        self._draws += 1
        numbers = tf.random.stateless_uniform(
            (times, self._batch_size, *rest), key, maxval=high, dtype=tf.int32, alg="philox"
        )
        if self._rows < self._batch_size:
            # Not `numbers[:, start:stop]`, whose size XLA cannot infer.
            begin = [0, self._start, *[0] * len(rest)]
            numbers = tf.slice(numbers, begin, (times, self._rows, *rest))
        return tf.reshape(numbers, shape)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draws float32 in [0, 1), as multiples of 2⁻²⁴."""
        # Computed from integers, as XLA and TensorFlow draw different floats.
        return tf.cast(self.integers(shape, _FLOATS), tf.float32) / _FLOATS

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draws normally distributed float32 with a mean of 0 and a standard deviation of 1.

        (Box & Muller, "A note on the generation of random normal deviates", 1958.)
        """
        length = tf.sqrt(-2 * tf.math.log(1 - self.uniform(shape)))
        return length * tf.cos(2 * math.pi * self.uniform(shape))
