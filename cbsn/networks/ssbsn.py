"""SS-BSN: two branches with self-similarity attention."""

import math
from typing import Any

import keras
from keras import ops

from cbsn.networks.layers import FAN_IN_UNIFORM, Convolution, crop, pointwise
from cbsn.networks.two_branch import TwoBranchNetwork
from cbsn.sampling import batch_to_space, space_to_batch

Tensor = Any

KEPT = 2**25  # attention weights that are kept for the gradient; where there are more, none are
CHUNK = 2**23  # about how many of them are then held at a time


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

    A sample has `phases` entries of the batch [phases·N, h, w, C]. That is 0, and stays so, where
    `inside`, [phases·N, h, w, 1] or None for 1 everywhere, is. It is computed in float32.
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

    Of queries and keys in one [P, T, E] and values [P, T, C] it makes [P, T, C].
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
    outputs = ops.transpose(outputs, (1, 0, 2, 3))
    outputs = ops.reshape(outputs, (problems, count * size, ops.shape(values)[-1]))
    return outputs[:, :tokens]


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return ops.matmul(attention_weights(queries, keys), values)


def attention_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """The share of each key in each query: [P, Q, E], [P, T, E] → [P, Q, T]."""
    similarity = ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))
    return ops.softmax((similarity + 1.0) / math.sqrt(queries.shape[-1]), axis=-1)


def _ceil_divide(number: Any, divisor: Any) -> Any:
    return (number + divisor - 1) // divisor


class _Module(keras.layers.Layer):
    """x + 1×1(ReLU(3×3(ReLU(3×3(x + attention(x)))))) on phases, like a `DilatedModule`."""

    reach = 2

    def __init__(self, filters: int, attention: SelfSimilarityAttention | None, **kwargs):
        super().__init__(**kwargs)
        self.size_multiple = attention.scale if attention else 1
        self.attention = attention
        common = {"kernel_initializer": FAN_IN_UNIFORM, "dtype": self.dtype_policy}
        self.spatial1 = Convolution(filters, 3, activation="relu", name="spatial1", **common)
        self.spatial2 = Convolution(filters, 3, activation="relu", name="spatial2", **common)
        self.pointwise = pointwise(filters, None, name="pointwise", **common)

    def build(self, inputs_shape, inside_shape=None):
        for layer in (self.attention, self.spatial1, self.spatial2, self.pointwise):
            if layer:
                layer.build(inputs_shape)
        self.built = True

    def call(self, inputs: Tensor, inside: Tensor | None = None, padding: str = "same") -> Tensor:
        def masked(x: Tensor) -> Tensor:
            return x if inside is None else x * inside

        x = inputs
        if self.attention:
            x = x + self.attention(x, inside)
        x = masked(self.spatial1(x, padding=padding))
        x = self.pointwise(self.spatial2(x, padding=padding))
        if padding == "valid":
            inputs = crop(inputs, self.reach)
        return inputs + masked(x)


@keras.saving.register_keras_serializable(package="cbsn")
class SelfSimilarityBlindSpotNetwork(TwoBranchNetwork):
    """SS-BSN's network: always blind, with attention among pixels that look alike.

    The last modules of each branch have a `SelfSimilarityAttention`, which sees the whole input. So
    does the layer normalisation in it: it takes the mean of all features, so that a pixel has a
    trace of influence on its own output. With that mean held fast, the network is blind.

    Args:
        filters, num_modules, channels, **kwargs: as of `TwoBranchNetwork`.
        num_attention: int, how many modules of a branch, the last ones, have attention.
        scale: int, f: each of the d² phases of a branch of dilation d is split into f² sub-grids,
            whose pixels attend to each other.

    Input and output: as `TwoBranchNetwork` has them; values from 0 to 255.

    Example:
        >>> network = SelfSimilarityBlindSpotNetwork(filters=16, num_modules=3, num_attention=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3))).shape
        (1, 60, 60, 3)

    Raises:
        ValueError: as `TwoBranchNetwork`, or if `filters` is 1, `scale` below 1, or
            `num_attention` not in [0, `num_modules`].
    """

    def __init__(
        self,
        filters: int = 128,
        num_modules: int = 9,
        num_attention: int = 3,
        scale: int = 2,
        channels: int = 3,
        **kwargs,
    ):
        if not 0 <= num_attention <= num_modules or scale < 1:
            raise ValueError(
                "num_attention must be in [0, num_modules], and scale at least 1. Received: "
                f"num_attention={num_attention}, num_modules={num_modules}, scale={scale}"
            )
        # Before the modules are made, which need them.
        self.num_attention = num_attention
        self.scale = scale
        super().__init__(filters, num_modules, channels, **kwargs)

    def make_module(self, dilation: int, index: int, **kwargs) -> _Module:  # noqa: D102
        attention = None
        if index >= self.num_modules - self.num_attention:
            attention = SelfSimilarityAttention(
                self.filters, dilation, self.scale, dtype=kwargs["dtype"], name="attention"
            )
        return _Module(self.filters, attention, **kwargs)

    @property
    def is_local(self) -> bool:
        """Whether no module has attention."""
        return self.num_attention == 0

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "num_attention": self.num_attention, "scale": self.scale}
