"""Describes the machine and the libraries, for bug reports and next to measurements."""

import os
import platform
from pathlib import Path
from typing import Any

import keras

from cbsn.precision import CPU_FEATURES, cpu_flags


def describe() -> dict[str, Any]:
    """Returns facts about the machine and the libraries, by name; fit for JSON.

    Example:
        >>> describe()["cores"]
        8
    """
    import tensorflow as tf

    flags = cpu_flags()
    return {
        "system": platform.platform(),
        "CPU": processor(),
        "cores": available_cores(),
        "memory": _memory(),
        **{flag: "yes" if flag in flags else "no" for flag in CPU_FEATURES},
        "GPU": ", ".join(_gpus(tf)) or "none",
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": f"{keras.__version__}, backend {keras.backend.backend()}",
    }


def processor() -> str:
    """Returns the name of the processor."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def available_cores() -> int:
    """Returns how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_info() -> dict[str, str]:
    """Returns the first processor's entries in /proc/cpuinfo; empty if there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = text.split("\n\n")[0].splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{size / 2**30:.1f} GiB"


def _gpus(tf: Any) -> list[str]:
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    names = []
    for each in details:
        capability = ".".join(map(str, each.get("compute_capability", ())))
        suffix = f" (compute capability {capability})" if capability else ""
        names.append(each.get("device_name", "unknown") + suffix)
    return names
