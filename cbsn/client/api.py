"""TensorFlow Serving's messages and services, which an extra brings; importing this needs it."""

from cbsn.errors import ConfigError

IMAGES, DENOISED = "images", "denoised"
"""Input and output for pictures as arrays."""

IMAGE_BYTES, DENOISED_BYTES = "image_bytes", "denoised_bytes"
"""Those for files; TensorFlow Serving's REST encodes what ends in `_bytes`."""

FLOATS, BYTES, FILES = "serving_default", "uint8", "encoded"
"""The signatures of a SavedModel."""

STRENGTH, COLOR_STRENGTH = "strength", "color_strength"
"""Inputs of the signatures that take them."""

WITH_STRENGTH = "_with_strength"
"""What is added to the name of a signature for the one that takes strengths, too.

They are signatures of their own as REST of TensorFlow Serving knows no default values: where a
signature has several inputs, it insists on all of them.
"""

WARMUP = "assets.extra/tf_serving_warmup_requests"
"""Where the server looks for warm-up requests, in the folder of a SavedModel."""


try:
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
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
    "get_model_status_pb2",
    "grpc",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
]

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
"""Options of gRPC, whose messages are limited to 4 MB otherwise: less than a photograph."""
