"""Signals that stop a process: a command ends as by Ctrl-C, and removes what it has half written.

A training records them and saves itself; see `cbsn.training.loop.StopSignals`.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPPING = (
    *(signal.SIGINT, signal.SIGTERM),  # Ctrl-C; `kill` and schedulers
    # A terminal that is closed; Windows has no such signal.
    *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else ()),
)
"""The signals that stop a process."""


class Ended(KeyboardInterrupt):
    """A signal that ends the command. Its `status` is what shells report of a process it ended."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """Raises `Ended` in the block for a signal that would end the process; a second one ends it.

    Signals that are ignored, as `nohup` has it, stay ignored. Outside the main thread this does
    nothing, as other threads receive no signals.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_DFL:  # not Ctrl-C, which Python handles
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Ended(number)
