"""Base classes of all networks and of the encoder-decoders."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from cbsn.orientations import NUM_ORIENTATIONS

Tensor = Any


class DenoisingNetwork(keras.Model):
    """Maps a picture to a picture; called as `network(x, blind=False, padding="same")`.

    A network of three `dimensions` maps volumes [N, Z, H, W, C] in the same way.

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

    dimensions = 2
    """2 for pictures, or 3 for volumes."""

    receptive_field_radius: int
    """How many pixels away an input can affect an output, if the network is local. Of volumes, this
    and the next two are those in plane."""

    size_multiple: int
    """Outputs whose heights and widths are multiples of this need no internal padding."""

    grid = 1
    """Tiles must start at multiples of this to give the same result as the whole picture."""

    orientations: Sequence[int] = range(NUM_ORIENTATIONS)
    """Those of `cbsn.orientations.orient` in which the network is trained, and may denoise."""

    flips_z = True
    """Whether it is also trained with the planes of volumes in the opposite order."""

    padding_mode = "reflect"
    """What it is padded with to a fitting size, at the bottom and right: "reflect" or "zeros"."""

    z_radius = 0
    """How many planes away an input can affect an output, if the network is local."""

    z_grid = 1
    """Tiles must start at multiples of this along z. Outputs whose numbers of planes are multiples
    of it need no internal padding."""

    def __init__(self, filters: int, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.channels = channels

    @property
    def halo(self) -> int:
        """Context in pixels that a tile needs on each side; a multiple of `grid`."""
        return -(-self.receptive_field_radius // self.grid) * self.grid

    @property
    def z_halo(self) -> int:
        """Context in planes that a tile needs at each end; a multiple of `z_grid`."""
        return -(-self.z_radius // self.z_grid) * self.z_grid

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
        z_halvings: int, number of halvings, the last ones, that also halve the number of planes of
            volumes. None for pictures. Default None.
        **kwargs: passed to `keras.Model`. With a mixed `dtype` policy the output stays float32.

    Input: float [N, H, W, channels], normalised; any H, W ≥ 1. It is padded by reflection at the
    bottom and right to multiples of 2^depth. Output: float32, same shape. With `padding="valid"`
    the output is smaller by `receptive_field_radius` on each side, and its height and width must
    be multiples of `size_multiple`.

    Volumes [N, Z, H, W, channels] are treated in the same way, along z by `z_radius` and `z_grid`.

    Raises:
        ValueError: if `filters`, `depth` or `channels` is below 1, or `z_halvings` is below 0 or
            above `depth`.
    """

    REACHES: tuple[int, int, int]
    """How far the convolutions reach, in pixels of their own resolution: in an encoder or decoder
    block; in the block at the lowest resolution; in the convolution before a doubling."""

    pool_reach = 0
    """How many pixels beyond its cell a halving sees, to each side."""

    pool_shift = 0
    """How many pixels features are moved at most, along each axis, before they are halved."""

    def __init__(
        self, filters: int, depth: int, channels: int, z_halvings: int | None = None, **kwargs
    ):
        super().__init__(filters, channels, **kwargs)
        if filters < 1 or depth < 1 or channels < 1:
            raise ValueError(
                "filters, depth and channels must be at least 1. "
                f"Received: filters={filters}, depth={depth}, channels={channels}"
            )
        if not 0 <= (z_halvings or 0) <= depth:
            raise ValueError(
                "z_halvings must be from 0 to depth. "
                f"Received: z_halvings={z_halvings}, depth={depth}"
            )
        self.depth = depth
        # Tiles on this grid are halved in the same way as the whole picture.
        self.grid = self.size_multiple = 2**depth
        # By how much each halving shrinks each axis, starting at full resolution.
        in_plane = [(2, 2)] * depth
        if z_halvings is None:
            self.factors: list[tuple[int, ...]] = [*in_plane]
        else:
            self.dimensions, self.z_grid = 3, 2**z_halvings
            flat = depth - z_halvings
            self.factors = [(1 + (n >= flat), *each) for n, each in enumerate(in_plane)]

    @property
    def widths(self) -> list[int]:
        """Channels at each resolution, starting with the full one."""
        return [self.filters * 2**level for level in range(self.depth + 1)]

    @property
    def receptive_field_radius(self) -> int:  # noqa: D102
        return self._radius([factor for *_, factor in self.factors])

    @property
    def z_radius(self) -> int:  # noqa: D102
        return self._radius([factor for factor, *_ in self.factors]) if self.dimensions == 3 else 0

    def _radius(self, factors: Sequence[int]) -> int:
        """Returns the reach along an axis that the halvings shrink by these factors."""
        at_ends, at_bottom, between = self.REACHES
        radius = 0
        for place in range(math.prod(factors)):
            first = last = place
            for factor in factors:
                first, last = first - at_ends, last + at_ends
                first, last = first // factor - between, last // factor + between
            first, last = first - at_bottom, last + at_bottom
            for factor in reversed(factors):
                reach = at_ends + (self.pool_reach + self.pool_shift) * (factor > 1)
                first, last = factor * first - reach, factor * last + factor - 1 + reach
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
        x = self.padded(inputs)
        return self.cropped(self.transform(x), inputs, padding)

    def padded(self, inputs: Tensor) -> Tensor:
        """Pads a batch at the far ends, as `padding_mode` says, to what can be halved.

        If a picture is too small to be reflected, its first row, column or plane is repeated.
        """
        x = inputs
        for axis, multiple in enumerate(self._multiples, 1):
            size = ops.shape(x)[axis]
            if isinstance(size, int) and size % multiple == 0:
                continue
            whole = (size + multiple - 1) // multiple * multiple
            if self.padding_mode == "zeros":
                # Pads by a fixed amount, then crops, as sizes may be unknown in a graph.
                margins = [(0, 0)] * len(x.shape)
                margins[axis] = (0, multiple - 1)
                x = ops.pad(x, margins)[(*[slice(None)] * axis, slice(whole))]
                continue
            places = ops.arange(whole)
            last = size - 1
            x = ops.take(x, ops.maximum(last - ops.abs(last - places), 0), axis=axis)
        return x

    def cropped(self, outputs: Tensor, inputs: Tensor, padding: str) -> Tensor:
        """Cuts the result for `padded(inputs)` to the size of the inputs, or of what is valid."""
        sizes = ops.shape(inputs)[1:-1]
        x = outputs[(slice(None), *(slice(size) for size in sizes))]
        if padding == "same":
            return x
        radii = [self.receptive_field_radius] * 2
        if self.dimensions == 3:
            radii.insert(0, self.z_radius)
        x = x[(slice(None), *(slice(r, -r) if r else slice(None) for r in radii))]
        names = ("depth", "height", "width")[-self.dimensions :]
        for name, size, multiple in zip(names, x.shape[1:-1], self._multiples, strict=True):
            if size is not None and size % multiple:
                raise ValueError(
                    f"The {name} of the output must be a multiple of {multiple}. "
                    f"Received: {name}={size}"
                )
        return x

    @property
    def _multiples(self) -> list[int]:
        """What sides must be multiples of, along each axis."""
        return [math.prod(each) for each in zip(*self.factors, strict=True)]

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "depth": self.depth}


def halve(x: Tensor, factors: Sequence[int] = (2, 2), *, blur: bool = False) -> Tensor:
    """Takes the maximum of each cell of pixels: [N, H, W, C] → [N, H/2, W/2, C].

    Args:
        x: a batch of pictures, or of volumes [N, Z, H, W, C].
        factors: 1 or 2 for each axis, the sides of a cell.
        blur: whether to blur before one pixel of each cell is taken, so that there is no aliasing
            (max-blur pooling with the kernel 1, 2, 1: Zhang, ICML 2019, arXiv 1904.11486).
    """
    if len(factors) == 3:
        # Planes are pooled as pictures are: not every backend and converter pools volumes.
        along_z, *in_plane = factors
        if along_z > 1:
            x = _extended(x, 1) if blur else x
            x = ops.maximum(x[:, :-1], x[:, 1:]) if blur else ops.maximum(x[:, ::2], x[:, 1::2])
        _, planes, *size = ops.shape(x)
        x = halve(ops.reshape(x, (-1, *size)), in_plane, blur=blur)
        x = ops.reshape(x, (-1, planes, *ops.shape(x)[1:]))
        if along_z > 1 and blur:
            x = (x[:, :-1] + x[:, 1:]) / 2
            x = (x[:, ::2] + x[:, 1::2]) / 2
        return x
    # The strides are explicit because Keras' default is wrong on JAX.
    if not blur:
        return ops.max_pool(x, 2, 2, data_format="channels_last")
    for axis in (1, 2):
        x = _extended(x, axis)
    x = ops.max_pool(x, 2, 1, data_format="channels_last")
    # Two means of two neighbours weigh three of them by 1, 2 and 1.
    x = ops.average_pool(x, 2, 1, data_format="channels_last")
    return ops.average_pool(x, 2, 2, data_format="channels_last")


def _extended(x: Tensor, axis: int) -> Tensor:
    """Repeats the first and the last pixel along an axis."""
    size = ops.shape(x)[axis]
    return ops.take(x, ops.clip(ops.arange(-1, size + 1), 0, size - 1), axis=axis)
