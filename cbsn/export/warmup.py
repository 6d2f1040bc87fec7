"""Requests that TensorFlow Serving makes of a model before it takes those of others."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.export.names import (
    BYTES,
    COLOR_STRENGTH,
    FILES,
    FLOATS,
    IMAGE_BYTES,
    IMAGES,
    STRENGTH,
    WARMUP,
    WITH_STRENGTH,
)

_SIDE = 64


def write_warmup(folder: Path, model_name: str) -> None:
    """Writes a request for each signature: without them, the first of a client would wait.

    Args:
        folder: of the SavedModel.
        model_name: what the server will call the model.

    Raises:
        ConfigError: if tensorflow-serving-api is not installed.
    """
    try:
        from cbsn.export.serving_api import predict_pb2, prediction_log_pb2
    except ConfigError as error:
        raise ConfigError(
            "Warm-up requests are messages of TensorFlow Serving; make them with its package, or "
            f"export with --no-warmup. {error}"
        ) from error
    picture = np.full((1, _SIDE, _SIDE, 3), 128, np.uint8)
    files = [tf.io.encode_png(picture[0]).numpy()]
    inputs = {
        FLOATS: {IMAGES: tf.make_tensor_proto(picture / np.float32(255))},
        BYTES: {IMAGES: tf.make_tensor_proto(picture)},
        FILES: {IMAGE_BYTES: tf.make_tensor_proto(files)},
    }
    share = tf.make_tensor_proto([0.5], tf.float32)
    shares = {STRENGTH: share, COLOR_STRENGTH: share}
    inputs |= {name + WITH_STRENGTH: tensors | shares for name, tensors in inputs.items()}
    path = folder / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            for name, tensor in tensors.items():
                request.inputs[name].CopyFrom(tensor)
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())
