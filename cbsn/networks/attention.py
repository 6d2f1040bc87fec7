"""Self-similarity attention (SS-Attention) of SS-BSN."""

import math
from typing import Any

import keras
from keras import ops

from cbsn.networks.layers import FAN_IN_UNIFORM
from cbsn.sampling import batch_to_space, space_to_batch

Tensor = Any

KEPT = 2**25
"""So many attention weights may be kept for the gradient; where there are more, none are."""

CHUNK = 2**23
"""How many of them are then held at a time, about."""


@keras.saving.register_keras_serializable(package="cbsn")
class SelfSimilarityAttention(keras.layers.Layer):
    """Averages over all pixels of a sub-grid, those that look alike counting more.

    The feature map is normalised over height, width and channels together (without scale or
    offset) and split into sub-grids, so that a pixel meets only those at multiples of
    `dilation` · `scale` from it, and the network stays blind. In each of them, with q the
    normalised features times one matrix, scaled to unit length, and v the features as they are:

        softmax((q qᵀ + 1) / sqrt(filters)) v

    (Han & Yu, "SS-BSN: Attentive Blind-Spot Network for Self-Supervised Denoising with Nonlocal
    Self-Similarity", IJCAI 2023, arXiv 2305.09890, section 3.) The weights of all pairs of pixels
    are not held at once where they are many, neither here nor for the gradient.

    Args:
        filters: int, number of channels C.
        dilation: int, d: the input comes as the d² phases of a feature map.
        scale: int, f: each phase is split into f² sub-grids.

    Input: phases [d²·N, h, w, C], as `cbsn.networks.layers.to_phases` makes them, padded to
    multiples of d·f; and `inside` [d²·N, h, w, 1], or None. What is padded must be 0; it takes part
    with the similarity 0, as in the authors' code. Output: as the input, 0 where it is padded.
    """

    def __init__(self, filters: int, dilation: int, scale: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.dilation = dilation
        self.scale = scale

    def build(self, inputs_shape, inside_shape=None):  # noqa: D102
        self.embedding = self.add_weight(
            shape=(inputs_shape[-1], self.filters), initializer=FAN_IN_UNIFORM, name="embedding"
        )
        self.built = True

    def call(self, inputs: Tensor, inside: Tensor | None = None) -> Tensor:
        """Attends."""
        normalised = normalise(inputs, inside, self.dilation**2)
        values = space_to_batch(inputs, self.scale)
        _, height, width, channels = ops.shape(values)
        tokens = (-1, height * width, channels)
        normalised = ops.reshape(space_to_batch(normalised, self.scale), tokens)
        queries = unit_length(ops.matmul(normalised, ops.cast(self.embedding, normalised.dtype)))
        outputs = attend(queries, ops.reshape(values, tokens))
        outputs = ops.reshape(outputs, (-1, height, width, channels))
        outputs = batch_to_space(outputs, self.scale)
        return outputs if inside is None else outputs * inside

    def get_config(self):  # noqa: D102
        sizes = {"filters": self.filters, "dilation": self.dilation, "scale": self.scale}
        return {**super().get_config(), **sizes}


def normalise(x: Tensor, inside: Tensor | None, phases: int) -> Tensor:
    """Normalises each sample over all of its pixels and channels to mean 0 and variance 1.

    Args:
        x: [phases·N, h, w, C], 0 where `inside` is.
        inside: [phases·N, h, w, 1], 1 or 0; None for 1 everywhere.
        phases: int, entries of the batch that belong to one sample.

    Returns:
        As `x`, and 0 where it was; of `x`'s dtype, computed in float32.
    """
    _, height, width, channels = ops.shape(x)
    samples = ops.cast(ops.reshape(x, (phases, -1, height, width, channels)), "float32")
    axes = (0, 2, 3, 4)
    if inside is None:
        inside = 1.0
        count = ops.cast(phases * height * width * channels, "float32")
    else:
        inside = ops.cast(ops.reshape(inside, (phases, -1, height, width, 1)), "float32")
        count = ops.sum(inside, axis=axes, keepdims=True) * channels
    centred = (samples - moment(samples, count, axes)) * inside
    variance = moment(ops.square(centred), count, axes)
    return ops.cast(ops.reshape(centred * ops.rsqrt(variance + 1e-5), ops.shape(x)), x.dtype)


def moment(values: Tensor, count: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean of `count` values that are summed up over `axes`."""
    return ops.sum(values, axis=axes, keepdims=True) / count


def unit_length(x: Tensor) -> Tensor:
    """Scales vectors, the last axis, to length 1; short ones stay shorter."""
    vectors = ops.cast(x, "float32")  # in float16 the square may be too large, and 1e-8 is 0
    square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    # The root of 0, as of what is padded, would have no gradient.
    return ops.cast(vectors / (ops.sqrt(ops.maximum(square, 1e-30)) + 1e-8), x.dtype)


def attend(queries: Tensor, values: Tensor) -> Tensor:
    """Attention of tokens among themselves, some queries at a time.

    Args:
        queries: [P, T, E], queries and keys in one.
        values: [P, T, C].

    Returns:
        [P, T, C].
    """
    problems, tokens, width = ops.shape(queries)
    if isinstance(tokens, int) and tokens == 1:
        return values  # alone, it has all the attention; and Keras warns of a softmax over one
    known = isinstance(problems, int) and isinstance(tokens, int)
    if known and problems * tokens**2 <= KEPT:
        return _attend(queries, queries, values)
    count = _ceil_divide(tokens, CHUNK // (problems * tokens) + 1)
    size = _ceil_divide(tokens, count)  # queries of each problem in a chunk
    padded = ops.pad(queries, ((0, 0), (0, count * size - tokens), (0, 0)))
    chunks = ops.transpose(ops.reshape(padded, (problems, count, size, width)), (1, 0, 2, 3))
    # Its weights are computed again for the gradient instead of being kept.
    part = keras.remat(_attend)
    outputs = ops.map(lambda chunk: part(chunk, queries, values), chunks)
    outputs = ops.reshape(
        ops.transpose(outputs, (1, 0, 2, 3)), (problems, count * size, ops.shape(values)[-1])
    )
    return outputs[:, :tokens]


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return ops.matmul(attention_weights(queries, keys), values)


def attention_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """The share of each key in each query: [P, Q, E], [P, T, E] → [P, Q, T]."""
    similarity = ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))
    return ops.softmax((similarity + 1.0) / math.sqrt(queries.shape[-1]), axis=-1)


def _ceil_divide(number: Any, divisor: Any) -> Any:
    return (number + divisor - 1) // divisor
