"""What computes a network's pass over tiles: TensorFlow, or OpenVINO on a CPU."""

import importlib.util
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cbsn.devices import has_gpu
from cbsn.errors import ConfigError, plain_reason
from cbsn.precision import cpu_flags
from cbsn.recipes import Recipe

ENGINES = ("tensorflow", "openvino")

Run = Callable[[np.ndarray], Any]
"""From tiles, float32 [N, h, w, C], to their results, which a GPU may still be computing:
`numpy.asarray` waits for them."""

_OPENVINO_PRECISIONS = {"float32": "f32", "mixed_bfloat16": "bf16"}


def choose_engine(wanted: str, precision: str, *, has_loop: bool = False) -> tuple[str, str]:
    """Resolves `--engine`.

    Args:
        wanted: "auto" or one of `ENGINES`. `auto` is OpenVINO where it is installed and
            known to be faster: in bfloat16 on processors with AMX.
        precision: the network's.
        has_loop: whether the network's graph has a loop, such as that over attention's chunks.

    Returns:
        One of `ENGINES`, and the reason in words.

    Raises:
        ConfigError: if `wanted` is neither, not installed, or cannot compute the network or in
            the precision.
    """
    if wanted not in ("auto", *ENGINES):
        raise ConfigError(f"--engine is auto or one of {', '.join(ENGINES)}. Received: {wanted!r}")
    installed = importlib.util.find_spec("openvino") is not None
    if wanted == "openvino":
        if keras.backend.backend() != "tensorflow":
            raise ConfigError(
                "OpenVINO reads the network from TensorFlow. Received: --engine openvino, with "
                f"KERAS_BACKEND={keras.backend.backend()}"
            )
        if not installed:
            raise ConfigError(
                "OpenVINO is not installed: pip install 'cbsn[openvino]' (from a clone: "
                "pip install '.[openvino]'), or omit --engine. Received: --engine openvino"
            )
        if has_loop:
            raise ConfigError(
                "OpenVINO cannot compute self-similarity attention: omit --engine. "
                "Received: --engine openvino, with a network of SS-BSN's"
            )
        if precision not in _OPENVINO_PRECISIONS:
            raise ConfigError(
                f"OpenVINO computes in {' or '.join(_OPENVINO_PRECISIONS)}. "
                f"Received: --engine openvino --precision {precision}"
            )
    if wanted != "auto":
        return wanted, "as asked for"
    if keras.backend.backend() != "tensorflow":
        return "tensorflow", f"the network as it is, on Keras' {keras.backend.backend()}"
    if precision != "mixed_bfloat16" or "amx_bf16" not in cpu_flags() or has_gpu():
        return "tensorflow", "OpenVINO gains only with bfloat16 on a processor with AMX"
    if has_loop:
        return "tensorflow", "OpenVINO cannot compute self-similarity attention"
    if not installed:
        return "tensorflow", "OpenVINO, faster on this processor, is not installed"
    return "openvino", "faster than TensorFlow in bfloat16 on a processor with AMX"


def compile_network(recipe: Recipe, network: Any, engine: str, *, blind: bool, padding: str) -> Run:
    """Returns a network's pass as a function of arrays.

    One graph serves tiles of all sizes.

    Args:
        recipe: of the network.
        network: called as `network(x, blind=…, padding=…)`.
        engine: one of `ENGINES`. On Keras' other backends "tensorflow" runs the network as it
            is.
        blind: whether the network is to be blind.
        padding: "same", or "valid" for results that are less the halo on each side.
    """
    options = {"blind": blind, "padding": padding}
    if engine == "openvino":
        return _openvino(recipe, network, options)
    if keras.backend.backend() != "tensorflow":
        return lambda x: network(x, **options)
    return make_graph(network, blind=blind, padding=padding)


def make_graph(network: Any, **options: Any) -> Any:
    """Returns a network's pass as a `tf.function` of tiles, float32 [N, h, w, C] of any size.

    Args:
        network: as for `compile_network`.
        **options: `blind` and `padding`, likewise.
    """
    import tensorflow as tf

    signature = tf.TensorSpec((None, None, None, network.channels), tf.float32)
    return tf.function(
        lambda x: network(x, **options), input_signature=[signature], autograph=False
    )


def _openvino(recipe: Recipe, network: Any, options: dict[str, Any]) -> Run:
    import openvino

    precision = network.dtype_policy.name
    if precision != "float32":
        # OpenVINO reduces a float32 network by itself, without the casts of a mixed one.
        weights = network.get_weights()
        network = recipe.build_network("float32")
        network.set_weights(weights)
    model = openvino.convert_model(make_graph(network, **options).get_concrete_function())
    # Unless told, it computes in bfloat16 wherever the processor has it.
    hint = {"INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[precision]}
    request = openvino.Core().compile_model(model, "CPU", hint).create_infer_request()

    def run(x: np.ndarray) -> np.ndarray:
        try:
            return request.infer([x])[0].copy()
        except RuntimeError as error:
            raise ConfigError(
                "OpenVINO cannot compute this network on this processor: take --engine tensorflow. "
                f"Received: --engine openvino, in {precision} ({plain_reason(error)})"
            ) from error

    return run
