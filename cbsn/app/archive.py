"""A ZIP file of results, made as it is sent."""

import io
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_BLOCK = 2**20  # bytes of a file that are in memory at once


class _Sent(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, data: Any) -> int:
        """Takes some bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Returns what was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zipped(files: Mapping[str, Path], failed: Sequence[str]) -> Iterator[bytes]:
    """Yields the parts of a ZIP file, which is never whole on the disk or in memory.

    Args:
        files: by their names in the archive.
        failed: lines of a text in it, `failed.txt`. Files that are gone are named there, too.
    """
    failed = [*failed]
    sent = _Sent()
    # Pictures are compressed already.
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[arg-type]
        for name, path in files.items():
            try:
                file = path.open("rb")
            except FileNotFoundError:
                failed.append(f"{name}: was replaced or removed just now; download it again.")
                continue
            with file:
                entry = zipfile.ZipInfo(name, time.localtime()[:6])
                entry.file_size = os.fstat(file.fileno()).st_size  # so that large ones have room
                with archive.open(entry, "w") as target:
                    while block := file.read(_BLOCK):
                        target.write(block)
                        yield sent.take()
            yield sent.take()
        if failed:
            archive.writestr("failed.txt", "\n".join([*failed, ""]))
    yield sent.take()
