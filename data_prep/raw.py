"""What a kind of raw data has to tell the preparation."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class RawData:
    """The pictures of a raw data set, and how to read them.

    Args:
        kind: `SIDD`, `DND` or `folder`.
        root: the folder it lies in; the manifest names files relative to it.
        files: its pictures.
        read: gives the picture in a file, [H, W, 3] uint8, uint16 or float32; raises ImageError
            if the file is broken. A function of a module, as it is sent to other processes.
        dtype: the widest dtype among its pictures: `uint8`, `uint16` or `float32`.
        offset: usual distance of the first patch from the top and left edge, in pixels.
    """

    kind: str
    root: Path
    files: tuple[Path, ...]
    read: Callable[[Path], np.ndarray]
    dtype: str
    offset: int = 0

    def name(self, path: Path) -> str:
        """The name of one of `files` in the manifest."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()
