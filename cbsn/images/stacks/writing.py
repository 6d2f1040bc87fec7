"""Files of stacks that are written plane by plane, and go on after an interruption."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cbsn.errors import ImageError
from cbsn.files import move, shortened, write_json
from cbsn.images.stacks.ome_zarr import ZARR_SUFFIX
from cbsn.images.stacks.ome_zarr_attributes import find_foreign
from cbsn.images.stacks.stack import Layout

_SAVED_EVERY = 10  # seconds


class StackFile(Protocol):
    """A file or folder that holds one or several stacks, open for writing their planes.

    It has its final size or structure from the start, so planes may come in any order, and again.
    """

    def write(
        self, stack: int, index: Sequence[int], rows: slice, columns: slice, part: np.ndarray
    ) -> None:
        """Writes a part of a plane, [h, w] or [h, w, S], of the layout's dtype.

        `stack` is the number of the layout. The slices have start and stop. Parts of one plane
        come from left to right, then from top to bottom.
        """

    def flush(self) -> None:
        """Waits until everything that was written is on the disk."""

    def close(self) -> None:
        """Closes the file; it is complete if all planes have been written."""


class Create(Protocol):
    """Makes the file of a format; see `StackFile`."""

    def __call__(self, path: Path, layouts: Sequence[Layout], *, resume: bool) -> StackFile:
        """Creates `path`; or with `resume`, opens what an earlier call has created there."""


class PartialStackFile:
    """A `StackFile` under a temporary name, which becomes its target when it is complete.

    Attributes:
        done: int, the number of steps that an interrupted run has done, with the same settings.

    Raises:
        ImageError: if another process is writing it, the format cannot hold a layout, a folder or
            file is there that the result must not replace, or something cannot be written.
    """

    def __init__(
        self, target: Path, create: Create, layouts: Sequence[Layout], settings: Mapping[str, Any]
    ):
        import filelock  # which takes a while, and pictures do not need

        check_replaceable(target)
        self._target = target
        name = f".{target.name}.partial"
        self._path = target.with_name(shortened(name, ".partial"))
        self._state = self._path.with_name(shortened(f"{name}.json", ".json"))
        self._settings = json.loads(json.dumps(settings))
        self._lock = filelock.FileLock(self._path.with_name(shortened(f"{name}.lock", ".lock")))
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise ImageError(f"{target}: another process is writing it.") from None
        self.done = self._read_state()
        self._file = None
        if self.done:
            # What an earlier run has left may be damaged.
            with contextlib.suppress(Exception):
                self._file = create(self._path, layouts, resume=True)
        if self._file is None:
            self.done = 0
            try:
                with _writing(target):
                    self._remove()
                    self._file = create(self._path, layouts, resume=False)
            except BaseException:
                self._remove()
                self._release()
                raise
        self._saved = time.monotonic()

    def _read_state(self) -> int:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if state["settings"] == self._settings and self._path.exists():
                return int(state["done"])
        return 0

    def write(
        self, stack: int, index: Sequence[int], rows: slice, columns: slice, part: np.ndarray
    ) -> None:
        """See `StackFile.write`."""
        assert self._file is not None
        with _writing(self._target):
            self._file.write(stack, index, rows, columns, part)

    def count(self, done: int) -> None:
        """Remembers, now and then on the disk, that this many steps are done."""
        self.done = done
        if time.monotonic() - self._saved >= _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Makes sure that a later run can go on from here."""
        assert self._file is not None
        with _writing(self._target):
            self._file.flush()
            write_json(self._state, {"settings": self._settings, "done": self.done})
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Closes the file, and gives it its name in place of what is there."""
        assert self._file is not None
        try:
            with _writing(self._target):
                self._file.flush()
                self._file.close()
                self._file = None
                check_replaceable(self._target)  # something may be there by now
                if self._target.is_dir():
                    # A folder cannot be replaced in one step. The old one goes first, under a name
                    # that shows what it is, in case the process dies here.
                    aside = self._path.with_suffix(".old")
                    _remove(aside)
                    move(self._target, aside)
                    move(self._path, self._target)
                    _remove(aside)
                else:
                    move(self._path, self._target)
                self._state.unlink(missing_ok=True)
        finally:
            self._release()

    def stop(self) -> None:
        """Closes the file, incomplete as it is, for a later run to go on with."""
        if self._file is not None:
            if self.done:
                self.save()
            self._file.close()
            self._file = None
            if not self.done:
                self._remove()
        self._release()

    def _release(self) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _remove(self) -> None:
        _remove(self._path)
        self._state.unlink(missing_ok=True)


def check_replaceable(target: Path) -> None:
    """Raises an ImageError if there is something that a result of this name must not replace."""
    what = None
    if target.suffix.lower() != ZARR_SUFFIX:
        what = "a folder" if target.is_dir() else None
    elif target.exists() and (foreign := find_foreign(target)):
        what = "something that is no result of cbsn, or has been changed since,"
        if foreign != target:
            name = foreign.relative_to(target).as_posix()
            what = f"an earlier result with something else in it, {name},"
    if what:
        raise ImageError(f"{target}: {what} is there. Move it away, or give another --out.")


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turns errors of the system into an ImageError that names the file that was to be written."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"{target}: cannot be written ({error.strerror or error}).") from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def partial_stack_file(
    target: Path, create: Create, layouts: Sequence[Layout], settings: Mapping[str, Any]
) -> Iterator[PartialStackFile]:
    """Yields a `PartialStackFile`; it becomes `target` unless the block raises.

    Args:
        target: the file or folder to write or replace; its folder must exist.
        create: how to make a file of its format.
        layouts: of the stacks that it will hold.
        settings: what an interrupted run must have had in common to be continued; JSON values.
    """
    file = PartialStackFile(target, create, layouts, settings)
    try:
        yield file
    except BaseException:
        file.stop()
        raise
    file.finish()
