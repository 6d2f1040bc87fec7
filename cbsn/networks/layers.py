"""Layers that blind-spot networks share: masked convolution, dilated module and branch.

A dilated convolution (dilation d) never mixes pixels whose rows or columns differ modulo d. A
series of them can therefore run in *polyphase form*: the d² phases of the feature map move into
the batch once, plain 3×3 convolutions process them, and the phases are put back once. The result
equals the dilated form number for number. On a CPU this saves the round trip that TensorFlow would
make in every dilated layer. On a GPU, whose library has dilated convolutions, these are faster;
but what leaves this machine or this runtime is in polyphase form, which suits any.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cbsn.devices import has_gpu
from cbsn.sampling import batch_to_space, space_to_batch

Tensor = Any

_portable = contextvars.ContextVar("portable", default=False)
_drawn = contextvars.ContextVar("drawn", default=True)


@contextlib.contextmanager
def portable_form() -> Iterator[None]:
    """Networks called within compute in the same form whether or not this machine has a GPU."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


@contextlib.contextmanager
def without_initial_weights() -> Iterator[None]:
    """Networks built within start with zeros, for weights that are set next: faster than drawing.

    An initialiser of Keras' own, such as the one of `Dense`, draws all the same.
    """
    token = _drawn.set(False)
    try:
        yield
    finally:
        _drawn.reset(token)


@keras.saving.register_keras_serializable(package="cbsn")
class VarianceScaling(keras.initializers.VarianceScaling):
    """Keras' initialiser, which draws nothing in `without_initial_weights`."""

    def __call__(self, shape, dtype=None):  # noqa: D102
        return super().__call__(shape, dtype) if _drawn.get() else ops.zeros(shape, dtype)


def crop(x: Tensor, margin: int) -> Tensor:
    """Cuts `margin` pixels off each side of [N, H, W, C]."""
    return x[:, margin:-margin, margin:-margin] if margin else x


def scaled(scale: float, distribution: str) -> dict[str, Any]:
    """Returns the config of an initialiser whose variance is `scale` / fan in."""
    # A config instead of an initialiser: layers that shared an instance would start equal.
    config = {"scale": scale, "mode": "fan_in", "distribution": distribution}
    return {"class_name": "cbsn>VarianceScaling", "config": config}


HE = scaled(2.0, "truncated_normal")
HE_UNTRUNCATED = scaled(2.0, "untruncated_normal")
"""C-BSN's initialisers: normal with standard deviation sqrt(2 / fan in)."""

FAN_IN_UNIFORM = scaled(1 / 3, "uniform")
"""The initialiser of PyTorch's convolutions: uniform in ±1 / sqrt(fan in)."""


def pointwise(filters: int, activation: str | None = "relu", **kwargs) -> keras.layers.Conv2D:
    """Returns a 1×1 convolution, initialised with `HE` by default."""
    kwargs = {"kernel_initializer": HE, **kwargs}
    return keras.layers.Conv2D(filters, 1, activation=activation, **kwargs)


def build_chain(layers: Sequence[Any], channels: int, dimensions: int = 2) -> None:
    """Builds consecutive convolutions, the first of which gets `channels` channels."""
    for layer in layers:
        layer.build((*(None,) * (dimensions + 1), channels))
        channels = layer.filters


@keras.saving.register_keras_serializable(package="cbsn")
class Convolution(keras.layers.Conv2D):
    """A 2-D convolution whose padding is chosen when it is called.

    With `padding="same"` the input is padded with zeros and the output has the same size. With
    `padding="valid"` the output is smaller by the kernel's reach on each side.

    Args:
        filters, kernel_size, **kwargs: see `keras.layers.Conv2D`; the kernel's size is odd.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs):
        kwargs.setdefault("padding", "same")
        super().__init__(filters, kernel_size, **kwargs)

    def call(self, inputs: Tensor, padding: str = "same", dilation: int | None = None) -> Tensor:
        """Convolves the input; `dilation` overrides the layer's own."""
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
    """A masked convolution whose mask can be switched off (C-BSN, arXiv 2304.09507).

    With `blind=True` the kernel's centre is multiplied by 0, so an output pixel does not depend
    on the input pixel at the same place. With `blind=False` the whole kernel is used.

    Args:
        filters, kernel_size, **kwargs: see `Convolution`. The defaults are ReLU and
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
        """Convolves the input. `blind` is a Python bool, so each value is traced separately."""
        kernel = self.kernel
        if blind:
            kernel = kernel * ops.cast(self._mask, kernel.dtype)
        return self._convolve(inputs, kernel, padding)


@keras.saving.register_keras_serializable(package="cbsn")
class DilatedModule(keras.layers.Layer):
    """A dilated convolution module (DCM) on phases: x + 1×1(ReLU(3×3(x))).

    Args:
        filters: int, number of input and output channels.
        activation: activation of the residual; "relu" in C-BSN, None in AP-BSN.
        kernel_initializer: initialiser of both convolutions, as Keras accepts it. Default: `HE`.

    Input: phases [N, H, W, filters] and, if some pixels lie outside the picture, `inside`
    [N, H, W, 1], 1 inside and 0 outside. Outside, the features stay 0, like the zero padding of a
    dilated convolution. Output: same shape; with `padding="valid"`, `reach` pixels less on each
    side. With `dilation` the input is a whole feature map instead, the 3×3 convolution is dilated,
    and "valid" padding removes `reach` · `dilation` pixels on each side.
    """

    reach = 1
    """How many pixels away, within its phase, an input can affect an output."""

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
    """One branch of a dilated blind-spot network; in polyphase form, except on a GPU.

    A masked convolution, two 1×1, the dilated modules, one 1×1; all but the modules with ReLU.
    The modules reach only pixels at multiples of the dilation d. So no path leads from a pixel
    back to itself if the masked kernel reaches less than d pixels to each side.

    Args:
        filters: int, number of channels.
        kernel_size: odd int, side of the masked kernel.
        dilation: int, dilation of the modules; at least (kernel_size + 1) / 2.
        modules: layers like `DilatedModule`; others keep the polyphase form on a GPU.
        initializers: those of the masked and of the 1×1 convolutions. Default: C-BSN's.

    Input: [N, H, W, C]. Output: [N, H, W, filters]. With `padding="valid"` it is smaller by
    `radius` on each side, and its height and width must be multiples of `size_multiple`.
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
            if not layer.built:  # modules from a saved model are already built
                layer.build(features)
        self.built = True

    @property
    def radius(self) -> int:
        """How many pixels away an input can affect an output, apart from attention."""
        reach = sum(module.reach for module in self.dilated_modules)
        return self.kernel_size // 2 + self.dilation * reach

    @property
    def size_multiple(self) -> int:
        """Heights and widths are padded to multiples of this."""
        return self.dilation * math.lcm(*(module.size_multiple for module in self.dilated_modules))

    def call(self, inputs: Tensor, blind: bool = True, padding: str = "same") -> Tensor:
        """Runs the branch; `blind` switches the masked convolution."""
        x = self.masked(inputs, blind=blind, padding=padding)
        x = self.pointwise2(self.pointwise1(x))
        # Without polyphase form, a training step of C-BSN on an H200 is 1.27 times as fast.
        natively = has_gpu() and not _portable.get()
        if natively and all(isinstance(m, DilatedModule) for m in self.dilated_modules):
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
    """Splits a feature map into the phases that a dilated convolution never mixes.

    With dilation d, [N, H, W, C] becomes [d²·N, H/d, W/d, C], padded with zeros to multiples of
    `multiple`, itself a multiple of d. Also returns a mask [d²·N, H/d, W/d, 1], which is 1 inside
    `x` and 0 in the padding, or None if nothing is padded.
    """
    sizes, margin = ops.shape(x)[1:3], multiple - 1
    if all(isinstance(size, int) and size % multiple == 0 for size in sizes):
        return space_to_batch(x, dilation), None
    height, width = ((size + margin) // multiple * multiple for size in sizes)
    inside = ops.ones_like(x[:, :, :, :1])
    # Pads by a fixed amount, then crops, as sizes may be unknown while a graph is traced.
    margins = ((0, 0), (0, margin), (0, margin), (0, 0))
    padded = (ops.pad(t, margins)[:, :height, :width] for t in (x, inside))
    return tuple(space_to_batch(t, dilation) for t in padded)
