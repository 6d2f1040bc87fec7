"""Asking a training to stop: SIGINT (Ctrl-C) and SIGTERM."""

import os
import signal
import threading
from types import FrameType


class StopSignals:
    """While its `with` block runs, SIGINT and SIGTERM only leave a note.

    A second signal acts as it did before the block, so that who cannot wait need not. Threads
    other than the main one get no signals; there it does nothing.

    Attributes:
        received: str, name of the signal that came, or "".
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.received = ""
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                # What is ignored, as by processes in the background of some shells, stays so.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
        # Not `print`: the signal may have come in the middle of one.
        os.write(2, f"\n{self.received}: finishing the step, then saving.\n".encode())

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
