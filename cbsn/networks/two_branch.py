"""Networks with two branches of masked and dilated convolutions: DBSN and C-BSN."""

import math
from typing import Any

import keras
from keras import ops

from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.networks.layers import (
    FAN_IN_UNIFORM,
    HE,
    HE_UNTRUNCATED,
    DilatedBranch,
    DilatedModule,
    build_chain,
    crop,
    pointwise,
)

Tensor = Any


class TwoBranchNetwork(DenoisingNetwork):
    """A 1×1 convolution, two dilated blind-spot branches, and 1×1 convolutions on both.

    One branch has a 3×3 masked kernel and dilation 2, the other a 5×5 masked kernel and dilation 3.
    The last 1×1 convolution is linear; all others end in ReLU.

    Args:
        filters: int, number of channels C.
        num_modules: int, dilated modules in each branch.
        channels: int, channels of the picture.
        **kwargs: passed to `keras.Model`. With a mixed `dtype` policy the last convolution and
            the output stay float32.

    Input: float [N, H, W, channels], normalised; any H, W ≥ 1. Output: float32, same shape. With
    `padding="valid"` the input is a tile of a larger picture. The output then has only the pixels
    whose whole receptive field lies in the input, `receptive_field_radius` less on each side, and
    its height and width must be multiples of `size_multiple`.

    Raises:
        ValueError: if `filters` or `channels` is below 1, or `num_modules` below 0.
    """

    DILATIONS = (2, 3)

    INITIALIZERS: tuple[Any, Any] = (FAN_IN_UNIFORM, FAN_IN_UNIFORM)
    """Initialisers of the masked convolutions and of all others, as Keras accepts them."""

    MODULE_ACTIVATION: str | None = None
    """Activation of the residual of a dilated module."""

    blindness = "always"

    def __init__(self, filters: int = 128, num_modules: int = 9, channels: int = 3, **kwargs):
        super().__init__(filters, channels, **kwargs)
        if filters < 1 or num_modules < 0 or channels < 1:
            raise ValueError(
                "filters and channels must be at least 1, num_modules at least 0. "
                f"Received: filters={filters}, num_modules={num_modules}, channels={channels}"
            )
        self.num_modules = num_modules
        policy = self.dtype_policy
        common = {"kernel_initializer": self.INITIALIZERS[1], "dtype": policy}
        self.head = pointwise(filters, name="head", **common)
        self.branches = [
            DilatedBranch(
                filters,
                2 * d - 1,
                d,
                [
                    self.make_module(d, i, dtype=policy, name=f"module{i}")
                    for i in range(num_modules)
                ],
                self.INITIALIZERS,
                dtype=policy,
                name=f"branch{number}",
            )
            for number, d in enumerate(self.DILATIONS, 1)
        ]
        self.tail = [
            pointwise(width, name=f"tail{number}", **common)
            for number, width in enumerate(self.tail_filters, 1)
        ]
        common["dtype"] = "float32"
        self.tail.append(pointwise(channels, None, name=f"tail{len(self.tail) + 1}", **common))
        self.build((None, None, None, channels))

    @property
    def tail_filters(self) -> tuple[int, ...]:
        """Output channels of the 1×1 convolutions after the branches, except the last one."""
        return self.filters, self.filters // 2, self.filters // 2

    def make_module(self, dilation: int, index: int, **kwargs) -> keras.layers.Layer:
        """Creates module `index` of a branch; `kwargs` are passed to `keras.layers.Layer`."""
        return DilatedModule(self.filters, self.MODULE_ACTIVATION, self.INITIALIZERS[1], **kwargs)

    @property
    def receptive_field_radius(self) -> int:  # noqa: D102
        # Attention is not counted.
        return max(branch.radius for branch in self.branches)

    @property
    def size_multiple(self) -> int:  # noqa: D102
        return math.lcm(*(branch.size_multiple for branch in self.branches))

    def build(self, input_shape):  # noqa: D102
        self.head.build(input_shape)
        for branch in self.branches:
            branch.build((None, None, None, self.filters))
        build_chain(self.tail, self.filters * len(self.branches))
        self.built = True

    def call(self, inputs: Tensor, blind: bool = False, padding: str = "same") -> Tensor:
        """Denoises a normalised batch. `blind` is a Python bool, `padding` "same" or "valid"."""
        self.check_padding(padding)
        blind = blind or self.blindness == "always"
        x = self.head(inputs)
        features = []
        for branch in self.branches:
            # A branch with a smaller radius gets a smaller input, so that the output sizes agree.
            margin = self.receptive_field_radius - branch.radius if padding == "valid" else 0
            features.append(branch(crop(x, margin), blind=blind, padding=padding))
        x = ops.concatenate(features, axis=-1)
        for layer in self.tail:
            x = layer(x)
        return x

    def blind_pass(self, inputs: Tensor, random: Any) -> tuple[Tensor, None]:
        """Runs the network blind at every pixel: the mask is None, and `random` is not used."""
        return self(inputs, blind=True), None

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "num_modules": self.num_modules}


@keras.saving.register_keras_serializable(package="cbsn")
class DilatedBlindSpotNetwork(TwoBranchNetwork):
    """AP-BSN's light dilated blind-spot network: always blind; its modules end without activation.

    (Lee et al., "AP-BSN: Self-Supervised Denoising for Real-World Images via Asymmetric PD and
    Blind-Spot Network", CVPR 2022, arXiv 2203.11799.)

    Args:
        filters, num_modules, channels, **kwargs: see `TwoBranchNetwork`. With the defaults the
            network has 98 variables and 3,656,131 parameters.

    Input and output: see `TwoBranchNetwork`; values from 0 to 255.

    Example:
        >>> network = DilatedBlindSpotNetwork(filters=16, num_modules=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3))).shape
        (1, 60, 60, 3)

    Raises:
        ValueError: see `TwoBranchNetwork`; also if `filters` is 1.
    """


@keras.saving.register_keras_serializable(package="cbsn")
class ConditionalBlindSpotNetwork(TwoBranchNetwork):
    """C-BSN's network: two dilated branches whose blindness can be switched on and off.

    (Jang et al., "Self-supervised Image Denoising with Downsampled Invariance Loss and
    Conditional Blind-Spot Network", ICCV 2023, arXiv 2304.09507.)

    With `blind=True`, output pixel (i, j) does not depend on input pixel (i, j); with
    `blind=False` it may. Both modes use the same weights.

    Args:
        filters, num_modules, channels, **kwargs: see `TwoBranchNetwork`. With the defaults the
            network has 98 variables and 3,656,131 parameters.

    Input, output and errors: see `TwoBranchNetwork`.

    Example:
        >>> network = ConditionalBlindSpotNetwork(filters=16, num_modules=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3)), blind=True).shape
        (1, 60, 60, 3)
    """

    INITIALIZERS = (HE_UNTRUNCATED, HE)
    MODULE_ACTIVATION = "relu"
    blindness = "switched"

    @property
    def tail_filters(self) -> tuple[int, ...]:  # noqa: D102
        return self.filters, 64, 64
