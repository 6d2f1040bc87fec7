"""Several processes that convert chunks of pictures, and survive files that end one of them."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, MutableSequence, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from cbsn.data.manifest import Failure
from cbsn.errors import DataError
from data_prep.shards import Chunk, ChunkResult, write_chunk

_NOT_BEGUN = -1

_places: MutableSequence[int] = []
"""In a worker: at which file each chunk is."""


def run_chunks(chunks: Sequence[Chunk], workers: int) -> Iterator[ChunkResult]:
    """Converts chunks, and yields what became of each, in the order in which they end.

    A damaged file may make a decoder end its process. All that were being converted then are
    converted again, one by one; if that process ends as well, the file that it was reading is a
    failed one, and its chunk is converted without it.

    Args:
        chunks: of distinct numbers.
        workers: int ≥ 1, the largest number of processes.

    Raises:
        DataError: processes end that were not reading a picture.
        OSError: shards cannot be written.
    """
    waiting, suspects = list(chunks), []
    while waiting or suspects:
        alone = bool(suspects)
        batch = [suspects.pop()] if alone else waiting
        broken = []
        with contextlib.closing(_run_pool(batch, workers)) as ended:
            for chunk, result, place in ended:
                if result is None:
                    broken.append((chunk, place))
                else:
                    yield result
        if not alone:
            waiting = [chunk for chunk, place in broken if place == _NOT_BEGUN]
            suspects = [chunk for chunk, place in broken if place != _NOT_BEGUN]
            if waiting and not suspects:
                raise _lost()
        for chunk, place in broken if alone else ():
            files = chunk.raw.files
            if not 0 <= place < len(files):
                raise _lost()
            reason = "ended the process that read it: it crashes its decoder, or memory ran out."
            yield ChunkResult((), (), (Failure(chunk.raw.name(files[place]), reason),))
            rest = dataclasses.replace(chunk.raw, files=files[:place] + files[place + 1 :])
            suspects.append(dataclasses.replace(chunk, raw=rest))


def _lost() -> DataError:
    return DataError(
        "A process ended before its work was done, often for lack of memory or disk space. What is "
        "done is kept, and the same command goes on from there; prepare_dataset.py with fewer "
        "--workers needs less memory."
    )


def _run_pool(
    chunks: Sequence[Chunk], workers: int
) -> Iterator[tuple[Chunk, ChunkResult | None, int]]:
    """Yields each chunk with what became of it; if processes were lost, with None and a place.

    The place is that of the file that was being read when a process was lost.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy held locks
    places = context.RawArray("i", [_NOT_BEGUN] * len(chunks))
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)),
        mp_context=context,
        initializer=_start_worker,
        initargs=(places,),
    )
    try:
        futures = {}
        with contextlib.suppress(BrokenProcessPool):
            for index, chunk in enumerate(chunks):
                futures[pool.submit(_write, index, chunk)] = index
        for future in as_completed(futures):
            index = futures[future]
            try:
                yield chunks[index], future.result(), places[index]
            except BrokenProcessPool:
                yield chunks[index], None, places[index]
        for chunk in chunks[len(futures) :]:
            yield chunk, None, _NOT_BEGUN
    except (KeyboardInterrupt, GeneratorExit):
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _write(index: int, chunk: Chunk) -> ChunkResult:
    def reads(place: int) -> None:
        _places[index] = place

    return write_chunk(chunk, reads)


def _start_worker(places: MutableSequence[int]) -> None:
    """Leaves Ctrl-C to the parent, and lets no worker outlive one that was killed."""
    global _places
    _places = places

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
