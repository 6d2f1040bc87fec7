"""PNG and JPEG files in a graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_PNG_HEADER = 33
"""Bytes of a PNG file's signature and first chunk, which says how large it is."""

_MOST_CHUNKS = 1000
"""Of a PNG file before its pixels; ordinary ones have less than 30."""

_FULL = 65535
_WHITES = [2**bits - 1 for bits in range(2, 16, 2)] + [_FULL]
"""Of `ValueRange`: the ranges of 16-bit files."""


def check(condition: tf.Tensor, message: str, values: Any = ()) -> tf.Operation:
    """An assertion in a graph, whose message has values in the place of its `{}`."""
    return tf.debugging.Assert(condition, [tf.strings.format(message, values, summarize=-1)])


def decode_and_encode(
    data: tf.Tensor, denoise: Callable[[tf.Tensor], tf.Tensor], max_pixels: int
) -> tf.Tensor:
    """Denoises a PNG or JPEG file, in a graph.

    Args:
        data: string scalar, the file.
        denoise: from [H, W, C], uint8 or uint16, to the same.
        max_pixels: int; larger pictures are refused before they are decoded.

    Returns:
        String scalar, a PNG file of the same channels, 8 or 16 bits; a transparent colour has
        become alpha. Files of 16 bits are denoised in the range that their colours use, as
        `ValueRange.of` sees it, and the result has that range.
    """
    is_png = tf.strings.substr(data, 0, len(_PNG)) == _PNG
    is_jpeg = tf.strings.substr(data, 0, len(_JPEG)) == _JPEG
    length = tf.strings.length(data)
    message = "A picture is a PNG or JPEG file. Received: {} bytes of something else"
    with tf.control_dependencies([check(is_png | is_jpeg, message, length)]):
        data = tf.identity(data)
    height, width, channels, is_deep, transparent_step = tf.cond(
        is_png, lambda: _png_header(data), lambda: _jpeg_header(data)
    )
    pixels = height * width
    received = "Received: {} x {} pixels"
    none = f"A picture has at least one pixel. {received}"
    too_many = f"A picture has at most {max_pixels} pixels; cut it up. {received}"
    checks = [
        check(channels != 4, "The JPEG is a CMYK picture; convert it to gray or RGB."),
        check(pixels > 0, none, (width, height)),
        check(pixels <= max_pixels, too_many, (width, height)),
    ]
    with tf.control_dependencies(checks):
        data = tf.identity(data)

    def decode_png(dtype: tf.DType) -> tf.Tensor:
        image = tf.cond(
            transparent_step > 0,
            # As RGB and alpha, as gray and alpha cannot be asked for: of those the first and last.
            lambda: tf.io.decode_png(data, 4, dtype)[:, :, ::transparent_step],
            lambda: tf.io.decode_png(data, dtype=dtype),
        )
        return tf.ensure_shape(image, [None] * 3)

    def deep() -> tf.Tensor:
        return tf.io.encode_png(_denoise_deep(decode_png(tf.uint16), denoise))

    def shallow() -> tf.Tensor:
        # As libjpeg's own default and Pillow have it, not TensorFlow's faster transform.
        image = tf.cond(
            is_png,
            lambda: decode_png(tf.uint8),
            lambda: tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE"),
        )
        return tf.io.encode_png(denoise(image))

    return tf.cond(is_deep, deep, shallow)


def _denoise_deep(image: tf.Tensor, denoise: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Denoises 16 bits in the range that the colours use: `ValueRange.of`, in a graph."""
    colors = image[..., : tf.where(tf.shape(image)[-1] < 3, 1, 3)]
    high = tf.reduce_max(tf.cast(colors, tf.int32))
    white = tf.gather(_WHITES, tf.searchsorted(_WHITES, [high])[0])
    white = tf.where(high == 0, _FULL, white)

    def scaled(image: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        values = tf.range(_FULL + 1, dtype=tf.float64) * scale
        table = tf.cast(tf.round(tf.clip_by_value(values, 0, _FULL)), tf.uint16)
        count = tf.shape(colors)[-1]
        result = tf.gather(table, tf.cast(image[..., :count], tf.int32))
        return tf.concat([result, image[..., count:]], axis=-1)

    def in_own_range() -> tf.Tensor:
        exact, full = tf.cast(white, tf.float64), tf.constant(_FULL, tf.float64)
        return scaled(denoise(scaled(image, full / exact)), exact / full)

    return tf.cond(white == _FULL, lambda: denoise(image), in_own_range)


def _png_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Height, width, 0, whether it has 16 bits, and 0 or how to take what is transparent.

    That is the step through red, green, blue and alpha to the channels of a picture with a
    transparent colour.
    """
    length = tf.strings.length(data)
    complete = check(length >= _PNG_HEADER, "The PNG file is cut off. Received: {} bytes", length)
    with tf.control_dependencies([complete]):
        header = tf.io.decode_raw(tf.strings.substr(data, 0, _PNG_HEADER), tf.uint8)
        is_transparent, frames = _png_chunks(data)
    width, height = _number(header[16:20]), _number(header[20:24])
    animation = "The PNG is an animation of {} frames; save them one by one."
    still = check(frames <= 1, animation, frames)
    is_gray, is_rgb = header[25] == 0, header[25] == 2
    # Palettes are decoded with their alpha in any case.
    step = tf.where(is_transparent & is_gray, 3, tf.where(is_transparent & is_rgb, 1, 0))
    with tf.control_dependencies([still]):
        return tf.identity(height), width, tf.constant(0), header[24] == 16, step


def _png_chunks(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether a chunk before the pixels names a transparent colour, and the number of frames."""
    length = tf.cast(tf.strings.length(data), tf.int64)
    too_many = (
        f"The PNG file has more than {_MOST_CHUNKS} chunks before its pixels; save it without them."
    )

    def is_before_pixels(place: tf.Tensor, number: tf.Tensor, kind: tf.Tensor, *_) -> tf.Tensor:
        return (place + 8 <= length) & (kind != b"IDAT")

    def read(place, number, kind, is_transparent, frames):
        with tf.control_dependencies([check(number < _MOST_CHUNKS, too_many)]):
            kind = tf.strings.substr(data, place + 4, 4)
        content = _number_at(data, tf.minimum(place + 8, length))
        frames = tf.where(kind == b"acTL", tf.maximum(frames, content), frames)
        return (
            place + 12 + _number_at(data, place),
            number + 1,
            kind,
            is_transparent | (kind == b"tRNS"),
            frames,
        )

    start = (tf.constant(len(_PNG), tf.int64), 0, b"", False, tf.constant(0, tf.int64))
    start = tuple(map(tf.convert_to_tensor, start))
    return tf.while_loop(is_before_pixels, read, start, parallel_iterations=1)[-2:]


def _number_at(data: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    content = tf.strings.substr(data, place, 4)
    return _number(tf.io.decode_raw(content, tf.uint8, fixed_length=4))


def _number(digits: tf.Tensor) -> tf.Tensor:
    """The int64 that four bytes are, the highest first."""
    powers = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    return tf.reduce_sum(tf.cast(digits, tf.int64) * powers)


def _jpeg_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Height, width, channels, False and 0."""
    shape = tf.image.extract_jpeg_shape(data)
    size = tf.cast(shape, tf.int64)
    return size[0], size[1], shape[2], tf.constant(False), tf.constant(0)
