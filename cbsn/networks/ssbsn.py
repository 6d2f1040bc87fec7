"""The self-similarity blind-spot network of SS-BSN."""

from typing import Any

import keras

from cbsn.networks.attention import SelfSimilarityAttention
from cbsn.networks.layers import FAN_IN_UNIFORM, Convolution, crop, pointwise
from cbsn.networks.two_branch import TwoBranchNetwork

Tensor = Any


class _Module(keras.layers.Layer):
    """x + 1×1(ReLU(3×3(ReLU(3×3(x + attention(x)))))) on phases, like a `DilatedModule`."""

    reach = 2

    def __init__(self, filters: int, attention: SelfSimilarityAttention | None, **kwargs):
        super().__init__(**kwargs)
        self.size_multiple = attention.scale if attention else 1
        self.attention = attention
        common = {"kernel_initializer": FAN_IN_UNIFORM, "dtype": self.dtype_policy}
        self.spatial1 = Convolution(filters, 3, activation="relu", name="spatial1", **common)
        self.spatial2 = Convolution(filters, 3, activation="relu", name="spatial2", **common)
        self.pointwise = pointwise(filters, None, name="pointwise", **common)

    def build(self, inputs_shape, inside_shape=None):
        for layer in (self.attention, self.spatial1, self.spatial2, self.pointwise):
            if layer:
                layer.build(inputs_shape)
        self.built = True

    def call(self, inputs: Tensor, inside: Tensor | None = None, padding: str = "same") -> Tensor:
        def masked(x: Tensor) -> Tensor:
            return x if inside is None else x * inside

        x = inputs
        if self.attention:
            x = x + self.attention(x, inside)
        x = masked(self.spatial1(x, padding=padding))
        x = self.pointwise(self.spatial2(x, padding=padding))
        if padding == "valid":
            inputs = crop(inputs, self.reach)
        return inputs + masked(x)


@keras.saving.register_keras_serializable(package="cbsn")
class SelfSimilarityBlindSpotNetwork(TwoBranchNetwork):
    """SS-BSN's network: always blind, with attention among pixels that look alike.

    (Han & Yu, "SS-BSN: Attentive Blind-Spot Network for Self-Supervised Denoising with Nonlocal
    Self-Similarity", IJCAI 2023, arXiv 2305.09890.) The last modules of each branch have a
    `SelfSimilarityAttention`, which sees the whole input. So does the layer normalisation in it: it
    takes the mean of all features, so that a pixel has a trace of influence on its own output. With
    that mean held fast, the network is blind.

    Args:
        filters: int ≥ 2, number of channels C. Default 128.
        num_modules: int, dilated modules in each branch. Default 9.
        num_attention: int, how many of them, the last ones, have attention. Default 3.
        scale: int, f: each of the d² phases of a branch of dilation d is split into f² sub-grids,
            whose pixels attend to each other. Default 2.
        channels: int, channels of the picture. Default 3.
        **kwargs: of `keras.Model`. With a mixed `dtype` policy the last convolution and the
            output stay float32.

    Input and output: as `TwoBranchNetwork` has them; values from 0 to 255. `blind` changes
    nothing.

    Example:
        >>> network = SelfSimilarityBlindSpotNetwork(filters=16, num_modules=3, num_attention=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3))).shape
        (1, 60, 60, 3)

    Raises:
        ValueError: if `filters` is below 2, `channels` or `scale` below 1, or `num_attention` is
            not in [0, `num_modules`].
    """

    def __init__(
        self,
        filters: int = 128,
        num_modules: int = 9,
        num_attention: int = 3,
        scale: int = 2,
        channels: int = 3,
        **kwargs,
    ):
        if not 0 <= num_attention <= num_modules or scale < 1:
            raise ValueError(
                "num_attention must be in [0, num_modules], and scale at least 1. Received: "
                f"num_attention={num_attention}, num_modules={num_modules}, scale={scale}"
            )

        def make_module(dilation: int, index: int, **common) -> _Module:
            attention = None
            if index >= num_modules - num_attention:
                attention = SelfSimilarityAttention(
                    filters, dilation, scale, dtype=common["dtype"], name="attention"
                )
            return _Module(filters, attention, **common)

        super().__init__(
            filters,
            num_modules,
            channels,
            make_module=make_module,
            tail_filters=(filters, filters // 2, filters // 2),
            initializers=(FAN_IN_UNIFORM, FAN_IN_UNIFORM),
            **kwargs,
        )
        self.num_attention = num_attention
        self.scale = scale

    @property
    def is_local(self) -> bool:
        """Whether no module has attention."""
        return self.num_attention == 0

    @property
    def has_loop(self) -> bool:
        """Whether its graph has the loop over attention's chunks."""
        return not self.is_local

    def get_config(self):  # noqa: D102
        return {
            **super().get_config(),
            "num_attention": self.num_attention,
            "scale": self.scale,
        }
