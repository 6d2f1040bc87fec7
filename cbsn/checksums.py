"""A folder's `SHA256SUMS`, in the format of the command `sha256sum`."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cbsn.errors import ModelError
from cbsn.files import write_text

CHECKSUMS = "SHA256SUMS"


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
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        entries = [line.split(maxsplit=1) for line in lines]
        for expected, name in entries:
            if _sha256(folder / name) != expected:
                raise ModelError(
                    f"{folder / name} is not the file that was saved (its SHA-256 differs from "
                    f"{CHECKSUMS}). Copy the folder again."
                )
        missing = {*required} - {name for _, name in entries}
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{folder}: incomplete ({error})") from error
    if missing:
        raise ModelError(f"{folder}: {CHECKSUMS} does not name {', '.join(sorted(missing))}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
