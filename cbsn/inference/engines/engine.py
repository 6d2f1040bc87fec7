"""What an engine is, and what engines share."""

import abc
import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from cbsn.networks.layers import portable_form
from cbsn.recipes import Recipe

Run = Callable[[np.ndarray], Any]
"""A function from tiles, float32 [N, h, w, C] or of volumes [N, z, h, w, C], to their results. A
GPU may still be computing these; `numpy.asarray` waits for them."""

Frozen = Callable[[], Any]
"""A function that makes a graph with constant weights, a concrete function, when it is first
called, and returns the same again."""

_OFTEN = 4  # calls in a row after which a shape gets a form of its own


class Engine(abc.ABC):
    """Runs networks on some hardware.

    Attributes:
        name: str, its name for `--engine`.
        is_checked: bool, whether its results are compared with TensorFlow's on the CPU before it is
            used; see `cbsn.inference.engines.choice.check`.
    """

    name: str
    is_checked = False

    def bytes_per_pixel(self, network: Any) -> int:
        """Returns about how much memory a network takes for each pixel of its input."""
        size = 4 if network.dtype_policy.compute_dtype == "float32" else 2
        return 10 * filters(network) * size  # measured; most of it is the finest features

    @property
    def shapes(self) -> Literal["any", "one for each picture", "one for all pictures"]:
        """Which shapes tiles should have, as an engine may have to prepare for each new one."""
        return "one for each picture"

    @abc.abstractmethod
    def missing(self) -> str | None:
        """Returns how to install what is missing; None if the engine is there."""

    @abc.abstractmethod
    def unfit(self, network: Any, precision: str) -> str | None:
        """Returns why the engine cannot compute a network; None if it can.

        `precision` is what was asked for: "auto" if the engine may choose another precision than
        the network's.
        """

    @abc.abstractmethod
    def compile(
        self, recipe: Recipe, network: Any, *, blind: bool, single: Frozen | None = None
    ) -> Run:
        """Returns a network's pass. For the border "reflect" its result is smaller by the halo.

        `single` is `frozen_in_float32` of the same arguments, for those who have it already.
        """


class RunsByShape:
    """Runs a network in a form for the shape of its input that comes most, and one for all others.

    A form for one shape is faster, but takes a moment to make, and memory. So there is one at a
    time: for the first shape, until another one has come `_OFTEN` times in a row.

    Args:
        make: function from a shape, or None for all shapes, to the network's pass.
    """

    def __init__(self, make: Callable[[tuple[int, ...] | None], Run]):
        self._make = make
        self._runs: dict[tuple[int, ...] | None, Run] = {}
        self._last: tuple[int, ...] | None = None
        self._times = 0

    def __call__(self, x: np.ndarray) -> Any:
        """Runs the network on tiles, float32 [N, (z,) h, w, C]."""
        self._times = self._times + 1 if x.shape == self._last else 1
        self._last = x.shape
        if x.shape in self._runs:
            return self._runs[x.shape](x)
        if not self._runs or self._times >= _OFTEN:
            self._runs = {key: run for key, run in self._runs.items() if key is None}
            self._runs[x.shape] = self._make(x.shape)
            return self._runs[x.shape](x)
        if None not in self._runs:
            self._runs[None] = self._make(None)
        return self._runs[None](x)


def on_multiples(run: Run, network: Any) -> Run:
    """Returns a network's pass that is only given sizes that are multiples of its grid.

    It pads tiles at the bottom and the right, as the networks do themselves.
    """
    multiples = [network.grid] * 2
    if network.dimensions == 3:
        multiples.insert(0, network.z_grid)

    def padded(x: np.ndarray) -> Any:
        sizes = x.shape[1:-1]
        for axis, (size, multiple) in enumerate(zip(sizes, multiples, strict=True), 1):
            if size % multiple:
                whole = -(-size // multiple) * multiple
                if network.padding_mode == "zeros":
                    margins = [(0, 0)] * x.ndim
                    margins[axis] = (0, whole - size)
                    x = np.pad(x, margins)
                    continue
                places = np.arange(whole)
                x = x.take(np.maximum(size - 1 - np.abs(size - 1 - places), 0), axis)
        return run(x)[(slice(None), *map(slice, sizes))]

    return run if max(multiples) == 1 else padded


def filters(network: Any) -> int:
    """Returns how many channels a network's finest features have, if it says so; else 64.

    What a network computes of its samples, if it predicts some, takes as much as two channels of
    each.
    """
    samples = getattr(network, "samples", 0)
    return getattr(network, "filters", 64) + (2 * samples * network.channels if samples else 0)


def has_attention(network: Any) -> bool:
    """Returns whether a network has self-similarity attention, a loop some runtimes lack."""
    return getattr(network, "num_attention", 0) > 0


def in_float32(recipe: Recipe, network: Any) -> Any:
    """Returns a network with the same weights whose layers compute in float32."""
    if network.dtype_policy.name == "float32":
        return network
    single = recipe.build_network(fresh=False)
    single.set_weights(network.get_weights())
    return single


def network_pass(
    recipe: Recipe, network: Any, blind: bool, *, portable: bool = False
) -> Callable[[Any], Any]:
    """Returns a network as a function of tensors. For the border "reflect" it omits the halo.

    What is `portable` may run in another runtime or on another machine, with a GPU or without.
    """
    padding = "valid" if recipe.border == "reflect" else "same"

    def run(x: Any) -> Any:
        with portable_form() if portable else contextlib.nullcontext():
            return network(x, blind=blind, padding=padding)

    return run


def make_graph(recipe: Recipe, network: Any, *, blind: bool, portable: bool = False) -> Any:
    """Returns `network_pass` as a `tf.function` of tiles, float32 [N, (z,) h, w, C] of any size."""
    import tensorflow as tf

    sizes = (None,) * (network.dimensions + 1)
    signature = tf.TensorSpec((*sizes, network.channels), tf.float32)
    return tf.function(
        network_pass(recipe, network, blind, portable=portable),
        input_signature=[signature],
        autograph=False,
    )


def frozen_in_float32(recipe: Recipe, network: Any, *, blind: bool) -> Frozen:
    """Returns what makes `make_graph` of a network in float32, with constant weights.

    Converters start from it. It takes a while to make, so engines do without where they can.
    """

    @functools.cache
    def frozen() -> Any:
        # TensorFlow has no public name for this, which its own converters start with, too.
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        single = in_float32(recipe, network)
        graph = make_graph(recipe, single, blind=blind, portable=True)
        return convert_variables_to_constants_v2(graph.get_concrete_function())

    return frozen
