"""The precision in which a network's layers compute, and how `auto` chooses it."""

import os
from pathlib import Path

import keras

from cbsn.errors import ConfigError, brief

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
"""Keras dtype policies; in all of them, weights, last layer, loss and metrics are float32."""

# Linux's names for the features of processors that multiply bfloat16 natively.
CPU_FEATURES = ("amx_bf16", "avx512_bf16")

# Planes of a volume from which oneDNN's gradients of convolutions are right in bfloat16.
_LEAST_DEPTH = 3

# Lowest compute capability of NVIDIA GPUs whose matrix units multiply these; the best comes first.
_OF_GPUS = {"mixed_bfloat16": (8, 0), "mixed_float16": (7, 0)}


def choose_precision(wanted: str, depth: int | None = None) -> tuple[str, str]:
    """Returns the one of `PRECISIONS` that `--precision` selects, and the reason in words.

    `auto` selects mixed_bfloat16 where the hardware multiplies bfloat16 natively, mixed_float16 on
    NVIDIA GPUs of compute capability 7, and float32 everywhere else. With several GPUs, the lowest
    capability decides.

    Args:
        wanted: the value of `--precision`.
        depth: planes of the thinnest volumes that a network is trained on, or halves them to.
            Default None, for networks of planes, and to denoise.

    Raises:
        ConfigError: if `wanted` is neither `auto` nor one of `PRECISIONS`, or is mixed_bfloat16
            where gradients would be wrong: on CPUs, in volumes of one or two planes.
    """
    if wanted in PRECISIONS:
        if wanted == "mixed_bfloat16" and _is_too_thin(depth):
            raise ConfigError(
                "--precision mixed_bfloat16 gives wrong gradients on CPUs where a network in three "
                f"dimensions halves its patches to fewer than {_LEAST_DEPTH} planes: use patches "
                f"of more planes, or --precision float32. Received: {depth} after the halvings"
            )
        return wanted, "as requested"
    if wanted != "auto":
        raise ConfigError(
            f"--precision must be auto or one of {', '.join(PRECISIONS)}. Received: {brief(wanted)}"
        )
    if keras.backend.backend() != "tensorflow":
        return "float32", f"auto cannot see the hardware of the {keras.backend.backend()} backend"
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    # GPUs of other makers have none.
    capabilities = [each.get("compute_capability", (0, 0)) for each in details]
    if capabilities:
        return _choose_for(min(capabilities))
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return "float32", "bfloat16 needs oneDNN, which TF_ENABLE_ONEDNN_OPTS=0 switches off"
    native = [feature for feature in CPU_FEATURES if feature in cpu_flags()]
    if native and _is_too_thin(depth):
        return "float32", f"gradients in bfloat16 need {_LEAST_DEPTH} planes after the halvings"
    if native:
        return "mixed_bfloat16", f"the processor multiplies it natively ({', '.join(native)})"
    return "float32", f"the processor has none of {', '.join(CPU_FEATURES)}"


def _is_too_thin(depth: int | None) -> bool:
    """Returns whether gradients in volumes of so few planes would be wrong in bfloat16 here."""
    if depth is None or depth >= _LEAST_DEPTH or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    uses_onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
    return uses_onednn and not tf.config.get_visible_devices("GPU")


def cpu_flags() -> frozenset[str]:
    """Returns the processor's features, as Linux names them; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(found, "").split())


def _choose_for(capability: tuple[int, int]) -> tuple[str, str]:
    if not any(capability):
        return "float32", "the GPU's driver reports no compute capability"
    known = ".".join(map(str, capability))
    for policy, needed in _OF_GPUS.items():
        if capability >= needed:
            return policy, f"the GPU multiplies it natively (compute capability {known})"
    return "float32", f"the GPU has no fast 16-bit floats (compute capability {known})"
