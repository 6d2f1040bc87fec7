"""Calling a network in smaller parts if memory runs out."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from cbsn.devices import is_out_of_memory
from cbsn.errors import CbsnWarning
from cbsn.inference.engines.engine import Run
from cbsn.inference.tiling import Tiling


class Calls:
    """Calls networks on a device, and retries with less when memory runs out.

    It retries with fewer tiles, then with parts of a tile that overlap by the halo. The results of
    a local network stay the same. A size that once was too large is not tried again.

    Args:
        tilings: give the border, halo and multiple of the networks, for each axis.
        pixels: int, the most pixels to compute at once. A single tile may have more.
    """

    def __init__(self, tilings: Sequence[Tiling], pixels: int):
        self._tilings = tilings
        self._pixels = pixels
        self._too_many = math.inf
        self._failed: tuple[int, ...] | None = None

    def tiles(self, *size: int) -> int:
        """Returns how many tiles of a size to compute at once, at least 1."""
        return max(1, int(min(self._pixels, self._too_many // 2)) // math.prod(size))

    def start(self, run: Run, x: np.ndarray) -> Any:
        """Begins a call. A GPU computes it while the host does something else.

        The caller must not change the tiles `x`, float32 [n, (z,) h, w, C], before the result is
        there. Returns the value to pass to `finish` as `started`.
        """
        if math.prod(x.shape[:-1]) < self._too_many:
            try:
                return run(x)
            except Exception as error:
                self._note(error, x)
        return None

    def finish(self, run: Run, x: np.ndarray, started: Any) -> np.ndarray:
        """Waits for the result of a call begun by `start` with the same arguments.

        Raises:
            MemoryError: if memory does not suffice for the smallest part of a tile.
        """
        if started is not None:
            try:
                y = np.asarray(started)
            except Exception as error:
                self._note(error, x)
            else:
                self._warn(x)
                return y
        if len(x) > 1:
            return np.concatenate([self._call(run, part) for part in np.array_split(x, 2)])
        return self._call_by_halves(run, x)

    def _call(self, run: Run, x: np.ndarray) -> np.ndarray:
        return self.finish(run, x, self.start(run, x))

    def _note(self, error: Exception, x: np.ndarray) -> None:
        """Notes that memory did not suffice for these tiles; re-raises any other error."""
        if not is_out_of_memory(error):
            raise error
        self._too_many = min(self._too_many, math.prod(x.shape[:-1]))
        self._failed = self._failed or x.shape

    def _warn(self, x: np.ndarray) -> None:
        """Warns, after a lack of memory, which smaller size succeeded."""
        if self._failed is None:
            return
        (_, *before), (_, *now) = self._failed[:-1], x.shape[:-1]
        text = f"Too little memory for {_sides(self._failed[:-1])} pixels at once: using "
        self._failed = None
        if now == before:
            text += f"{_sides(x.shape[:-1])} instead"
        else:
            smaller = [
                size - 2 * tiling.halo
                for size, whole, tiling in zip(now, before, self._tilings, strict=True)
                if size < whole
            ]
            text += (
                f"{_sides(now)} instead, which takes longer; cbsn denoise --tile "
                f"{max(1, min(smaller))} does so from the start"
            )
        warnings.warn(text, CbsnWarning, stacklevel=2)

    def _call_by_halves(self, run: Run, x: np.ndarray) -> np.ndarray:
        """Computes one tile in two parts, which overlap by the halo."""
        # Along the axis of which most is left when the halo is taken off: of pictures, the longer.
        axis = max(
            range(1, x.ndim - 1), key=lambda axis: x.shape[axis] - 4 * self._tilings[axis - 1].halo
        )
        size, tiling = x.shape[axis], self._tilings[axis - 1]
        halo, multiple = tiling.halo, tiling.multiple
        omits = tiling.border == "reflect"
        result = size - 2 * halo * omits
        # Below four times the halo, the halves would be hardly smaller than the whole.
        if size < 4 * halo or result < 2 * multiple:
            raise MemoryError(f"too little memory even for {_sides(x.shape[1:-1])} pixels at once")
        middle = -(-result // (2 * multiple)) * multiple
        stop, start = (middle + 2 * halo, middle) if omits else (middle + halo, middle - halo)
        first = self._call(run, x.take(range(stop), axis))
        second = self._call(run, x.take(range(start, size), axis))
        rest = second.take(range(middle - start, second.shape[axis]), axis)
        return np.concatenate([first.take(range(middle), axis), rest], axis)


def _sides(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
