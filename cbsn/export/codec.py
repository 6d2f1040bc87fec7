"""PNG and JPEG files in a graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_PNG_HEADER = 33
"""Bytes of a PNG file's signature and first chunk, which says how large it is."""


def check(condition: tf.Tensor, message: str, values: Any = ()) -> tf.Operation:
    """An assertion whose message has values in the place of its `{}`, for a graph.

    Args:
        condition: bool scalar.
        message: what to say where it is False.
        values: a tensor or several.

    Returns:
        The operation; it raises `tf.errors.InvalidArgumentError`.
    """
    return tf.debugging.Assert(condition, [tf.strings.format(message, values, summarize=-1)])


def decode_and_encode(
    data: tf.Tensor, denoise: Callable[[tf.Tensor], tf.Tensor], max_pixels: int
) -> tf.Tensor:
    """Denoises an encoded picture, in a graph.

    Args:
        data: string scalar, a PNG or JPEG file.
        denoise: from [H, W, C], uint8 or uint16, to the same.
        max_pixels: int; larger pictures are refused before they are decoded.

    Returns:
        String scalar, a PNG file of the same channels, 8 or 16 bits.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if the file is damaged, or neither PNG nor
            JPEG, or has too many pixels, or is a CMYK JPEG.
    """
    is_png = tf.strings.substr(data, 0, len(_PNG)) == _PNG
    is_jpeg = tf.strings.substr(data, 0, len(_JPEG)) == _JPEG
    known = check(
        is_png | is_jpeg,
        "A picture is a PNG or JPEG file. Received: {} bytes of something else",
        tf.strings.length(data),
    )
    with tf.control_dependencies([known]):
        data = tf.identity(data)
    height, width, channels, is_deep = tf.cond(
        is_png, lambda: _png_header(data), lambda: _jpeg_header(data)
    )
    pixels = height * width
    checks = [
        check(channels != 4, "The JPEG is a CMYK picture; convert it to gray or RGB."),
        check(
            pixels > 0,
            "A picture has at least one pixel. Received: {} x {} pixels",
            (width, height),
        ),
        check(
            pixels <= max_pixels,
            f"A picture has at most {max_pixels} pixels; cut it up. Received: {{}} x {{}} pixels",
            (width, height),
        ),
    ]
    with tf.control_dependencies(checks):
        data = tf.identity(data)

    def deep() -> tf.Tensor:
        return tf.io.encode_png(denoise(tf.io.decode_png(data, dtype=tf.uint16)))

    def shallow() -> tf.Tensor:
        # As libjpeg's own default and Pillow have it, not TensorFlow's faster transform.
        image = tf.cond(
            is_png,
            lambda: tf.io.decode_png(data),
            lambda: tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE"),
        )
        return tf.io.encode_png(denoise(image))

    return tf.cond(is_deep, deep, shallow)


def _png_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Height, width, 0 and whether it has 16 bits."""
    complete = check(
        tf.strings.length(data) >= _PNG_HEADER,
        "The PNG file is cut off. Received: {} bytes",
        tf.strings.length(data),
    )
    with tf.control_dependencies([complete]):
        header = tf.io.decode_raw(tf.strings.substr(data, 0, _PNG_HEADER), tf.uint8)
    powers = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    width, height = (
        tf.reduce_sum(tf.cast(header[start : start + 4], tf.int64) * powers) for start in (16, 20)
    )
    return height, width, tf.constant(0), header[24] == 16


def _jpeg_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Height, width, channels and False."""
    shape = tf.image.extract_jpeg_shape(data)
    size = tf.cast(shape, tf.int64)
    return size[0], size[1], shape[2], tf.constant(False)
