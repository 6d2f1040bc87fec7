"""Jobs, which one worker does one after the other, users in turn."""

import collections
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

AT_ONCE, LATER = 0, 1
"""What a user waits for, and what belongs to a batch."""


class Cancelled(Exception):  # noqa: N818, as it is no error
    """Raised in a job that was cancelled."""


class Job:
    """Something to do for a user.

    Args:
        user: whose it is; any hashable value.
        run: does it, and gets the job. It may call `report`, which raises `Cancelled`.
        ended: called at the end with None, or with the exception that ended it.
        priority: `AT_ONCE` or `LATER`, among the jobs of the same user.

    Attributes:
        share: float from 0 to 1, how much is done.
        is_running: bool, whether the worker is at it.
    """

    def __init__(
        self,
        user: Any,
        run: Callable[["Job"], None],
        ended: Callable[["Job", Exception | None], None],
        priority: int = AT_ONCE,
    ):
        self.user = user
        self.run = run
        self.ended = ended
        self.priority = priority
        self.share = 0.0
        self.is_running = False
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ends the job at its next report."""
        self._cancelled.set()

    def report(self, share: float | None = None) -> None:
        """Sets how much is done, if that is given; raises `Cancelled` if the job was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled
        if share is not None:
            self.share = min(1.0, share)

    def add(self, share: float) -> None:
        """Reports that a further share is done."""
        self.report(self.share + share)


class JobQueue:
    """The jobs that wait and the one that runs; users take turns, each job being one turn."""

    def __init__(self) -> None:
        self._waiting: collections.OrderedDict[Any, list[Job]] = collections.OrderedDict()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, job: Job) -> None:
        """Adds a job behind those of its user with the same priority."""
        with self._changed:
            if self._is_closed:
                raise Cancelled
            jobs = self._waiting.setdefault(job.user, [])
            jobs.append(job)
            jobs.sort(key=lambda each: each.priority)  # stable
            self._changed.notify()

    def cancel(self, *jobs: Job) -> None:
        """Cancels jobs, waiting or running; others stay as they are."""
        for job in jobs:
            job.cancel()
            with self._changed:
                was_waiting = job in self._waiting.get(job.user, ())
                if was_waiting:
                    self._remove(job)
            if was_waiting:
                job.ended(job, Cancelled())

    def _remove(self, job: Job) -> None:
        jobs = self._waiting[job.user]
        jobs.remove(job)
        if not jobs:
            del self._waiting[job.user]

    def order(self) -> list[Job]:
        """Returns the jobs in the order in which they will be done, first the one that runs."""
        with self._changed:
            turns = itertools.zip_longest(*self._waiting.values())
            jobs = [job for turn in turns for job in turn if job is not None]
            return [self._running, *jobs] if self._running else jobs

    def work(self) -> None:
        """Does the jobs until the queue is closed. One thread calls it."""
        for job in self._next():
            error: Exception | None = None
            try:
                job.report()
                job.run(job)
            except Exception as raised:  # the server goes on with the next job
                error = raised
            with self._changed:
                self._running = None
            job.is_running = False
            job.ended(job, error)

    def _next(self) -> Iterator[Job]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                user, jobs = self._waiting.popitem(last=False)
                job = jobs.pop(0)
                if jobs:  # at the end of the line
                    self._waiting[user] = jobs
                self._running = job
                job.is_running = True
            yield job

    def close(self) -> None:
        """Cancels all jobs; `work` returns."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self.cancel(*self.order())
