"""Names in an exported model. A client must know them without TensorFlow."""

IMAGES, DENOISED = "images", "denoised"
"""Input and output for pictures as arrays."""

IMAGE_BYTES, DENOISED_BYTES = "image_bytes", "denoised_bytes"
"""Those for files; TensorFlow Serving's REST encodes what ends in `_bytes`."""

FLOATS, BYTES, FILES = "serving_default", "uint8", "encoded"
"""The signatures of a SavedModel."""

WARMUP = "assets.extra/tf_serving_warmup_requests"
"""Where the server looks for warm-up requests, in the folder of a SavedModel."""
