"""A folder's `SHA256SUMS`, in the format of the command `sha256sum`."""

import errno
import hashlib
from collections.abc import Iterable
from pathlib import Path

from cbsn.errors import ModelError, plain_reason
from cbsn.files import write_text

CHECKSUMS = "SHA256SUMS"

_LARGEST = 1 << 20
"""Bytes of such a file: there are a few lines in ours."""


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files of a folder into it."""
    names = sorted(path.name for path in folder.iterdir())
    write_text(folder / CHECKSUMS, "".join(f"{_sha256(folder / n)}  {n}\n" for n in names))


def verify_checksums(folder: Path, required: Iterable[str] = ()) -> None:
    """Compares a folder's files with their checksums.

    Args:
        folder: where `write_checksums` was.
        required: names of files that must be among them.

    Raises:
        ModelError: if a file is missing, or not the one that was written.
    """
    try:
        lines = read_small(folder / CHECKSUMS, _LARGEST).decode().splitlines()
        entries = [line.split(maxsplit=1) for line in lines]
        for expected, name in entries:
            if Path(name).name != name:
                raise ModelError(
                    f"{folder}: {CHECKSUMS} names {name[:100]!r}, which is no file of this folder. "
                    "Copy the folder again."
                )
            if _sha256(folder / name) != expected:
                raise ModelError(
                    f"{folder / name} is not the file that was saved (its SHA-256 differs from "
                    f"{CHECKSUMS}). Copy the folder again."
                )
        missing = {*required} - {name for _, name in entries}
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{folder}: incomplete, or not to be read ({plain_reason(error)}). Copy the folder "
            "again."
        ) from error
    if missing:
        raise ModelError(
            f"{folder}: {CHECKSUMS} does not name {', '.join(sorted(missing))}. Copy the folder "
            "again."
        )


def read_small(path: Path, largest: int) -> bytes:
    """Reads a file that should be small, whatever it is.

    Args:
        path: of the file.
        largest: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or no file: a pipe would be waited for.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"{path} is larger than {largest:,} bytes")
    return content


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
