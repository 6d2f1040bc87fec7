"""Requests and answers of the page: what is asked as typed values, and errors in words."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from cbsn.app.disk import FullError
from cbsn.app.jobs import Cancelled
from cbsn.app.pictures import Output, Settings
from cbsn.app.sessions import GoneError
from cbsn.app.uploads import TooLargeError
from cbsn.errors import CbsnError, ConfigError, in_one_line
from cbsn.inference.options import Strength
from cbsn.progress import say_fault


def told(answer: Callable[[], Any]) -> Response:
    """Returns an answer: a response, a value as JSON, or an error in words."""
    try:
        found = answer()
    except Exception as error:
        return answer_of(error)
    return found if isinstance(found, Response) else JSONResponse(found)


def answer_of(error: Exception) -> Response:
    """Returns what the page is told of an error."""
    statuses = {GoneError: 404, TooLargeError: 413, FullError: 507}
    if isinstance(error, CbsnError):
        return refused(statuses.get(type(error), 400), in_one_line(str(error)))
    if isinstance(error, Cancelled):
        return refused(503, "The server is stopping.")
    if isinstance(error, FileNotFoundError):
        return refused(404, "This is not there any more: it was replaced or removed just now.")
    say_fault("".join(traceback.format_exception(error)))
    reason = error.strerror if isinstance(error, OSError) else type(error).__name__
    return refused(500, f"The server failed ({reason}); its log says more.")


def refused(status: int, text: str) -> Response:
    """Returns an error in words."""
    return JSONResponse({"error": text}, status)


def settings_of(asked: Mapping[str, Any]) -> Settings:
    """Returns the settings of a request."""
    adapted = asked.get("adapted", 0)
    if not isinstance(adapted, int) or isinstance(adapted, bool) or adapted < 0:
        raise ConfigError(f"An adapted model has a number. Received: {adapted!r}")
    return Settings(str(asked.get("quality", "default")), adapted, asked.get("uncertainty") is True)


def output_of(asked: Mapping[str, Any]) -> Output:
    """Returns how the result of a request is written; its numbers may be texts."""
    numbers: list[float | None] = []
    for name in ("strength", "color_strength"):
        value = asked.get(name)
        try:
            if isinstance(value, bool):
                raise TypeError
            numbers.append(None if value in (None, "") else float(value))
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"A strength is a number from 0 to 1. Received: {value!r}") from None
    luma, color = numbers
    return Output(Strength(1.0 if luma is None else luma, color), str(asked.get("format", "auto")))
