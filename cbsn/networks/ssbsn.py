"""SS-BSN: a network of two branches with self-similarity attention."""

import math
from typing import Any

import keras
from keras import ops

from cbsn.networks.layers import FAN_IN_UNIFORM, Convolution, crop, pointwise
from cbsn.networks.two_branch import TwoBranchNetwork
from cbsn.sampling import batch_to_space, space_to_batch

Tensor = Any

KEPT = 2**25  # up to this many attention weights are kept for the gradient; beyond it, none are
CHUNK = 2**23  # approximate number that is then held at a time


@keras.saving.register_keras_serializable(package="cbsn")
class SelfSimilarityAttention(keras.layers.Layer):
    """Averages over all pixels of a sub-grid, giving more weight to those that look alike.

    The feature map is normalised over height, width and channels together (without scale or
    offset) and split into sub-grids. A pixel only attends to pixels at multiples of
    `dilation` · `scale` from it, so the network stays blind. In each sub-grid, with q the
    normalised features times a matrix, scaled to unit length, and v the unchanged features:

        softmax((q qᵀ + 1) / sqrt(filters)) v

    (Han & Yu, "SS-BSN: Attentive Blind-Spot Network for Self-Supervised Denoising with Nonlocal
    Self-Similarity", IJCAI 2023, arXiv 2305.09890, section 3.) If there are many pairs of pixels,
    their weights are never all held at once, neither here nor for the gradient.

    Args:
        filters: int, number of channels C.
        dilation: int, d: the input holds the d² phases of a feature map.
        scale: int, f: each phase is split into f² sub-grids.

    Input: phases [d²·N, h, w, C] from `cbsn.networks.layers.to_phases`, padded to multiples of
    d·f, and `inside` [d²·N, h, w, 1] or None. Padding must be 0; it takes part with similarity 0,
    as in the authors' code. Output: same shape as the phases, 0 in the padding.
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
        """Applies the attention."""
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
    """Normalises each sample to mean 0 and variance 1 over all its pixels and channels.

    Each sample has `phases` entries in the batch [phases·N, h, w, C]. `inside` is
    [phases·N, h, w, 1], or None for 1 everywhere; where it is 0, `x` is and stays 0. Uses float32.
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
    """Returns the sum over `axes` divided by `count`."""
    return ops.sum(values, axis=axes, keepdims=True) / count


def unit_length(x: Tensor) -> Tensor:
    """Scales vectors along the last axis to length 1; very short ones stay shorter than 1."""
    vectors = ops.cast(x, "float32")  # in float16 the square may overflow, and 1e-8 is 0
    square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    # The root of 0, which occurs in the padding, would have no gradient.
    return ops.cast(vectors / (ops.sqrt(ops.maximum(square, 1e-30)) + 1e-8), x.dtype)


def attend(queries: Tensor, values: Tensor) -> Tensor:
    """Lets tokens attend to each other; many tokens are processed in chunks of queries.

    Takes queries [P, T, E], which are also the keys, and values [P, T, C]; returns [P, T, C].
    """
    problems, tokens, width = ops.shape(queries)
    if isinstance(tokens, int) and tokens == 1:
        return values  # a single token gets all attention; Keras warns of a softmax over one
    known = isinstance(problems, int) and isinstance(tokens, int)
    if known and problems * tokens**2 <= KEPT:
        return _attend(queries, queries, values)
    count = _ceil_divide(tokens, CHUNK // (problems * tokens) + 1)
    size = _ceil_divide(tokens, count)  # queries per problem in a chunk
    padded = ops.pad(queries, ((0, 0), (0, count * size - tokens), (0, 0)))
    chunks = ops.transpose(ops.reshape(padded, (problems, count, size, width)), (1, 0, 2, 3))
    # Recomputes the weights for the gradient instead of keeping them.
    part = keras.remat(_attend)
    outputs = ops.map(lambda chunk: part(chunk, queries, values), chunks)
    outputs = ops.transpose(outputs, (1, 0, 2, 3))
    outputs = ops.reshape(outputs, (problems, count * size, ops.shape(values)[-1]))
    return outputs[:, :tokens]


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return ops.matmul(attention_weights(queries, keys), values)


def attention_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Returns the weight of each key for each query: [P, Q, E], [P, T, E] → [P, Q, T]."""
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

    The last modules of each branch have a `SelfSimilarityAttention`, which sees the whole input.
    Its normalisation takes the mean and variance of all features, so a pixel slightly influences
    its own output. With mean and variance held fixed, the network is blind.

    Args:
        filters, num_modules, channels, **kwargs: see `TwoBranchNetwork`.
        num_attention: int, number of modules at the end of each branch that have attention.
        scale: int, f: each of the d² phases of a branch with dilation d is split into f² sub-grids,
            whose pixels attend to each other.

    Input and output: see `TwoBranchNetwork`; values from 0 to 255.

    Example:
        >>> network = SelfSimilarityBlindSpotNetwork(filters=16, num_modules=3, num_attention=2)
        >>> network(keras.ops.zeros((1, 60, 60, 3))).shape
        (1, 60, 60, 3)

    Raises:
        ValueError: see `TwoBranchNetwork`; also if `filters` is 1, `scale` is below 1, or
            `num_attention` is not in [0, `num_modules`].
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
        # Set before the modules are created, which need them.
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
