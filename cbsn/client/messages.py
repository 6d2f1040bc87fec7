"""TensorFlow Serving's messages and services, which an extra brings; importing this needs it."""

from cbsn.errors import ConfigError

try:
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
    )
except ImportError as error:
    raise ConfigError(
        "TensorFlow Serving's API is not installed: pip install 'cbsn[serving]' (from a clone: "
        "pip install '.[serving]'). python -m cbsn client needs none with --rest. "
        f"Received: {error}"
    ) from error

__all__ = [
    "UNLIMITED",
    "get_model_metadata_pb2",
    "grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
]

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
"""Options of gRPC, whose messages are limited to 4 MB otherwise: less than a photograph."""
