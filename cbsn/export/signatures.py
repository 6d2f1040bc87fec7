"""What a served model answers to: pictures as arrays, or as encoded files."""

from collections.abc import Sequence

import tensorflow as tf

from cbsn.client.transport import (
    BYTES,
    COLOR_STRENGTH,
    DENOISED,
    DENOISED_BYTES,
    FILES,
    FLOATS,
    IMAGE_BYTES,
    IMAGES,
    STRENGTH,
    WITH_STRENGTH,
)
from cbsn.export.codec import check, decode_and_encode
from cbsn.export.graph import GraphDenoiser
from cbsn.inference.denoiser import Denoiser
from cbsn.value_range import ROUNDING_ERROR

MAX_PIXELS = 2**27
"""Of an encoded picture, which may be small and yet claim any size; 134 megapixels."""


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
            (FLOATS, service.arrays, [None] * 4, tf.float32, IMAGES),
            (BYTES, service.arrays, [None] * 4, tf.uint8, IMAGES),
            (FILES, service.files, [None], tf.string, IMAGE_BYTES),
        ):
            for suffix, shares in (("", []), (WITH_STRENGTH, _SHARES)):
                self.functions[name + suffix] = tf.function(
                    serve, input_signature=[tf.TensorSpec(*spec), *shares], autograph=False
                )


_SHARES = [tf.TensorSpec((None,), tf.float32, name=name) for name in (STRENGTH, COLOR_STRENGTH)]


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
        images = _of_rank(images, f"{IMAGES} is [N, H, W, C], pictures of one size")
        with tf.control_dependencies(_checks(images)):
            images = tf.identity(images)
        return {DENOISED: self._denoise(images, *_checked(shares, tf.shape(images)[0]))}

    def files(self, image_bytes: tf.Tensor, *shares: tf.Tensor) -> dict[str, tf.Tensor]:
        image_bytes = _of_rank(image_bytes, f"{IMAGE_BYTES} is [N], each a PNG or JPEG file")

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
        return {DENOISED_BYTES: results}

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
