"""Base classes of all networks and of the encoder-decoders."""

from typing import Any

import keras
from keras import ops

from cbsn.networks.layers import crop

Tensor = Any


class DenoisingNetwork(keras.Model):
    """Maps a picture to a picture; called as `network(x, blind=False, padding="same")`.

    A network that can be blind also has `blind_pass(x, random)`. It returns a prediction [N, H, W,
    C] and a mask [N, H, W, 1], which is 1 where the prediction is blind, that is, independent of
    the pixel of `x` at the same place, and 0 elsewhere. The mask is None if all pixels are blind.
    `random` provides `random.integers(shape, high)`; see `cbsn.objectives.objective.Objective`.

    Args:
        filters, channels: ints, number of channels inside the network and in the picture.
        **kwargs: passed to `keras.Model`.
    """

    blindness = "none"
    """Kind of blindness: "always" (whatever `blind` is), "switched" (by `blind`), "masked" (where
    the input is masked; `blind=True` is an error), or "none"."""

    is_local = True
    """Whether an input further away than `receptive_field_radius` never affects an output."""

    receptive_field_radius: int
    """How many pixels away an input can affect an output, if the network is local."""

    size_multiple: int
    """Outputs whose heights and widths are multiples of this need no internal padding."""

    grid = 1
    """Tiles must start at multiples of this to give the same result as the whole picture."""

    def __init__(self, filters: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels

    @property
    def halo(self) -> int:
        """Context in pixels that a tile needs on each side; a multiple of `grid`."""
        return -(-self.receptive_field_radius // self.grid) * self.grid

    def check_padding(self, padding: str) -> None:
        """Raises a ValueError if `padding` is "valid" and the network is not local."""
        if padding == "valid" and not self.is_local:
            raise ValueError(
                "Every output of this network depends on all of its input, so it needs "
                f"padding='same'. Received: padding={padding!r}"
            )

    def compute_output_shape(self, input_shape):  # noqa: D102
        return tuple(input_shape)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "filters": self.filters, "channels": self.channels}


class EncoderDecoder(DenoisingNetwork):
    """A network that halves the picture `depth` times, then doubles it as often.

    A subclass defines `REACHES`, creates its layers, calls
    `self.build((None, None, None, channels))`, and implements `transform` for pictures whose sides
    are multiples of 2^depth.

    Args:
        filters: int, number of channels at full resolution; it doubles with every halving.
        depth: int, number of halvings.
        channels: int, channels of the picture.
        **kwargs: passed to `keras.Model`. With a mixed `dtype` policy the output stays float32.

    Input: float [N, H, W, channels], normalised; any H, W ≥ 1. It is padded by reflection at the
    bottom and right to multiples of 2^depth. Output: float32, same shape. With `padding="valid"`
    the output is smaller by `receptive_field_radius` on each side, and its height and width must
    be multiples of `size_multiple`.

    Raises:
        ValueError: if `filters`, `depth` or `channels` is below 1.
    """

    REACHES: tuple[int, int, int]
    """How far the convolutions reach, in pixels of their own resolution: in an encoder or decoder
    block; in the block at the lowest resolution; in the convolution before a doubling."""

    def __init__(self, filters: int, depth: int, channels: int, **kwargs):
        super().__init__(filters, channels, **kwargs)
        if filters < 1 or depth < 1 or channels < 1:
            raise ValueError(
                "filters, depth and channels must be at least 1. "
                f"Received: filters={filters}, depth={depth}, channels={channels}"
            )
        self.depth = depth
        # Tiles on this grid are halved in the same way as the whole picture.
        self.grid = self.size_multiple = 2**depth

    @property
    def widths(self) -> list[int]:
        """Channels at each resolution, starting with the full one."""
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
        """Denoises [N, H, W, channels], where H and W are multiples of 2^depth."""
        raise NotImplementedError

    def call(self, inputs: Tensor, blind: bool = False, padding: str = "same") -> Tensor:
        """Denoises a normalised batch. `blind` must be False; `padding` is "same" or "valid"."""
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
    """Takes the maximum of each 2×2 cell: [N, H, W, C] → [N, H/2, W/2, C]."""
    # The strides are explicit because Keras' default is wrong on JAX.
    return ops.max_pool(x, 2, 2, data_format="channels_last")


def _reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pads [N, H, W, C] by reflection at the bottom and right to multiples of `multiple`.

    If the picture is too small for that, its first row or column is repeated.
    """
    for axis in (1, 2):
        size = ops.shape(x)[axis]
        if isinstance(size, int) and size % multiple == 0:
            continue
        places = ops.arange((size + multiple - 1) // multiple * multiple)
        last = size - 1
        x = ops.take(x, ops.maximum(last - ops.abs(last - places), 0), axis=axis)
    return x
