"""The optimizer of a training."""

from typing import Any

import keras
import tensorflow as tf

Tensor = Any


class SkippingAdam(keras.optimizers.Adam):
    """Adam whose steps can be skipped, which is decided on the device.

    Keras' own loss scaling skips steps with a branch in the graph. The host has to know which side
    of a branch to go on with, so a GPU would wait for it in every step.

    Attributes:
        good: boolean scalar tensor, whether the step that is traced changes anything.
    """

    good: Tensor = None

    def apply(self, grads: list[Tensor], trainable_variables: list[Any]) -> None:  # noqa: D102
        with tf.control_dependencies([self.good]):  # or a step that fails would count
            super().apply(grads, trainable_variables)
        self.iterations.assign_sub(tf.cast(~self.good, self.iterations.dtype))

    def assign_add(self, variable: Any, value: Tensor) -> None:  # noqa: D102
        super().assign_add(variable, tf.where(self.good, value, tf.zeros_like(value)))

    def assign_sub(self, variable: Any, value: Tensor) -> None:  # noqa: D102
        super().assign_sub(variable, tf.where(self.good, value, tf.zeros_like(value)))
