"""`cbsn.inference.hidden_pixels` in a graph."""

import tensorflow as tf

_NOWHERE = 2**30
"""A distance beyond any picture."""


def fill_hidden(colors: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Gives each hidden pixel the nearest visible colour, as `HiddenPixels` does.

    Args:
        colors: [N, H, W, 1 or 3], of any dtype.
        hidden: bool [N, H, W].

    Returns:
        The colours; of pictures in which nothing is visible, as they were.
    """

    def fill() -> tf.Tensor:
        filled, left = colors, hidden
        for _ in range(2):  # the second time what has just been filled counts as visible
            filled, left = _fill_from_lines(filled, left)
        return tf.ensure_shape(filled, colors.shape)

    return tf.cond(tf.reduce_any(hidden), fill, lambda: colors)


def _fill_from_lines(colors: tf.Tensor, hidden: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Fills from the nearest in row or column; returns the colours, and what is still hidden."""
    columns, across = _nearest(~hidden)
    rows, down = map(_transposed, _nearest(~_transposed(hidden)))
    height, width = tf.shape(hidden)[1], tf.shape(hidden)[2]
    y, x = tf.range(height)[:, None], tf.range(width)
    in_row = across <= down
    found = hidden & (tf.minimum(across, down) < _NOWHERE)
    y = tf.where(found & ~in_row, rows, y)
    x = tf.where(found & in_row, columns, x)
    filled = tf.gather_nd(colors, tf.stack([y, x], -1), batch_dims=1)
    return filled, hidden & ~found


def _nearest(visible: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The nearest visible place in each row of [N, H, W], and its distance; the first of two."""
    width = tf.shape(visible)[2]
    places = tf.range(width)
    before = _running_maximum(tf.where(visible, places, -_NOWHERE))
    after = tf.where(visible, places, _NOWHERE + width)
    after = -_running_maximum(-after[..., ::-1])[..., ::-1]
    is_before = places - before <= after - places
    distance = tf.where(is_before, places - before, after - places)
    return tf.where(is_before, before, after), tf.minimum(distance, _NOWHERE)


def _running_maximum(x: tf.Tensor) -> tf.Tensor:
    """The largest of each row's values [N, H, W] up to each place."""
    width = tf.shape(x)[2]

    def widen(step: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shifted = tf.concat([x[..., :step], x[..., : width - step]], axis=-1)
        return step * 2, tf.maximum(x, shifted)

    _, x = tf.while_loop(lambda step, _: step < width, widen, (1, x), parallel_iterations=1)
    return x


def _transposed(x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, (0, 2, 1))
