"""Convolutions by themselves: how much they compute, and how long they take."""

import dataclasses
import math
import time
from collections import Counter
from typing import Any

import tensorflow as tf

KINDS = ("forward", "input gradient", "filter gradient")
_ENOUGH_SECONDS, _ENOUGH_CALLS = 0.02, 20
"""A convolution is repeated in one measurement until it took so long, or was done so often.

Repeated in the graph, so that the call of a function, which costs a fraction of a millisecond, is
not counted with each.
"""


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution, or one of its two gradients.

    Args:
        kind: one of `KINDS`.
        image: [N, H, W, C_in], shape of what is convolved, or of its gradient.
        kernel: [h, w, C_in, C_out], shape of the filter, or of its gradient.
        output: [N, H', W', C_out], shape of the result, or of the gradient that comes in.
        dtype: its name.
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
        """Floating-point operations: two for each product; those with padding count, too."""
        return 2 * math.prod(self.output) * math.prod(self.kernel[:3])

    def operands(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of the two tensors that it takes."""
        return {
            "forward": (self.image, self.kernel),
            "input gradient": (self.kernel, self.output),
            "filter gradient": (self.image, self.output),
        }[self.kind]

    def apply(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """Runs the raw operation on tensors of the shapes `operands()`."""
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
    """Returns the floating-point operations of all of them, or of one kind."""
    return sum(c.flop * n for c, n in convolutions.items() if kind in (None, c.kind))


class Replay:
    """Runs convolutions alone, one after the other, on tensors that are there already.

    Args:
        convolutions: with how often each is run; a shape is timed once and counted so often.
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
        """Returns the `seconds` they take together, and those of each kind by its name."""
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
    """Returns, for each dtype, two tensors of which those of any convolution are the beginnings.

    Two, for the operands of one must not be the same memory; and not some for each convolution:
    the tiles of inference shrink from layer to layer, so that hardly two of them agree in shape.
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
    """Returns a concrete function that runs a convolution so often; it has been run once."""

    def run(first: tf.Tensor, second: tf.Tensor) -> list[tf.Tensor]:
        results: list[tf.Tensor] = []
        for _ in range(calls):
            # One after the other. All results are returned, or TensorFlow would drop them; and
            # as each one waits for another, it does not take them for one and the same.
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
