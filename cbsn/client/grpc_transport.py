"""TensorFlow Serving by gRPC. Importing this needs the extra `serving`, for its messages."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from cbsn.client.transport import SIGNATURES, ServerError, Transport
from cbsn.errors import ConfigError, ImageError

try:
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_log_pb2,  # noqa: F401, for warm-up requests
        prediction_service_pb2_grpc,
    )
except ImportError as error:
    raise ConfigError(
        "TensorFlow Serving's API is not installed: pip install 'cbsn[serving]' (from a clone: pip "
        f"install '.[serving]'). cbsn client --rest needs no package. Received: {error}"
    ) from error

# Options of gRPC, which otherwise limits messages to 4 MB, less than a photograph takes.
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

# Most bytes of a picture. A protobuf message, with all that it adds, is less than 2 GiB.
_LARGEST = 2**31 - 2**16


class GrpcTransport(Transport):
    """A `Transport` by gRPC, with messages of any size that protobuf can hold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._channel = grpc.insecure_channel(self.url, options=UNLIMITED)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def _signatures(self, timeout: float) -> dict[str, tuple[set[str], set[str]]]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        response = self._ask(self._service.GetModelMetadata, request, timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        try:
            response.metadata["signature_def"].Unpack(signatures)
        except DecodeError as error:
            raise ServerError("UNIMPLEMENTED", "an answer without signatures") from error
        return {
            name: ({*signature.inputs}, {*signature.outputs})
            for name, signature in signatures.signature_def.items()
        }

    def _predict(self, signature: str, value: Any) -> Any:
        size = len(value) if isinstance(value, bytes) else value.nbytes
        if size > _LARGEST:
            raise ImageError(
                f"gRPC carries less than 2 GiB: split the picture. Received: {size:,} bytes"
            )
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
            raise ServerError("UNIMPLEMENTED", "an answer without a picture") from error
        if not isinstance(result, bytes if isinstance(value, bytes) else np.ndarray):
            kind = type(result).__name__
            raise ServerError("UNIMPLEMENTED", f"an answer of another type, {kind}")
        return result

    def _ask(self, method: Callable, request: Any, timeout: float) -> Any:
        request.model_spec.name = self.model
        if self.version is not None:
            request.model_spec.version.value = self.version
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise ServerError(error.code().name, error.details() or "") from error
