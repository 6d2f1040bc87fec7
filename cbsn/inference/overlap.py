"""Reading the next, computing the present and writing the previous one at the same time."""

import collections
import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Written = TypeVar("Written")

BUDGET = 2**29
"""Bytes that the items at work may take together; one that takes more is at work alone."""


def overlap(
    items: Iterable[Item],
    *,
    size: Callable[[Item], int],
    read: Callable[[Item], Read],
    compute: Callable[[Item, Read, Callable[[], None]], Computed],
    write: Callable[[Item, Computed, Callable[[], bool]], Written],
    report: Callable[[Item, Written | None, Exception | None], None],
) -> None:
    """Takes items through reading, computing and writing; each of the three has one at a time.

    So at most three items are in memory; and the next is read only when all of them together take
    no more than `BUDGET` bytes, or it is alone. Items are read, computed, written and reported in
    their order. What fails for one does not stop the others.

    `read` and `write` run in a thread of their own each, all else in the caller's. Ctrl-C ends it:
    nothing more is begun, `write` is told to give up, and what is running is waited for.

    Args:
        items: in the order wanted; hashable.
        size: from an item to the bytes that it will take; asked before it is read.
        read: from an item to what is computed.
        compute: from an item and what was read to what is written. Its third argument is a
            function to call now and then, so that what has been written meanwhile is reported.
        write: from an item and what was computed to what is reported. Its third argument says
            whether to give up.
        report: takes an item, what `write` returned, and None; or an item, None, and the
            exception of the one of the three that failed.
    """
    size = functools.cache(size)
    waiting = collections.deque(items)
    at_work: collections.deque[Item] = collections.deque()  # the one that is written is first
    reading: Future[Read] | None = None
    writing: Future[Written] | None = None
    ending = threading.Event()

    def start_reading() -> None:
        nonlocal reading
        if waiting and not reading:
            together = sum(map(size, (*at_work, waiting[0])))
            if together <= BUDGET or not at_work:
                at_work.append(waiting.popleft())
                reading = reader.submit(read, at_work[-1])

    def finish_writing() -> None:
        nonlocal writing
        if writing:
            outcome = _outcome(writing)
            writing = None
            report(at_work.popleft(), *outcome)

    def advance() -> None:
        if writing and writing.done():
            finish_writing()
        start_reading()

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            while waiting or reading:
                advance()
                if not reading:  # there is no room beside the one that is written
                    finish_writing()
                    start_reading()
                given, error = _outcome(reading)
                reading = None
                item = at_work[-1]
                advance()
                if error is None:
                    given, error = _attempt(compute, item, given, advance)
                finish_writing()
                if error is None:
                    writing = writer.submit(write, item, given, ending.is_set)
                else:
                    report(at_work.popleft(), None, error)
                given = error = None  # which may be all that holds on to a large item
            finish_writing()
        except BaseException:
            ending.set()
            raise


def _outcome(future: Future) -> tuple[Any, Exception | None]:
    """What a future returned, None if it failed, and why it failed; waits for it."""
    error = future.exception()
    return (future.result(), None) if error is None else (None, error)


def _attempt(function: Callable, *arguments: Any) -> tuple[Any, Exception | None]:
    """Like `_outcome`, of a function that is called here and now."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error
