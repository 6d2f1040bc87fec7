"""LiteRT and ONNX."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import cbsn
from cbsn.client.api import COLOR_STRENGTH, DENOISED, IMAGES, STRENGTH
from cbsn.errors import CbsnError, ConfigError, ModelError
from cbsn.export.graph import GraphDenoiser
from cbsn.files import atomic_path
from cbsn.inference.denoiser import Denoiser


def make_function(
    denoiser: Denoiser, *, takes_strength: bool = False
) -> tf.types.experimental.GenericFunction:
    """Returns a denoiser as a graph that converters can take: float32, in one piece.

    Args:
        denoiser: what is to be converted. Its tiles do not count: memory grows with the picture.
        takes_strength: whether the function also takes `strength` and `color_strength`, float32
            scalars; the second may be negative, to be as the first. Default False: they are the
            denoiser's.

    Returns:
        A `tf.function` of `images`, float32 [N, H, W, C] in [0, 1], C being the network's; it
        returns a dict with `denoised`, of the same kind.

    Raises:
        ConfigError: if the network is not float32.
    """
    network = denoiser.network
    if network.dtype_policy.name != "float32":
        raise ConfigError(
            "What is converted to LiteRT or ONNX is float32: load the model with "
            f"precision='float32'. Received: {network.dtype_policy.name}"
        )
    denoise = GraphDenoiser(denoiser, loops=False)
    signature = [tf.TensorSpec((None, None, None, network.channels), tf.float32, name=IMAGES)]
    if not takes_strength:
        return tf.function(
            lambda images: {DENOISED: denoise(images)}, input_signature=signature, autograph=False
        )

    def blended(images: tf.Tensor, strength: tf.Tensor, color: tf.Tensor) -> dict[str, tf.Tensor]:
        return {DENOISED: denoise(images, strength, tf.where(color < 0, strength, color))}

    signature += [tf.TensorSpec((), tf.float32, name) for name in (STRENGTH, COLOR_STRENGTH)]
    return tf.function(blended, input_signature=signature, autograph=False)


@contextlib.contextmanager
def converting(name: str) -> Iterator[None]:
    """Keeps a converter's chatter off the console, and makes of its errors one of ours.

    Args:
        name: of the format.

    Raises:
        ModelError: if the block raises anything but a `CbsnError`.
    """
    try:
        with _silence():
            yield
    except CbsnError:
        raise
    except Exception as error:  # converters raise whatever they like, and tell their whole graph
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"The model cannot be converted to {name}; a SavedModel (--format saved_model) needs "
            f"no converter. Received: {reason}"
        ) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Throws away what is written to descriptor 2, as the C++ of the converters does."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def write_litert(path: Path, denoiser: Denoiser, *, float16: bool) -> None:
    """Writes a denoiser as a LiteRT model of builtin operations only.

    Its signature `serving_default` takes `images`, float32 [N, H, W, C] in [0, 1] of any N, H and
    W, C being the network's channels, and returns `denoised`, of the same kind. A picture is
    denoised in one piece, with the strength of the denoiser: LiteRT knows no input that may be
    omitted.

    Args:
        path: of the file, `*.tflite`; its folder must exist.
        denoiser: what to write, with its R3, self-ensemble and strength.
        float16: whether weights are stored in 16 bits, which halves the file. LiteRT computes in
            float32 all the same where its hardware has nothing else.

    Raises:
        ConfigError: if the network is one that LiteRT cannot have: SS-BSN's, or not float32.
        ModelError: if it cannot be converted.
        OSError: the file cannot be written; nothing is left of it.

    Example:
        >>> write_litert(Path("model.tflite"), denoiser, float16=False)
        >>> from ai_edge_litert.interpreter import Interpreter
        >>> denoise = Interpreter("model.tflite").get_signature_runner()
        >>> denoise(images=np.zeros((1, 5, 7, 3), np.float32))["denoised"].shape
        (1, 5, 7, 3)
    """
    check_supported(denoiser)
    function = make_function(denoiser)
    with converting("LiteRT"):
        # The weights become constants only if they hang on a module, and a Keras 3 network's are
        # not found by themselves.
        module = tf.Module()
        module.weights = [variable.value for variable in denoiser.network.variables]
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()], module
        )
        if float16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def check_supported(denoiser: Denoiser) -> None:
    """Raises ConfigError if the network is SS-BSN's."""
    if denoiser.network.has_loop:
        raise ConfigError(
            "LiteRT cannot have the loop of self-similarity attention, nor hold it all at once: "
            "leave litert out of --format. "
            f"Received: --format litert, with recipe {denoiser.recipe.name}"
        )


OPSET = 15
"""Old enough for any runtime of the last years (ONNX 1.10, 2021)."""

_AXES = ("N", "H", "W")


def write_onnx(path: Path, denoiser: Denoiser) -> None:
    """Writes a denoiser as an ONNX model.

    It takes `images`, float32 [N, H, W, C] in [0, 1] of any N, H and W, C being the network's
    channels, and returns `denoised`, of the same kind. A picture is denoised in one piece. Its
    metadata say so, and name the recipe and the version of this package.

    Two inputs, float32 scalars, may be omitted: `strength`, from 0 to 1, and `color_strength`, the
    same for colour, or below 0 to be as the first. They are the denoiser's then.

    Args:
        path: of the file, `*.onnx`; its folder must exist.
        denoiser: what to write, with its R3, self-ensemble and strength.

    Raises:
        ConfigError: if tf2onnx is missing, or the network is not float32.
        ModelError: if it cannot be converted.
        OSError: the file cannot be written; nothing is left of it.

    Example:
        >>> write_onnx(Path("model.onnx"), denoiser)
        >>> session = onnxruntime.InferenceSession("model.onnx")
        >>> session.run(None, {"images": np.zeros((1, 5, 7, 3), np.float32)})[0].shape
        (1, 5, 7, 3)
    """
    check_installed()
    function = make_function(denoiser, takes_strength=True)
    with converting("ONNX"):
        import onnx
        import tf2onnx

        model, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=OPSET
        )
        _add_defaults(model, denoiser)
        # Of a node that it cannot convert, tf2onnx says so and goes on.
        onnx.checker.check_model(model)
        _describe(model, denoiser)
        content = model.SerializeToString()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def check_installed() -> None:
    """Raises ConfigError unless there is what `write_onnx` needs."""
    if any(importlib.util.find_spec(name) is None for name in ("tf2onnx", "onnx")):
        raise ConfigError(
            "tf2onnx is not installed: pip install 'cbsn[onnx]' (from a clone: "
            "pip install '.[onnx]'), or leave onnx out of --format. Received: --format onnx"
        )


def _add_defaults(model: Any, denoiser: Denoiser) -> None:
    """Gives the strengths the denoiser's as their default values."""
    import onnx

    share = denoiser.strength
    # A request for another strength is one for that of colour, too, unless the two differ anyway.
    color = -1.0 if share.color == share.luma else share.color
    for name, value in ((STRENGTH, share.luma), (COLOR_STRENGTH, color)):
        # In ONNX, an input that is an initializer as well may be omitted.
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))


def _describe(model: Any, denoiser: Denoiser) -> None:
    """Names the axes, and says what the model is."""
    import onnx

    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=False):
            dimension.dim_param = name
    facts = {
        "recipe": denoiser.recipe.name,
        "cbsn": cbsn.__version__,
        IMAGES: "float32 [N, H, W, C] in [0, 1], RGB or gray as C is 3 or 1",
        DENOISED: f"as {IMAGES}",
        STRENGTH: f"float32 from 0 to 1; without it {denoiser.strength.luma:g}",
        COLOR_STRENGTH: f"for colour; without both {denoiser.strength.color:g}",
        "r3": str(denoiser.r3),
        "self_ensemble": str(denoiser.options.self_ensemble),
    }
    onnx.helper.set_model_props(model, facts)
