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

from cbsn.errors import ConfigError

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}(\.[^.]+)?", re.DOTALL)
_OLD = ".old"
_LONGEST = 255
"""Bytes of a file's name that Linux, macOS and Windows take at least."""


def expanded(path: str | os.PathLike) -> Path:
    """Returns a path whose `~` or `~user` at the start is the home folder.

    Raises:
        ConfigError: there is no such user, or the path is empty.
    """
    if not os.fspath(path):
        raise ConfigError("A path is empty. Write . for the current folder.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: there is no such user's home folder. Write ./~ for a name that begins with ~."
        ) from error


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
    temporary = _temporary(path, path.stem, path.suffix)
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
    temporary = _temporary(path, path.name)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _flush(file)
        _flush(temporary)
        if path.exists():
            # In a folder, where it has its own name: that may be too long for one more suffix.
            aside = _temporary(path, path.name, _OLD)
            aside.mkdir()
            path.rename(aside / path.name)
            temporary.rename(path)
            shutil.rmtree(aside)
        else:
            temporary.rename(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder; killed meanwhile, the process leaves no half of one under its name."""
    doomed = _temporary(path, path.name)
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
        if path.is_dir():
            for old in path.iterdir() if match[1] == _OLD else ():
                if not (folder / old.name).exists():
                    old.rename(folder / old.name)
            shutil.rmtree(path)
        else:
            path.unlink()


def _temporary(path: Path, name: str, suffix: str = "") -> Path:
    """A temporary name next to `path`, which `tidy` recognises; `name` is cut to what fits."""
    # No program knows a format by a suffix of that length.
    ending = f".{uuid.uuid4().hex[:8]}{suffix if len(suffix) < _LONGEST // 8 else ''}"
    while name and len(os.fsencode(f".{name}{ending}")) > _LONGEST:
        name = name[:-1]
    return path.with_name(f".{name}{ending}")


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    r"""Writes `text` (UTF-8) to `path` atomically.

    Names of files may be of any bytes, and Python has those that are no UTF-8 as surrogates: they
    are written as `\udcff`, so that whoever reads the file can.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
