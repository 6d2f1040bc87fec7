"""Calls of a network, in parts where there is too little memory for them."""

import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cbsn.devices import has_gpu, is_out_of_memory
from cbsn.errors import CbsnWarning, ConfigError, plain_reason
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


class Room:
    """How much is computed at once, and what turned out to be too much.

    One object serves all networks that compute on a device.

    Args:
        pixels: int, how many pixels are computed at once, if they are those of small tiles.
    """

    def __init__(self, pixels: int):
        self._pixels = pixels
        self._too_many = math.inf
        self._failed: tuple[int, ...] | None = None

    def tiles(self, height: int, width: int) -> int:
        """Returns how many tiles of a size are to be computed at once, at least 1."""
        return max(1, int(min(self._pixels, self._too_many // 2)) // (height * width))

    def has(self, x: np.ndarray) -> bool:
        """Whether tiles [n, h, w, C] are fewer than what has failed."""
        return math.prod(x.shape[:3]) < self._too_many

    def failed(self, x: np.ndarray) -> None:
        """Notes that there was no memory for tiles [n, h, w, C]."""
        self._too_many = min(self._too_many, math.prod(x.shape[:3]))
        self._failed = self._failed or x.shape

    def worked(self, x: np.ndarray, halo: int) -> None:
        """Notes that there was memory for tiles [n, h, w, C]; says so if there was none before."""
        if self._failed is None:
            return
        (count, *before), (fewer, height, width, _) = self._failed[:3], x.shape
        self._failed = None
        text = f"There is too little memory for {count} × {before[0]} × {before[1]} pixels at once"
        if [height, width] == before:
            text += f": {fewer} × {height} × {width} are taken instead"
        else:
            tile = max(1, min(height, width) - 2 * halo)
            text += (
                f": {height} × {width} are taken instead, which takes longer; the --tile {tile} of "
                "infer.py has it so from the start"
            )
        warnings.warn(text, CbsnWarning, stacklevel=2)


class Calls:
    """Calls a network; where memory does not suffice, again with less.

    First with fewer tiles, then with parts of a tile that overlap by the halo. The results of a
    network that is local stay the same.

    Args:
        run: the network's pass over tiles.
        halo: int, its receptive-field radius.
        multiple: int, its `size_multiple`.
        border: one of `cbsn.recipes.BORDERS`. With "reflect" `run` omits the halo.
        room: what is known of the memory.
    """

    def __init__(self, run: Run, *, halo: int, multiple: int, border: str, room: Room):
        self._run = run
        self._halo = halo
        self._multiple = multiple
        self._valid = border == "reflect"
        self.room = room

    def start(self, x: np.ndarray) -> Any:
        """Begins a call, which a GPU goes on with while the host does something else.

        Args:
            x: float32 [n, h, w, C], which stays as it is until the result is there.

        Returns:
            What `finish` takes.
        """
        if self.room.has(x):
            try:
                return self._run(x)
            except Exception as error:
                self._take(error, x)
        return None

    def finish(self, x: np.ndarray, started: Any) -> np.ndarray:
        """Waits for the result of a call.

        Args:
            x: as given to `start`.
            started: what that returned.

        Raises:
            MemoryError: if memory does not suffice for the smallest part of a tile.
        """
        if started is not None:
            try:
                y = np.asarray(started)
            except Exception as error:
                self._take(error, x)
            else:
                self.room.worked(x, self._halo)
                return y
        if len(x) > 1:
            return np.concatenate([self._call(part) for part in np.array_split(x, 2)])
        return self._call_by_halves(x)

    def _call(self, x: np.ndarray) -> np.ndarray:
        return self.finish(x, self.start(x))

    def _take(self, error: Exception, x: np.ndarray) -> None:
        """Notes that memory did not suffice; raises what else went wrong."""
        if not is_out_of_memory(error):
            raise error
        self.room.failed(x)

    def _call_by_halves(self, x: np.ndarray) -> np.ndarray:
        """Has one tile computed in two parts, each of which sees what it needs of the other."""
        axis = 1 if x.shape[1] >= x.shape[2] else 2
        size = x.shape[axis]
        result = size - 2 * self._halo * self._valid
        # Below four times the halo, halves would be hardly smaller than the whole.
        if size < 4 * self._halo or result < 2 * self._multiple:
            raise MemoryError(
                f"there is too little memory even for {x.shape[1]} × {x.shape[2]} pixels at once"
            )
        middle = -(-result // (2 * self._multiple)) * self._multiple
        stop, start = middle + self._halo, middle - self._halo
        if self._valid:
            stop, start = stop + self._halo, middle
        first, second = (
            self._call(np.ascontiguousarray(part))
            for part in (_along(x, axis, 0, stop), _along(x, axis, start, size))
        )
        kept = _along(second, axis, middle - start, second.shape[axis])
        return np.concatenate([_along(first, axis, 0, middle), kept], axis)


def _along(x: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    """A piece of one axis."""
    return x[(slice(None),) * axis + (slice(start, stop),)]
