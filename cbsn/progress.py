"""What the package says while it works: lines of text and progress bars.

Both go through the logger "cbsn", so a program that imports the package prints nothing by itself.
The commands, and functions called with `verbose=True`, show them inside `shown`.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

LOGGER = logging.getLogger("cbsn")
LOGGER.addHandler(logging.NullHandler())  # otherwise Python would print warnings by itself


class _Terminal(logging.Handler):
    """Prints lines above any progress bar: information to stdout, the rest to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        tqdm.write(self.format(record), file=stream)
        stream.flush()


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Prints the package's lines and progress bars during the block."""
    before = LOGGER.level, LOGGER.propagate
    terminal = _Terminal()
    if not is_shown():
        LOGGER.addHandler(terminal)
    # Absl and others put handlers on the root logger, which would print everything again.
    LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(terminal)
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]


def is_shown() -> bool:
    """Returns whether lines and progress bars are printed."""
    return any(isinstance(handler, _Terminal) for handler in LOGGER.handlers)


def say(text: object) -> None:
    """Says what is going on, on stdout if the package's lines are shown."""
    LOGGER.info("%s", text)


def say_fault(text: object) -> None:
    """Says what went wrong or needs attention, on stderr if the package's lines are shown."""
    LOGGER.warning("%s", text)


def progress_bar(*args: Any, **options: Any) -> Any:
    """Returns a `tqdm` progress bar, which is invisible unless the package's lines are shown."""
    from tqdm import tqdm

    options["disable"] = options.get("disable") or not is_shown()
    return tqdm(*args, **options)
