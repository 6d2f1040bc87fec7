"""Names of TensorFlow Serving's that an exported model and its clients share."""

IMAGES, DENOISED = "images", "denoised"
"""Input and output for pictures as arrays."""

IMAGE_BYTES, DENOISED_BYTES = "image_bytes", "denoised_bytes"
"""Those for files; TensorFlow Serving's REST encodes what ends in `_bytes`."""

FLOATS, BYTES, FILES = "serving_default", "uint8", "encoded"
"""The signatures of a SavedModel."""

STRENGTH, COLOR_STRENGTH = "strength", "color_strength"
"""Inputs of the signatures that take them."""

WITH_STRENGTH = "_with_strength"
"""Ending of the names of the signatures that also take strengths.

They are signatures of their own because REST of TensorFlow Serving knows no default values: where a
signature has several inputs, it insists on all of them.
"""

WARMUP = "assets.extra/tf_serving_warmup_requests"
"""Where the server looks for warm-up requests, in the folder of a SavedModel."""
