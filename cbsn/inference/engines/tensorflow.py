"""TensorFlow, or the Keras backend that takes its place."""

import functools
from typing import Any, Literal

import keras

from cbsn.devices import has_gpu
from cbsn.inference.engines.engine import Engine, Frozen, Run, make_graph, network_pass
from cbsn.recipes import Recipe


class TensorFlow(Engine):
    """Runs all networks in all precisions, on the CPU or an NVIDIA GPU.

    On other Keras backends, it runs the network without a graph.
    """

    name = "tensorflow"

    @property
    def shapes(self) -> Literal["any", "one for all pictures"]:
        """On a GPU one for all pictures, as the first call with another one takes seconds."""
        return "one for all pictures" if has_gpu() else "any"

    def missing(self) -> None:
        """Returns None: it is always there."""

    def unfit(self, network: Any, precision: str) -> None:
        """Returns None: it computes everything."""

    def compile(  # noqa: D102
        self, recipe: Recipe, network: Any, *, blind: bool, single: Frozen | None = None
    ) -> Run:
        if keras.backend.backend() != "tensorflow":
            return network_pass(recipe, network, blind)

        @functools.cache
        def graph() -> Any:  # made by the first call, as some denoisers are never called
            # As a concrete function: TensorFlow warns of those that it traces for each model anew.
            return make_graph(recipe, network, blind=blind).get_concrete_function()

        return lambda x: graph()(x)
