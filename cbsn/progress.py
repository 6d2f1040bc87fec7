"""What the package says while it works: lines of text and progress bars.

Both go through the logger "cbsn", so a program that imports the package prints nothing by itself.
The commands, and functions called with `verbose=True`, show them inside `shown`.
"""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from cbsn.files import captured_stderr

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


def import_tensorflow(*, alone: bool = False) -> None:
    """Imports Keras, and TensorFlow, without start-up chatter, unless a log level was asked for.

    `alone` is for commands, whose process does nothing else: it saves some of their start.
    """
    if "keras" in sys.modules:
        return
    quiet = "TF_CPP_MIN_LOG_LEVEL" not in os.environ and sys.stderr is not None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow writes some lines straight to the descriptor, before any log level applies.
    with captured_stderr() if quiet else contextlib.nullcontext(), _imported_at_once(alone):
        if alone and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
            with hidden("jax"), contextlib.suppress(ImportError):
                # It would import JAX, if that is there, to convert its models to LiteRT.
                import tensorflow as tf
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()


@contextlib.contextmanager
def _imported_at_once(alone: bool) -> Iterator[None]:
    """Spares imports what takes up to half of their time.

    The garbage collector would search the hundreds of thousands of objects again and again, all of
    which stay. And if they are there, Keras imports Matplotlib, pandas and IPython, for plots,
    tables and notebooks, and TensorFlow SciPy, for sparse arrays.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with hidden(*("matplotlib", "pandas", "IPython", "scipy") if alone else ()):
            yield
    finally:
        if collects:
            gc.enable()
        if alone:
            gc.freeze()  # nor is it worth searching them later


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Makes modules look as if they were not installed, to what is imported meanwhile."""
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module:
                sys.modules[name] = module
