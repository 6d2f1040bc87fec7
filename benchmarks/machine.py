"""Describes the machine that a measurement is taken on."""

import os
import platform
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from cbsn.precision import CPU_FEATURES, cpu_flags


def describe() -> dict[str, Any]:
    """Returns facts about the machine and the libraries, by name; fit for JSON."""
    cpu = _cpu_info()
    flags = cpu_flags()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "CPU": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": cores,
        "memory": _memory(),
        **{flag: "yes" if flag in flags else "no" for flag in CPU_FEATURES},
        "GPU": ", ".join(_gpus()) or "none",
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
    }


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


def _gpus() -> list[str]:
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [detail.get("device_name", "unknown") for detail in details]
