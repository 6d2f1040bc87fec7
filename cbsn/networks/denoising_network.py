"""What networks have in common, and the encoder-decoders among them."""

from typing import Any

import keras
from keras import ops

from cbsn.networks.layers import crop

Tensor = Any


class DenoisingNetwork(keras.Model):
    """Maps a picture to a picture; called as `network(x, blind=False, padding="same")`.

    A network that can be blind has also `blind_pass(x, random)`, which gives a prediction [N, H, W,
    C], and a mask [N, H, W, 1]: 1 where the prediction is blind, that is, does not depend on the
    pixel of `x` at its own place, else 0; None for everywhere. `random` gives
    `random.integers(shape, high)`, as `cbsn.objectives.objective.Objective` says.

    Args:
        filters, channels: ints, channels inside, and of the picture.
        **kwargs: of `keras.Model`.
    """

    blindness = "none"
    """"always" (`blind` changes nothing), "switched" (by `blind`), "masked" (where its input is
    masked; it refuses `blind=True`), or "none"."""

    is_local = True
    """Whether an input further away than `receptive_field_radius` cannot change an output."""

    receptive_field_radius: int
    """How many pixels away an input can change an output, in a network that is local."""

    size_multiple: int
    """Outputs whose heights and widths are multiples of this need no padding inside."""

    grid = 1
    """Tiles must start at multiples of this, for them to come out as the whole picture."""

    def __init__(self, filters: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels

    @property
    def halo(self) -> int:
        """What a tile is given on each side beyond what is wanted of it."""
        return -(-self.receptive_field_radius // self.grid) * self.grid

    def check_padding(self, padding: str) -> None:
        """Raises a ValueError for "valid" padding of a network that is not local."""
        if padding == "valid" and not self.is_local:
            raise ValueError(
                "Every output of this network depends on all of the input, so that no tile has an "
                f"inside. Received: padding={padding!r}"
            )

    def compute_output_shape(self, input_shape):  # noqa: D102
        return tuple(input_shape)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "filters": self.filters, "channels": self.channels}


class EncoderDecoder(DenoisingNetwork):
    """A network that halves the picture `depth` times, and doubles it as often.

    A subclass says its `REACHES`, makes its layers, then calls
    `self.build((None, None, None, channels))`, and computes pictures whose sides are multiples of
    2^depth in `transform`.

    Args:
        filters: int, number of channels at full resolution; they double with every halving.
        depth: int, number of halvings.
        channels: int, channels of the picture.
        **kwargs: of `keras.Model`. With a mixed `dtype` policy the output stays float32.

    Input: float [N, H, W, channels], normalised; any H, W ≥ 1. Inside, it is reflected at the
    bottom and right up to multiples of 2^depth. Output: float32, same shape; with
    `padding="valid"` `receptive_field_radius` less on each side, and its height and width must be
    multiples of `size_multiple`.

    Raises:
        ValueError: if `filters`, `depth` or `channels` is below 1.
    """

    REACHES: tuple[int, int, int]
    """How far convolutions reach, in pixels of their resolution: those of a block of the encoder or
    decoder; of the block at the lowest resolution; of what comes before a doubling."""

    def __init__(self, filters: int, depth: int, channels: int, **kwargs):
        super().__init__(filters, channels, **kwargs)
        if filters < 1 or depth < 1 or channels < 1:
            raise ValueError(
                "filters, depth and channels must be at least 1. "
                f"Received: filters={filters}, depth={depth}, channels={channels}"
            )
        self.depth = depth
        # So that tiles are halved as the whole picture is.
        self.grid = self.size_multiple = 2**depth

    @property
    def widths(self) -> list[int]:
        """Channels at each resolution, the full one first."""
        return [self.filters * 2**level for level in range(self.depth + 1)]

    @property
    def receptive_field_radius(self) -> int:  # noqa: D102
        at_ends, at_bottom, between = self.REACHES
        radius = 0
        for place in range(self.grid):
            first = last = place
            for _ in range(self.depth):
                first, last = first - at_ends, last + at_ends
                first, last = first // 2 - between, last // 2 + between
            first, last = first - at_bottom, last + at_bottom
            for _ in range(self.depth):
                first, last = 2 * first - at_ends, 2 * last + 1 + at_ends
            radius = max(radius, place - first, last - place)
        return radius

    def transform(self, inputs: Tensor) -> Tensor:
        """Denoises [N, H, W, channels], H and W multiples of 2^depth."""
        raise NotImplementedError

    def call(self, inputs: Tensor, blind: bool = False, padding: str = "same") -> Tensor:
        """Denoises a normalised batch; it cannot be `blind`; `padding` "same" or "valid"."""
        if blind:
            raise ValueError(
                f"{type(self).__name__} sees every pixel that it is given, so it is not blind "
                f"unless its input is masked. Received: blind={blind}"
            )
        self.check_padding(padding)
        height, width = ops.shape(inputs)[1:3]
        x = _reflect_to_multiple(inputs, self.grid)
        x = self.transform(x)[:, :height, :width]
        if padding == "same":
            return x
        x = crop(x, self.receptive_field_radius)
        for name, size in (("height", x.shape[1]), ("width", x.shape[2])):
            if size is not None and size % self.size_multiple:
                raise ValueError(
                    f"The {name} of the output must be a multiple of {self.size_multiple}. "
                    f"Received: {name}={size}"
                )
        return x

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "depth": self.depth}


def halve(x: Tensor) -> Tensor:
    """The largest of each 2×2 pixels: [N, H, W, C] → [N, H/2, W/2, C]."""
    # With its strides, which Keras on JAX gets wrong by itself.
    return ops.max_pool(x, 2, 2, data_format="channels_last")


def _reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflects [N, H, W, C] at the bottom and right up to multiples of `multiple`.

    Where the picture is too small, its first row or column goes on.
    """
    for axis in (1, 2):
        size = ops.shape(x)[axis]
        if isinstance(size, int) and size % multiple == 0:
            continue
        places = ops.arange((size + multiple - 1) // multiple * multiple)
        last = size - 1
        x = ops.take(x, ops.maximum(last - ops.abs(last - places), 0), axis=axis)
    return x
