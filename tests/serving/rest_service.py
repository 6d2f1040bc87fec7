"""REST for the stand-in server: JSON as TensorFlow Serving reads and writes it."""

import base64
import json
import re
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from tests.serving.served_model import ServedModel, invalid, message_of

_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,19}))?(?P<what>:predict|/metadata|)",
    re.IGNORECASE,
)
_STATUS = {
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.OUT_OF_RANGE: 400,
    tf.errors.NOT_FOUND: 404,
    tf.errors.RESOURCE_EXHAUSTED: 429,
}
_KINDS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}
"""Kinds of NumPy's dtypes: what a tensor takes, by its own."""


class RestServer(ThreadingHTTPServer):
    """Answers predictions, status and metadata of one model; port 0 is a free one."""

    def __init__(self, host: str, port: int, model: ServedModel):
        self.model = model
        super().__init__((host, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(lambda: self._post(body))

    def log_message(self, *_: Any) -> None:
        """Stays quiet."""

    def _get(self) -> dict[str, Any]:
        model = self.server.model
        if self._asked("", "/metadata"):
            # All fields, under their own names.
            options = {"preserving_proto_field_name": True}
            options["always_print_fields_with_no_presence"] = True
            signatures = {k: MessageToDict(v, **options) for k, v in model.signatures.items()}
            spec = {"name": model.name, "signature_name": "", "version": str(model.version)}
            metadata = {"signature_def": {"signature_def": signatures}}
            return {"model_spec": spec, "metadata": metadata}
        status = {"error_code": "OK", "error_message": ""}
        version = {"version": str(model.version), "state": "AVAILABLE", "status": status}
        return {"model_version_status": [version]}

    def _post(self, body: bytes) -> dict[str, Any]:
        self._asked(":predict")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise invalid(f"JSON Parse error: {error}") from error
        if not isinstance(request, dict):
            raise invalid("JSON Value: Is not object")
        signature = request.get("signature_name", "")
        if not isinstance(signature, str):
            raise invalid("'signature_name' key must be a string value.")
        if ("instances" in request) == ("inputs" in request):
            raise invalid("Expecting one of the keys 'inputs' and 'instances'")
        model = self.server.model
        infos = model.signature(signature).inputs
        if "inputs" in request:
            key, inputs = "outputs", _of_columns(request["inputs"], infos)
        else:
            key, inputs = "predictions", _of_rows(request["instances"], infos)
        [output] = model.predict(signature, inputs).values()  # there is one in what is served here
        return {key: _to_values(output)}

    def _asked(self, *offered: str) -> str:
        """Which of the things that are offered the path asks for, of the model that is here."""
        match = _PATH.fullmatch(urlsplit(self.path).path)
        if not match or match["what"].lower() not in offered:
            raise invalid(f"Malformed request: {self.command} {self.path}")
        version = match["version"]
        self.server.model.check(unquote(match["name"]), None if version is None else int(version))
        return match["what"]

    def _answer(self, answer: Callable[[], dict[str, Any]]) -> None:
        """Sends the answer, or the error in its place."""
        try:
            status, value = 200, answer()
        except tf.errors.OpError as error:
            status, value = _STATUS.get(error.error_code, 500), {"error": message_of(error)}
        except Exception as error:  # of one request; the next must be answered
            traceback.print_exc()
            status, value = 500, {"error": f"{type(error).__name__}: {error}"}
        body = json.dumps(value).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the client has given up
            self.close_connection = True


def _of_rows(instances: Any, infos: dict[str, TensorInfo]) -> dict[str, np.ndarray]:
    """The tensors of a request that lists its pictures."""
    if not isinstance(instances, list) or not instances:
        raise invalid("Expecting 'instances' to be a list of one value or more")
    named = [isinstance(instance, dict) and not _is_bytes(instance) for instance in instances]
    if not any(named):
        return _of_columns(instances, infos)
    if not all(named) or any(instance.keys() != infos.keys() for instance in instances):
        raise invalid(f"Each of 'instances' must have the keys: {','.join(sorted(infos))}")
    columns = {name: [instance[name] for instance in instances] for name in infos}
    return _of_columns(columns, infos)


def _of_columns(values: Any, infos: dict[str, TensorInfo]) -> dict[str, np.ndarray]:
    """The tensors of a request that gives each input as a whole."""
    if not isinstance(values, dict) or _is_bytes(values):
        if len(infos) != 1:
            raise invalid("Expecting an object, as the signature has several inputs")
        values = dict.fromkeys(infos, values)
    if values.keys() != infos.keys():
        raise invalid(f"Expecting the named inputs: {','.join(sorted(infos))}")
    return {name: _to_array(name, values[name], info) for name, info in infos.items()}


def _to_array(name: str, value: Any, info: TensorInfo) -> np.ndarray:
    dtype = tf.as_dtype(info.dtype)
    try:
        if dtype == tf.string:
            array = np.array(_to_bytes(value), object)
            if any(isinstance(item, list) for item in array.flat):
                raise ValueError("Lists of one level differ in length or depth")
            return array
        given = np.array(value)
        array = given.astype(dtype.as_numpy_dtype)
        if given.size and given.dtype.kind not in _KINDS[array.dtype.kind]:
            raise ValueError(f"JSON Value: {str(value)[:80]}")
        if array.dtype.kind != "f" and (array != given).any():
            raise ValueError(f"JSON Value out of range: {str(value)[:80]}")
        return array
    except (TypeError, ValueError) as error:
        raise invalid(f"Input {name} is not of expected type: {dtype.name}. {error}") from error


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _to_bytes(value: Any) -> Any:
    """A value of JSON with bytes objects in place of its strings, base64 or plain."""
    if isinstance(value, list):
        return [_to_bytes(item) for item in value]
    if _is_bytes(value):
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, str):
        return value.encode()
    raise ValueError(f"JSON Value: {str(value)[:80]}")


def _to_values(array: np.ndarray) -> Any:
    """A tensor as values of JSON; strings are files, in base64."""
    if array.dtype != object:
        return array.tolist()
    return [{"b64": base64.b64encode(item).decode()} for item in array]
