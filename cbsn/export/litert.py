"""A denoiser for LiteRT, which was TensorFlow Lite."""

from pathlib import Path

import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.export.conversion import converting, make_function
from cbsn.files import atomic_path
from cbsn.inference.denoiser import Denoiser


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
