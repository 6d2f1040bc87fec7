"""What converting a denoiser to other formats has in common."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from cbsn.errors import CbsnError, ConfigError, ModelError
from cbsn.export.graph_denoiser import GraphDenoiser
from cbsn.export.names import COLOR_STRENGTH, DENOISED, IMAGES, STRENGTH
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
