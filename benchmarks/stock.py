"""C-BSN's network in plain Keras: every dilated convolution is a dilated layer."""

from typing import Any

import keras
from keras import ops

from cbsn.networks import NETWORKS, ConditionalBlindSpotNetwork
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.networks.layers import ConditionalMaskedConv2D

Tensor = Any


def _convolution(filters: int, size: int = 1, **kwargs) -> keras.layers.Conv2D:
    kwargs = {"activation": "relu", "kernel_initializer": "he_normal", **kwargs}
    return keras.layers.Conv2D(filters, size, padding="same", **kwargs)


class StockNetwork(DenoisingNetwork):
    """Computes the same as `ConditionalBlindSpotNetwork`, with the same weights in the same order.

    Args:
        filters: int, number of channels.
        num_modules: int, dilated modules in each branch.
        channels: int, channels of the picture.
        **kwargs: passed to `DenoisingNetwork`.

    Input: float [N, H, W, channels]. Output: float32, same shape. With `padding="valid"` it is that
    of a tile of a larger picture, `receptive_field_radius` less on each side.
    """

    DILATIONS = ConditionalBlindSpotNetwork.DILATIONS
    blindness = "switched"

    def __init__(self, filters: int = 128, num_modules: int = 9, channels: int = 3, **kwargs):
        super().__init__(filters, channels, **kwargs)
        self.num_modules = num_modules
        policy = self.dtype_policy
        self.head = _convolution(filters, dtype=policy)
        self.branches = [
            [
                ConditionalMaskedConv2D(filters, 2 * d - 1, dtype=policy),
                _convolution(filters, dtype=policy),
                _convolution(filters, dtype=policy),
                *(
                    _convolution(filters, size, dilation_rate=rate, dtype=policy)
                    for _ in range(num_modules)
                    for size, rate in ((3, d), (1, 1))
                ),
                _convolution(filters, dtype=policy),
            ]
            for d in self.DILATIONS
        ]
        self.tail = [
            _convolution(filters, dtype=policy),
            _convolution(64, dtype=policy),
            _convolution(64, dtype=policy),
            _convolution(channels, activation=None, dtype="float32"),
        ]
        self.build((None, None, None, channels))

    @property
    def receptive_field_radius(self) -> int:
        """How many pixels away an input can affect an output."""
        return max(d - 1 + d * self.num_modules for d in self.DILATIONS)

    @property
    def size_multiple(self) -> int:
        """That of the other network, so that both get the same tiles."""
        return 6

    def build(self, input_shape):  # noqa: D102
        width = input_shape[-1]
        for layer in (self.head, *self.branches[0], *self.branches[1]):
            layer.build((None, None, None, width))
            width = self.head.filters
        width *= len(self.branches)
        for layer in self.tail:
            layer.build((None, None, None, width))
            width = layer.filters
        self.built = True

    def call(self, inputs: Tensor, blind: bool = False, padding: str = "same") -> Tensor:
        """Denoises a normalised batch."""
        x = self.head(inputs)
        x = ops.concatenate([_run(branch, x, blind) for branch in self.branches], axis=-1)
        for layer in self.tail:
            x = layer(x)
        radius = self.receptive_field_radius
        return x[:, radius:-radius, radius:-radius] if padding == "valid" else x

    def blind_pass(self, inputs: Tensor, random: Any) -> tuple[Tensor, None]:
        """See `TwoBranchNetwork`."""
        return self(inputs, blind=True), None


def _run(branch: list[keras.layers.Layer], x: Tensor, blind: bool) -> Tensor:
    masked, first, second, *modules, last = branch
    x = second(first(masked(x, blind=blind)))
    for spatial, pointwise in zip(modules[::2], modules[1::2], strict=True):
        x = x + pointwise(spatial(x))
    return last(x)


# Recipes name their network, so the same trainer can train this one, too.
NETWORKS[StockNetwork.__name__] = StockNetwork
