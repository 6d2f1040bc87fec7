"""The denoiser as a TensorFlow graph."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.export import graph_pixels
from cbsn.export.graph_pixels import Orientation, PlaneScale, cut, orient, unit
from cbsn.images.stacks.scaling import Scale
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import ENGINES, make_graph, network_pass
from cbsn.inference.passes import AUTO_TILE, RandomReplacement, auto_sides
from cbsn.inference.tiling import Axis, Spans, Tiling, pass_axes
from cbsn.inference.volumes import volume_tilings
from cbsn.orientations import NUM_ORIENTATIONS
from cbsn.value_range import value_range

_ROUNDINGS = {"round": tf.round, "truncate": tf.floor}


class _Pictures(NamedTuple):
    """Pictures of one size, with the statistics and strengths of each.

    Volumes are [N, Z, H, W, C], and the shapes of the others have one more 1, too.
    """

    colors: tf.Tensor  # [N, H, W, 1 or 3]
    mean: tf.Tensor  # float32 [N, 1, 1, C or 1]
    deviation: tf.Tensor
    luma: tf.Tensor | None = None  # float32 [N, 1, 1, 1], the strength; None if always 1
    color: tf.Tensor | None = None
    denoised: tf.Tensor | None = None  # float32 [N, h, w, C], the result of the first pass, for R3


def stack_scale(denoiser: Denoiser, channel: int | None) -> Scale | None:
    """Returns how an export scales the planes of a channel; None if it is for pictures.

    Args:
        denoiser: what is exported.
        channel: of the stacks that it was trained on. None stands for the first.

    Raises:
        ConfigError: if there is no such channel.
    """
    received = f"Received: --stack_channel {channel}"
    if denoiser.scaling is None:
        if denoiser.of_volumes:
            raise ConfigError(
                "A model of volumes is exported with the scaling of the stacks that it was trained "
                f"on, and this one has none. Received: recipe={denoiser.recipe.name!r}"
            )
        if channel is not None:
            raise ConfigError(
                "The model was trained on pictures, which have no channels to choose from: omit "
                f"--stack_channel. {received}"
            )
        return None
    count = len(denoiser.scaling.channels)
    if not 0 <= (channel or 0) < count:
        channels = f"{count} channels, counted from 0" if count > 1 else "one scale for all"
        raise ConfigError(f"The model has {channels}: use another --stack_channel. {received}")
    return denoiser.scaling.of(channel or 0)


class GraphDenoiser:
    """Computes what a `Denoiser` does, in a graph that learns the tensors' sizes as it runs.

    Of a model that was trained on stacks, it is what `Denoiser.scaled` does, except that faulty
    pixels are not looked for. A model of volumes denoises each [Z, H, W, C] of [N, Z, H, W, C].

    Args:
        denoiser: gives recipe, network, tiles, rounding, R3, self-ensemble and strength.
        loops: whether the graph may have loops. With loops, the tile bounds the memory. Without
            them, as converters to other formats need it, everything is computed at once.
            Default True.
        channel: of a model that was trained on stacks, the channel whose planes are denoised; see
            `stack_scale`. Default None, the first.

    Example:
        >>> denoise = GraphDenoiser(Denoiser.load("checkpoints/my-run"))
        >>> denoise(tf.zeros((1, 4, 4, 3), tf.uint8)).shape
        TensorShape([1, 4, 4, 3])
    """

    def __init__(self, denoiser: Denoiser, *, loops: bool = True, channel: int | None = None):
        self._denoiser = denoiser
        scale = stack_scale(denoiser, channel)
        self._scale = scale and PlaneScale(scale, wide=loops)
        self._recipe, self._network = denoiser.recipe, denoiser.network
        self._loops = loops
        # Of pictures or volumes, with and without the axis of their number.
        self._rank = self._network.dimensions + 2
        self._tilings = self._make_tilings()
        # Inlined if there are no loops: when a function is called twice, tf2onnx converts the
        # loop of attention only once.
        make = functools.partial(make_graph if loops else network_pass, portable=True)
        always_blind = self._network.blindness == "always"
        self._first = self._refine = make(self._recipe, self._network, blind=always_blind)
        if denoiser.r3 and not always_blind:
            self._refine = make(self._recipe, self._network, blind=True)

    def _make_tilings(self) -> tuple[Tiling, ...]:
        """Returns how each axis is divided into tiles."""
        denoiser, network = self._denoiser, self._network
        side = denoiser.side if self._loops else None
        if denoiser.of_volumes:
            sides: tuple[int | None, ...] = (side, side, side)
            if side and denoiser.options.tile == "auto":
                sides = auto_sides(network, ENGINES["tensorflow"])
            return volume_tilings(network, sides, windows=False)
        return (Tiling(self._recipe.border, side, network.halo, network.size_multiple),) * 2

    def __call__(
        self,
        images: tf.Tensor,
        strength: tf.Tensor | None = None,
        color_strength: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Denoises pictures of one size, each with its own statistics.

        Args:
            images: uint8, uint16, or float32 in [0, 1]; [N, H, W, C], N, H and W at least 1. With
                loops, C is 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and alpha), and may be
                unknown until the graph runs; without loops, it is the network's, and known. Planes
                of stacks and volumes, [N, Z, H, W, C], have any values, and a C of 1 or 3.
            strength: float32 scalar or [N], from 0 to 1, for each picture. Default None: both
                strengths are the denoiser's.
            color_strength: float32 scalar or [N], from 0 to 1; required with `strength`.

        Returns:
            Pictures of the same shape and dtype. Alpha, and colours where it is 0, are unchanged.
            Planes of integers are clipped to what their dtype holds, and floats are not clipped.
        """
        colors = images
        if self._loops and not self._scale:
            channels = tf.shape(images)[-1]
            given = images[..., : tf.where(channels < 3, 1, 3)]
            hidden = (channels % 2 == 0) & (images[..., -1] == 0)
            colors = graph_pixels.fill_hidden(given, hidden)
        shares = self._shares(tf.shape(images)[0], strength, color_strength)
        pictures = _Pictures(colors, *self._statistics(colors), *shares)
        if self._denoiser.options.self_ensemble:
            count = len(self._denoiser.network.orientations)
            mean = self._sum_of_orientations(pictures) / count
            result = self._finish(mean, pictures, colors)
        else:
            result = self._passes(pictures, 0, finishes=True)
        if self._loops and not self._scale:
            result = tf.where(hidden[..., None], given, result)
            result = tf.concat([result, images[..., tf.shape(colors)[-1] :]], axis=-1)
        result.set_shape(images.shape)
        return result

    def _statistics(self, colors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean and deviation of each picture, float32 [N, 1, …, 1 or C]."""
        normalization = self._recipe.build_normalization()
        if not normalization.of_picture:
            statistics = normalization.moments(colors)
        elif self._scale:
            statistics = self._scale.moments(colors)
        elif self._loops:
            statistics = normalization.moments(colors, graph_pixels.mean_by_blocks)
        else:
            statistics = normalization.moments(unit(colors), graph_pixels.mean_by_rows)
        zeros = tf.zeros((tf.shape(colors)[0], *self._ones))
        return tuple(tf.cast(each, tf.float32) + zeros for each in statistics)

    @property
    def _ones(self) -> tuple[int, ...]:
        """The shape of what is the same for all pixels of a picture."""
        return (1,) * (self._rank - 1)

    def _shares(self, pictures: tf.Tensor, *given: tf.Tensor | None) -> list[tf.Tensor | None]:
        """Returns the strengths of luma and colour, in the form that `_Pictures` takes."""
        own = self._denoiser.strength
        if given[0] is None and own.is_whole:
            return [None, None]
        shares = (own.luma, own.color) if given[0] is None else given
        shaped = [tf.reshape(tf.cast(each, tf.float32), (-1, *self._ones)) for each in shares]
        return [each + tf.zeros((pictures, *self._ones)) for each in shaped]

    def _sum_of_orientations(self, pictures: _Pictures) -> tf.Tensor:
        """Sums the results of the orientations, turned back, in normalised units."""
        orientations = self._denoiser.network.orientations

        def add(orientation: Orientation, total: tf.Tensor) -> tf.Tensor:
            turned = pictures._replace(colors=orient(pictures.colors, orientation))
            result = self._passes(turned, orientation, finishes=False)
            return total + orient(result, orientation, back=True)

        total = tf.zeros_like(pictures.colors, tf.float32)
        if self._loops:
            table = tf.constant([*orientations])
            return tf.while_loop(
                lambda place, total: place < len(orientations),
                lambda place, total: (place + 1, add(table[place], total)),
                (0, total),
                shape_invariants=(tf.TensorShape(()), total.shape),
                parallel_iterations=1,
            )[1]
        for orientation in orientations:
            total = add(orientation, total)
        return total

    def _passes(
        self, pictures: _Pictures, orientation: Orientation, *, finishes: bool
    ) -> tf.Tensor:
        """Runs the passes, as `cbsn.inference.passes.Passes`; makes pixels only if `finishes`."""
        size = tf.unstack(tf.shape(pictures.colors)[1:-1])
        first, refine = zip(*(pass_axes(self._recipe, each, tf) for each in size), strict=True)
        if not self._denoiser.r3:
            return self._pass(pictures, first, size, finishes)
        denoised = self._pass(pictures, first, [axis.size for axis in first], finishes=False)
        # R3's masks by orientation, row, column and channel, with a bit for each copy.
        options = self._denoiser.options
        count = NUM_ORIENTATIONS if options.self_ensemble else 1
        tables = [RandomReplacement(options.seed, number).table for number in range(count)]
        bits = tf.constant(np.packbits(tables, axis=1, bitorder="little")[:, 0])[orientation]
        return self._pass(pictures._replace(denoised=denoised), refine, size, finishes, bits)

    def _pass(
        self,
        pictures: _Pictures,
        axes: Sequence[Axis],
        size: Sequence[tf.Tensor],
        finishes: bool,
        bits: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Runs the network over pictures, tile by tile, and returns [N, *size, C].

        With the bits of R3's masks, runs the blind network over R3's copies.
        """
        all_spans = [Spans(*each) for each in zip(axes, self._tilings, strict=True)]
        run, samples = self._first, 1
        if bits is not None:
            run, samples = self._refine, RandomReplacement.TIMES

        # What a while_loop repeats must be a function.
        def compute(tile: Sequence[tf.Tensor], which: slice) -> tf.Tensor:
            pieces = [
                (spans, spans.span(index)) for spans, index in zip(all_spans, tile, strict=True)
            ]
            places = [spans.reads(span) for spans, span in pieces]
            some = _Pictures(*(each if each is None else each[which] for each in pictures))
            x = self._read(some, *places)
            if bits is not None:
                x = graph_pixels.make_copies(x, cut(some.denoised, *places), bits, *places)
            y = self._run_colors(run, x)
            if self._recipe.border == "zeros":
                y = graph_pixels.crop(y, pieces)
            if bits is not None:
                shape = tf.concat([[-1, samples], tf.shape(y)[1:]], 0)
                y = tf.reduce_mean(tf.reshape(y, shape), axis=1)
            if not finishes:
                return y
            filled = [
                spans.axis.rows(tf.range(span.start, span.start + spans.step))
                for spans, span in pieces
            ]
            return self._finish(y, some, cut(some.colors, *filled))

        if self._loops:
            dtype = pictures.colors.dtype if finishes else tf.float32
            count = tf.shape(pictures.colors)[0]
            result = self._loop(compute, all_spans, count, samples, dtype)
        else:
            result = compute([tf.constant(0)] * len(axes), slice(None))
        for number, (axis, each) in enumerate(zip(axes, size, strict=True), 1):
            result = tf.gather(result, axis.places(tf.range(each)), axis=number)
        return result

    def _read(self, pictures: _Pictures, *places: tf.Tensor) -> tf.Tensor:
        """Reads the network's input, float32 [N, h, w, C]; 0 for rows and columns outside."""
        scaled = self._scale.apply if self._scale else unit
        x = (scaled(cut(pictures.colors, *places)) - pictures.mean) / pictures.deviation
        if self._recipe.denoise_stride == 1 and self._recipe.denoise_pad == 0:
            return x  # without sub-images, as of volumes, nothing beyond the picture is read
        rows, columns = places
        height, width = tf.unstack(tf.shape(pictures.colors)[1:3])
        rows, columns = ((rows >= 0) & (rows < height)), ((columns >= 0) & (columns < width))
        return tf.where(rows[:, None, None] & columns[:, None], x, 0.0)

    def _run_colors(self, run: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """Runs the network over [n, h, w, 1 or 3], whatever its number of channels."""
        if x.shape[-1] == self._network.channels:
            return run(x)
        last = self._rank - 1
        count, *size, channels = tf.unstack(tf.shape(x), self._rank)
        if self._network.channels == 1:  # each channel is a picture
            x = tf.reshape(tf.transpose(x, (last, *range(last))), (-1, *size, 1))
            y = run(x)
            y = tf.reshape(y, (channels, count, *tf.unstack(tf.shape(y)[1:-1])))
            return tf.transpose(y, (*range(1, self._rank), 0))
        # The network sees gray as three equal channels, and their results are averaged.
        copies = self._network.channels // channels
        x = tf.tile(x, (*(1,) * last, copies))
        y = run(tf.ensure_shape(x, (*(None,) * last, 3)))
        y = tf.reshape(y, (count, *tf.unstack(tf.shape(y)[1:-1]), copies, channels))
        return tf.reduce_mean(y, axis=-2)

    def _finish(self, y: tf.Tensor, pictures: _Pictures, noisy: tf.Tensor) -> tf.Tensor:
        """Turns the network's result into pixels; `noisy` holds the original pixels."""
        dtype = pictures.colors.dtype
        y = y * pictures.deviation + pictures.mean
        if self._loops:
            message = "The network returned values that are not finite; its weights may be broken."
            tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(y)), [message])
        if self._scale:
            return self._finish_planes(y, pictures, noisy, self._scale)
        y = tf.clip_by_value(y, 0.0, 1.0) * value_range(dtype.as_numpy_dtype)
        if pictures.luma is not None:
            shares = pictures.luma, pictures.color
            y = graph_pixels.blend(tf.cast(noisy, tf.float32), y, *shares, dtype)
        if not dtype.is_floating:
            y = _ROUNDINGS[self._denoiser.options.rounding](y)
        return tf.cast(y, dtype)

    def _finish_planes(
        self, y: tf.Tensor, planes: _Pictures, noisy: tf.Tensor, scale: PlaneScale
    ) -> tf.Tensor:
        """Turns scaled values into those of planes, which are clipped only to an integer dtype."""
        dtype = noisy.dtype
        if planes.luma is not None:
            y = graph_pixels.blend(scale.apply(noisy), y, planes.luma, planes.color, None)
        values = scale.undo(y)
        if not dtype.is_floating:
            values = _ROUNDINGS[self._denoiser.options.rounding](values)
            values = tf.clip_by_value(values, *(tf.cast(n, values.dtype) for n in dtype.limits))
        values = tf.cast(values, dtype)
        if planes.luma is None:
            return values
        # Scaled and back, floats would not be what they were.
        return tf.where(tf.maximum(planes.luma, planes.color) == 0.0, noisy, values)

    def _loop(
        self,
        compute: Callable[[Sequence[tf.Tensor], slice], tf.Tensor],
        all_spans: Sequence[Spans],
        pictures: tf.Tensor,
        samples: int,
        dtype: tf.DType,
    ) -> tf.Tensor:
        """Computes tile by tile and joins the results to [N, tiles × step, tiles × step, C]."""
        pixels = tf.cast(pictures * samples, tf.float32)
        for spans, tiling in zip(all_spans, self._tilings, strict=True):
            pixels *= tf.cast(spans.step + 2 * tiling.halo, tf.float32)
        # Small pictures are computed together.
        group = tf.where(pixels <= AUTO_TILE**2, pictures, 1)
        counts = [spans.count for spans in all_spans]
        tiles = math.prod(counts)
        count = pictures // group * tiles

        def body(number: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            first, rest = number // tiles * group, number % tiles
            tile: list[tf.Tensor] = []
            for each in reversed(counts):
                tile.insert(0, rest % each)
                rest //= each
            result = compute(tile, slice(first, first + group))
            return number + 1, results.write(number, result)

        results = tf.TensorArray(dtype, count, element_shape=(None,) * self._rank)
        _, results = tf.while_loop(
            lambda number, results: number < count,
            body,
            (0, results),
            parallel_iterations=1,  # otherwise several tiles would be in memory at once
        )
        y, steps = results.stack(), [spans.step for spans in all_spans]
        y = tf.reshape(y, (pictures // group, *counts, group, *steps, -1))
        # Each axis of tiles next to that of their pixels, and groups next to their pictures.
        axes = len(counts)
        pairs = [(axis, axis + axes + 1) for axis in range(axes + 1)]
        y = tf.transpose(y, (*itertools.chain(*pairs), 2 * axes + 2))
        sides = (number * step for number, step in zip(counts, steps, strict=True))
        return tf.reshape(y, (pictures, *sides, -1))
