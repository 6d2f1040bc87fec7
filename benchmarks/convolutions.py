"""Convolutions on their own: how much they compute, and how long they take."""

import dataclasses
import math
import time
from collections import Counter
from typing import Any

import tensorflow as tf

KINDS = ("forward", "input gradient", "filter gradient")
_ENOUGH_SECONDS, _ENOUGH_CALLS = 0.02, 20
"""One measurement repeats a convolution until it reaches this time or this number of calls.

The graph contains the repetitions, so that the overhead of a function call, a fraction of a
millisecond, is not counted with each of them.
"""


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution, or one of its two gradients.

    Args:
        kind: one of `KINDS`.
        image: [N, H, W, C_in], shape of the input or its gradient.
        kernel: [h, w, C_in, C_out], shape of the filter or its gradient.
        output: [N, H', W', C_out], shape of the result or of the incoming gradient.
        dtype: name of the dtype.
        attributes: strides, padding and dilations, as the raw operation takes them.
    """

    kind: str
    image: tuple[int, ...]
    kernel: tuple[int, ...]
    output: tuple[int, ...]
    dtype: str
    attributes: tuple[tuple[str, Any], ...]

    @property
    def flop(self) -> int:
        """Floating-point operations: two for each product, including those with padding."""
        return 2 * math.prod(self.output) * math.prod(self.kernel[:3])

    def operands(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of the two input tensors."""
        return {
            "forward": (self.image, self.kernel),
            "input gradient": (self.kernel, self.output),
            "filter gradient": (self.image, self.output),
        }[self.kind]

    def apply(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """Runs the raw operation on tensors with the shapes `operands()`."""
        attributes = dict(self.attributes)
        if self.kind == "forward":
            return tf.raw_ops.Conv2D(input=first, filter=second, **attributes)
        if self.kind == "input gradient":
            return tf.raw_ops.Conv2DBackpropInput(
                input_sizes=self.image, filter=first, out_backprop=second, **attributes
            )
        return tf.raw_ops.Conv2DBackpropFilter(
            input=first, filter_sizes=self.kernel, out_backprop=second, **attributes
        )


def total_flop(convolutions: Counter[Convolution], kind: str | None = None) -> int:
    """Returns the number of floating-point operations of all convolutions, or of one kind."""
    return sum(c.flop * n for c, n in convolutions.items() if kind in (None, c.kind))


class Replay:
    """Runs convolutions alone, one after the other, on existing tensors.

    Args:
        convolutions: the convolutions and their counts. Each is timed once and counted that often.
    """

    def __init__(self, convolutions: Counter[Convolution]):
        self._noise = _noise(convolutions)
        self._runs = []
        for convolution, count in convolutions.items():
            operands = self._operands(convolution)
            seconds = _time(_repeated(convolution, 1, operands), operands)
            calls = min(_ENOUGH_CALLS, math.ceil(_ENOUGH_SECONDS / seconds))
            self._runs.append((convolution, count / calls, _repeated(convolution, calls, operands)))

    def __call__(self) -> dict[str, float]:
        """Returns the total time as `seconds`, and the seconds of each kind by its name."""
        seconds = dict.fromkeys(KINDS, 0.0)
        for convolution, weight, function in self._runs:
            operands = self._operands(convolution)
            seconds[convolution.kind] += weight * _time(function, operands)
        return {"seconds": sum(seconds.values()), **seconds}

    def _operands(self, convolution: Convolution) -> list[tf.Tensor]:
        return [
            tf.reshape(noise[: math.prod(shape)], shape)
            for noise, shape in zip(
                self._noise[convolution.dtype], convolution.operands(), strict=True
            )
        ]


def _noise(convolutions: Counter[Convolution]) -> dict[str, list[tf.Tensor]]:
    """Returns two tensors for each dtype; any convolution's operands are taken from their starts.

    There are two because the operands of a convolution must not share memory. All convolutions
    share them: inference's tiles shrink from layer to layer, so hardly any two have the same shape.
    """
    sizes: dict[str, list[int]] = {}
    for convolution in convolutions:
        own = [math.prod(shape) for shape in convolution.operands()]
        sizes[convolution.dtype] = [*map(max, own, sizes.get(convolution.dtype, own))]
    return {
        dtype: [tf.cast(tf.random.normal([size]), dtype) for size in pair]
        for dtype, pair in sizes.items()
    }


def _repeated(convolution: Convolution, calls: int, operands: list[tf.Tensor]) -> Any:
    """Returns a concrete function that runs a convolution `calls` times; it has run once."""

    def run(first: tf.Tensor, second: tf.Tensor) -> list[tf.Tensor]:
        results: list[tf.Tensor] = []
        for _ in range(calls):
            # One after the other. All results are returned, or TensorFlow would prune them. As
            # each one waits for the one before, TensorFlow does not merge them.
            with tf.control_dependencies(results[-1:]):
                results.append(convolution.apply(first, second))
        return results

    function = tf.function(run).get_concrete_function(*operands)
    function(*operands)
    return function


def _time(function: Any, operands: list[tf.Tensor]) -> float:
    start = time.perf_counter()
    function(*operands)
    tf.test.experimental.sync_devices()
    return time.perf_counter() - start
