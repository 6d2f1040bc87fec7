"""Files and folders: written whole or not at all, verified by checksums, locked while read."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cbsn.errors import ConfigError, ModelError, plain_reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}(\.[^.]+)?", re.DOTALL)
_OLD = ".old"

_LONGEST = 255  # bytes that Linux, macOS and Windows allow for a file name
CHECKSUMS = "SHA256SUMS"
_MOST_CHECKSUMS = 1 << 20  # bytes: `write_checksums` writes only a few lines

_MARK = ".in-use-"  # a file of this name and eight digits shows, on Windows, that a folder is read

# Seconds between attempts to move a file or folder on Windows, where that fails as long as any
# program has it open, such as a virus scanner that looks at each new file.
_WAITS = (0.02, 0.1, 0.5, 1.0)


def expanded(path: str | os.PathLike) -> Path:
    """Expands a leading `~` or `~user`; ConfigError for an empty path or an unknown user."""
    if not os.fspath(path):
        raise ConfigError("A path is empty. Write . for the current folder.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: there is no such user's home folder. Write ./~ for a name that begins with ~."
        ) from error


@contextlib.contextmanager
def captured_stderr(*, shown: bool = True) -> Iterator[None]:
    """Captures what is written to descriptor 2; shows it if the block raises, unless not `shown`.

    It is not shown if a signal stops the block, which explains itself. C++ code writes to the
    descriptor itself, past `sys.stderr`.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException as error:
            captured.seek(0)
            is_shown = shown and not isinstance(error, KeyboardInterrupt)
            os.write(saved, captured.read() if is_shown else b"")
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path, with the same folder and suffix, that becomes `path` at the end.

    The file is flushed to disk first, so even after a crash `path` holds the old content or the
    new, never a part. If the block raises, the temporary file is removed.

    Raises:
        FileExistsError: if `path` is a device or a pipe, which a file must not replace.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FileExistsError(errno.EEXIST, "There is a device or a pipe", str(path))
    temporary = _temporary(path, path.stem, path.suffix)
    try:
        yield temporary
        _flush(temporary)
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` at the end, like `atomic_path` for a file.

    Sets a folder that it replaces aside for a moment; `tidy` restores it if the process dies then.
    """
    temporary = _temporary(path, path.name)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _flush(file)
        _flush(temporary)
        if path.exists():
            # Within a folder it keeps its name, which may be too long for one more suffix.
            aside = _temporary(path, path.name, _OLD)
            aside.mkdir()
            move(path, aside / path.name)
            move(temporary, path)
            shutil.rmtree(aside)
        else:
            move(temporary, path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder; if the process is killed meanwhile, no part remains under its name."""
    doomed = _temporary(path, path.name)
    move(path, doomed)
    shutil.rmtree(doomed)


def tidy(folder: Path) -> None:
    """Cleans up after a killed process, in a folder to which no other process is writing."""
    for path in [*folder.iterdir()]:
        if not (match := _TEMPORARY.fullmatch(path.name)):
            continue
        if path.is_dir():
            for old in path.iterdir() if match[1] == _OLD else ():
                if not (folder / old.name).exists():
                    move(old, folder / old.name)
            shutil.rmtree(path)
        else:
            path.unlink()


def shortened(name: str, suffix: str) -> str:
    """Shortens a file name that is too long; a checksum and the suffix then end it."""
    return name if len(os.fsencode(name)) <= _LONGEST else with_checksum(name, suffix)


def with_checksum(name: str, suffix: str) -> str:
    """Ends a file name that has the suffix in its checksum and the suffix; cuts it to fit."""
    ending = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{suffix}"
    name = name.removesuffix(suffix)
    while len(os.fsencode(name + ending)) > _LONGEST:
        name = name[:-1]
    return name + ending


def _temporary(path: Path, name: str, suffix: str = "") -> Path:
    """Returns a temporary name next to `path` that `tidy` recognises; cuts `name` to fit."""
    # A longer suffix cannot be that of a format.
    ending = f".{uuid.uuid4().hex[:8]}{suffix if len(suffix) < _LONGEST // 8 else ''}"
    while name and len(os.fsencode(f".{name}{ending}")) > _LONGEST:
        name = name[:-1]
    return path.with_name(f".{name}{ending}")


def move(source: Path, target: Path) -> None:
    """Renames a file, replacing the target, or a folder, which must not replace one."""
    for wait in _WAITS if sys.platform == "win32" else ():
        with contextlib.suppress(PermissionError):
            source.replace(target)
            return
        time.sleep(wait)
    source.replace(target)


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
    flags = os.O_RDONLY
    if sys.platform == "win32":
        if path.is_dir():  # Windows cannot open one, and keeps a journal of its changes
            return
        flags = os.O_RDWR  # Windows flushes only what may be written
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        # File names may hold any bytes, which are escaped. The line ends are the same everywhere.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_small(path: Path, largest: int) -> bytes:
    """Reads a file that should have at most `largest` bytes; ValueError if it has more."""
    with _open(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"{path} is larger than {largest:,} bytes")
    return content


def _open(path: Path) -> BinaryIO:
    if not path.is_file():  # a pipe would block
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    return path.open("rb")


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files in a folder to `CHECKSUMS` in it."""
    names = sorted(path.name for path in folder.iterdir())
    write_text(folder / CHECKSUMS, "".join(f"{_sha256(folder / n)}  {n}\n" for n in names))


def verify_checksums(folder: Path, required: Iterable[str] = ()) -> None:
    """Raises a ModelError unless the listed files, which must include `required`, match."""
    try:
        fault = next(_faults(folder, required), None)
    except (OSError, ValueError) as error:
        fault = f"{folder}: incomplete, or not to be read ({plain_reason(error)})"
    if fault:
        raise ModelError(f"{fault}. Copy the folder again.")


def _faults(folder: Path, required: Iterable[str]) -> Iterator[str]:
    lines = read_small(folder / CHECKSUMS, _MOST_CHECKSUMS).decode().splitlines()
    entries = [line.split(maxsplit=1) for line in lines]
    for expected, name in entries:
        if Path(name).name != name:
            yield f"{folder}: {CHECKSUMS} names {name[:100]!r}, which is no file of this folder"
        if _sha256(folder / name) != expected:
            what = f"is not the file that was saved (its SHA-256 differs from {CHECKSUMS})"
            yield f"{folder / name} {what}"
    if missing := {*required} - {name for _, name in entries}:
        yield f"{folder}: {CHECKSUMS} does not name {', '.join(sorted(missing))}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with _open(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class FolderLock:
    """A lock on a folder, held until it is closed or no longer referenced."""

    def __init__(self, descriptor: int):
        # Not __del__: `os` may already be gone when the interpreter exits.
        self.close = weakref.finalize(self, os.close, descriptor)


def share_folder(folder: Path) -> FolderLock | None:
    """Marks a folder as read by this process while the result is kept; None without locks."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            # Windows has no locks on folders, but deletes this file when it is closed, even if the
            # process is killed.
            mark = folder / f"{_MARK}{uuid.uuid4().hex[:8]}"
            return FolderLock(os.open(mark, os.O_CREAT | os.O_RDONLY | os.O_TEMPORARY))
        if fcntl:
            # Waits at most for another process's `is_folder_in_use`, which takes no time.
            return _lock(folder, fcntl.LOCK_SH)
    return None


def is_folder_in_use(folder: Path) -> bool:
    """Returns whether a process may be reading a folder; True if that is unknown."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            for mark in folder.glob(f"{_MARK}*"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    # This is refused as long as the file is open to be deleted.
                    os.close(os.open(mark, os.O_RDONLY))
            return False
        if fcntl:
            _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB).close()
            return False
    return True


def _lock(folder: Path, mode: int) -> FolderLock:
    descriptor = os.open(folder, os.O_RDONLY)
    lock = FolderLock(descriptor)
    fcntl.flock(descriptor, mode)
    return lock
