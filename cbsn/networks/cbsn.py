"""The conditional blind-spot network of C-BSN."""

import math
from typing import Any

import keras
from keras import ops

from cbsn.networks.layers import DilatedBranch, crop, pointwise

Tensor = Any


@keras.saving.register_keras_serializable(package="cbsn")
class ConditionalBlindSpotNetwork(keras.Model):
    """C-BSN's network: two dilated branches whose blindness can be switched on and off.

    A 1×1 convolution, a branch with a 3×3 masked kernel and dilation 2, one with 5×5 and
    dilation 3, and four 1×1 convolutions on their concatenation, the last one linear.
    (Jang et al., "Self-supervised Image Denoising with Downsampled Invariance Loss and
    Conditional Blind-Spot Network", ICCV 2023, arXiv 2304.09507.)

    With `blind=True`, output pixel (i, j) does not depend on input pixel (i, j); with
    `blind=False` it may. The weights are the same.

    Args:
        filters: int, number of channels C. Default 128.
        num_modules: int, dilated modules in each branch. Default 9. With both defaults the
            network has 98 variables and 3,656,131 parameters.
        channels: int, channels of the picture. Default 3.
        **kwargs: of `keras.Model`. With a mixed `dtype` policy the last convolution and the
            output stay float32.

    Input: float [N, H, W, channels], normalised; any H, W ≥ 1. Output: float32, same shape. With
    `padding="valid"` the output is that of a tile cut out of a larger picture: it has only the
    pixels whose whole receptive field lies in the input, `receptive_field_radius` less on each
    side, and its height and width must be multiples of `size_multiple`.

    Example:
        >>> network = ConditionalBlindSpotNetwork(filters=16, num_modules=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3)), blind=True).shape
        (1, 60, 60, 3)

    Raises:
        ValueError: if `filters` or `channels` is below 1, or `num_modules` below 0.
    """

    DILATIONS = (2, 3)

    def __init__(self, filters: int = 128, num_modules: int = 9, channels: int = 3, **kwargs):
        super().__init__(**kwargs)
        if filters < 1 or num_modules < 0 or channels < 1:
            raise ValueError(
                "filters and channels must be at least 1, num_modules at least 0. "
                f"Received: filters={filters}, num_modules={num_modules}, channels={channels}"
            )
        self.filters = filters
        self.num_modules = num_modules
        self.channels = channels
        policy = self.dtype_policy
        self.head = pointwise(filters, dtype=policy, name="head")
        self.branches = [
            DilatedBranch(filters, 2 * d - 1, d, num_modules, dtype=policy, name=f"branch{i + 1}")
            for i, d in enumerate(self.DILATIONS)
        ]
        self.tail = [
            pointwise(filters, dtype=policy, name="tail1"),
            pointwise(64, dtype=policy, name="tail2"),
            pointwise(64, dtype=policy, name="tail3"),
            pointwise(channels, activation=None, dtype="float32", name="tail4"),
        ]
        self.build((None, None, None, channels))

    @property
    def receptive_field_radius(self) -> int:
        """How many pixels away an input can change an output: 2 + 3 · `num_modules`."""
        return max(branch.radius for branch in self.branches)

    @property
    def size_multiple(self) -> int:
        """Outputs whose heights and widths are multiples of this need no padding inside: 6."""
        return math.lcm(*self.DILATIONS)

    def build(self, input_shape):  # noqa: D102
        self.head.build(input_shape)
        for branch in self.branches:
            branch.build((None, None, None, self.filters))
        width = self.filters * len(self.branches)
        for layer in self.tail:
            layer.build((None, None, None, width))
            width = layer.filters
        self.built = True

    def call(self, inputs: Tensor, blind: bool = False, padding: str = "same") -> Tensor:
        """Denoises a normalised batch; `blind` is a Python bool, `padding` "same" or "valid"."""
        x = self.head(inputs)
        features = []
        for branch in self.branches:
            # A branch that sees less far gets less to see, so that the outputs are of one size.
            margin = self.receptive_field_radius - branch.radius if padding == "valid" else 0
            features.append(branch(crop(x, margin), blind=blind, padding=padding))
        x = ops.concatenate(features, axis=-1)
        for layer in self.tail:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape):  # noqa: D102
        return tuple(input_shape)

    def get_config(self):  # noqa: D102
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_modules": self.num_modules,
            "channels": self.channels,
        }
