"""gRPC for the stand-in server: the part of TensorFlow Serving's service that clients need."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from cbsn.client.grpc_transport import (
    get_model_metadata_pb2,
    grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from cbsn.errors import ModelError
from cbsn.export.export import WARMUP
from tests.serving.served_model import ServedModel, invalid, message_of

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _answering(answer: Callable) -> Callable:
    """Makes a method a service's: the model must be there; TensorFlow's errors become gRPC's."""

    @functools.wraps(answer)
    def serve(self: "GrpcService", request: Any, context: Any) -> Any:
        spec = request.model_spec
        try:
            version = spec.version.value if spec.HasField("version") else None
            self.model.check(spec.name, version)
            return answer(self, request)
        except tf.errors.OpError as error:
            context.abort(_CODES[error.error_code], message_of(error))

    return serve


class GrpcService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers `Predict` and `GetModelMetadata` for one model."""

    def __init__(self, model: ServedModel):
        self.model = model

    def warm_up(self) -> None:
        """Runs the requests that lie with the model for that, if any, as TensorFlow Serving does.

        Raises:
            ModelError: if one of them cannot be read or fails.
        """
        path = self.model.folder / WARMUP
        if not path.exists():
            return
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                self._predict(log.predict_log.request)
        except Exception as error:  # a damaged file may hold anything
            reason = message_of(error) if isinstance(error, tf.errors.OpError) else error
            raise ModelError(f"A warm-up request in {path} failed: {reason}") from error

    @_answering
    def Predict(self, request: Any) -> Any:  # noqa: N802, the protocol's name
        """Computes a signature."""
        return self._predict(request)

    @_answering
    def GetModelMetadata(self, request: Any) -> Any:  # noqa: N802
        """Says the signatures."""
        if [*request.metadata_field] != ["signature_def"]:
            raise invalid("Metadata field signature_def is the one that is supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.model.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _predict(self, request: Any) -> Any:
        inputs = {name: _to_array(name, tensor) for name, tensor in request.inputs.items()}
        outputs = self.model.predict(request.model_spec.signature_name, inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self.model.name
        response.model_spec.version.value = self.model.version
        response.model_spec.signature_name = request.model_spec.signature_name
        for name in request.output_filter or outputs:
            if name not in outputs:
                raise invalid(f"output tensor alias not found in signature: {name}")
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response


def _to_array(name: str, tensor: Any) -> np.ndarray:
    try:
        return tf.make_ndarray(tensor)
    except (MemoryError, TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name}") from error
