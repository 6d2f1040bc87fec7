"""The errors a user can meet; each message says what was received and what to do."""

import difflib
import errno
import numbers
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

LARGEST = 2**31 - 1  # default limit of a flag's number: every library accepts it
LARGEST_SEED = 2**64 - 1  # for noise, and for the random choices of R3
LARGEST_HOLE = 127  # width in pixels; noise that reaches further needs smaller pictures

_NODES = re.compile(r"\{\{[^{}]*\}\}|\[Op:\w*\]|\[\[[^][]*\]\]")  # in TensorFlow's messages
_LONGEST_VALUE = 100  # characters
_LONGEST_REASON = 500  # characters: some reasons list all layers of a network, or all input


class CbsnError(Exception):
    """Base class of all errors that the commands print without a traceback."""

    status = 2  # exit status of a command that ends with it


class ConfigError(CbsnError, ValueError):
    """A flag, hyperparameter or combination of them that cannot work."""


class DataError(CbsnError, ValueError):
    """A dataset, record file or manifest that is missing, broken or of the wrong kind."""


class ImageError(CbsnError, ValueError):
    """A picture that cannot be read, written or denoised."""


class ModelError(CbsnError, ValueError):
    """A model path, saved-model folder or checkpoint that cannot be used."""


class TrainingError(CbsnError, RuntimeError):
    """A training run that cannot continue; what it saved before is intact."""

    status = 1


class PipelineError(CbsnError, RuntimeError):
    """A Beam pipeline that did not finish; each file that it has written is complete."""

    status = 1


class CbsnWarning(UserWarning):
    """Something that the user should know although work continues, such as a skipped file.

    The commands print each message once, as a line that begins with `note:`.
    """


class TrainingStopped(CbsnError):  # noqa: N818, as it is no error
    """Not a failure: a training run was asked to stop, is saved, and can be resumed."""

    status = 75  # `EX_TEMPFAIL` of sysexits.h: try again


def brief(value: Any) -> str:
    """Returns what a message shows of a value of any kind: at most about 100 characters.

    Of an array, that is its class, its dtype and its shape.
    """
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    if dtype is not None and isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of {' x '.join(map(str, shape))}, {dtype}"
    text = repr(value) if isinstance(value, str) else " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def is_number(value: Any) -> bool:
    """Returns whether a value is a real number, of Python or NumPy; True and False are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_number(
    flag: str,
    value: Any,
    least: float,
    most: float = LARGEST,
    *,
    above: bool = False,
    whole: bool = False,
) -> None:
    """Raises a ConfigError unless a flag (with its dashes) is given a number, and one in range.

    The range is `least` (excluded if `above`) to `most`; NaN and infinity are always outside. If
    `whole`, the number must be an integer, so 2.0 is refused.
    """
    if not is_number(value):
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{flag} must be {kind}. Received: {flag} {brief(value)}")
    if value > most:
        raise ConfigError(f"{flag} must be at most {most}. Received: {flag} {value}")
    if not (value > least if above else value >= least):
        limit = f"above {least}" if above else f"at least {least}"
        raise ConfigError(f"{flag} must be {limit}. Received: {flag} {value}")
    if whole and not isinstance(value, numbers.Integral):
        raise ConfigError(f"{flag} must be a whole number. Received: {flag} {value}")


def check_hole(flag: str, width: int, least: int = 0) -> None:
    """Raises a ConfigError unless a blind spot can have the width given for a flag, in pixels."""
    is_odd = isinstance(width, numbers.Integral) and width % 2 == 1
    if not ((is_odd and 1 <= width <= LARGEST_HOLE) or (width == least == 0)):
        zero = "" if least else ", or 0 for none"
        raise ConfigError(
            f"{flag} must be odd and at most {LARGEST_HOLE}, its width in pixels{zero}. "
            f"Received: {flag} {width}"
        )


def plain_reason(error: Exception) -> str:
    """Returns a library's error message in one line, without the nodes of TensorFlow's graphs.

    A long message is cut off; an empty one is replaced by the name of the error's class.
    """
    text = getattr(error, "message", None) or str(error)
    text = _NODES.sub("", text)
    text = " ".join(text.split())
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + "…"
    return text or type(error).__name__


def unreadable(error: Exception) -> str:
    """Says of a file that an error keeps from being read whether the system or its content does."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return f"cannot be read ({error.strerror})."
    return f"cannot be read, it may be damaged or cut off ({plain_reason(error)})."


def in_one_line(text: str) -> str:
    r"""Returns a text with its line breaks, which file names may have, escaped as `\n`.

    Other unprintable characters are escaped, too.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_texts(options: Mapping[str, Any]) -> None:
    """Raises a `ConfigError` for the first option that is neither a text nor None."""
    for name, value in options.items():
        if not isinstance(value, str | None):
            raise ConfigError(f"{name} takes a text. Received: {name}={brief(value)}")


def check_paths(options: Mapping[str, Any]) -> None:
    """Raises a `ConfigError` for the first option that is no path, be it a text or an object."""
    for name, value in options.items():
        if not isinstance(value, str | os.PathLike):
            raise ConfigError(f"{name} takes a path. Received: {name}={brief(value)}")


def check_names(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises a `ConfigError` for the first name that is not known; it suggests a similar one."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}."
            raise ConfigError(f"There is no {what} {name!r}; {advice}")
