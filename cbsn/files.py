"""Writing files and folders so that a reader never sees half of one."""

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}(\.\w+)?")
_OLD = ".old"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary name beside `path`; renames it to `path` if the block succeeds.

    The file is flushed to disk before the rename, so after a crash `path` holds either the
    old content or the new, never a part. If the block raises, the temporary file is removed.

    Args:
        path: where the finished file shall stand. Its folder must exist.

    Yields:
        The temporary path, in the same folder and with the same suffix, to be written by the
        caller.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; renames it to `path` if the block succeeds.

    As `atomic_path`, for a folder of files. One that is there already is replaced. A folder cannot
    be renamed onto another one, so the old one is set aside for a moment; `tidy` brings it back
    if the process is killed just then.

    Args:
        path: where the finished folder shall stand. Its parent must exist.

    Yields:
        The temporary folder, to be filled by the caller.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _flush(file)
        _flush(temporary)
        if path.exists():
            aside = temporary.with_name(temporary.name + _OLD)
            path.rename(aside)
            temporary.rename(path)
            shutil.rmtree(aside)
        else:
            temporary.rename(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder; killed meanwhile, the process leaves no half of one under its name."""
    doomed = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def tidy(folder: Path) -> None:
    """Cleans a folder of what a killed process left half done in it.

    Nobody else may be writing there.
    """
    for path in [*folder.iterdir()]:
        match = _TEMPORARY.fullmatch(path.name)
        if not match:
            continue
        original = folder / match[1]
        if match[2] == _OLD and not original.exists():
            path.rename(original)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` (UTF-8) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
