"""OpenVINO, which is made by Intel and runs on the processors of all makers."""

import functools
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cbsn.errors import ConfigError, plain_reason
from cbsn.importing import hidden
from cbsn.inference.engines import cache
from cbsn.inference.engines.engine import (
    Engine,
    Frozen,
    Run,
    RunsByShape,
    frozen_in_float32,
    has_attention,
    on_multiples,
)
from cbsn.recipes import Recipe

_PRECISIONS = {"float32": "f32", "mixed_bfloat16": "bf16"}
_MODEL = "model.xml"


class OpenVINO(Engine):
    """Runs networks without attention on the CPU, in float32 or bfloat16."""

    name = "openvino"

    def missing(self) -> str | None:  # noqa: D102
        if keras.backend.backend() != "tensorflow":
            return (
                "OpenVINO needs the TensorFlow backend: set KERAS_BACKEND=tensorflow, not "
                f"{keras.backend.backend()}"
            )
        if importlib.util.find_spec("openvino") is None:
            return (
                "OpenVINO is not installed: pip install 'cbsn[openvino]' (from a clone: "
                "pip install '.[openvino]'), or omit --engine"
            )
        return None

    def unfit(self, network: Any, precision: str) -> str | None:  # noqa: D102
        if has_attention(network):
            return "OpenVINO cannot compute self-similarity attention, as SS-BSN has it"
        if network.dtype_policy.name not in _PRECISIONS:
            return f"OpenVINO computes only in {' or '.join(_PRECISIONS)}"
        return None

    def compile(  # noqa: D102
        self, recipe: Recipe, network: Any, *, blind: bool, single: Frozen | None = None
    ) -> Run:
        openvino = _openvino()
        precision = network.dtype_policy.name
        # Without a hint, OpenVINO computes in bfloat16 wherever the processor has it.
        hint = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision]}
        core = _core()
        # OpenVINO lowers the precision of a float32 network by itself, without casts.
        frozen = single or frozen_in_float32(recipe, network, blind=blind)

        @functools.cache
        def converted() -> Any:
            name = cache.name_of("openvino", openvino.__version__, recipe, network, blind)
            if folder := cache.find(name):
                return core.read_model(folder / _MODEL)
            model = _converted(frozen().graph.as_graph_def())
            cache.keep(
                name,
                lambda folder: openvino.save_model(model, folder / _MODEL, compress_to_fp16=False),
            )
            return model

        def make(shape: tuple[int, ...] | None) -> Run:
            model = converted().clone()
            if shape is not None:
                model.reshape(shape)
            request = core.compile_model(model, "CPU", hint).create_infer_request()
            return lambda x: request.infer([x])[0].copy()

        runs = RunsByShape(make)

        def run(x: np.ndarray) -> np.ndarray:
            try:
                return runs(x)
            except RuntimeError as error:
                raise ConfigError(
                    "OpenVINO cannot compute this network on this processor: use --engine "
                    f"tensorflow. Received: --engine openvino, in {precision} "
                    f"({plain_reason(error)})"
                ) from error

        # For a fixed shape, OpenVINO 2026.4 computes wrong pixels where a U-Net reflects itself.
        return on_multiples(run, network)


def _converted(graph: Any) -> Any:
    """Returns a `tf.compat.v1.GraphDef` as a model of OpenVINO."""
    # `openvino.convert_model` takes twice as long, and reports to its makers over the network.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.pb")
        path.write_bytes(graph.SerializeToString())
        return _core().read_model(path)


@functools.cache
def _core() -> Any:
    """Returns OpenVINO's devices, the same for the whole process.

    The CPU's gives the thread a stack for signal handlers of its own, and puts back at its end the
    one that it found. Of several that do not end in the reverse order of their beginning, one puts
    back a stack that is no longer there, and the next signal, such as Ctrl-C, is a crash.
    """
    return _openvino().Core()


def _openvino() -> Any:
    """Returns the package, which would report its import to its makers over the network."""
    with hidden("openvino_telemetry"):
        import openvino
    return openvino
