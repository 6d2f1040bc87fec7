"""What a served model answers to: pictures as arrays, or as encoded files."""

from collections.abc import Callable

import tensorflow as tf

from cbsn.export.codec import check, decode_and_encode
from cbsn.export.graph_denoiser import GraphDenoiser
from cbsn.export.names import (
    BYTES,
    DENOISED,
    DENOISED_BYTES,
    FILES,
    FLOATS,
    IMAGE_BYTES,
    IMAGES,
)
from cbsn.inference.denoiser import Denoiser
from cbsn.value_range import ROUNDING_ERROR

MAX_PIXELS = 2**27
"""Of an encoded picture, which may be small and yet claim any size; 134 megapixels."""


class ServedDenoiser(tf.Module):
    """A denoiser with the signatures that it is served by.

    `serving_default` takes `images`, float32 [N, H, W, C] in [0, 1], and gives `denoised`, the
    same; `uint8` likewise for uint8. C is 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and
    alpha). `encoded` takes `image_bytes`, strings [N], each a PNG or JPEG file, and gives
    `denoised_bytes`, each a PNG file of the same channels and bits, without the metadata.

    Args:
        denoiser: what to serve.
        max_pixels: int, of a picture that `encoded` takes.

    Attributes:
        functions: dict, name of each signature to its function, as `tf.saved_model.save` takes it.

    What cannot be denoised raises `tf.errors.InvalidArgumentError`, as the server reports it.
    """

    def __init__(self, denoiser: Denoiser, max_pixels: int = MAX_PIXELS):
        super().__init__()
        # What the graphs use must hang on the module for it to be saved. A Keras 3 network's
        # variables are not found by themselves.
        self._weights = [variable.value for variable in denoiser.network.variables]
        graph = GraphDenoiser(denoiser)
        self.functions = {
            FLOATS: _of_arrays(graph, tf.float32),
            BYTES: _of_arrays(graph, tf.uint8),
            FILES: _of_files(graph, max_pixels),
        }


def _of_arrays(graph: GraphDenoiser, dtype: tf.DType) -> Callable:
    images = tf.TensorSpec((None, None, None, None), dtype, name=IMAGES)

    @tf.function(input_signature=[images], autograph=False)
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        images = _of_rank(images, f"{IMAGES} is [N, H, W, C], pictures of one size")
        with tf.control_dependencies(_checks(images)):
            return {DENOISED: graph(tf.identity(images))}

    return serve


def _of_files(graph: GraphDenoiser, max_pixels: int) -> Callable:
    files = tf.TensorSpec((None,), tf.string, name=IMAGE_BYTES)

    @tf.function(input_signature=[files], autograph=False)
    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def denoise(data: tf.Tensor) -> tf.Tensor:
            return decode_and_encode(data, lambda image: graph(image[None])[0], max_pixels)

        image_bytes = _of_rank(image_bytes, f"{IMAGE_BYTES} is [N], each a PNG or JPEG file")
        results = tf.map_fn(
            denoise, image_bytes, fn_output_signature=tf.string, parallel_iterations=1
        )
        return {DENOISED_BYTES: results}

    return serve


def _of_rank(x: tf.Tensor, what: str) -> tf.Tensor:
    """An input whose rank is checked, which a server does not do, as the graph runs."""
    rank = x.shape.rank
    # Otherwise the rank that is declared would be taken for the one that there is.
    given = tf.raw_ops.PlaceholderWithDefault(input=x, shape=tf.TensorShape(None))
    shape = tf.shape(given)
    right = check(tf.size(shape) == rank, f"{what}. Received: shape {{}}", shape)
    with tf.control_dependencies([right]):
        return tf.ensure_shape(given, [None] * rank)


def _checks(images: tf.Tensor) -> list[tf.Operation]:
    """Assertions that pictures can be denoised, in the words of `Denoiser`."""
    shape = tf.shape(images)
    checks = [
        check(
            (shape[-1] >= 1) & (shape[-1] <= 4),
            "A picture has 1 to 4 channels, [N, H, W, C]. Received: shape {}",
            shape,
        ),
        check(
            tf.reduce_all(shape > 0),
            "A picture has at least one pixel. Received: shape {}",
            shape,
        ),
    ]
    if images.dtype.is_floating:
        low, high = tf.reduce_min(images), tf.reduce_max(images)
        finite = tf.reduce_all(tf.math.is_finite(images))
        checks.append(
            check(
                finite & (low >= -ROUNDING_ERROR) & (high <= 1 + ROUNDING_ERROR),
                "A picture of floats is finite and in [0, 1]; scale it first. "
                "Received: values from {} to {}",
                (low, high),
            )
        )
    return checks
