"""What is collected of picture after picture."""

import collections

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import BLOCK
from cbsn.noise.blocks import Blocks
from cbsn.noise.flat_blocks import flat_blocks
from cbsn.noise.values import Values
from cbsn.value_range import value_range

_MOST_KEPT = 8192
"""Blocks in memory, those with the least content, of 2 KB for each channel."""


class Survey:
    """Collects the blocks of pictures that may be flat, in memory that does not grow with them.

    Attributes:
        blocks: `Blocks`, those with the least content of all pictures; None before there are any.
        brightness: of each picture, the means [m, C] of all its blocks that are not clipped.
        counts: blocks in `all`, `clipped`, `silent` and `uneven`, as `flat_blocks` has it.
        values: `Values` of all pictures.
    """

    def __init__(self) -> None:
        self.blocks: Blocks | None = None
        self.brightness: list[np.ndarray] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.values = Values()

    def add(self, noisy: np.ndarray, denoised: np.ndarray | None) -> None:
        """Adds a picture.

        Args:
            noisy: [H, W, C], uint8, uint16 or float, C being 1 or 3.
            denoised: likewise, or None.

        Raises:
            DataError: if values are not finite, the two differ in shape or dtype, or this picture
                and others in channels.
        """
        self._check(noisy, denoised)
        clipped = self.values.add(noisy)
        if min(noisy.shape[:2]) < BLOCK:
            self.brightness.append(np.zeros((0, noisy.shape[2])))
            return
        step = 0 if noisy.dtype.kind == "f" else 255 / value_range(noisy.dtype)
        found, brightness, counts = flat_blocks(
            _in_levels(noisy),
            None if denoised is None else _in_levels(denoised),
            clipped,
            rounding=step**2 / 12,
        )
        found.picture[:] = len(self.brightness)
        blocks = found if self.blocks is None else Blocks.joined([self.blocks, found])
        if len(blocks) > _MOST_KEPT:
            blocks = blocks[np.argsort(blocks.content)[:_MOST_KEPT]]
        self.blocks = blocks
        self.brightness.append(brightness)
        self.counts.update(counts)

    def _check(self, noisy: np.ndarray, denoised: np.ndarray | None) -> None:
        if not all(np.isfinite(each).all() for each in (noisy, denoised) if each is not None):
            raise DataError(
                "No noise can be seen in values that are not finite: take that picture away. "
                f"Received: NaN or infinity in picture {len(self.brightness) + 1}"
            )
        if self.brightness and noisy.shape[2] != self.brightness[0].shape[1]:
            raise DataError(
                "Give pictures that are all gray, or all in colour. Received: one of "
                f"{noisy.shape[2]} channels after others of {self.brightness[0].shape[1]}"
            )
        if denoised is not None and (noisy.shape, noisy.dtype) != (denoised.shape, denoised.dtype):
            raise DataError(
                "A noisy picture and the denoised one must be of equal size and depth. Received: "
                f"{noisy.shape}, {noisy.dtype} and {denoised.shape}, {denoised.dtype}"
            )


def _in_levels(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.float32) * np.float32(255 / value_range(picture.dtype))
