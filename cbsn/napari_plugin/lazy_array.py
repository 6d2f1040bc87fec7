"""Arrays of which planes are read when they are looked at."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

ReadPlane = Callable[[tuple[int, ...]], np.ndarray]
"""Reads a plane by its index on the outer axes."""


def lazy_array(
    read: ReadPlane,
    outer_shape: tuple[int, ...],
    inner_shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    turn: Any = None,
) -> Any:
    """Returns planes as a dask array with one chunk for each.

    Args:
        read: what reads a plane; it is kept as long as the array or a part of it lives.
        outer_shape: the sizes of the axes that number the planes.
        inner_shape: the shape of a plane.
        dtype: of the planes.
        turn: a lock that is held while planes are read. Default: a new one.

    Example:
        >>> series = lazy_array(lambda index: np.zeros((4, 4)), (3,), (4, 4), np.dtype(float))
    """
    import dask.array

    planes = _Planes(read, outer_shape, inner_shape, dtype)
    # Without a name, dask would need to hash the file; and napari keeps chunks by their names, so
    # they must be new ones each time.
    return dask.array.from_array(
        planes,
        chunks=(*(1 for _ in outer_shape), *inner_shape),
        name=False,
        lock=turn or threading.Lock(),
        fancy=False,
        meta=np.empty((0,) * planes.ndim, dtype),
    )


class _Planes:
    """Planes that can be indexed as dask does, with integers and slices."""

    def __init__(
        self,
        read: ReadPlane,
        outer_shape: tuple[int, ...],
        inner_shape: tuple[int, ...],
        dtype: np.dtype,
    ):
        self.shape = (*outer_shape, *inner_shape)
        self.dtype = dtype
        self.ndim = len(self.shape)
        self._read = read
        self._outer = len(outer_shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None) for _ in range(self.ndim - len(key))))
        outer, inner = key[: self._outer], key[self._outer :]
        spans, kept = [], []
        for each, size in zip(outer, self.shape, strict=False):
            if isinstance(each, slice):
                spans.append(range(*each.indices(size)))
                kept.append(len(spans[-1]))
            else:
                position = range(size)[each]  # also counts from the end, and checks
                spans.append(range(position, position + 1))
        planes = [self._read(index)[inner] for index in itertools.product(*spans)]
        if not planes:
            return np.empty((0,) * self.ndim, self.dtype)
        shape = (*kept, *planes[0].shape)
        if len(planes) == 1:
            return planes[0].reshape(shape)
        return np.stack(planes).reshape(shape)
