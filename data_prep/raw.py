"""What a kind of raw data has to tell the preparation."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cbsn.value_range import ValueRange


@dataclasses.dataclass(frozen=True)
class RawData:
    """The pictures of a raw data set, and how to read them.

    Args:
        kind: `SIDD`, `DND` or `folder`.
        root: the folder it lies in; the manifest names files relative to it.
        files: its pictures.
        read: gives the picture in a file, [H, W, 3] uint8, uint16 or float32 over the whole range
            of its dtype (floats: [0, 1]), and what that range is in the file; raises ImageError
            if the file is broken. It can be pickled, as it is sent to other processes.
        longest_side: gives the larger of a picture's height and width, in pixels, by its header
            alone; raises anything if the file is broken. It can be pickled, too.
        dtype: the widest dtype among its pictures: `uint8`, `uint16` or `float32`.
        offset: usual distance of the first patch from the top and left edge, in pixels.
    """

    kind: str
    root: Path
    files: tuple[Path, ...]
    read: Callable[[Path], tuple[np.ndarray, ValueRange]]
    longest_side: Callable[[Path], int]
    dtype: str
    offset: int = 0

    def name(self, path: Path) -> str:
        """The name of one of `files` in the manifest."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()
