"""Adam, loss scaling and averaged weights, whose steps can be skipped on the device.

This replaces parts of Keras. Its `LossScaleOptimizer` skips steps with a branch in the graph, and
the host must know which branch to take, so a GPU would wait for the host in every step. The decay
of its `use_ema` is constant, and skipped steps count.
"""

from typing import Any

import keras
import tensorflow as tf

Tensor = Any

FIRST_SCALE = 2.0**15  # initial and largest scale of the loss in float16
_SCALE_INTERVAL = 2000  # steps from one doubling of the scale to the next


class SkippingAdam(keras.optimizers.Adam):
    """Adam whose steps can be skipped."""

    good: Tensor = None  # boolean scalar: whether the step being traced changes anything

    def apply(self, grads: list[Tensor], trainable_variables: list[Any]) -> None:  # noqa: D102
        with tf.control_dependencies([self.good]):  # or a failed step would count
            super().apply(grads, trainable_variables)
        self.iterations.assign_sub(tf.cast(~self.good, self.iterations.dtype))

    def assign_add(self, variable: Any, value: Tensor) -> None:  # noqa: D102
        super().assign_add(variable, tf.where(self.good, value, tf.zeros_like(value)))

    def assign_sub(self, variable: Any, value: Tensor) -> None:  # noqa: D102
        super().assign_sub(variable, tf.where(self.good, value, tf.zeros_like(value)))


def update_scale(scale: tf.Variable, step: Tensor, good: Tensor) -> None:
    """Halves the scale after an overflow; doubles it every 2000 steps, up to `FIRST_SCALE`."""
    grow = step % _SCALE_INTERVAL == 0
    factor = tf.where(good, tf.where(grow, 2.0, 1.0), 0.5)
    scale.assign(tf.clip_by_value(scale * factor, 1.0, FIRST_SCALE))


def update_average(
    average: keras.Model,
    network: keras.Model,
    decay: float,
    step: Tensor,
    good: Tensor,
    strategy: tf.distribute.Strategy,
) -> None:
    """Moves the averaged weights towards the network's, faster during the first steps."""
    step = tf.cast(step, tf.float32)
    share = 1.0 - tf.minimum(decay, (1.0 + step) / (10.0 + step))
    share = tf.where(good, share, 0.0)

    def approach(average: tf.Variable, weight: tf.Variable) -> None:
        average.assign_add(share * (weight - average))

    pairs = zip(average.trainable_variables, network.trainable_variables, strict=True)
    for averaged, weight in pairs:
        strategy.extended.update(averaged.value, approach, args=(weight.value,), group=False)
