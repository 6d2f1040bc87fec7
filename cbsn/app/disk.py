"""A folder for temporary files, of a bounded size, that is gone afterwards."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cbsn.errors import CbsnError, ConfigError
from cbsn.files import is_folder_in_use, share_folder

_PREFIX = "cbsn-app-"
_LEFT_FREE = 2**30  # bytes of the disk that others may need


class FullError(CbsnError):
    """There is no room on the disk for what is asked for."""


class Disk:
    """The temporary files of a server: a folder, and how many bytes they may take together.

    Args:
        most: bytes.
        make_room: called with a number of bytes that are missing; deletes what can be made again,
            and releases it.

    Raises:
        ConfigError: if the disk is too full for anything.
    """

    def __init__(self, most: int, make_room: Callable[[int], None]):
        _remove_left_over()
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free <= _LEFT_FREE:
            raise ConfigError(
                f"The page needs a temporary folder with more than {_amount(_LEFT_FREE)} free: set "
                f"TMPDIR to one. Received: {tempfile.gettempdir()}, with {_amount(free)} free"
            )
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = share_folder(self.folder)  # until the process ends, however it does
        self._most = most
        self._make_room = make_room
        self._used = 0
        self._changing = threading.Lock()

    @property
    def used(self) -> int:
        """The bytes that are taken."""
        return self._used

    def take(self, size: int) -> None:
        """Reserves bytes; raises a `FullError` if there is no room for them."""
        for may_make_room in (True, False):
            with self._changing:
                free = shutil.disk_usage(self.folder).free - _LEFT_FREE
                allowed = self._most - self._used
                missing = size - min(allowed, free)
                if missing <= 0:
                    self._used += size
                    return
            if may_make_room:
                self._make_room(missing)
        if free < allowed:
            but, how = f" besides {_amount(_LEFT_FREE)} for others", "TMPDIR set to a larger disk"
        else:
            but, how = "", "a larger --max_disk_gb"
        raise FullError(
            f"There is no room for this on the server's disk: {_amount(size)} are needed, and "
            f"{_amount(max(0, size - missing))} are free{but}. Download and remove pictures, or "
            f"start the server with {how}."
        )

    def release(self, size: int) -> None:
        """Gives reserved bytes back."""
        with self._changing:
            self._used -= size

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Reserves bytes during the block, and for longer unless it raises an error."""
        self.take(size)
        try:
            yield
        except BaseException:
            self.release(size)
            raise

    def close(self) -> None:
        """Deletes the folder."""
        if self._lock:
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _amount(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def _remove_left_over() -> None:
    """Deletes the folders of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_dir() and not is_folder_in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)
