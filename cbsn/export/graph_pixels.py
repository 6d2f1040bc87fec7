"""Pixel operations in a graph: scaling, statistics, blending, R3, orientations, transparency."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from cbsn.colors import LUMA
from cbsn.images.stacks.scaling import Scale
from cbsn.inference.passes import RandomReplacement
from cbsn.inference.pixels import nearest_visible
from cbsn.inference.tiling import Span, Spans
from cbsn.orientations import orientation_steps
from cbsn.value_range import value_range

Orientation: TypeAlias = int | tf.Tensor  # in [0, 8), see `cbsn.orientations`


def mean_by_blocks(x: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Averages a function of the values in [0, 1], in bounded memory, to float64 [N, 1, 1, C]."""
    shape = tf.shape(x)
    values_at_once = 2**22  # in float64
    rows = tf.maximum(values_at_once // (shape[0] * shape[2] * shape[3]), 1)

    def body(row: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        block = unit(x[:, row : row + rows], tf.float64)
        return row + rows, total + tf.reduce_sum(function(block), (1, 2), keepdims=True)

    zeros = tf.zeros((shape[0], 1, 1, shape[3]), tf.float64)
    _, total = tf.while_loop(
        lambda row, total: row < shape[1],
        body,
        (0, zeros),
        shape_invariants=(tf.TensorShape(()), tf.TensorShape((None, 1, 1, None))),
        parallel_iterations=1,
    )
    return total / tf.cast(shape[1], tf.float64) / tf.cast(shape[2], tf.float64)


def mean_by_rows(x: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Averages a function of the values to [N, 1, 1, C], at once and without float64.

    A single sum of all values would be less exact the larger the picture: 8 % off at 3000 × 3000.
    """
    return tf.reduce_mean(tf.reduce_mean(function(x), 2, keepdims=True), 1, keepdims=True)


def unit(x: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Scales pixels to values in [0, 1]."""
    return tf.cast(x, dtype) / value_range(x.dtype.as_numpy_dtype)


class PlaneScale:
    """A `Scale` in a graph, for planes of a stack.

    Args:
        scale: the values that the network sees as 0 and 1, and the statistics of all planes.
        wide: whether to compute in float64, as `Scale` does. LiteRT lacks it. In float32, large
            integers and floats keep their differences nevertheless: the upper digits of the lower
            end are subtracted first, and the rest when little is left.
    """

    def __init__(self, scale: Scale, *, wide: bool):
        self._dtype = tf.float64 if wide else tf.float32
        self._span = scale.high - scale.low
        self._low = scale.low if wide else float(np.float32(scale.low))
        self._rest = (scale.low - self._low) / self._span
        self._mean = (scale.mean - scale.low) / self._span
        self._deviation = scale.deviation / self._span

    def apply(self, planes: tf.Tensor) -> tf.Tensor:
        """Returns planes of any dtype as the network sees them, float32."""
        scaled = (tf.cast(planes, self._dtype) - self._low) / self._span
        return tf.cast(scaled - self._rest if self._rest else scaled, tf.float32)

    def undo(self, scaled: tf.Tensor) -> tf.Tensor:
        """Returns scaled values in the file's own units; float64 if `wide`."""
        scaled = tf.cast(scaled, self._dtype)
        return (scaled + self._rest if self._rest else scaled) * self._span + self._low

    def moments(self, planes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean and the deviation of all planes, of which these are some, scaled."""
        height, width = tf.unstack(tf.cast(tf.shape(planes)[-3:-1], tf.float32))
        return tf.constant(self._mean), tf.maximum(self._deviation, 1 / tf.sqrt(height * width))


def blend(
    noisy: tf.Tensor,
    denoised: tf.Tensor,
    luma: tf.Tensor,
    color: tf.Tensor,
    dtype: tf.DType | None,
) -> tf.Tensor:
    """Blends as `Strength.blend`; exact where both strengths are 0 or 1.

    The result is clipped to the range of a dtype, unless that is None.
    """
    removed = noisy - denoised
    weights = tf.where(tf.shape(removed)[-1] == 1, (1.0, 0.0, 0.0), LUMA)
    removed_luma = tf.reduce_sum(removed * weights, axis=-1, keepdims=True)
    blended = noisy - (color * removed + (luma - color) * removed_luma)
    if dtype is not None:
        blended = tf.clip_by_value(blended, 0.0, value_range(dtype.as_numpy_dtype))
    blended = tf.where(tf.maximum(luma, color) == 0.0, noisy, blended)
    return tf.where(tf.minimum(luma, color) == 1.0, denoised, blended)


def cut(images: tf.Tensor, *places: tf.Tensor) -> tf.Tensor:
    """Takes rows and columns of [N, H, W, C]; those outside are filled with arbitrary ones.

    Of volumes, [N, Z, H, W, C], it takes planes, rows and columns.
    """
    for axis, each in enumerate(places, 1):
        last = tf.shape(images)[axis] - 1
        images = tf.gather(images, tf.clip_by_value(each, 0, last), axis=axis)
    return images


def crop(y: tf.Tensor, pieces: Sequence[tuple[Spans, Span]]) -> tf.Tensor:
    """Crops a tile's piece from the network's result [n, (z,) h, w, C], and pads it to `step`."""
    paddings = []
    for axis, (spans, span) in enumerate(pieces, 1):
        size = span.end - span.start
        y = tf.gather(y, tf.range(span.margin, span.margin + size), axis=axis)
        paddings.append((0, spans.step - size))
    return tf.pad(y, [(0, 0), *paddings, (0, 0)])


def make_copies(
    noisy: tf.Tensor, denoised: tf.Tensor, bits: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor
) -> tf.Tensor:
    """Makes R3's copies, [N·8, h, w, C]; `bits` [row, column, channel] holds the masks."""
    bits = tf.gather(bits, rows % RandomReplacement.PERIOD)
    bits = tf.gather(bits, columns % RandomReplacement.PERIOD, axis=1)
    powers = tf.reshape(2 ** tf.range(RandomReplacement.TIMES), (-1, 1, 1, 1))
    masks = tf.cast(bits, tf.int32) // powers % 2 > 0
    x = tf.where(masks[..., : tf.shape(noisy)[-1]], noisy[:, None], denoised[:, None])
    shape = tf.shape(x)
    y = tf.reshape(x, (-1, shape[2], shape[3], shape[4]))
    y.set_shape((None, None, None, noisy.shape[-1]))
    return y


def orient(x: tf.Tensor, orientation: Orientation, *, back: bool = False) -> tf.Tensor:
    """Orients pictures [N, H, W, C] as `cbsn.orientations.orient` does, or turns them `back`.

    Of volumes, [N, Z, H, W, C], it orients each plane.
    """
    transposes, reverses_rows, reverses_columns = orientation_steps(orientation)
    *outer, rows, columns, channels = range(x.shape.rank)
    steps = [
        (transposes, lambda x: tf.transpose(x, (*outer, columns, rows, channels))),
        (reverses_rows, lambda x: tf.reverse(x, (rows,))),
        (reverses_columns, lambda x: tf.reverse(x, (columns,))),
    ]
    for is_taken, step in reversed(steps) if back else steps:
        if isinstance(is_taken, bool):
            x = step(x) if is_taken else x
        else:
            x = tf.cond(is_taken, lambda x=x, step=step: step(x), lambda x=x: x)
    return x


def fill_hidden(colors: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Fills hidden pixels of [N, H, W, 1 or 3], as `cbsn.inference.pixels.fill_hidden` does."""

    def fill() -> tf.Tensor:
        filled, left = colors, hidden
        for _ in range(2):  # in the second round, pixels just filled count as visible
            y, x, left = nearest_visible(left, tf, _running_maximum)
            filled = tf.gather_nd(filled, tf.stack([y, x], -1), batch_dims=1)
        return tf.ensure_shape(filled, colors.shape)

    return tf.cond(tf.reduce_any(hidden), fill, lambda: colors)


def _running_maximum(x: tf.Tensor) -> tf.Tensor:
    """Returns the running maximum along each row of [N, H, W]."""
    width = tf.shape(x)[2]

    def widen(step: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shifted = tf.concat([x[..., :step], x[..., : width - step]], axis=-1)
        return step * 2, tf.maximum(x, shifted)

    _, x = tf.while_loop(lambda step, _: step < width, widen, (1, x), parallel_iterations=1)
    return x
