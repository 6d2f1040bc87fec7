"""The base class of U-Nets with plain convolutions."""

import itertools
from typing import Any

from keras import ops

from cbsn.networks.denoising_network import EncoderDecoder, halve
from cbsn.networks.layers import HE, Convolution, build_chain

Tensor = Any


class UNet(EncoderDecoder):
    """Two 3×3 convolutions at each resolution, with a halving or a doubling in between.

    (Ronneberger et al., MICCAI 2015, arXiv 1505.04597.) Each decoder level applies a 3×3
    convolution, doubles the size (nearest neighbour) and concatenates the skip. All convolutions
    end in ReLU.

    A subclass calls `make_layers` in its constructor, and implements `transform` by `features`.

    Args:
        filters, depth, channels, z_halvings, **kwargs: see `EncoderDecoder`.
    """

    REACHES = (2, 2, 1)

    top_skip = True
    """Whether there is a skip at full resolution."""

    def make_layers(self) -> None:
        """Creates the layers that `features` uses."""
        *widths, bottom = self.widths
        self.encoder = [self._block(width, f"encoder{level}") for level, width in enumerate(widths)]
        self.bottom = self._block(bottom, "bottom")
        self.doublings = [self.make_convolution(w, f"up{n}") for n, w in enumerate(widths)]
        self.decoder = [self._block(width, f"decoder{level}") for level, width in enumerate(widths)]

    def _block(self, width: int, name: str) -> list[Any]:
        return [self.make_convolution(width, f"{name}_{number}") for number in (1, 2)]

    def make_convolution(self, width: int, name: str) -> Any:
        """Creates a 3×3 convolution to `width` channels, with ReLU."""
        common = {"activation": "relu", "kernel_initializer": HE, "dtype": self.dtype_policy}
        return Convolution(width, 3, name=name, **common)

    def build(self, input_shape):  # noqa: D102
        spaces = self.dimensions
        build_chain([*itertools.chain(*self.encoder), *self.bottom], self.channels, spaces)
        # The level below has 2·width channels. A block gets width from it and width from the skip.
        for level, width in enumerate(self.widths[:-1]):
            build_chain([self.doublings[level]], 2 * width, spaces)
            has_skip = level > 0 or self.top_skip
            build_chain(self.decoder[level], (1 + has_skip) * width, spaces)
        self.built = True

    def features(self, inputs: Tensor, **how: Any) -> Tensor:
        """Returns features of pictures whose sides are multiples of 2^depth, [N, H, W, filters].

        `how` is passed to each convolution, and to `halved`.
        """
        x, skips = inputs, []
        for layers, factors in zip(self.encoder, self.factors, strict=True):
            for layer in layers:
                x = layer(x, **how)
            skips.append(x)
            x = self.halved(x, factors, **how)
        for layer in self.bottom:
            x = layer(x, **how)
        for level in reversed(range(self.depth)):
            # Convolving before doubling takes a quarter of the work.
            x = _enlarge(self.doublings[level](x, **how), self.factors[level])
            if level > 0 or self.top_skip:
                x = ops.concatenate([skips[level], x], axis=-1)
            for layer in self.decoder[level]:
                x = layer(x, **how)
        return x

    def halved(self, x: Tensor, factors: tuple[int, ...]) -> Tensor:
        """Shrinks features by the factors of one level along each axis."""
        return halve(x, factors)


def _enlarge(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Repeats every pixel along each axis: [N, H, W, C] → [N, 2·H, 2·W, C] for the factors 2, 2."""
    _, *sizes, channels = ops.shape(x)
    for axis, factor in enumerate(factors, 1):
        if factor > 1:
            x = ops.repeat(x, factor, axis=axis)
    sizes = [factor * size for factor, size in zip(factors, sizes, strict=True)]
    # The reshape states the channels, which a converter would not know otherwise.
    return ops.reshape(x, (-1, *sizes, channels))
