"""How pictures are scaled before a network sees them, and back.

Every recipe names one normalisation, and a saved model carries its recipe, so that a network can
not be run with another one.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

from cbsn.value_range import value_range

Tensor = Any

BLOCK_BYTES = 32 << 20
"""How much of a picture is held in float64 at a time while its statistics are taken."""


def _mean(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over height and width of a function of a batch, [N, 1, 1, C]."""
    return ops.mean(function(x), axis=(1, 2), keepdims=True)


class Normalization:
    """What all normalisations have in common: each is a mean and a deviation per channel."""

    of_picture = True
    """Whether these depend on the picture."""


class Standardization(Normalization):
    """Zero mean and unit deviation per image and channel, as C-BSN has it.

    The standard deviation (of the population) is floored at 1/sqrt(H·W), in units of the value
    range, so that a flat picture is not divided by nothing.
    """

    def batch(self, x: Tensor) -> Tensor:
        """Normalises a batch, each image by its own statistics.

        Args:
            x: float32 [N, H, W, C] in [0, 1].

        Returns:
            float32, same shape.
        """
        mean, deviation = self.moments(x)
        return (x - mean) / deviation

    def moments(
        self, x: Tensor, mean: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor] = _mean
    ) -> tuple[Tensor, Tensor]:
        """Takes the statistics of a batch, each image's own.

        Args:
            x: [N, H, W, C].
            mean: called with `x` and a function; returns the mean over height and width of that
                function of `x`'s values in [0, 1], float [N, 1, 1, C].

        Returns:
            Mean and (floored) deviation, [N, 1, 1, C].
        """
        height, width = ops.shape(x)[1:3]
        average = mean(x, lambda values: values)
        variance = mean(x, lambda values: ops.square(values - average))
        floor = 1.0 / ops.sqrt(ops.cast(height * width, average.dtype))
        return average, ops.maximum(ops.sqrt(variance), floor)

    def statistics(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes the statistics of a whole picture, in bounded memory.

        Args:
            image: [H, W, C], uint8, uint16 or float in [0, 1].

        Returns:
            Mean and (floored) deviation in units of the value range: two float64 arrays [C].
        """
        height, width, _ = image.shape
        count = height * width
        if image.dtype.kind == "u":
            return self._of_levels(image)
        # Two passes: the mean of squares less the square of the mean would lose the deviation
        # of a bright flat picture to rounding.
        mean = sum(block.sum(axis=(0, 1)) for block in _unit_blocks(image)) / count
        squares = sum(((block - mean) ** 2).sum(axis=(0, 1)) for block in _unit_blocks(image))
        return mean, np.maximum(np.sqrt(squares / count), 1.0 / np.sqrt(count))

    def _of_levels(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `statistics`, of integers, whose sums are exact: so one pass over them is enough."""
        height, width, channels = image.shape
        count, scale = height * width, int(value_range(image.dtype))
        squared = np.dtype(f"u{2 * image.itemsize}")
        rows = max(1, BLOCK_BYTES // max(1, image[:1].size * squared.itemsize))
        sums = np.zeros((2, width, channels), np.uint64)
        for start in range(0, height, rows):
            block = image[start : start + rows]
            sums[0] += block.sum(axis=0, dtype=np.uint64)
            sums[1] += np.square(block, dtype=squared).sum(axis=0, dtype=np.uint64)
        totals = [[int(total) for total in totals] for totals in sums.sum(axis=1)]
        mean = np.array([total / (count * scale) for total in totals[0]])
        # In Python's integers, which lose nothing where large numbers are nearly equal.
        variance = np.array(
            [
                (count * square - total**2) / (count * scale) ** 2
                for total, square in zip(*totals, strict=True)
            ]
        )
        return mean, np.maximum(np.sqrt(variance), 1.0 / np.sqrt(count))


class UnitRange(Normalization):
    """Values from 0 to 1, whatever the picture."""

    RANGE = 1.0

    of_picture = False

    def batch(self, x: Tensor) -> Tensor:
        """From float32 [N, H, W, C] in [0, 1] to [0, RANGE]."""
        return x * self.RANGE

    def moments(self, x: Tensor, mean: Any = None) -> tuple[float, float]:
        """Returns a mean of 0 and a deviation of 1/RANGE, whatever the batch."""
        return 0.0, 1 / self.RANGE

    def statistics(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns a mean of 0 and a deviation of 1/RANGE for each channel of [H, W, C]."""
        channels = image.shape[-1]
        return np.zeros(channels), np.full(channels, 1 / self.RANGE)


class EightBitRange(UnitRange):
    """Values from 0 to 255, whatever the picture, as AP-BSN and SS-BSN have it."""

    RANGE = 255.0


def _unit_blocks(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yields blocks of rows as float64 in [0, 1]."""
    scale = value_range(image.dtype)
    rows = max(1, BLOCK_BYTES // max(1, image[:1].size * 8))
    for start in range(0, image.shape[0], rows):
        yield image[start : start + rows].astype(np.float64) / scale


NORMALIZATIONS = {"standardize": Standardization, "0-1": UnitRange, "0-255": EightBitRange}
"""Every normalisation that a recipe may name."""
