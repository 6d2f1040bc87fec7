"""TensorFlow Serving's two protocols: REST and gRPC."""

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from cbsn.client.api import (
    UNLIMITED,
    get_model_metadata_pb2,
    grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from cbsn.client.transport import SIGNATURES, ServerError, Transport
from cbsn.errors import ImageError

_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RestTransport(Transport):
    """A `Transport` by REST, in JSON.

    Files travel as base64, floats as decimal numbers, which take five times their bytes: for large
    pictures of floats take gRPC.
    """

    def __init__(self, url: str, **options: Any):
        super().__init__(url, **options)
        self._model_url = f"http://{url}/v1/models/{urllib.parse.quote(self.model, safe='')}"
        if self.version is not None:
            self._model_url += f"/versions/{self.version}"

    def close(self) -> None:
        """Does nothing: each request has a connection of its own."""

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

    def _predict(self, signature: str, value: np.ndarray | bytes) -> np.ndarray | bytes:
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
            status, answer = _exchange(question, timeout)
        except TimeoutError as error:
            raise ServerError("DEADLINE_EXCEEDED", str(error)) from error
        except http.client.HTTPException as error:
            kind = type(error).__name__
            raise ServerError("UNAVAILABLE", f"no answer in HTTP ({kind})") from error
        except (OSError, UnicodeError) as error:
            raise ServerError("UNAVAILABLE", str(error)) from error
        if status != http.client.OK:
            code = _CODES.get(status, f"HTTP status {status}")
            raise ServerError(code, _message(answer))
        try:
            return json.loads(answer)
        except ValueError as error:
            raise _unexpected(answer) from error


def _exchange(question: urllib.request.Request, timeout: float) -> tuple[int, bytes]:
    """The status and the body of the answer."""
    try:
        response = urllib.request.urlopen(question, timeout=timeout)
    except urllib.error.HTTPError as error:
        response = error  # an answer as well
    except urllib.error.URLError as error:
        raise error.reason from None  # the exception of the connection
    with response:
        return response.status, response.read()


def _message(body: bytes) -> str:
    """The message in the body of an error, or the whole of it.

    TensorFlow Serving escapes messages in the manner of C, so not all of them are JSON.
    """
    try:
        return str(json.loads(body)["error"])
    except (KeyError, TypeError, ValueError):
        return body.decode("utf-8", "replace")


def _unexpected(answer: Any) -> ServerError:
    return ServerError("UNIMPLEMENTED", f"an answer of another kind, {str(answer)[:100]}")


_LARGEST = 2**31 - 2**16
"""Bytes of a picture: a message of protobuf is less than 2 GiB, with what stands around it."""


class GrpcTransport(Transport):
    """A `Transport` by gRPC, whose messages may be of any size that protobuf can hold."""

    def __init__(self, url: str, **options: Any):
        super().__init__(url, **options)
        self._channel = grpc.insecure_channel(url, options=UNLIMITED)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _signatures(self, timeout: float) -> dict[str, tuple[set[str], set[str]]]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        response = self._ask(self._service.GetModelMetadata, request, timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            name: ({*signature.inputs}, {*signature.outputs})
            for name, signature in signatures.signature_def.items()
        }

    def _predict(self, signature: str, value: np.ndarray | bytes) -> np.ndarray | bytes:
        size = len(value) if isinstance(value, bytes) else value.nbytes
        if size > _LARGEST:
            raise ImageError(f"gRPC carries less than 2 GiB; cut it up. Received: {size:,} bytes")
        sent, returned = SIGNATURES[signature]
        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = self._signature(signature)
        batch = [value] if isinstance(value, bytes) else value[None]
        request.inputs[sent].CopyFrom(tf.make_tensor_proto(batch))
        for name, share in self._shares.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto([share], tf.float32))
        response = self._ask(self._service.Predict, request, self.timeout)
        try:
            (result,) = tf.make_ndarray(response.outputs[returned])
        except (TypeError, ValueError) as error:
            raise ServerError("UNIMPLEMENTED", "an answer that holds no picture") from error
        return result

    def _ask(self, method: Callable, request: Any, timeout: float) -> Any:
        request.model_spec.name = self.model
        if self.version is not None:
            request.model_spec.version.value = self.version
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise ServerError(error.code().name, error.details() or "") from error
