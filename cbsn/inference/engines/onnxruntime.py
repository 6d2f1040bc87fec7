"""ONNX Runtime, whose execution providers run on CPUs and on the GPUs of many makers."""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from cbsn.errors import ConfigError, plain_reason
from cbsn.files import captured_stderr
from cbsn.inference.engines import cache
from cbsn.inference.engines.engine import (
    Engine,
    Frozen,
    Run,
    RunsByShape,
    filters,
    frozen_in_float32,
    has_attention,
)
from cbsn.machine import available_cores
from cbsn.recipes import Recipe

PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-directml": "DmlExecutionProvider",
    "onnxruntime-coreml": "CoreMLExecutionProvider",
    "onnxruntime-webgpu": "WebGpuExecutionProvider",
    "onnxruntime-rocm": "ROCMExecutionProvider",
    "onnxruntime-migraphx": "MIGraphXExecutionProvider",
}
"""ONNX Runtime's names of what computes, by the engine's name."""

OPSET = 17
_MODEL = "model.onnx"
_SIZES = {2: ("count", "height", "width"), 3: ("count", "depth", "height", "width")}
"""Names of the sizes of the graph's input, which may be fixed later, by a network's dimensions."""


class OnnxRuntime(Engine):
    """Runs networks without attention by one of `PROVIDERS`, in float32."""

    def __init__(self, name: str):
        self.name = name
        self._provider = PROVIDERS[name]
        # Drivers of GPUs have returned wrong pixels without an error.
        self.is_checked = self._provider != "CPUExecutionProvider"

    def bytes_per_pixel(self, network: Any) -> int:
        """Returns twice what TensorFlow takes in float32."""
        return 2 * 10 * filters(network) * 4

    def missing(self) -> str | None:  # noqa: D102
        if keras.backend.backend() != "tensorflow":
            return (
                "ONNX Runtime needs the TensorFlow backend: set KERAS_BACKEND=tensorflow, not "
                f"{keras.backend.backend()}"
            )
        absent = [
            name
            for name in ("onnxruntime", "tf2onnx", "onnx")
            if importlib.util.find_spec(name) is None
        ]
        if absent:
            return (
                f"{' and '.join(absent)} not installed: pip install 'cbsn[onnxruntime]' (from a "
                "clone: pip install '.[onnxruntime]'), or omit --engine"
            )
        if not self.is_checked:  # the CPU is always there
            return None
        there = load_onnxruntime().get_available_providers()
        if self._provider not in there:
            return (
                f"This ONNX Runtime has no {self._provider}, but {', '.join(there)}: install the "
                "variant of onnxruntime that has it, or omit --engine"
            )
        return None

    def unfit(self, network: Any, precision: str) -> str | None:  # noqa: D102
        if has_attention(network):
            return "ONNX Runtime takes too long for self-similarity attention, as SS-BSN has it"
        if precision not in ("auto", "float32"):
            return "ONNX Runtime computes only in float32: omit --precision or --engine"
        return None

    def compile(  # noqa: D102
        self, recipe: Recipe, network: Any, *, blind: bool, single: Frozen | None = None
    ) -> Run:
        onnxruntime = load_onnxruntime()
        frozen = single or frozen_in_float32(recipe, network, blind=blind)

        @functools.cache
        def converted() -> bytes:
            return _converted(recipe, network, blind, frozen)

        def make(shape: tuple[int, ...] | None) -> Run:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = available_cores()
            options.log_severity_level = 3  # errors
            for name, size in zip(_SIZES[network.dimensions], shape or (), strict=False):
                options.add_free_dimension_override_by_name(name, size)
            session = onnxruntime.InferenceSession(converted(), options, providers=[self._provider])
            (tiles,) = session.get_inputs()
            return lambda x: session.run(None, {tiles.name: x})[0]

        runs = RunsByShape(make)

        def run(x: np.ndarray) -> np.ndarray:
            try:
                return runs(x)
            except Exception as error:  # its own classes, which are no public ones
                raise ConfigError(
                    "ONNX Runtime cannot compute this network here: use --engine tensorflow. "
                    f"Received: --engine {self.name} ({plain_reason(error)})"
                ) from error

        return run


@functools.cache
def load_onnxruntime() -> Any:
    """Returns the package, whose builds for Windows would report to their makers."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _converted(recipe: Recipe, network: Any, blind: bool, frozen: Frozen) -> bytes:
    """Returns a network's pass as an ONNX model of tiles of any size."""
    import tf2onnx

    name = cache.name_of("onnx", tf2onnx.__version__, recipe, network, blind)
    if folder := cache.find(name):
        return (folder / _MODEL).read_bytes()
    function = frozen()
    with captured_stderr(), _without_copies():
        model, _ = tf2onnx.convert.from_graph_def(
            function.graph.as_graph_def(),
            input_names=[tensor.name for tensor in function.inputs],
            output_names=[tensor.name for tensor in function.outputs],
            opset=OPSET,
        )
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for size, dimension in zip(_SIZES[network.dimensions], dimensions, strict=False):
        dimension.dim_param = size
    content = model.SerializeToString()
    cache.keep(name, lambda folder: (folder / _MODEL).write_bytes(content))
    return content


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Keeps tf2onnx from copying all weights before each of its optimisations, to undo it."""
    variable = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(variable)
    os.environ[variable] = "FALSE"
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before
