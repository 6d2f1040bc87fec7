"""Normalisations: how pictures are scaled before a network sees them, and back.

Every recipe names one normalisation, and a saved model includes its recipe, so a network cannot be
run with a different one.
"""

import abc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

from cbsn.value_range import value_range

Tensor = Any
Mean = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]

BLOCK_BYTES = 32 << 20  # size of the blocks in which a picture's statistics are computed


def _mean(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns the mean over height and width of a function of a batch, [N, 1, 1, C]."""
    return ops.mean(function(x), axis=(1, 2), keepdims=True)


class Normalization(abc.ABC):
    """The base class of normalisations: each is a mean and a deviation per channel."""

    of_picture = True
    """Whether the mean and the deviation depend on the picture."""

    @abc.abstractmethod
    def moments(self, x: Tensor, mean: Mean = _mean) -> tuple[Any, Any]:
        """Returns the mean and deviation of each image [N, H, W, C], as [N, 1, 1, C] or floats.

        `mean` is called with `x` and a function, and returns the mean over height and width of that
        function of `x`'s values in [0, 1], float [N, 1, 1, C].
        """

    @abc.abstractmethod
    def statistics(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean and the deviation of a whole picture, using bounded memory.

        Both are float64 [C], in units of the value range. The picture is [H, W, C], uint8, uint16
        or float in [0, 1].
        """

    def batch(self, x: Tensor) -> Tensor:
        """Normalises each image of a batch by its own moments; float32 [N, H, W, C] in [0, 1]."""
        mean, deviation = self.moments(x)
        return (x - mean) / deviation


class Standardization(Normalization):
    """Zero mean and unit deviation per image and channel, as in C-BSN.

    The (population) standard deviation is at least 1/sqrt(H·W), in units of the value range, so
    that a flat picture is not divided by zero.
    """

    def moments(self, x: Tensor, mean: Mean = _mean) -> tuple[Any, Any]:  # noqa: D102
        height, width = ops.shape(x)[1:3]
        average = mean(x, lambda values: values)
        variance = mean(x, lambda values: ops.square(values - average))
        floor = 1.0 / ops.sqrt(ops.cast(height * width, average.dtype))
        return average, ops.maximum(ops.sqrt(variance), floor)

    def statistics(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: D102
        count = image.shape[0] * image.shape[1]
        if image.dtype.kind == "u":
            mean, variance = _of_levels(image)
        else:
            # Two passes: the mean of squares minus the square of the mean would lose the deviation
            # of a bright flat picture to rounding.
            mean = sum(x.astype(float).sum(axis=(0, 1)) for x in _blocks(image, 8)) / count
            variance = sum(((x - mean) ** 2).sum(axis=(0, 1)) for x in _blocks(image, 8)) / count
        return mean, np.maximum(np.sqrt(variance), 1.0 / np.sqrt(count))


class UnitRange(Normalization):
    """Values from 0 to 1, independent of the picture."""

    RANGE = 1.0
    of_picture = False

    def moments(self, x: Tensor, mean: Mean = _mean) -> tuple[Any, Any]:  # noqa: D102
        return 0.0, 1 / self.RANGE

    def batch(self, x: Tensor) -> Tensor:  # noqa: D102
        return x * self.RANGE

    def statistics(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: D102
        channels = image.shape[-1]
        return np.zeros(channels), np.full(channels, 1 / self.RANGE)


class EightBitRange(UnitRange):
    """Values from 0 to 255, independent of the picture, as in AP-BSN and SS-BSN."""

    RANGE = 255.0


def _of_levels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and variance of integers. Their sums are exact, so one pass is enough."""
    height, width, channels = image.shape
    count, scale = height * width, int(value_range(image.dtype))
    squared = np.dtype(f"u{2 * image.itemsize}")
    sums = np.zeros((2, width, channels), np.uint64)
    for block in _blocks(image, squared.itemsize):
        sums[0] += block.sum(axis=0, dtype=np.uint64)
        sums[1] += np.square(block, dtype=squared).sum(axis=0, dtype=np.uint64)
    # Python's integers stay exact in a difference of large, nearly equal numbers.
    totals, squares = sums.sum(axis=1).astype(object)
    mean = totals / (count * scale)
    variance = (count * squares - totals**2) / (count * scale) ** 2
    return mean.astype(float), variance.astype(float)


def _blocks(image: np.ndarray, item_bytes: int) -> Iterator[np.ndarray]:
    """Yields blocks of rows that fit in `BLOCK_BYTES` with `item_bytes` per value."""
    rows = max(1, BLOCK_BYTES // max(1, image[:1].size * item_bytes))
    return (image[start : start + rows] for start in range(0, image.shape[0], rows))


# Every normalisation that a recipe may name.
NORMALIZATIONS: dict[str, type[Normalization]] = {
    "standardize": Standardization,
    "0-1": UnitRange,
    "0-255": EightBitRange,
}
