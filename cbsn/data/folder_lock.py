"""Who reads a prepared data set: what is being read is not deleted.

The lock is the operating system's, on the folder itself: nothing is written, and it is gone with
the process that holds it, however that ends.
"""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderLock:
    """A lock on a folder, held until it is closed or nobody refers to it any more."""

    def __init__(self, folder: Path, mode: int):
        self._descriptor = None
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, mode)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def close(self) -> None:
        """Gives the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self):
        self.close()


def share(folder: Path) -> FolderLock | None:
    """Says that this process reads a folder, as others may, as long as the result is kept.

    Returns:
        The lock; None where there are none, which `is_in_use` takes into account.
    """
    if fcntl:
        with contextlib.suppress(OSError):
            # Waits for `is_in_use` of another process at most, which takes no time.
            return FolderLock(folder, fcntl.LOCK_SH)
    return None


def is_in_use(folder: Path) -> bool:
    """Says whether a process may be reading a folder; yes where there are no locks to tell."""
    if fcntl:
        with contextlib.suppress(OSError):
            FolderLock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB).close()
            return False
    return True
