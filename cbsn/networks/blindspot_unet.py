"""The blind-spot U-Net of Noise2Void."""

import itertools
from typing import Any

import keras
from keras import ops

from cbsn.networks.denoising_network import EncoderDecoder, halve
from cbsn.networks.layers import HE, Convolution, build_chain, pointwise
from cbsn.sampling import mask_pixels

Tensor = Any


@keras.saving.register_keras_serializable(package="cbsn")
class BlindSpotUNet(EncoderDecoder):
    """A U-Net that is blind where its input is masked.

    (Krull et al., "Noise2Void", CVPR 2019, arXiv 1811.10980; U-Net: Ronneberger et al., MICCAI
    2015, arXiv 1505.04597.) It has two 3×3 convolutions at each resolution, with max-pooling in
    between. Each decoder level applies a 3×3 convolution, doubles the size (nearest neighbour) and
    concatenates the skip. All convolutions end in ReLU except the last one, a 1×1 convolution.

    An ordinary call sees every pixel. A blind pass replaces one pixel of each cell with another
    pixel of that cell; its output is blind only at the replaced pixels.

    Args:
        filters, depth, channels, **kwargs: see `EncoderDecoder`. With the defaults the network
            has 36 variables and, for gray pictures, 2,140,065 parameters.
        mask_cell: int, c ≥ 2: side of the cells of a blind pass, which masks 1/c² of the pixels.

    Input and output: see `EncoderDecoder`.

    Example:
        >>> network = BlindSpotUNet(channels=1)
        >>> network(keras.ops.zeros((1, 64, 64, 1))).shape
        (1, 64, 64, 1)

    Raises:
        ValueError: see `EncoderDecoder`; also if `mask_cell` is below 2.
    """

    REACHES = (2, 2, 1)

    blindness = "masked"

    def __init__(
        self, filters: int = 32, depth: int = 3, mask_cell: int = 4, channels: int = 3, **kwargs
    ):
        super().__init__(filters, depth, channels, **kwargs)
        if mask_cell < 2:
            raise ValueError(f"mask_cell must be at least 2. Received: mask_cell={mask_cell}")
        self.mask_cell = mask_cell

        def block(width: int, name: str) -> list[Convolution]:
            return [self._convolution(width, f"{name}_{number}") for number in (1, 2)]

        *widths, bottom = self.widths
        self.encoder = [block(width, f"encoder{level}") for level, width in enumerate(widths)]
        self.bottom = block(bottom, "bottom")
        self.doublings = [self._convolution(w, f"up{level}") for level, w in enumerate(widths)]
        self.decoder = [block(width, f"decoder{level}") for level, width in enumerate(widths)]
        self.head = pointwise(channels, None, name="head", dtype="float32")
        self.build((None, None, None, channels))

    def _convolution(self, width: int, name: str) -> Convolution:
        return Convolution(
            width, 3, activation="relu", kernel_initializer=HE, dtype=self.dtype_policy, name=name
        )

    def build(self, input_shape):  # noqa: D102
        build_chain([*itertools.chain(*self.encoder), *self.bottom], self.channels)
        # The level below has 2·width channels. A block gets width from it and width from the skip.
        for width, doubling, block in zip(self.widths, self.doublings, self.decoder, strict=False):
            build_chain([doubling], 2 * width)
            build_chain(block, 2 * width)
        build_chain([self.head], self.filters)
        self.built = True

    def transform(self, inputs: Tensor) -> Tensor:  # noqa: D102
        x, skips = inputs, []
        for layers in self.encoder:
            for layer in layers:
                x = layer(x)
            skips.append(x)
            x = halve(x)
        for layer in self.bottom:
            x = layer(x)
        for level in reversed(range(self.depth)):
            # Convolving before doubling takes a quarter of the work.
            x = _double(self.doublings[level](x))
            x = ops.concatenate([skips[level], x], axis=-1)
            for layer in self.decoder[level]:
                x = layer(x)
        return self.head(x)

    def blind_pass(self, inputs: Tensor, random: Any) -> tuple[Tensor, Tensor]:
        """Runs the network on masked pictures; the output is blind at the masked pixels."""
        cell = self.mask_cell
        n, height, width, _ = ops.shape(inputs)
        shape, count = (n, height // cell, width // cell), cell * cell
        masked = random.integers(shape, count)
        sources = (masked + 1 + random.integers(shape, count - 1)) % count
        inputs, mask = mask_pixels(inputs, masked, sources, cell)
        return self(inputs), mask

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "mask_cell": self.mask_cell}


def _double(x: Tensor) -> Tensor:
    """Repeats every pixel four times: [N, H, W, C] → [N, 2·H, 2·W, C]."""
    _, height, width, channels = ops.shape(x)
    x = ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
    # The reshape states the channels, which a converter would not know otherwise.
    return ops.reshape(x, (-1, 2 * height, 2 * width, channels))
