"""`cbsn.data.augment.orient` in a graph, for an orientation that may be known to it only."""

from collections.abc import Callable

import tensorflow as tf

Orientation = int | tf.Tensor
"""In [0, 8), as `orient` of `cbsn.data.augment` takes it; a tensor inside a loop."""


def orient(x: tf.Tensor, orientation: Orientation) -> tf.Tensor:
    """Turns, and from 4 on flips, pictures [N, H, W, C]."""
    transposed, rows, columns = _steps(orientation)
    x = _apply_if(transposed, _transpose, x)
    x = _apply_if(rows, lambda x: tf.reverse(x, (1,)), x)
    return _apply_if(columns, lambda x: tf.reverse(x, (2,)), x)


def orient_back(x: tf.Tensor, orientation: Orientation) -> tf.Tensor:
    """The inverse of `orient`."""
    transposed, rows, columns = _steps(orientation)
    x = _apply_if(columns, lambda x: tf.reverse(x, (2,)), x)
    x = _apply_if(rows, lambda x: tf.reverse(x, (1,)), x)
    return _apply_if(transposed, _transpose, x)


def _steps(orientation: Orientation) -> tuple[bool | tf.Tensor, ...]:
    """Whether to transpose, then to reverse the rows, and the columns."""
    turns = orientation % 4
    transposed = turns % 2 == 1
    rows = (turns == 1) | (turns == 2)
    columns = ((turns == 2) | (turns == 3)) ^ (orientation >= 4)
    return transposed, rows, columns


def _transpose(x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, (0, 2, 1, 3))


def _apply_if(
    condition: bool | tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor
) -> tf.Tensor:
    if isinstance(condition, bool):
        return function(x) if condition else x
    return tf.cond(condition, lambda: function(x), lambda: x)
