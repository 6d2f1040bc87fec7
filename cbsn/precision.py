"""In which precision a network's layers compute, and what `auto` takes."""

import os
from pathlib import Path

import keras

from cbsn.errors import ConfigError

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
"""Keras dtype policies; in any of them weights, last layer, loss and metrics are float32."""

# What a processor has, in Linux' words, if it multiplies bfloat16 by itself.
CPU_FEATURES = ("amx_bf16", "avx512_bf16")

# Compute capability of the first NVIDIA GPUs whose matrix units multiply these, the best first.
_OF_GPUS = {"mixed_bfloat16": (8, 0), "mixed_float16": (7, 0)}


def choose_precision(wanted: str) -> tuple[str, str]:
    """Returns what `--precision` stands for, one of `PRECISIONS`, and the reason in words.

    `auto` is mixed_bfloat16 where the hardware multiplies bfloat16 by itself, mixed_float16 on
    NVIDIA GPUs of compute capability 7, and float32 everywhere else. Of several GPUs the one with
    the least decides. Anything else than that and `PRECISIONS` is a ConfigError.
    """
    if wanted in PRECISIONS:
        return wanted, "as asked for"
    if wanted != "auto":
        raise ConfigError(
            f"--precision is auto or one of {', '.join(PRECISIONS)}. Received: {wanted!r}"
        )
    if keras.backend.backend() != "tensorflow":
        return "float32", f"auto does not know the hardware of Keras' {keras.backend.backend()}"
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    # Of a GPU of another maker there is none.
    capabilities = [each.get("compute_capability", (0, 0)) for each in details]
    if capabilities:
        return _choose_for(min(capabilities))
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return "float32", "bfloat16 needs oneDNN, which TF_ENABLE_ONEDNN_OPTS=0 switches off"
    native = [feature for feature in CPU_FEATURES if feature in cpu_flags()]
    if native:
        return "mixed_bfloat16", f"the processor multiplies it ({', '.join(native)})"
    return "float32", f"the processor has none of {', '.join(CPU_FEATURES)}"


def cpu_flags() -> frozenset[str]:
    """Returns what the processor can do, as Linux names it; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(found, "").split())


def _choose_for(capability: tuple[int, int]) -> tuple[str, str]:
    if not any(capability):
        return "float32", "the GPU's driver names no compute capability"
    known = ".".join(map(str, capability))
    for policy, needed in _OF_GPUS.items():
        if capability >= needed:
            return policy, f"the GPU multiplies it (compute capability {known})"
    return "float32", f"the GPU has no fast 16-bit floats (compute capability {known})"
