"""Running a network on an engine, in smaller parts if memory runs out."""

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cbsn.devices import has_gpu, is_out_of_memory
from cbsn.errors import CbsnWarning, ConfigError, plain_reason
from cbsn.inference.tiling import Tiling
from cbsn.precision import cpu_flags
from cbsn.recipes import Recipe

ENGINES = ("tensorflow", "openvino")

Run = Callable[[np.ndarray], Any]
"""A function from tiles, float32 [N, h, w, C], to their results. A GPU may still be computing
these; `numpy.asarray` waits for them."""

_OPENVINO_PRECISIONS = {"float32": "f32", "mixed_bfloat16": "bf16"}


def has_attention(network: Any) -> bool:
    """Returns whether a network has self-similarity attention, a loop some runtimes lack."""
    return getattr(network, "num_attention", 0) > 0


def choose_engine(wanted: str, precision: str, network: Any) -> tuple[str, str]:
    """Resolves `--engine`, "auto" or one of `ENGINES`, to an engine and the reason in words.

    `auto` is OpenVINO where it is installed and known to be faster: in bfloat16 on processors with
    AMX.

    Raises:
        ConfigError: if `wanted` is unknown or not installed, or cannot run the network, or not in
            the given precision.
    """
    if wanted not in ("auto", *ENGINES):
        raise ConfigError(
            f"--engine must be auto or one of {', '.join(ENGINES)}. Received: {wanted!r}"
        )
    installed = importlib.util.find_spec("openvino") is not None
    if wanted == "openvino":
        if keras.backend.backend() != "tensorflow":
            raise ConfigError(
                "OpenVINO needs the TensorFlow backend. Received: --engine openvino, with "
                f"KERAS_BACKEND={keras.backend.backend()}"
            )
        if not installed:
            raise ConfigError(
                "OpenVINO is not installed: pip install 'cbsn[openvino]' (from a clone: "
                "pip install '.[openvino]'), or omit --engine. Received: --engine openvino"
            )
        if has_attention(network):
            raise ConfigError(
                "OpenVINO cannot compute self-similarity attention: omit --engine. "
                "Received: --engine openvino, with an SS-BSN network"
            )
        if precision not in _OPENVINO_PRECISIONS:
            raise ConfigError(
                f"OpenVINO computes only in {' or '.join(_OPENVINO_PRECISIONS)}. "
                f"Received: --engine openvino --precision {precision}"
            )
    if wanted != "auto":
        return wanted, "as requested"
    if keras.backend.backend() != "tensorflow":
        return "tensorflow", f"OpenVINO needs the TensorFlow backend, not {keras.backend.backend()}"
    if precision != "mixed_bfloat16" or "amx_bf16" not in cpu_flags() or has_gpu():
        return "tensorflow", "OpenVINO is faster only with bfloat16 on a processor with AMX"
    if has_attention(network):
        return "tensorflow", "OpenVINO cannot compute self-similarity attention"
    if not installed:
        return "tensorflow", "OpenVINO, faster on this processor, is not installed"
    return "openvino", "faster than TensorFlow in bfloat16 on a processor with AMX"


def compile_network(recipe: Recipe, network: Any, engine: str, *, blind: bool) -> Run:
    """Returns a network's pass as a function of arrays. One graph serves tiles of all sizes.

    On other Keras backends, the engine "tensorflow" runs the network without a graph.
    """
    if engine == "openvino":
        return _openvino(recipe, network, blind)
    if keras.backend.backend() != "tensorflow":
        return network_pass(recipe, network, blind)

    @functools.cache
    def graph() -> Any:  # made by the first call, as some denoisers are never called
        # As a concrete function: TensorFlow warns of those that it traces for each model anew.
        return make_graph(recipe, network, blind=blind).get_concrete_function()

    return lambda x: graph()(x)


def network_pass(recipe: Recipe, network: Any, blind: bool) -> Callable[[Any], Any]:
    """Returns a network as a function of tensors. For the border "reflect" it omits the halo."""
    padding = "valid" if recipe.border == "reflect" else "same"
    return lambda x: network(x, blind=blind, padding=padding)


def make_graph(recipe: Recipe, network: Any, *, blind: bool) -> Any:
    """Returns `network_pass` as a `tf.function` of tiles, float32 [N, h, w, C] of any size."""
    import tensorflow as tf

    signature = tf.TensorSpec((None, None, None, network.channels), tf.float32)
    return tf.function(
        network_pass(recipe, network, blind), input_signature=[signature], autograph=False
    )


def _openvino(recipe: Recipe, network: Any, blind: bool) -> Run:
    import openvino

    precision = network.dtype_policy.name
    if precision != "float32":
        # OpenVINO lowers the precision of a float32 network itself, without a mixed one's casts.
        weights = network.get_weights()
        network = recipe.build_network("float32")
        network.set_weights(weights)
    graph = make_graph(recipe, network, blind=blind)
    model = openvino.convert_model(graph.get_concrete_function())
    # Without a hint, OpenVINO computes in bfloat16 wherever the processor has it.
    hint = {"INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[precision]}
    request = openvino.Core().compile_model(model, "CPU", hint).create_infer_request()

    def run(x: np.ndarray) -> np.ndarray:
        try:
            return request.infer([x])[0].copy()
        except RuntimeError as error:
            raise ConfigError(
                "OpenVINO cannot compute this network on this processor: use --engine tensorflow. "
                f"Received: --engine openvino, in {precision} ({plain_reason(error)})"
            ) from error

    return run


class Calls:
    """Calls networks on a device, and retries with less when memory runs out.

    It retries with fewer tiles, then with parts of a tile that overlap by the halo. The results of
    a local network stay the same. A size that once was too large is not tried again.

    Args:
        tiling: gives the border, halo and multiple of the networks.
        pixels: int, the most pixels to compute at once. A single tile may have more.
    """

    def __init__(self, tiling: Tiling, pixels: int):
        self._tiling = tiling
        self._pixels = pixels
        self._too_many = math.inf
        self._failed: tuple[int, ...] | None = None

    def tiles(self, height: int, width: int) -> int:
        """Returns how many tiles of a size to compute at once, at least 1."""
        return max(1, int(min(self._pixels, self._too_many // 2)) // (height * width))

    def start(self, run: Run, x: np.ndarray) -> Any:
        """Begins a call. A GPU computes it while the host does something else.

        The caller must not change the tiles `x`, float32 [n, h, w, C], before the result is there.
        Returns the value to pass to `finish` as `started`.
        """
        if math.prod(x.shape[:3]) < self._too_many:
            try:
                return run(x)
            except Exception as error:
                self._note(error, x)
        return None

    def finish(self, run: Run, x: np.ndarray, started: Any) -> np.ndarray:
        """Waits for the result of a call begun by `start` with the same arguments.

        Raises:
            MemoryError: if memory does not suffice for the smallest part of a tile.
        """
        if started is not None:
            try:
                y = np.asarray(started)
            except Exception as error:
                self._note(error, x)
            else:
                self._warn(x)
                return y
        if len(x) > 1:
            return np.concatenate([self._call(run, part) for part in np.array_split(x, 2)])
        return self._call_by_halves(run, x)

    def _call(self, run: Run, x: np.ndarray) -> np.ndarray:
        return self.finish(run, x, self.start(run, x))

    def _note(self, error: Exception, x: np.ndarray) -> None:
        """Notes that memory did not suffice for these tiles; re-raises any other error."""
        if not is_out_of_memory(error):
            raise error
        self._too_many = min(self._too_many, math.prod(x.shape[:3]))
        self._failed = self._failed or x.shape

    def _warn(self, x: np.ndarray) -> None:
        """Warns, after a lack of memory, which smaller size succeeded."""
        if self._failed is None:
            return
        (count, *before), (fewer, height, width, _) = self._failed[:3], x.shape
        self._failed = None
        text = f"Too little memory for {count} × {before[0]} × {before[1]} pixels at once"
        if [height, width] == before:
            text += f": using {fewer} × {height} × {width} instead"
        else:
            tile = max(1, min(height, width) - 2 * self._tiling.halo)
            text += (
                f": using {height} × {width} instead, which takes longer; cbsn denoise --tile "
                f"{tile} does so from the start"
            )
        warnings.warn(text, CbsnWarning, stacklevel=2)

    def _call_by_halves(self, run: Run, x: np.ndarray) -> np.ndarray:
        """Computes one tile in two parts, which overlap by the halo."""
        halo, multiple = self._tiling.halo, self._tiling.multiple
        omits = self._tiling.border == "reflect"
        axis = 1 if x.shape[1] >= x.shape[2] else 2
        size = x.shape[axis]
        result = size - 2 * halo * omits
        # Below four times the halo, the halves would be hardly smaller than the whole.
        if size < 4 * halo or result < 2 * multiple:
            raise MemoryError(
                f"too little memory even for {x.shape[1]} × {x.shape[2]} pixels at once"
            )
        middle = -(-result // (2 * multiple)) * multiple
        stop, start = (middle + 2 * halo, middle) if omits else (middle + halo, middle - halo)
        first = self._call(run, x.take(range(stop), axis))
        second = self._call(run, x.take(range(start, size), axis))
        rest = second.take(range(middle - start, second.shape[axis]), axis)
        return np.concatenate([first.take(range(middle), axis), rest], axis)
