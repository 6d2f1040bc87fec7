"""The errors a user can meet; each message says what was received and what to do."""

import re

LARGEST = 2**31 - 1  # of the numbers that flags take, unless told: any library takes it
LARGEST_SEED = 2**64 - 1  # of noise, and of the random choices of R3

_LONGEST_REASON = 500  # characters: some list all layers of a network, or all that they read


class CbsnError(Exception):
    """Base of all errors that the commands print without a traceback."""

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
    """A training under way that cannot go on: what it saved before is intact."""

    status = 1


class PipelineError(CbsnError, RuntimeError):
    """A Beam pipeline that could not be run to its end: what it has written is whole."""

    status = 1


class CbsnWarning(UserWarning):
    """Something that the user should know, though the work goes on: a file that was skipped.

    The commands print each message once, as a line that begins with `note:`.
    """


class TrainingStopped(CbsnError):  # noqa: N818, as it is no error
    """Not a failure: a training that was asked to stop has saved itself, and can go on."""

    status = 75  # `EX_TEMPFAIL` of sysexits.h: try again


def check_number(
    flag: str, value: float, least: float, most: float = LARGEST, *, above: bool = False
) -> None:
    """Raises a ConfigError if the number that a flag (with its dashes) was given is out of range.

    That is from `least`, or `above` it, to `most`; NaN and infinity are beyond.
    """
    if value > most:
        raise ConfigError(f"{flag} must be at most {most}. Received: {flag} {value}")
    if not (value > least if above else value >= least):
        limit = f"above {least}" if above else f"at least {least}"
        raise ConfigError(f"{flag} must be {limit}. Received: {flag} {value}")


def plain_reason(error: Exception) -> str:
    """Returns what a library's error says, in one line, without the nodes of TensorFlow's graphs.

    What is long is cut off; where nothing is said, it is the name of the error's class.
    """
    text = getattr(error, "message", None) or str(error)
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w*\]|\[\[.*?\]\]", "", text)
    text = " ".join(text.split())
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + "…"
    return text or type(error).__name__


def in_one_line(text: str) -> str:
    r"""Returns a text without line breaks, which names of files may have: they become `\n`.

    So does all else that cannot be printed.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
