"""A denoiser for ONNX."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

import cbsn
from cbsn.errors import ConfigError
from cbsn.export.conversion import converting, make_function
from cbsn.export.names import COLOR_STRENGTH, DENOISED, IMAGES, STRENGTH
from cbsn.files import atomic_path
from cbsn.inference.denoiser import Denoiser

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
        "self_ensemble": str(denoiser.self_ensemble),
    }
    onnx.helper.set_model_props(model, facts)
