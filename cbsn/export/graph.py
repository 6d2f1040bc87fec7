"""The denoiser as a TensorFlow graph."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from cbsn.export.graph_tiles import (
    GraphLayout,
    GraphSpans,
    Orientation,
    fill_hidden,
    orient,
    orient_back,
)
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import make_graph
from cbsn.inference.options import LUMA
from cbsn.inference.passes import AUTO_TILE, R3_MARGIN
from cbsn.inference.refinement import RandomReplacement
from cbsn.orientations import NUM_ORIENTATIONS
from cbsn.value_range import value_range

_BLOCK_VALUES = 2**22
"""So many values of a picture are in float64 at a time, for its statistics."""

_ROUNDINGS = {"round": tf.round, "truncate": tf.floor}

Read = Callable[[tf.Tensor, tf.Tensor, slice], tf.Tensor]
"""From rows, columns and pictures to what the network is to see, [n·samples, h, w, C]."""

Places = tuple[tf.Tensor, tf.Tensor]
"""Rows and columns of a picture."""

Finish = Callable[[tf.Tensor, slice, Places], tf.Tensor]
"""From what the network returned for some pictures, and where, to what is wanted."""


class GraphDenoiser:
    """What a `Denoiser` computes, as a function of tensors whose sizes a graph learns as it runs.

    Args:
        denoiser: what to compute: recipe, network, tiles, rounding, R3, self-ensemble and strength.
        loops: whether there may be loops in the graph. With them, memory is bounded by the tile;
            without, as converters to other formats want it, everything is computed at once.
            Default True.

    Example:
        >>> denoise = GraphDenoiser(Denoiser.load("checkpoints/my-run", tile=512))
        >>> denoise(tf.zeros((1, 4, 4, 3), tf.uint8)).shape
        TensorShape([1, 4, 4, 3])
    """

    def __init__(self, denoiser: Denoiser, *, loops: bool = True):
        self._denoiser = denoiser
        self._recipe = denoiser.recipe
        self._network = denoiser.network
        self._loops = loops
        padding = "valid" if self._recipe.border == "reflect" else "same"

        def network_pass(blind: bool) -> Callable[[tf.Tensor], tf.Tensor]:
            options = {"blind": blind, "padding": padding}
            if loops:
                return make_graph(self._network, **options)
            # In line: of a function that is called twice, tf2onnx converts attention's loop once.
            return lambda x: self._network(x, **options)

        always_blind = self._network.blindness == "always"
        self._first = self._refine = network_pass(blind=always_blind)
        if denoiser.r3 and not always_blind:
            self._refine = network_pass(blind=True)

    def __call__(
        self,
        images: tf.Tensor,
        strength: tf.Tensor | None = None,
        color_strength: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Denoises pictures of one size, each by its own statistics.

        Args:
            images: uint8, uint16, or float32 in [0, 1]; [N, H, W, C], N, H and W at least 1. With
                loops C may be 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and alpha) as the
                graph runs; without, it is the network's, and known.
            strength: float32 scalar or [N] from 0 to 1, of each picture. Default None, both
                strengths are the denoiser's.
            color_strength: float32 scalar or [N] from 0 to 1; needed where there is a `strength`.

        Returns:
            Of the same shape and dtype; alpha, and colours under an alpha of 0, as they were.
        """
        colors = images
        if self._loops:
            channels = tf.shape(images)[-1]
            colors = images[..., : tf.where(channels < 3, 1, 3)]
            hidden = (channels % 2 == 0) & (images[..., -1] == 0)
            given = colors
            colors = fill_hidden(given, hidden)
        statistics = self._statistics(colors)
        shares = self._shares(tf.shape(images)[0], strength, color_strength)

        def finish(y: tf.Tensor, pictures: slice, places: Places) -> tf.Tensor:
            mean, deviation = (each[pictures] for each in statistics)
            y = self._unit_result(y * deviation + mean) * value_range(images.dtype.as_numpy_dtype)
            if shares is not None:
                noisy = tf.cast(_cut(colors[pictures], *places), tf.float32)
                y = _blend(noisy, y, *(each[pictures] for each in shares), images.dtype)
            if not images.dtype.is_floating:
                y = _ROUNDINGS[self._denoiser.options.rounding](y)
            return tf.cast(y, images.dtype)

        if self._denoiser.options.self_ensemble:
            total = self._sum_of_orientations(colors, statistics)
            everywhere = tuple(tf.range(each) for each in tf.unstack(tf.shape(colors)[1:3]))
            result = finish(total / NUM_ORIENTATIONS, slice(None), everywhere)
        else:
            result = self._passes(colors, statistics, 0, finish, images.dtype)
        if self._loops:
            result = tf.where(hidden[..., None], given, result)
            result = tf.concat([result, images[..., tf.shape(colors)[-1] :]], axis=-1)
        result.set_shape(images.shape)
        return result

    def _statistics(self, colors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and deviation of each picture, float32 [N, 1, 1, 1 or C]."""
        normalization = self._recipe.build_normalization()
        if not normalization.of_picture:
            statistics = normalization.moments(colors)
        elif self._loops:
            statistics = normalization.moments(colors, _mean_by_blocks)
        else:
            statistics = normalization.moments(_unit(colors), _mean_by_rows)
        zeros = tf.zeros((tf.shape(colors)[0], 1, 1, 1))
        return tuple(tf.cast(each, tf.float32) + zeros for each in statistics)

    def _shares(
        self, pictures: tf.Tensor, strength: tf.Tensor | None, color_strength: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor] | None:
        """Strengths of luma and colour, float32 [N, 1, 1, 1]; None where they are 1 for good."""
        shares = strength, color_strength
        if strength is None:
            if self._denoiser.strength.is_whole:
                return None
            shares = self._denoiser.strength.luma, self._denoiser.strength.color
        shares = (tf.reshape(tf.cast(each, tf.float32), (-1, 1, 1, 1)) for each in shares)
        return tuple(each + tf.zeros((pictures, 1, 1, 1)) for each in shares)

    def _sum_of_orientations(
        self, colors: tf.Tensor, statistics: tuple[tf.Tensor, tf.Tensor]
    ) -> tf.Tensor:
        """What comes of the eight orientations, turned back, in units of the normalisation."""

        def add(orientation: Orientation, total: tf.Tensor) -> tuple[Orientation, tf.Tensor]:
            turned = orient(colors, orientation)
            result = self._passes(turned, statistics, orientation, _unfinished, tf.float32)
            return orientation + 1, total + orient_back(result, orientation)

        total = tf.zeros_like(colors, tf.float32)
        if self._loops:
            shapes = (tf.TensorShape(()), total.shape)
            return tf.while_loop(
                lambda orientation, total: orientation < NUM_ORIENTATIONS,
                add,
                (0, total),
                shape_invariants=shapes,
                parallel_iterations=1,
            )[1]
        for orientation in range(NUM_ORIENTATIONS):
            total = add(orientation, total)[1]
        return total

    def _passes(
        self,
        colors: tf.Tensor,
        statistics: tuple[tf.Tensor, tf.Tensor],
        orientation: Orientation,
        finish: Finish,
        dtype: tf.DType,
    ) -> tf.Tensor:
        """As `cbsn.inference.passes.Passes`; `finish` makes of results what is returned."""
        stride, pad = self._recipe.denoise_stride, self._recipe.denoise_pad
        shape = tf.shape(colors)
        size = shape[1], shape[2]
        padded = tuple((each + stride - 1) // stride * stride for each in size)

        def read(rows: tf.Tensor, columns: tf.Tensor, pictures: slice) -> tf.Tensor:
            mean, deviation = (each[pictures] for each in statistics)
            # Without sub-images there is nothing to be read beyond the picture.
            zeros = stride > 1 or pad > 0
            return _cut(
                colors[pictures], rows, columns, lambda x: (_unit(x) - mean) / deviation, zeros
            )

        layouts = [GraphLayout.mosaic(each, stride, pad) for each in padded]
        if not self._denoiser.r3:
            return self._tiles(self._first, layouts, size, read, finish, dtype, shape[0])
        first = self._tiles(self._first, layouts, padded, read, _unfinished, tf.float32, shape[0])
        table = self._table()

        def mix(rows: tf.Tensor, columns: tf.Tensor, pictures: slice) -> tf.Tensor:
            noisy = read(rows, columns, pictures)[:, None]
            denoised = _cut(first[pictures], rows, columns)[:, None]
            masks = _masks(table[orientation], rows, columns)[..., : tf.shape(colors)[-1]]
            return _merge_axes(tf.where(masks, noisy, denoised))

        margin = R3_MARGIN if self._recipe.border == "zeros" else 0
        layouts = [GraphLayout.reflected(each, margin) for each in padded]
        return self._tiles(
            self._refine, layouts, size, mix, finish, dtype, shape[0], RandomReplacement.TIMES
        )

    def _table(self) -> tf.Tensor:
        """R3's masks by orientation, row, column and channel, with a bit for each copy."""
        count = NUM_ORIENTATIONS if self._denoiser.options.self_ensemble else 1
        tables = [RandomReplacement(self._denoiser.options.seed, k).table for k in range(count)]
        return tf.constant(np.packbits(tables, axis=1, bitorder="little")[:, 0])

    def _tiles(
        self,
        run: Callable[[tf.Tensor], tf.Tensor],
        layouts: Sequence[GraphLayout],
        size: tuple[tf.Tensor, tf.Tensor],
        read: Read,
        finish: Finish,
        dtype: tf.DType,
        pictures: tf.Tensor,
        samples: int = 1,
    ) -> tf.Tensor:
        """As `cbsn.inference.passes.TiledPass`; returns what `finish` does, of `dtype`."""
        rows, columns = (
            GraphSpans(
                layout,
                border=self._recipe.border,
                side=self._denoiser.side if self._loops else None,
                halo=self._network.halo,
                multiple=self._network.size_multiple,
            )
            for layout in layouts
        )

        def tile(row: tf.Tensor, column: tf.Tensor, pictures: slice) -> tf.Tensor:
            y = self._run_colors(run, read(rows.source(row), columns.source(column), pictures))
            y = columns.crop(column, rows.crop(row, y, axis=1), axis=2)
            if samples > 1:
                y = tf.reduce_mean(_split_axis(y, samples), axis=1)
            return finish(y, pictures, (rows.piece(row, size[0]), columns.piece(column, size[1])))

        if self._loops:
            result = _loop(tile, rows, columns, pictures, samples, dtype)
        else:
            result = tile(tf.constant(0), tf.constant(0), slice(None))
        for axis, (layout, each) in enumerate(zip(layouts, size, strict=True), 1):
            result = layout.take(result, each, axis)
        return result

    def _run_colors(self, run: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """Runs the network over [n, h, w, 1 or 3], whatever its own channels are."""
        if x.shape[-1] == self._network.channels:
            return run(x)
        shape = tf.shape(x)
        channels = shape[-1]
        if self._network.channels == 1:  # one channel after the other
            x = tf.reshape(tf.transpose(x, (3, 0, 1, 2)), (-1, shape[1], shape[2], 1))
            y = run(x)
            y = tf.reshape(y, (channels, shape[0], tf.shape(y)[1], tf.shape(y)[2]))
            return tf.transpose(y, (1, 2, 3, 0))
        # Gray is seen as three equal channels, whose results are averaged.
        copies = self._network.channels // channels
        y = run(tf.ensure_shape(tf.tile(x, (1, 1, 1, copies)), (None, None, None, 3)))
        y = tf.reshape(y, (shape[0], tf.shape(y)[1], tf.shape(y)[2], copies, channels))
        return tf.reduce_mean(y, axis=-2)

    def _unit_result(self, y: tf.Tensor) -> tf.Tensor:
        """From values around [0, 1], which must be finite, to such in it."""
        if self._loops:
            message = "The network returned values that are not finite; its weights may be broken."
            tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(y)), [message])
        return tf.clip_by_value(y, 0.0, 1.0)


def _loop(
    tile: Callable[[tf.Tensor, tf.Tensor, slice], tf.Tensor],
    rows: GraphSpans,
    columns: GraphSpans,
    pictures: tf.Tensor,
    samples: int,
    dtype: tf.DType,
) -> tf.Tensor:
    """Computes tile after tile, and puts them together: [N, tiles × step, tiles × step, C]."""
    area = tf.cast(rows.source_size, tf.float32) * tf.cast(columns.source_size, tf.float32)
    together = area * tf.cast(pictures * samples, tf.float32) <= AUTO_TILE**2
    group = tf.where(together, pictures, 1)
    tiles = rows.count * columns.count
    count = pictures // group * tiles

    def body(number: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        first, index = number // tiles * group, number % tiles
        result = tile(index // columns.count, index % columns.count, slice(first, first + group))
        return number + 1, results.write(number, result)

    results = tf.TensorArray(dtype, count, element_shape=(None, None, None, None))
    _, results = tf.while_loop(
        lambda number, results: number < count,
        body,
        (0, results),
        parallel_iterations=1,  # or several tiles would be in memory at once
    )
    y = results.stack()
    shape = (pictures // group, rows.count, columns.count, group, rows.step, -1)
    y = tf.transpose(tf.reshape(y, shape), (0, 3, 1, 4, 2, 5))
    return tf.reshape(y, (pictures, rows.count * rows.step, columns.count * columns.step, -1))


def _mean_by_blocks(x: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The mean of a function of the values in [0, 1], float64 [N, 1, 1, C], in bounded memory."""
    shape = tf.shape(x)
    rows = tf.maximum(_BLOCK_VALUES // (shape[0] * shape[2] * shape[3]), 1)

    def body(row: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        block = _unit(x[:, row : row + rows], tf.float64)
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


def _mean_by_rows(x: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The mean of a function of the values, [N, 1, 1, C], at once and without float64.

    One sum of them all would be off the more the larger the picture is: by 8 % at 3000 × 3000.
    """
    return tf.reduce_mean(tf.reduce_mean(function(x), 2, keepdims=True), 1, keepdims=True)


def _unit(x: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Values in [0, 1] of pixels."""
    return tf.cast(x, dtype) / value_range(x.dtype.as_numpy_dtype)


def _unfinished(y: tf.Tensor, pictures: slice, places: Places) -> tf.Tensor:
    return y


def _blend(
    noisy: tf.Tensor, denoised: tf.Tensor, luma: tf.Tensor, color: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """As `Strength.blend`, in the range of a dtype; exact where both strengths are 0 or 1."""
    removed = noisy - denoised
    weights = tf.where(tf.shape(removed)[-1] == 1, (1.0, 0.0, 0.0), LUMA)
    removed_luma = tf.reduce_sum(removed * weights, axis=-1, keepdims=True)
    blended = noisy - (color * removed + (luma - color) * removed_luma)
    blended = tf.clip_by_value(blended, 0.0, value_range(dtype.as_numpy_dtype))
    blended = tf.where(tf.maximum(luma, color) == 0.0, noisy, blended)
    return tf.where(tf.minimum(luma, color) == 1.0, denoised, blended)


def _cut(
    images: tf.Tensor,
    rows: tf.Tensor,
    columns: tf.Tensor,
    convert: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    zeros: bool = False,
) -> tf.Tensor:
    """As `Tile.cut`, of pictures [N, H, W, C]; `zeros` if some rows or columns may be outside."""
    if not zeros:
        return convert(tf.gather(tf.gather(images, rows, axis=1), columns, axis=2))
    inside = []
    for axis, places in ((1, rows), (2, columns)):
        size = tf.shape(images)[axis]
        inside.append((places >= 0) & (places < size))
        images = tf.gather(images, tf.clip_by_value(places, 0, size - 1), axis=axis)
    mask = inside[0][:, None, None] & inside[1][:, None]
    return tf.where(mask, convert(images), 0.0)


def _masks(bits: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """As `RandomReplacement.masks`, bool [8, h, w, 3]."""
    bits = tf.gather(bits, rows % RandomReplacement.PERIOD)
    bits = tf.gather(bits, columns % RandomReplacement.PERIOD, axis=1)
    powers = tf.reshape(2 ** tf.range(RandomReplacement.TIMES), (-1, 1, 1, 1))
    return tf.cast(bits, tf.int32) // powers % 2 > 0


def _merge_axes(x: tf.Tensor) -> tf.Tensor:
    """[N, S, h, w, C] → [N·S, h, w, C]."""
    shape = tf.shape(x)
    y = tf.reshape(x, (-1, shape[2], shape[3], shape[4]))
    y.set_shape((None, None, None, x.shape[-1]))
    return y


def _split_axis(x: tf.Tensor, samples: int) -> tf.Tensor:
    """The inverse of `_merge_axes`."""
    return tf.reshape(x, tf.concat([[-1, samples], tf.shape(x)[1:]], 0))
