"""Who reads a prepared data set: what is being read is not deleted.

The lock is the operating system's, on the folder itself: nothing is written, and it is gone with
the process that holds it, however that ends.
"""

import contextlib
import os
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderLock:
    """A lock on a folder, held until it is closed or nobody refers to it any more."""

    def __init__(self, folder: Path, mode: int):
        descriptor = os.open(folder, os.O_RDONLY)
        # Not __del__, which may find no `os` any more when the interpreter ends.
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, mode)
        except BaseException:
            self._close()
            raise

    def close(self) -> None:
        """Gives the lock back."""
        self._close()


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
