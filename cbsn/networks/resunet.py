"""The residual attention U-Net for Noise2Noise."""

from typing import Any

import keras
from keras import ops

from cbsn.networks.denoising_network import EncoderDecoder, halve
from cbsn.networks.layers import HE, Convolution, pointwise, scaled
from cbsn.sampling import depth_to_space

Tensor = Any

# Makes a fresh network return almost exactly its input.
_FIRST_NOISE = scaled(0.01, "truncated_normal")


@keras.saving.register_keras_serializable(package="cbsn")
class ResidualAttentionUNet(EncoderDecoder):
    """A U-Net that predicts the noise and subtracts it from the picture.

    (Residual learning: Zhang et al., DnCNN, arXiv 1608.03981. Squeeze-and-excitation: Hu et al.,
    arXiv 1709.01507. Attention gates: Oktay et al., Attention U-Net, arXiv 1804.03999. Sub-pixel
    upsampling: Shi et al., arXiv 1609.05158; its checkerboard-free initialisation: Aitken et al.,
    arXiv 1707.02937.) It has a residual block at each resolution, with max-pooling in between. The
    decoder upsamples with sub-pixel convolutions, and an attention gate weights each skip.

    Args:
        filters, depth, channels, **kwargs: see `EncoderDecoder`. With the defaults the network
            has 96 variables and, for gray pictures, 2,062,476 parameters.
        reduction: int, factor by which the hidden layer of squeeze-and-excitation has fewer
            channels than the features. 0 omits squeeze-and-excitation, which makes the network
            local.

    Input and output: see `EncoderDecoder`.

    Example:
        >>> network = ResidualAttentionUNet(channels=1)
        >>> network(keras.ops.zeros((1, 64, 64, 1))).shape
        (1, 64, 64, 1)

    Raises:
        ValueError: see `EncoderDecoder`; also if `reduction` is below 0.
    """

    REACHES = (2, 2, 0)

    def __init__(
        self, filters: int = 32, depth: int = 3, reduction: int = 8, channels: int = 3, **kwargs
    ):
        super().__init__(filters, depth, channels, **kwargs)
        if reduction < 0:
            raise ValueError(f"reduction must be at least 0. Received: reduction={reduction}")
        self.reduction = reduction
        common = {"dtype": self.dtype_policy}

        def block(width: int, name: str) -> _ResidualBlock:
            return _ResidualBlock(width, reduction, name=name, **common)

        *widths, bottom = self.widths
        levels = list(enumerate(widths))
        self.encoder = [block(width, f"encoder{level}") for level, width in levels]
        self.bottom = block(bottom, "bottom")
        self.doublings = [_SubPixel(width, name=f"up{level}", **common) for level, width in levels]
        self.gates = [
            _AttentionGate(max(1, width // 2), name=f"gate{level}", **common)
            for level, width in levels
        ]
        self.decoder = [block(width, f"decoder{level}") for level, width in levels]
        self.head = Convolution(
            channels, 3, kernel_initializer=_FIRST_NOISE, dtype="float32", name="head"
        )
        self.build((None, None, None, channels))

    @property
    def is_local(self) -> bool:
        """Whether the network lacks squeeze-and-excitation, which averages over the whole input."""
        return self.reduction == 0

    def build(self, input_shape):  # noqa: D102
        features = (None, None, None)
        blocks = [*self.encoder, self.bottom]
        for width, block in zip([self.channels, *self.widths], blocks, strict=False):
            block.build((*features, width))
        # Built from the bottom up: the order in which kernels are drawn.
        for level in reversed(range(self.depth)):
            width = self.widths[level]
            self.doublings[level].build((*features, 2 * width))
            self.gates[level].build((*features, width))
            self.decoder[level].build((*features, 2 * width))
        self.head.build((*features, self.filters))
        self.built = True

    @property
    def receptive_field_radius(self) -> int:  # noqa: D102
        return super().receptive_field_radius + 1  # 1 for the head; excludes the means

    def transform(self, inputs: Tensor) -> Tensor:  # noqa: D102
        x, skips = inputs, []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = halve(x)
        x = self.bottom(x)
        for level in reversed(range(self.depth)):
            x = self.doublings[level](x)
            x = ops.concatenate([self.gates[level](skips[level], x), x], axis=-1)
            x = self.decoder[level](x)
        return ops.cast(inputs, "float32") - self.head(x)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "reduction": self.reduction}


class _ResidualBlock(keras.layers.Layer):
    """ReLU(shortcut(x) + SE(3×3(ReLU(3×3(x))))); the shortcut is 1×1 where the width changes."""

    def __init__(self, filters: int, reduction: int, **kwargs):
        super().__init__(**kwargs)
        common = {"kernel_initializer": HE, "dtype": self.dtype_policy}
        self.first = Convolution(filters, 3, activation="relu", name="first", **common)
        self.second = Convolution(filters, 3, name="second", **common)
        self.shortcut = pointwise(filters, None, name="shortcut", dtype=self.dtype_policy)
        self.squeeze: Any = None
        self.excite: Any = None
        if reduction:
            dtype, hidden = self.dtype_policy, max(1, filters // reduction)
            self.squeeze = keras.layers.Dense(hidden, "relu", name="squeeze", dtype=dtype)
            self.excite = keras.layers.Dense(filters, "sigmoid", name="excite", dtype=dtype)

    def build(self, input_shape):
        features = (*input_shape[:-1], self.first.filters)
        self.first.build(input_shape)
        self.second.build(features)
        if input_shape[-1] == features[-1]:
            self.shortcut = None
        else:
            self.shortcut.build(input_shape)
        if self.squeeze:
            self.squeeze.build((None, features[-1]))
            self.excite.build((None, self.squeeze.units))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        x = self.second(self.first(inputs))
        if self.squeeze:
            # In half precision a mean of many values would lose much accuracy.
            means = ops.mean(ops.cast(x, "float32"), axis=(1, 2))
            weights = self.excite(self.squeeze(means))
            x = x * weights[:, None, None]
        return ops.relu(x + (self.shortcut(inputs) if self.shortcut else inputs))


class _AttentionGate(keras.layers.Layer):
    """Weights each pixel of a skip by the signal from below: x · σ(ψ(ReLU(W_x·x + W_g·g)))."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        common = {"dtype": self.dtype_policy}
        self.skip = pointwise(filters, None, name="skip", **common)
        self.signal = pointwise(filters, None, name="signal", **common)
        self.weight = pointwise(1, "sigmoid", name="weight", **common)

    def build(self, inputs_shape, signal_shape=None):
        self.skip.build(inputs_shape)
        self.signal.build(inputs_shape)
        self.weight.build((*inputs_shape[:-1], self.skip.filters))
        self.built = True

    def call(self, inputs: Tensor, signal: Tensor) -> Tensor:
        return inputs * self.weight(ops.relu(self.skip(inputs) + self.signal(signal)))


class _SubPixel(keras.layers.Layer):
    """A 1×1 convolution with ReLU to four times the channels, which become 2×2 pixels.

    The four start equal, so a fresh layer repeats pixels instead of making checkerboards.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.convolution = pointwise(
            4 * filters, name="convolution", kernel_initializer=_equal, dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return depth_to_space(self.convolution(inputs), 2)


def _equal(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
    """Returns a kernel of `HE` values, the same for each pixel of a 2×2 cell."""
    *rest, filters = shape
    kernel = keras.initializers.get(HE)((*rest, filters // 4), dtype)
    return ops.tile(kernel, (*[1] * len(rest), 4))
