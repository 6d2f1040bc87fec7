"""TensorFlow Serving by REST, which needs neither TensorFlow nor the extra `serving`."""

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np

from cbsn.client.transport import SIGNATURES, ServerError, Transport

_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


class RestTransport(Transport):
    """A `Transport` by REST, in JSON. Files go as base64, floats as decimals, 5 times as long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._model_url = f"http://{self.url}/v1/models/{urllib.parse.quote(self.model, safe='')}"
        if self.version is not None:
            self._model_url += f"/versions/{self.version}"

    def _signatures(self, timeout: float) -> dict[str, tuple[set[str], set[str]]]:
        answer = self._ask("/metadata", timeout)
        try:
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            return {
                name: ({*signature["inputs"]}, {*signature["outputs"]})
                for name, signature in signatures.items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise _unexpected(answer) from error

    def _predict(self, signature: str, value: Any) -> Any:
        is_file = isinstance(value, bytes)
        instance = {"b64": base64.b64encode(value).decode()} if is_file else value.tolist()
        if self._shares:
            instance = {SIGNATURES[signature][0]: instance, **self._shares}
        request = {"signature_name": self._signature(signature), "instances": [instance]}
        answer = self._ask(":predict", self.timeout, request)
        try:
            (result,) = answer["predictions"]
            if is_file:
                return base64.b64decode(result["b64"], validate=True)
            return np.array(result, np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise _unexpected(answer) from error

    def _ask(self, path: str, timeout: float, request: dict[str, Any] | None = None) -> Any:
        body = None if request is None else json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        question = urllib.request.Request(self._model_url + path, body, headers)
        try:
            try:
                response = urllib.request.urlopen(question, timeout=timeout)
            except urllib.error.HTTPError as error:
                response = error  # also an answer
            with response:
                status, answer = response.status, response.read()
        except http.client.HTTPException as error:
            kind = type(error).__name__
            raise ServerError("UNAVAILABLE", f"no answer in HTTP ({kind})") from error
        except (OSError, UnicodeError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            code = "DEADLINE_EXCEEDED" if isinstance(cause, TimeoutError) else "UNAVAILABLE"
            raise ServerError(code, str(cause)) from error
        if status != http.client.OK:
            raise ServerError(_CODES.get(status, f"HTTP status {status}"), _message(answer))
        try:
            return json.loads(answer)
        except ValueError as error:
            raise _unexpected(answer) from error


def _message(body: bytes) -> str:
    """Returns the message in the body of an error, or else the whole body."""
    try:
        return str(json.loads(body)["error"])
    except (KeyError, TypeError, ValueError):  # TensorFlow Serving escapes as C does, not as JSON
        return body.decode("utf-8", "replace")


def _unexpected(answer: Any) -> ServerError:
    return ServerError("UNIMPLEMENTED", f"an answer of another kind, {str(answer)[:100]}")
