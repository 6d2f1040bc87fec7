"""Brings a data set up to date: keeps what is done and converts the rest, chunk by chunk."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Generator, Iterator, Mapping, MutableSequence, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import filelock
import numpy as np

from cbsn.data.manifest import MANIFEST_NAME, STACK, Failure, Manifest, Source
from cbsn.errors import ConfigError, DataError
from cbsn.files import is_folder_in_use
from cbsn.progress import progress_bar, say_fault
from data_prep.shards import Chunk, ChunkResult, shard_files, write_chunk
from data_prep.sources import RawData, file_stat

LOCK_NAME = ".preparing.lock"  # in a prepared folder, held by the only process that writes there
CHUNK_FILES, CHUNK_BYTES = 16, 2**29  # a chunk is full when it reaches either
_SEED = 0
_NOT_BEGUN = -1
_LOST = (
    "A process ended before its work was done, often for lack of memory or disk space. Finished "
    "work is kept: run the same command again to continue. cbsn prepare with fewer "
    "--workers needs less memory."
)
_SETTINGS = (
    *("patch_size", "patch_depth", "stride", "offset"),
    *("white", "axes", "select", "normalize", "repair"),
)
_places: MutableSequence[int] = []  # in a worker: index of the file that each chunk is at


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Waits until no other process prepares the same folder, then keeps others out of it."""
    with contextlib.ExitStack() as stack:
        # If files cannot be locked or written, a later step reports it where it matters.
        with contextlib.suppress(OSError, NotImplementedError):
            lock = filelock.FileLock(out / LOCK_NAME)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                say_fault(f"Another process is preparing {out}; waiting for it.")
                lock.acquire()
            stack.callback(lock.release)
        yield


def _told(value: object) -> str:
    return "not given" if value in (None, "") else str(value)


def keep_done(wanted: Manifest, raw: RawData, out: Path, anew: str) -> Manifest:
    """Returns `wanted` with the chunks in `out` that are complete and whose files did not change.

    Raises ConfigError if `out` holds another data set; it names `anew`, the command to replace it.
    """
    if not (out / MANIFEST_NAME).exists():
        return wanted
    old = Manifest.read(out)
    differences = [
        f"{name} {_told(getattr(old, name))} (now {_told(getattr(wanted, name))})"
        for name in ("kind", *_SETTINGS)
        if getattr(old, name) != getattr(wanted, name)
    ]
    if not is_of(old, raw):
        other, now = ("other", "") if old.root == wanted.root else ("the", f" (now {wanted.root})")
        differences.append(f"{other} pictures of {old.root}{now}")
    if differences and (old.sources or old.shards):
        raise ConfigError(
            f"{out} holds a data set prepared with {', '.join(differences)}. Replace it with "
            f"`{anew}`, or choose another folder with cbsn prepare --out."
        )
    if old.dtype != wanted.dtype:
        return wanted  # converting anew loses nothing, because all pictures are there
    present = raw.names()
    sizes = {path.name: path.stat().st_size for path in shard_files(out)}
    dropped = {s.chunk for s in old.shards if sizes.get(s.name) != s.bytes}
    dropped |= {s.chunk for s in old.sources if not _is_unchanged(s, present)}
    if old.dtype != "uint8" and old.kind != STACK:
        # Versions that did not store it took the whole range.
        dropped |= {s.chunk for s in old.sources if not s.dtype}
    return dataclasses.replace(
        wanted,
        channels=old.channels,
        scaling=old.scaling,
        sources=tuple(s for s in old.sources if s.chunk not in dropped),
        shards=tuple(s for s in old.shards if s.chunk not in dropped),
    )


def is_of(old: Manifest, raw: RawData) -> bool:
    """Returns whether a data set is of these pictures, some of which may be new, changed or gone.

    The folder may have been moved. A copy of it is another data set, as are other pictures in it.
    """
    if not old.sources:
        return True
    if old.kind != raw.kind:
        return False
    present = raw.names()
    if not os.path.exists(old.root):  # noqa: PTH110, which raises without permission
        return any(_is_unchanged(source, present) for source in old.sources)
    if not os.path.samefile(old.root, raw.root):  # noqa: PTH121
        return False
    names = {*(each.path for each in old.sources), *(each.path for each in old.failed)}
    missing = [Path(old.root, name) for name in names - present.keys()]
    return not any(map(os.path.exists, missing))


def _is_unchanged(source: Source, present: Mapping[str, Path]) -> bool:
    with contextlib.suppress(KeyError, FileNotFoundError):
        return file_stat(present[source.path]) == (source.size, source.mtime_ns)
    return False


def convert_rest(
    done: Manifest, raw: RawData, out: Path, workers: int | None
) -> tuple[Manifest, list[str]]:
    """Converts what is not done, in this process if `workers` is None, then deletes old shards.

    Keeps the manifest in `out` up to date. Returns it, and notes for the user.
    """
    names = {source.path for source in done.sources}
    rest = [path for path in raw.files if raw.name(path) not in names]
    # Numbers above all in the folder, so that no shard in use is ever overwritten.
    first = max(shard_files(out).values(), default=-1) + 1
    grid = done.patch_size, done.stride, done.offset
    most = 1 if raw.kind == STACK else CHUNK_FILES  # a stack is large, and is done or not
    parts = [dataclasses.replace(raw, files=files) for files in _split(rest, most)]
    chunks = [Chunk(number, part, out, *grid) for number, part in enumerate(parts, first)]
    manifest, next_save = done, 0.0
    progress = progress_bar(
        total=len(raw.files), initial=len(names), desc="Preparing", unit="image"
    )
    results = _run_chunks(chunks, workers) if workers else (write_chunk(each) for each in chunks)
    with progress, contextlib.closing(results):
        try:
            for result in results:
                # Sorted: chunks finish in any order, but training with a seed needs a fixed one.
                manifest = dataclasses.replace(
                    manifest,
                    sources=tuple(sorted(manifest.sources + result.sources, key=_by_name)),
                    shards=tuple(sorted(manifest.shards + result.shards, key=lambda s: s.name)),
                    failed=tuple(sorted(manifest.failed + result.failed, key=lambda f: f.path)),
                )
                done_here = {source.path for source in result.sources}
                progress.update(len(done_here) + len(result.failed))
                # Writing a large manifest takes a while: spend at most a tenth of the time on it.
                started = time.perf_counter()
                if started >= next_save:
                    manifest.write(out)
                    next_save = started + 10 * (time.perf_counter() - started)
        finally:
            written = None
            with contextlib.suppress(DataError):
                written = Manifest.read(out)
            if written != manifest:  # if equal, the folder may be read-only
                manifest.write(out)
    listed = {shard.name for shard in manifest.shards}
    surplus = [path for path in shard_files(out) if path.name not in listed]
    # The manifest is written, so whoever opens the data set from now on does not need them.
    if surplus and is_folder_in_use(out):
        return manifest, [
            f"{len(surplus)} files of the earlier data set are kept, because a training may "
            "be reading them. The next preparation deletes them."
        ]
    for path in surplus:
        path.unlink()
    return manifest, []


def _by_name(source: Source) -> tuple[str, int]:
    return source.path, source.image


def _split(files: Sequence[Path], most: int) -> Iterator[tuple[Path, ...]]:
    """Shuffles and groups the files, so that the shards of a chunk mix pictures from everywhere."""
    part, size = [], 0
    for index in np.random.default_rng(_SEED).permutation(len(files)):
        part.append(files[index])
        with contextlib.suppress(OSError):  # the file is gone, which is reported later
            size += files[index].stat().st_size
        if len(part) == most or size >= CHUNK_BYTES:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)


def _run_chunks(chunks: Sequence[Chunk], workers: int) -> Generator[ChunkResult, None, None]:
    """Converts chunks in processes, and yields the result of each as soon as it is done.

    A damaged file may make a decoder crash its process. All chunks being converted at that time
    are converted again, one by one. If a process crashes then as well, the file that it was reading
    counts as failed, and its chunk is converted without it.
    """
    while chunks:
        lost = yield from _run_pool(chunks, workers)
        chunks = [chunk for chunk, place in lost if place == _NOT_BEGUN]
        suspects = [chunk for chunk, place in lost if place != _NOT_BEGUN]
        if chunks and not suspects:
            raise DataError(_LOST)
        for chunk in suspects:
            yield from _run_alone(chunk)


def _run_alone(chunk: Chunk) -> Iterator[ChunkResult]:
    while lost := (yield from _run_pool([chunk], 1)):
        place, files = lost[0][1], chunk.raw.files
        if not 0 <= place < len(files):
            raise DataError(_LOST)
        reason = "ended the process that read it: the decoder crashed, or memory ran out."
        yield ChunkResult(failed=(Failure(chunk.raw.name(files[place]), reason),))
        rest = dataclasses.replace(chunk.raw, files=files[:place] + files[place + 1 :])
        chunk = dataclasses.replace(chunk, raw=rest)


def _run_pool(
    chunks: Sequence[Chunk], workers: int
) -> Generator[ChunkResult, None, list[tuple[Chunk, int]]]:
    """Yields results. Returns the chunks whose process was lost, and the file each was at."""
    context = multiprocessing.get_context("spawn")  # a fork would copy held locks
    places = context.RawArray("i", [_NOT_BEGUN] * len(chunks))
    workers = min(workers, len(chunks), 61)  # more are not possible on Windows
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(places,))
    try:
        futures, lost = {}, dict(enumerate(chunks))
        # The first submit starts all processes.
        with contextlib.suppress(BrokenProcessPool), _without_main():
            for index, chunk in enumerate(chunks):
                futures[pool.submit(_write, index, chunk)] = index
        for future in as_completed(futures):
            with contextlib.suppress(BrokenProcessPool):
                result = future.result()
                del lost[futures[future]]
                yield result
        return [(chunk, places[index]) for index, chunk in lost.items()]
    except (KeyboardInterrupt, GeneratorExit):
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the main module, which new processes would otherwise run again.

    They need nothing of it, and a user's script may have no `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _write(index: int, chunk: Chunk) -> ChunkResult:
    return write_chunk(chunk, functools.partial(_places.__setitem__, index))


def _start_worker(places: MutableSequence[int]) -> None:
    """Leaves Ctrl-C to the parent process, and ends the worker if the parent is killed."""
    global _places
    _places = places

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
