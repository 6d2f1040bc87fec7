"""Tiles, orientations and hidden pixels in a graph."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

Orientation = int | tf.Tensor
"""In [0, 8), as `orient` of `cbsn.orientations` takes it; a tensor inside a loop."""


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


@dataclasses.dataclass(frozen=True)
class GraphLayout:
    """One axis of what a network is given.

    Args:
        reads: int32 [n], the row (or column) of the picture at each place; -1 for zeros.
        places: int32 [size], the place whose result fills each row; None if they are in order.
    """

    reads: tf.Tensor
    places: tf.Tensor | None

    @classmethod
    def mosaic(cls, size: tf.Tensor, stride: int, pad: int) -> "GraphLayout":
        """As `Layout.mosaic`."""
        rows = tf.range(size)
        if stride == 1 and pad == 0:
            return cls(rows, None)
        cells = size // stride
        phases = tf.transpose(tf.reshape(rows, (cells, stride)))
        reads = tf.reshape(tf.pad(phases, ((0, 0), (pad, pad)), constant_values=-1), (-1,))
        return cls(reads, rows % stride * (cells + 2 * pad) + pad + rows // stride)

    @classmethod
    def reflected(cls, size: tf.Tensor, margin: int) -> "GraphLayout":
        """As `Layout.reflected`."""
        return cls(reflect(tf.range(-margin, size + margin), size), margin + tf.range(size))

    def take(self, result: tf.Tensor, size: tf.Tensor, axis: int) -> tf.Tensor:
        """Takes the picture's first `size` rows from the result of all places."""
        places = tf.range(size) if self.places is None else self.places[:size]
        return tf.gather(result, places, axis=axis)


class GraphSpans:
    """An axis in tiles, as `cbsn.inference.tiling.make_bands` has them.

    Args:
        layout: the axis.
        border: one of `cbsn.recipes.BORDERS`.
        side: int, of the tiles; None for one tile.
        halo: int, what a source has more on each side.
        multiple: int, what tiles are multiples of.

    Attributes:
        step: int32 scalar, from one tile to the next.
        count: int32 scalar, number of tiles.
    """

    def __init__(
        self, layout: GraphLayout, *, border: str, side: int | None, halo: int, multiple: int
    ):
        self._layout = layout
        self._border = border
        self._halo = halo
        self._size = tf.size(layout.reads)
        step = self._size if side is None else _divide(self._size, _divide(self._size, side))
        self.step = _divide(step, multiple) * multiple
        self.count = 1 if side is None else _divide(self._size, self.step)

    @property
    def source_size(self) -> tf.Tensor:
        """Rows that the network is given for a tile, at most."""
        return self.step + 2 * self._halo

    def source(self, index: tf.Tensor) -> tf.Tensor:
        """Returns the rows of the picture that a tile's source has, int32 [n]; -1 for zeros."""
        start = index * self.step
        first, stop = start - self._halo, start + self.step + self._halo
        if self._border == "reflect":
            return tf.gather(self._layout.reads, reflect(tf.range(first, stop), self._size))
        return self._layout.reads[tf.maximum(first, 0) : tf.minimum(stop, self._size)]

    def piece(self, index: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Returns the rows of a picture of `size` rows that `crop` gives, int32 [step].

        What is none of the picture's rows is any of them.
        """
        places = tf.range(index * self.step, (index + 1) * self.step)
        reads = tf.gather(self._layout.reads, tf.minimum(places, self._size - 1))
        return tf.clip_by_value(reads, 0, size - 1)

    def crop(self, index: tf.Tensor, result: tf.Tensor, axis: int) -> tf.Tensor:
        """Cuts the tile out of the network's result, and fills it up to `step`."""
        if self._border == "reflect":  # then the network has cut it
            return result
        start = index * self.step
        margin = tf.minimum(start, self._halo)
        size = tf.minimum(self.step, self._size - start)
        result = tf.gather(result, tf.range(margin, margin + size), axis=axis)
        paddings = tf.scatter_nd([[axis, 1]], [self.step - size], (len(result.shape), 2))
        return tf.pad(result, paddings)


def reflect(places: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Reflects places beyond 0 and `size` - 1 at these, again and again, as `numpy.pad` does."""
    period = tf.maximum(2 * (size - 1), 1)
    # Reflected at 0, of which ONNX's remainder of a negative number would know nothing.
    places = tf.abs(places) % period
    return tf.minimum(places, period - places)


def _divide(number: tf.Tensor, divisor: tf.Tensor | int) -> tf.Tensor:
    """Divides, rounding up."""
    return (number + divisor - 1) // divisor
