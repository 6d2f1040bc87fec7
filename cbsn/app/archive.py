"""A ZIP file of results, made as it is sent."""

import io
import zipfile
from collections.abc import Iterator, Mapping
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


def zipped(files: Mapping[str, Path | str]) -> Iterator[bytes]:
    """Yields the parts of a ZIP file, which is never whole on the disk or in memory.

    Args:
        files: by name in the archive, a file or a text.
    """
    sent = _Sent()
    # Pictures are compressed already.
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[arg-type]
        for name, content in files.items():
            if isinstance(content, str):
                archive.writestr(name, content)
                continue
            entry = zipfile.ZipInfo.from_file(content, name)
            with content.open("rb") as file, archive.open(entry, "w") as target:
                while block := file.read(_BLOCK):
                    target.write(block)
                    yield sent.take()
            yield sent.take()
    yield sent.take()
