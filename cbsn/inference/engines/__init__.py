"""What runs the networks: TensorFlow, OpenVINO or ONNX Runtime."""

from cbsn.inference.engines.engine import Engine, Run, has_attention, make_graph, network_pass
from cbsn.inference.engines.onnxruntime import PROVIDERS, OnnxRuntime
from cbsn.inference.engines.openvino import OpenVINO
from cbsn.inference.engines.tensorflow import TensorFlow

__all__ = ["ENGINES", "Engine", "Run", "has_attention", "make_graph", "network_pass"]

_ALL: tuple[Engine, ...] = (TensorFlow(), OpenVINO(), *map(OnnxRuntime, PROVIDERS))

ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}
"""The engines by their names for `--engine`."""
