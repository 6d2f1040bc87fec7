"""Layers that blind-spot networks share: masked convolution, dilated module, and branch.

A dilated convolution (dilation d) never mixes pixels whose rows or columns differ modulo d. So
a run of them is computed in *polyphase form*: the d² phases of the feature map go into the batch
once, plain 3×3 convolutions work on them, and the phases are put back once. This equals the
dilated form number for number, and on a CPU saves the round trip that TensorFlow would make in
every dilated layer. On a GPU, whose library has dilated convolutions, these are faster.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cbsn.devices import has_gpu
from cbsn.sampling import batch_to_space, space_to_batch

Tensor = Any


def crop(x: Tensor, margin: int) -> Tensor:
    """Cuts `margin` pixels off each side of [N, H, W, C]."""
    return x[:, margin:-margin, margin:-margin] if margin else x


def scaled(scale: float, distribution: str) -> dict[str, Any]:
    """An initialiser whose variance is `scale` / fan in."""
    # Not an initialiser, but what Keras makes one of: layers that shared one would start equal.
    config = {"scale": scale, "mode": "fan_in", "distribution": distribution}
    return {"class_name": "VarianceScaling", "config": config}


HE = scaled(2.0, "truncated_normal")
HE_UNTRUNCATED = scaled(2.0, "untruncated_normal")
"""C-BSN's initialisers: normal, of standard deviation sqrt(2 / fan in)."""

FAN_IN_UNIFORM = scaled(1 / 3, "uniform")
"""That of PyTorch's convolutions: uniform in ±1 / sqrt(fan in)."""


def pointwise(filters: int, activation: str | None = "relu", **kwargs) -> keras.layers.Conv2D:
    """Returns a 1×1 convolution; initialised with `HE`, unless told."""
    kwargs = {"kernel_initializer": HE, **kwargs}
    return keras.layers.Conv2D(filters, 1, activation=activation, **kwargs)


def build_chain(layers: Sequence[Any], channels: int) -> None:
    """Builds convolutions that follow each other, of which the first is given `channels`."""
    for layer in layers:
        layer.build((None, None, None, channels))
        channels = layer.filters


@keras.saving.register_keras_serializable(package="cbsn")
class Convolution(keras.layers.Conv2D):
    """A 2-D convolution whose padding is said when it is called.

    With `padding="same"` the output is as large as the input, which is taken to be 0 outside;
    with `padding="valid"` it loses what the kernel reaches beyond the edge.

    Args:
        filters, kernel_size, **kwargs: of `keras.layers.Conv2D`; the kernel's size is odd.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs):
        kwargs.setdefault("padding", "same")
        super().__init__(filters, kernel_size, **kwargs)

    def call(self, inputs: Tensor, padding: str = "same", dilation: int | None = None) -> Tensor:
        """Convolves; `dilation` takes the place of the layer's own."""
        return self._convolve(inputs, self.kernel, padding, dilation)

    def _convolve(
        self, inputs: Tensor, kernel: Tensor, padding: str, dilation: int | None = None
    ) -> Tensor:
        outputs = ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=padding,
            data_format="channels_last",
            dilation_rate=dilation or self.dilation_rate,
        )
        if self.use_bias:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return self.activation(outputs)


@keras.saving.register_keras_serializable(package="cbsn")
class ConditionalMaskedConv2D(Convolution):
    """A convolution whose centre tap can be switched off (C-BSN, arXiv 2304.09507).

    With `blind=True` the kernel's centre is multiplied by 0, so that an output pixel does not
    depend on the input pixel at its own place; with `blind=False` the same kernel is used whole.

    Args:
        filters, kernel_size, **kwargs: as of `Convolution`; by default with ReLU and
            `HE_UNTRUNCATED`.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs):
        kwargs.setdefault("activation", "relu")
        kwargs.setdefault("kernel_initializer", HE_UNTRUNCATED)
        super().__init__(filters, kernel_size, **kwargs)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(
                f"A masked kernel needs a centre, so its size must be odd. "
                f"Received: kernel_size={kernel_size}"
            )
        self._mask = np.ones((*self.kernel_size, 1, 1), "float32")
        self._mask[self.kernel_size[0] // 2, self.kernel_size[1] // 2] = 0.0

    def call(self, inputs: Tensor, blind: bool = True, padding: str = "same") -> Tensor:
        """Convolves; `blind` is a Python bool, so each setting is a graph of its own."""
        kernel = self.kernel
        if blind:
            kernel = kernel * ops.cast(self._mask, kernel.dtype)
        return self._convolve(inputs, kernel, padding)


@keras.saving.register_keras_serializable(package="cbsn")
class DilatedModule(keras.layers.Layer):
    """Dilated convolution module (DCM) on phases: x + 1×1(ReLU(3×3(x))).

    Args:
        filters: int, number of channels in and out.
        activation: of the residual; C-BSN's is "relu", AP-BSN's None.
        kernel_initializer: of both convolutions, as Keras takes it. Default `HE`.

    Input: phases [N, H, W, filters] and, where some of them lie outside the picture, `inside`
    [N, H, W, 1], 1 inside and 0 outside. Outside, the features stay 0, as the zero padding of a
    dilated convolution would have it. Output: as the input, or with `padding="valid"` `reach`
    pixels less on each side. With `dilation` the input is a whole feature map instead, on which the
    convolution is dilated, and loses that times as many pixels.
    """

    reach = 1
    """How many pixels of its phase away an input can change an output."""

    size_multiple = 1
    """Heights and widths of the phases must be multiples of this."""

    def __init__(
        self, filters: int, activation: str | None = "relu", kernel_initializer: Any = HE, **kwargs
    ):
        super().__init__(**kwargs)
        initializer = {"kernel_initializer": kernel_initializer}
        self._config = {"filters": filters, "activation": activation, **initializer}
        common = {**initializer, "dtype": self.dtype_policy}
        self.spatial = Convolution(filters, 3, activation="relu", name="spatial", **common)
        self.pointwise = pointwise(filters, activation, name="pointwise", **common)

    def build(self, inputs_shape, inside_shape=None):  # noqa: D102
        self.spatial.build(inputs_shape)
        self.pointwise.build(inputs_shape)
        self.built = True

    def call(
        self, inputs: Tensor, inside: Tensor | None = None, padding: str = "same", dilation: int = 1
    ) -> Tensor:
        """Adds the module's residual to its input."""
        residual = self.pointwise(self.spatial(inputs, padding=padding, dilation=dilation))
        if padding == "valid":
            inputs = crop(inputs, self.reach * dilation)
        return inputs + (residual if inside is None else residual * inside)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), **self._config}


@keras.saving.register_keras_serializable(package="cbsn")
class DilatedBranch(keras.layers.Layer):
    """One branch of a dilated blind-spot network, in polyphase form.

    A masked convolution, two 1×1, the dilated modules, one 1×1; all but the modules with ReLU.
    The modules move by multiples of the dilation d only; so if the masked kernel reaches less than
    d pixels to each side, no path leads from a pixel back to itself.

    Args:
        filters: int, number of channels.
        kernel_size: odd int, side of the masked kernel.
        dilation: int, dilation of the modules; at least (kernel_size + 1) / 2.
        modules: layers like `DilatedModule`.
        initializers: of the masked convolution, and of the 1×1 ones. Default C-BSN's.

    Input: [N, H, W, C]. Output: [N, H, W, filters]; with `padding="valid"` `radius` pixels less on
    each side, and its height and width must be multiples of `size_multiple`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        dilation: int,
        modules: Sequence[keras.layers.Layer],
        initializers: tuple[Any, Any] = (HE_UNTRUNCATED, HE),
        **kwargs,
    ):
        super().__init__(**kwargs)
        if dilation < (kernel_size + 1) // 2:
            raise ValueError(
                "The dilation must be at least (kernel_size + 1) / 2, or the branch is not blind. "
                f"Received: kernel_size={kernel_size}, dilation={dilation}"
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.dilation = dilation
        self._initializers = initializers
        of_masked, of_pointwise = initializers
        policy = self.dtype_policy
        self.masked = ConditionalMaskedConv2D(
            filters, kernel_size, kernel_initializer=of_masked, dtype=policy, name="masked"
        )
        common = {"kernel_initializer": of_pointwise, "dtype": policy}
        self.pointwise1 = pointwise(filters, name="pointwise1", **common)
        self.pointwise2 = pointwise(filters, name="pointwise2", **common)
        self.dilated_modules = list(modules)
        self.pointwise3 = pointwise(filters, name="pointwise3", **common)

    def build(self, input_shape):  # noqa: D102
        self.masked.build(input_shape)
        features = (None, None, None, self.filters)
        for layer in (self.pointwise1, self.pointwise2, *self.dilated_modules, self.pointwise3):
            if not layer.built:  # as modules are that come of a saved model
                layer.build(features)
        self.built = True

    @property
    def radius(self) -> int:
        """How many pixels away an input can change an output, but for attention."""
        reach = sum(module.reach for module in self.dilated_modules)
        return self.kernel_size // 2 + self.dilation * reach

    @property
    def size_multiple(self) -> int:
        """What heights and widths are padded to multiples of."""
        return self.dilation * math.lcm(*(module.size_multiple for module in self.dilated_modules))

    def call(self, inputs: Tensor, blind: bool = True, padding: str = "same") -> Tensor:
        """Runs the branch; `blind` switches the masked convolution."""
        x = self.masked(inputs, blind=blind, padding=padding)
        x = self.pointwise2(self.pointwise1(x))
        # Not in polyphase form: on an H200 a training step of C-BSN is 1.27 times as fast.
        if has_gpu() and all(isinstance(m, DilatedModule) for m in self.dilated_modules):
            for module in self.dilated_modules:
                x = module(x, padding=padding, dilation=self.dilation)
            return self.pointwise3(x)
        if padding == "valid":
            x = space_to_batch(x, self.dilation)
            for module in self.dilated_modules:
                x = module(x, padding="valid")
            return batch_to_space(self.pointwise3(x), self.dilation)
        height, width = ops.shape(x)[1:3]
        x, inside = to_phases(x, self.dilation, self.size_multiple)
        for module in self.dilated_modules:
            x = module(x, inside)
        x = batch_to_space(self.pointwise3(x), self.dilation)
        return x[:, :height, :width]

    def compute_output_shape(self, input_shape):  # noqa: D102
        return (*input_shape[:-1], self.filters)

    def get_config(self):  # noqa: D102
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "modules": [keras.saving.serialize_keras_object(m) for m in self.dilated_modules],
            "initializers": self._initializers,
        }

    @classmethod
    def from_config(cls, config):  # noqa: D102
        modules = [keras.saving.deserialize_keras_object(m) for m in config.pop("modules")]
        return cls(modules=modules, **config)


def to_phases(x: Tensor, dilation: int, multiple: int) -> tuple[Tensor, Tensor | None]:
    """Splits a feature map into the phases that a dilated convolution keeps apart.

    With d the dilation, [N, H, W, C] becomes [d²·N, H/d, W/d, C]. It is padded with zeros to
    multiples of `multiple`, itself one of d; a mask [d²·N, H/d, W/d, 1] is 1 inside `x` and 0 in
    the padding, and None where nothing is padded.
    """
    sizes, margin = ops.shape(x)[1:3], multiple - 1
    if all(isinstance(size, int) and size % multiple == 0 for size in sizes):
        return space_to_batch(x, dilation), None
    height, width = ((size + margin) // multiple * multiple for size in sizes)
    inside = ops.ones_like(x[:, :, :, :1])
    # Padded by a fixed number and cut, for sizes that are unknown while a graph is traced.
    margins = ((0, 0), (0, margin), (0, margin), (0, 0))
    padded = (ops.pad(t, margins)[:, :height, :width] for t in (x, inside))
    return tuple(space_to_batch(t, dilation) for t in padded)
