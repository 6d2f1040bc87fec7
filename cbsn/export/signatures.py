"""The signatures of a served model, for arrays, and for pictures as encoded files."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from cbsn.client import transport
from cbsn.export.graph import GraphDenoiser
from cbsn.inference.denoiser import Denoiser
from cbsn.value_range import ROUNDING_ERROR

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_PNG_HEADER = 33  # bytes of a file's signature and first chunk, which holds its size
_MOST_CHUNKS = 1000  # before the pixels of a PNG file; ordinary files have fewer than 30
_FULL = 65535
_WHITES = [2**bits - 1 for bits in range(2, 16, 2)] + [_FULL]  # of 16-bit files, see `ValueRange`
_SHARES = [
    tf.TensorSpec((None,), tf.float32, name=name)
    for name in (transport.STRENGTH, transport.COLOR_STRENGTH)
]

MAX_PIXELS = 2**27  # of an encoded picture: even a small file may claim any size


def check(condition: tf.Tensor, message: str, values: Any = ()) -> tf.Operation:
    """Returns an assertion in a graph; `values` replace the `{}` of its message."""
    return tf.debugging.Assert(condition, [tf.strings.format(message, values, summarize=-1)])


def decode_and_encode(
    data: tf.Tensor, denoise: Callable[[tf.Tensor], tf.Tensor], max_pixels: int
) -> tf.Tensor:
    """Denoises a PNG or JPEG file in a graph, with a function of [H, W, C], uint8 or uint16.

    The result is a PNG file with the same channels and bits; a transparent colour becomes alpha.
    Pictures larger than `max_pixels` are refused before they are decoded.
    """
    is_png = tf.strings.substr(data, 0, len(_PNG)) == _PNG
    is_jpeg = tf.strings.substr(data, 0, len(_JPEG)) == _JPEG
    length = tf.strings.length(data)
    message = "A picture must be a PNG or JPEG file. Received: {} bytes of something else"
    with tf.control_dependencies([check(is_png | is_jpeg, message, length)]):
        data = tf.identity(data)
    height, width, channels, is_deep, transparent_step = tf.cond(
        is_png, lambda: _png_header(data), lambda: _jpeg_header(data)
    )
    pixels = height * width
    received = "Received: {} x {} pixels"
    none = f"A picture must have at least one pixel. {received}"
    too_many = f"A picture may have at most {max_pixels} pixels: split it. {received}"
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
            # TensorFlow cannot decode to gray and alpha: gray takes the first and last of RGBA.
            lambda: tf.io.decode_png(data, 4, dtype)[:, :, ::transparent_step],
            lambda: tf.io.decode_png(data, dtype=dtype),
        )
        return tf.ensure_shape(image, [None] * 3)

    def shallow() -> tf.Tensor:
        # The transform that Pillow uses, libjpeg's default, instead of TensorFlow's faster one.
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
    """Denoises 16-bit pixels in the range of their colours, as `ValueRange.of` finds it."""
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
    """Returns height, width, 0, whether it has 16 bits, and the step for a transparent colour.

    The step selects the channels of a picture with a transparent colour from its RGBA; without
    such a colour it is 0.
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
    # Palettes are always decoded with their alpha.
    step = tf.where(is_transparent & is_gray, 3, tf.where(is_transparent & is_rgb, 1, 0))
    with tf.control_dependencies([still]):
        return tf.identity(height), width, tf.constant(0), header[24] == 16, step


def _png_chunks(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns whether a chunk before the pixels names a transparent colour, and the frames."""
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
    """Reads four big-endian bytes as an int64."""
    digits = tf.io.decode_raw(tf.strings.substr(data, place, 4), tf.uint8, fixed_length=4)
    powers = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    return tf.reduce_sum(tf.cast(digits, tf.int64) * powers)


def _jpeg_header(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns height, width, channels, False and 0; see `_png_header`."""
    shape = tf.image.extract_jpeg_shape(data)
    size = tf.cast(shape, tf.int64)
    return size[0], size[1], shape[2], tf.constant(False), tf.constant(0)


class ServedDenoiser(tf.Module):
    """A denoiser with the signatures for serving it.

    `serving_default` takes `images`, float32 [N, H, W, C] in [0, 1], and returns `denoised`, of the
    same shape and dtype. `uint8` does the same for uint8. C is 1 (gray), 2 (gray and alpha),
    3 (RGB) or 4 (RGB and alpha). `encoded` takes `image_bytes`, strings [N], each a PNG or JPEG
    file, and returns `denoised_bytes`, PNG files with the same channels and bits, but no metadata.

    A model that was trained on stacks has planes as `images`, in the values of their files, and C
    is 1, or 3 (RGB). There is `uint16`, and no `encoded`. A model of volumes has volumes as
    `images`, [N, Z, H, W, C], with a strength for each volume.

    Each has a variant, such as `encoded_with_strength`, that also takes `strength` and
    `color_strength`, float32 [N] from 0 to 1, one for each picture. The others use the denoiser's.
    Input that cannot be denoised raises `tf.errors.InvalidArgumentError`, which the server reports.

    Args:
        denoiser: what to serve.
        max_pixels: int, the most pixels of a picture that `encoded` accepts.
        channel: of a model that was trained on stacks; see `GraphDenoiser`.

    Attributes:
        functions: dict from signature name to function, as `tf.saved_model.save` takes it.
    """

    def __init__(
        self, denoiser: Denoiser, max_pixels: int = MAX_PIXELS, channel: int | None = None
    ):
        super().__init__()
        # The module saves only what it tracks, and it does not find the variables of a Keras 3
        # network by itself.
        self._weights = [variable.value for variable in denoiser.network.variables]
        service = _Service(denoiser, max_pixels, channel)
        self.functions = {}
        arrays = service.planes if denoiser.scaling else service.arrays
        shape = [None] * (denoiser.network.dimensions + 2)
        for name, serve, *spec in (
            (transport.FLOATS, arrays, shape, tf.float32, transport.IMAGES),
            (transport.BYTES, arrays, shape, tf.uint8, transport.IMAGES),
            (transport.WORDS, arrays, shape, tf.uint16, transport.IMAGES)
            if denoiser.scaling
            else (transport.FILES, service.files, [None], tf.string, transport.IMAGE_BYTES),
        ):
            for suffix, shares in (("", []), (transport.WITH_STRENGTH, _SHARES)):
                self.functions[name + suffix] = tf.function(
                    serve, input_signature=[tf.TensorSpec(*spec), *shares], autograph=False
                )


class _Service:
    """The functions behind the signatures, which share one denoising graph per dtype."""

    def __init__(self, denoiser: Denoiser, max_pixels: int, channel: int | None):
        self._max_pixels = max_pixels
        self._shares = denoiser.strength.luma, denoiser.strength.color
        self._of_volumes = denoiser.of_volumes
        graph = GraphDenoiser(denoiser, channel=channel)
        shape = [None] * (denoiser.network.dimensions + 2)
        self._graphs = {
            dtype: tf.function(
                graph,
                input_signature=[tf.TensorSpec(shape, dtype), *_SHARES],
                autograph=False,
            )
            for dtype in (tf.float32, tf.uint8, tf.uint16)
        }

    def arrays(self, images: tf.Tensor, *shares: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._arrays(images, "pictures", _checks, shares)

    def planes(self, images: tf.Tensor, *shares: tf.Tensor) -> dict[str, tf.Tensor]:
        what = "volumes" if self._of_volumes else "planes"
        return self._arrays(images, what, _plane_checks, shares)

    def _arrays(
        self,
        images: tf.Tensor,
        what: str,
        checks: Callable[[tf.Tensor], list[tf.Operation]],
        shares: tuple[tf.Tensor, ...],
    ) -> dict[str, tf.Tensor]:
        axes = "N, Z, H, W, C" if self._of_volumes else "N, H, W, C"
        images = _of_rank(images, f"{transport.IMAGES} must be [{axes}], {what} of the same size")
        with tf.control_dependencies(checks(images)):
            images = tf.identity(images)
        return {transport.DENOISED: self._denoise(images, *_checked(shares, tf.shape(images)[0]))}

    def files(self, image_bytes: tf.Tensor, *shares: tf.Tensor) -> dict[str, tf.Tensor]:
        image_bytes = _of_rank(
            image_bytes, f"{transport.IMAGE_BYTES} must be [N], each a PNG or JPEG file"
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
        """Denoises pictures or volumes with strengths [N]; by default, with the denoiser's."""
        if not shares:
            shares = tuple(tf.fill(tf.shape(images)[:1], share) for share in self._shares)
        return self._graphs[images.dtype](images, *shares)


def _checked(shares: tuple[tf.Tensor, ...], pictures: tf.Tensor) -> list[tf.Tensor]:
    """Returns the strengths, if there are any, with checks that run with the graph."""
    checked = []
    for spec, share in zip(_SHARES, shares, strict=False):  # there may be none
        what = f"{spec.name} must be [N], a number from 0 to 1 for each picture"
        share = _of_rank(share, what)
        fits = (tf.size(share) == pictures) & tf.reduce_all((share >= 0) & (share <= 1))
        with tf.control_dependencies([check(fits, f"{what}. Received: {{}}", share)]):
            checked.append(tf.identity(share))
    return checked


def _of_rank(x: tf.Tensor, what: str) -> tf.Tensor:
    """Returns an input whose rank is checked as the graph runs, as the server does not check it."""
    rank = x.shape.rank
    # Otherwise TensorFlow would trust the declared rank instead of reading the actual one.
    given = tf.raw_ops.PlaceholderWithDefault(input=x, shape=tf.TensorShape(None))
    shape = tf.shape(given)
    right = check(tf.size(shape) == rank, f"{what}. Received: shape {{}}", shape)
    with tf.control_dependencies([right]):
        return tf.ensure_shape(given, [None] * rank)


def _checks(images: tf.Tensor) -> list[tf.Operation]:
    """Returns assertions that pictures can be denoised, with the messages of `Denoiser`."""
    shape = tf.shape(images)
    channels = "A picture must have 1 to 4 channels, [N, H, W, C]. Received: shape {}"
    pixels = "A picture must have at least one pixel. Received: shape {}"
    checks = [
        check((shape[-1] >= 1) & (shape[-1] <= 4), channels, shape),
        check(tf.reduce_all(shape > 0), pixels, shape),
    ]
    if images.dtype.is_floating:
        low, high = tf.reduce_min(images), tf.reduce_max(images)
        in_range = (low >= -ROUNDING_ERROR) & (high <= 1 + ROUNDING_ERROR)
        message = (
            "A picture of floats must be finite and in [0, 1]: scale it first. "
            "Received: values from {} to {}"
        )
        is_finite = tf.reduce_all(tf.math.is_finite(images))
        checks.append(check(is_finite & in_range, message, (low, high)))
    return checks


def _plane_checks(images: tf.Tensor) -> list[tf.Operation]:
    """Returns assertions that planes of a stack, or volumes, can be denoised."""
    shape = tf.shape(images)
    axes = "[N, Z, H, W, C]" if images.shape.rank == 5 else "[N, H, W, C]"
    samples = f"A plane must have 1 value per pixel, or 3 (RGB), {axes}. Received: shape {{}}"
    pixels = "A plane must have at least one pixel. Received: shape {}"
    checks = [
        check((shape[-1] == 1) | (shape[-1] == 3), samples, shape),
        check(tf.reduce_all(shape > 0), pixels, shape),
    ]
    if images.dtype.is_floating:
        values = tf.reduce_min(images), tf.reduce_max(images)
        message = "Planes must be finite: fill them first. Received: values from {} to {}"
        checks.append(check(tf.reduce_all(tf.math.is_finite(images)), message, values))
    return checks
