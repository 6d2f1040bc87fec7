"""What a served model answers to: pictures as arrays, or as encoded files."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from cbsn.client import transport
from cbsn.export.graph import GraphDenoiser
from cbsn.inference.denoiser import Denoiser
from cbsn.value_range import ROUNDING_ERROR

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_PNG_HEADER = 33  # bytes of a file's signature and first chunk, which says how large it is
_MOST_CHUNKS = 1000  # of a PNG file before its pixels; ordinary ones have less than 30
_FULL = 65535
_WHITES = [2**bits - 1 for bits in range(2, 16, 2)] + [_FULL]  # of `ValueRange`, for 16-bit files
_SHARES = [
    tf.TensorSpec((None,), tf.float32, name=name)
    for name in (transport.STRENGTH, transport.COLOR_STRENGTH)
]

MAX_PIXELS = 2**27  # of an encoded picture, which may be small and yet claim any size


def check(condition: tf.Tensor, message: str, values: Any = ()) -> tf.Operation:
    """An assertion in a graph, whose message has values in the place of its `{}`."""
    return tf.debugging.Assert(condition, [tf.strings.format(message, values, summarize=-1)])


def decode_and_encode(
    data: tf.Tensor, denoise: Callable[[tf.Tensor], tf.Tensor], max_pixels: int
) -> tf.Tensor:
    """Denoises a PNG or JPEG file, in a graph, by a function of [H, W, C], uint8 or uint16.

    The result is a PNG file of the same channels and bits; a transparent colour has become alpha.
    Larger pictures than `max_pixels` are refused before they are decoded.
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

    def shallow() -> tf.Tensor:
        # As libjpeg's own default and Pillow have it, not TensorFlow's faster transform.
        image = tf.cond(
            is_png,
            lambda: decode_png(tf.uint8),
            lambda: tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE"),
        )
        return tf.io.encode_png(denoise(image))

    def deep() -> tf.Tensor:
        return tf.io.encode_png(_denoise_deep(decode_png(tf.uint16), denoise))

    return tf.cond(is_deep, deep, shallow)


def _denoise_deep(image: tf.Tensor, denoise: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Denoises 16 bits in the range that the colours use, as `ValueRange.of` sees it."""
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
        data = tf.identity(data)
    header = tf.io.decode_raw(tf.strings.substr(data, 0, _PNG_HEADER), tf.uint8)
    is_transparent, frames = _png_chunks(data)
    width, height = _number_at(data, 16), _number_at(data, 20)
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
    return tf.while_loop(
        lambda place, number, kind, *_: (place + 8 <= length) & (kind != b"IDAT"),
        read,
        start,
        parallel_iterations=1,
    )[-2:]


def _number_at(data: tf.Tensor, place: int | tf.Tensor) -> tf.Tensor:
    """The int64 that four bytes are, the highest first."""
    digits = tf.io.decode_raw(tf.strings.substr(data, place, 4), tf.uint8, fixed_length=4)
    powers = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    return tf.reduce_sum(tf.cast(digits, tf.int64) * powers)


def _jpeg_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Height, width, channels, False and 0."""
    shape = tf.image.extract_jpeg_shape(data)
    size = tf.cast(shape, tf.int64)
    return size[0], size[1], shape[2], tf.constant(False), tf.constant(0)


class ServedDenoiser(tf.Module):
    """A denoiser with the signatures that it is served by.

    `serving_default` takes `images`, float32 [N, H, W, C] in [0, 1], and gives `denoised`, the
    same; `uint8` does so for uint8. C is 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and
    alpha). `encoded` takes `image_bytes`, strings [N], each a PNG or JPEG file, and gives
    `denoised_bytes`, each a PNG file of the same channels and bits, without the metadata.

    Each has a second one, such as `encoded_with_strength`, which takes `strength` and
    `color_strength`, too: float32 [N] from 0 to 1, for each picture. The first have the denoiser's.
    What cannot be denoised raises `tf.errors.InvalidArgumentError`, as the server reports it.

    Args:
        denoiser: what to serve.
        max_pixels: int, of a picture that `encoded` takes.

    Attributes:
        functions: dict, name of each signature to its function, as `tf.saved_model.save` takes it.
    """

    def __init__(self, denoiser: Denoiser, max_pixels: int = MAX_PIXELS):
        super().__init__()
        # What the graphs use must hang on the module for it to be saved. A Keras 3 network's
        # variables are not found by themselves.
        self._weights = [variable.value for variable in denoiser.network.variables]
        service = _Service(denoiser, max_pixels)
        self.functions = {}
        for name, serve, *spec in (
            (transport.FLOATS, service.arrays, [None] * 4, tf.float32, transport.IMAGES),
            (transport.BYTES, service.arrays, [None] * 4, tf.uint8, transport.IMAGES),
            (transport.FILES, service.files, [None], tf.string, transport.IMAGE_BYTES),
        ):
            for suffix, shares in (("", []), (transport.WITH_STRENGTH, _SHARES)):
                self.functions[name + suffix] = tf.function(
                    serve, input_signature=[tf.TensorSpec(*spec), *shares], autograph=False
                )


class _Service:
    """What the signatures do; each type of tensor is denoised by one graph in all of them."""

    def __init__(self, denoiser: Denoiser, max_pixels: int):
        self._max_pixels = max_pixels
        self._shares = denoiser.strength.luma, denoiser.strength.color
        graph = GraphDenoiser(denoiser)
        self._graphs = {
            dtype: tf.function(
                graph,
                input_signature=[tf.TensorSpec([None] * 4, dtype), *_SHARES],
                autograph=False,
            )
            for dtype in (tf.float32, tf.uint8, tf.uint16)
        }

    def arrays(self, images: tf.Tensor, *shares: tf.Tensor) -> dict[str, tf.Tensor]:
        images = _of_rank(images, f"{transport.IMAGES} is [N, H, W, C], pictures of one size")
        with tf.control_dependencies(_checks(images)):
            images = tf.identity(images)
        return {transport.DENOISED: self._denoise(images, *_checked(shares, tf.shape(images)[0]))}

    def files(self, image_bytes: tf.Tensor, *shares: tf.Tensor) -> dict[str, tf.Tensor]:
        image_bytes = _of_rank(
            image_bytes, f"{transport.IMAGE_BYTES} is [N], each a PNG or JPEG file"
        )

        def denoise_file(each: Sequence[tf.Tensor]) -> tf.Tensor:
            data, shares = each[0], [share[None] for share in each[1:]]
            return decode_and_encode(
                data, lambda image: self._denoise(image[None], *shares)[0], self._max_pixels
            )

        results = tf.map_fn(
            denoise_file,
            (image_bytes, *_checked(shares, tf.shape(image_bytes)[0])),
            fn_output_signature=tf.string,
            parallel_iterations=1,
        )
        return {transport.DENOISED_BYTES: results}

    def _denoise(self, images: tf.Tensor, *shares: tf.Tensor) -> tf.Tensor:
        """Denoises [N, H, W, C] by strengths [N]; without these by the denoiser's."""
        if not shares:
            shares = tuple(tf.fill(tf.shape(images)[:1], share) for share in self._shares)
        return self._graphs[images.dtype](images, *shares)


def _checked(shares: tuple[tf.Tensor, ...], pictures: tf.Tensor) -> list[tf.Tensor]:
    """The strengths, if there are any, which are checked as the graph runs."""
    checked = []
    for spec, share in zip(_SHARES, shares, strict=False):  # there may be none
        what = f"{spec.name} is [N], a number from 0 to 1 for each picture"
        share = _of_rank(share, what)
        fits = (tf.size(share) == pictures) & tf.reduce_all((share >= 0) & (share <= 1))
        with tf.control_dependencies([check(fits, f"{what}. Received: {{}}", share)]):
            checked.append(tf.identity(share))
    return checked


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
    channels = "A picture has 1 to 4 channels, [N, H, W, C]. Received: shape {}"
    pixels = "A picture has at least one pixel. Received: shape {}"
    checks = [
        check((shape[-1] >= 1) & (shape[-1] <= 4), channels, shape),
        check(tf.reduce_all(shape > 0), pixels, shape),
    ]
    if images.dtype.is_floating:
        low, high = tf.reduce_min(images), tf.reduce_max(images)
        in_range = (low >= -ROUNDING_ERROR) & (high <= 1 + ROUNDING_ERROR)
        message = (
            "A picture of floats is finite and in [0, 1]; scale it first. "
            "Received: values from {} to {}"
        )
        is_finite = tf.reduce_all(tf.math.is_finite(images))
        checks.append(check(is_finite & in_range, message, (low, high)))
    return checks
