"""Random numbers as augmentation asks for them."""

from typing import Any

import keras
from keras import ops

Tensor = Any

_INDEX = "int64" if keras.config.backend() == "tensorflow" else "int32"
"""TensorFlow computes with int32 in the host's memory, which a GPU would wait for, and looking
something up takes a sum; JAX has no int64 unless it is asked for."""


class Draws:
    """Numbers drawn independently for each picture of a batch, one kind after the other.

    Args:
        random: gives `random.uniform(shape)`, float32 in [0, 1), and `random.normal(shape)`; the
            shapes begin with the number of pictures.
        rows: int, the number of pictures.
        count: int, how many times a number is drawn for each of them.
    """

    def __init__(self, random: Any, rows: int, count: int):
        # All at once: each draw of a step is an operation of its own.
        self._columns = iter(ops.unstack(random.uniform((rows, count)), axis=1))

    def uniform(self, low: Any = 0.0, high: Any = 1.0) -> Tensor:
        """Draws float32 [N] in [low, high)."""
        return low + (high - low) * next(self._columns)

    def log_uniform(self, low: Any, high: Any) -> Tensor:
        """Draws float32 [N] in [low, high), uniform in the logarithm."""
        return low * ops.power(ops.convert_to_tensor(high / low, "float32"), next(self._columns))

    def whole(self, count: Any) -> Tensor:
        """Draws integers [N] in [0, count), as float32; `count` is an int, or such numbers [N]."""
        number = ops.floor(next(self._columns) * count)
        return ops.minimum(number, count - 1)  # the product may be rounded up

    def index(self, count: int) -> Tensor:
        """Draws integers [N] in [0, count), as `ops.take` takes them."""
        return ops.cast(self.whole(count), _INDEX)

    def happens(self, share: Any) -> Tensor:
        """Draws bool [N], true with a probability of `share`."""
        return next(self._columns) < share


def each(values: Tensor) -> Tensor:
    """Returns one value for each picture, [N], as [N, 1, 1, 1]."""
    return ops.reshape(values, (-1, 1, 1, 1))
