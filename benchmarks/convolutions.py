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
        tensors: dict[tuple, tf.Tensor] = {}
        self._runs = []
        for convolution, count in convolutions.items():
            operands = []
            for place, shape in enumerate(convolution.operands()):
                # Shared where they agree, for memory, but never both operands of one operation.
                key = (place, shape, convolution.dtype)
                if key not in tensors:
                    tensors[key] = tf.cast(tf.random.normal(shape), convolution.dtype)
                operands.append(tensors[key])
            seconds = _time(_repeated(convolution, 1, operands), operands)
            calls = min(_ENOUGH_CALLS, math.ceil(_ENOUGH_SECONDS / seconds))
            function = _repeated(convolution, calls, operands)
            self._runs.append((convolution.kind, count / calls, function, operands))

    def __call__(self) -> dict[str, float]:
        """Returns the `seconds` they take together, and those of each kind by its name."""
        seconds = dict.fromkeys(KINDS, 0.0)
        for kind, weight, function, operands in self._runs:
            seconds[kind] += weight * _time(function, operands)
        return {"seconds": sum(seconds.values()), **seconds}


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
