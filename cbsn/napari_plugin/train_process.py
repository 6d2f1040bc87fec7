"""Runs a command of the package in a process that its parent stops through a pipe.

    python -m cbsn.napari_plugin.train_process train cells.tif --recipe n2v-unet --steps 1000

It is `python -m cbsn`, but the end of its input acts like Ctrl-C: the training finishes the step,
and saves. Unlike a signal, this also works on Windows, and if the parent has crashed.
"""

import _thread
import os
import runpy
import signal
import sys
import threading


def _watch() -> None:
    # Until the parent closes it. Not by `sys.stdin`, whose lock this thread would still hold when
    # the command has ended, which makes Python abort.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if hasattr(signal, "pthread_kill"):
        # A real signal also ends waiting, such as for a file.
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGINT)
    else:  # Windows
        _thread.interrupt_main(signal.SIGINT)


def main() -> None:
    """Runs the command that the process's arguments name."""
    # A shell may have started napari with Ctrl-C ignored, which this process inherits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, daemon=True).start()
    runpy.run_module("cbsn", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
