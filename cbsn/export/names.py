"""Names in an exported model. A client must know them without TensorFlow."""

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
