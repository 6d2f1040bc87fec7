"""gRPC for the stand-in server: the part of TensorFlow Serving's services that is for models."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from cbsn.client.api import (
    WARMUP,
    get_model_metadata_pb2,
    get_model_status_pb2,
    grpc,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from cbsn.errors import ModelError
from tests.serving.served_model import ServedModel, invalid, message_of

_LARGEST_CLAIM = 2**20
"""Numbers of a tensor that gives less than all of them, and repeats the last."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcService(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Answers `Predict`, `GetModelMetadata` and `GetModelStatus` for one model.

    Args:
        model: what computes.
    """

    def __init__(self, model: ServedModel):
        self._model = model

    def add_to(self, server: grpc.Server) -> None:
        """Makes a gRPC server answer with this."""
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, server)

    def warm_up(self) -> None:
        """Runs the requests that lie with the model for that, if any, as TensorFlow Serving does.

        Raises:
            ModelError: if one of them cannot be read or fails.
        """
        path = self._model.folder / WARMUP
        if not path.exists():
            return
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                self._predict(log.predict_log.request)
        except Exception as error:  # a damaged file may hold anything
            reason = message_of(error) if isinstance(error, tf.errors.OpError) else error
            raise ModelError(f"A warm-up request in {path} failed: {reason}") from error

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802, the protocol's name
        """Computes a signature."""

        def answer() -> Any:
            self._model.check(*_asked(request))
            return self._predict(request)

        return _answer(answer, context)

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Says the signatures."""

        def answer() -> Any:
            self._model.check(*_asked(request))
            if [*request.metadata_field] != ["signature_def"]:
                raise invalid("Metadata field signature_def is the one that is supported")
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            self._name(response)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in self._model.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
            response.metadata["signature_def"].Pack(signatures)
            return response

        return _answer(answer, context)

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Says that the model is there."""

        def answer() -> Any:
            self._model.check(*_asked(request))
            response = get_model_status_pb2.GetModelStatusResponse()
            response.model_version_status.add(
                version=self._model.version,
                state=get_model_status_pb2.ModelVersionStatus.AVAILABLE,
            )
            return response

        return _answer(answer, context)

    def _predict(self, request: Any) -> Any:
        inputs = {name: _to_array(name, tensor) for name, tensor in request.inputs.items()}
        outputs = self._model.predict(request.model_spec.signature_name, inputs)
        response = predict_pb2.PredictResponse()
        self._name(response)
        response.model_spec.signature_name = request.model_spec.signature_name
        for name in request.output_filter or outputs:
            if name not in outputs:
                raise invalid(f"output tensor alias not found in signature: {name}")
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response

    def _name(self, response: Any) -> None:
        response.model_spec.name = self._model.name
        response.model_spec.version.value = self._model.version


def _asked(request: Any) -> tuple[str, int | None]:
    """Name and version of the model that a request is for."""
    spec = request.model_spec
    return spec.name, spec.version.value if spec.HasField("version") else None


def _to_array(name: str, tensor: Any) -> Any:
    try:
        claimed = math.prod(dim.size for dim in tensor.tensor_shape.dim)
        # What is a few bytes must not be the work of hours.
        largest = len(tensor.string_val) if tensor.string_val else _LARGEST_CLAIM
        if claimed > largest and not tensor.tensor_content:
            raise ValueError(f"claims {claimed} values")
        return tf.make_ndarray(tensor)
    except (KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name}") from error


def _answer(answer: Callable[[], Any], context: Any) -> Any:
    """Returns the answer; TensorFlow's errors become those of gRPC."""
    try:
        return answer()
    except tf.errors.OpError as error:
        context.abort(_CODES[error.error_code], message_of(error))
