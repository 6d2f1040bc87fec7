"""Choosing and setting up GPUs, and measuring memory.

TensorFlow is imported late, so that models load without it on Keras' other backends.
"""

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path

import keras

from cbsn.errors import ConfigError

_MEMORY_RAN_OUT = re.compile(
    r"RESOURCE_EXHAUSTED|out[ _]of[ _]memory|ALLOC_FAILED|bad_alloc"
    r"|failed to allocate|scratch space|No valid config found"
    r"|received an exception: ?Status: 1\b",
    re.IGNORECASE,
)
"""What such errors say, whatever their type."""


def peak_memory() -> float:
    """Returns the largest resident memory of this process so far, in GiB."""
    try:
        # ru_maxrss is useless on Linux: a process inherits that of the one that started it.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        kibibytes = next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        if sys.platform == "win32":
            return _peak_on_windows() / 2**30
        import resource  # Windows has none

        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kibibytes = usage / 1024 if sys.platform == "darwin" else usage
    return kibibytes / 2**20


class _MemoryCounters(ctypes.Structure):
    """`PROCESS_MEMORY_COUNTERS` of the Windows API."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        ("peak_working_set", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 7),
    )


def _peak_on_windows() -> int:
    """Returns the largest working set of this process, in bytes; 0 if Windows does not tell."""
    library = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
    library.GetCurrentProcess.restype = ctypes.c_void_p
    library.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    counters = _MemoryCounters()
    size = ctypes.sizeof(counters)
    library.K32GetProcessMemoryInfo(library.GetCurrentProcess(), ctypes.byref(counters), size)
    return counters.peak_working_set


def reset_peak_memory() -> None:
    """Restarts `peak_memory` from what is resident now, if the system supports it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def set_up() -> None:
    """Makes TensorFlow compute in full float32 and allocate GPU memory as needed.

    Everything that loads or trains a model calls it, any number of times. It does nothing on Keras'
    other backends.

    - TF32 is switched off. On NVIDIA GPUs of compute capability 8.0 and above, TensorFlow would
      multiply float32 with 10 bits of mantissa, and results would differ from the CPU's in the
      third decimal. For speed, use mixed_bfloat16. TensorFlow Serving is a separate program, where
      the environment variable `NVIDIA_TF32_OVERRIDE=0` does the same.
    - Each visible GPU gets memory growth, so that several processes can share it. GPUs that
      TensorFlow already uses cannot be changed and stay as they are. So does a GPU whose memory
      was limited with `tf.config.set_logical_device_configuration`.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    for gpu in tf.config.get_visible_devices("GPU"):
        if tf.config.get_logical_device_configuration(gpu) is None:
            with contextlib.suppress(RuntimeError):  # GPUs are in use
                tf.config.experimental.set_memory_growth(gpu, True)


def choose_convolutions_at_once() -> None:
    """Lets cuDNN choose the algorithms of convolutions by its rules, without trying them out.

    Trying them out makes the first picture take seconds longer, and no later one faster: on an H200
    12 megapixels took 7 to 10 s in place of 4 s for the full-size C-BSN, and 2 s from then on in
    both cases. For all of this process, until its first convolution; the environment variable
    `TF_CUDNN_USE_AUTOTUNE`, if it is set, has priority. XLA tries them out in any case.
    """
    os.environ.setdefault("TF_CUDNN_USE_AUTOTUNE", "0")


def select_gpus(wanted: str | None, *, most: int | None = None) -> int:
    """Makes TensorFlow see only the GPUs that `--gpu` asks for, and sets them up.

    Call it before anything runs on a device. GPUs that are not chosen stay free: TensorFlow would
    take a few hundred MB on each GPU that it sees.

    Args:
        wanted: None for all GPUs, if any; "all"; or numbers such as "0" or "0,1".
        most: int ≥ 1, the largest number of GPUs to use; those with the lowest numbers are taken.

    Returns:
        The number of GPUs in use; 0 means the CPU.

    Raises:
        ConfigError: if there is no such GPU, or GPUs are asked for while others are in use already.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if wanted not in (None, "all"):
        try:
            numbers = sorted({int(number) for number in wanted.split(",")})
        except ValueError:
            raise ConfigError(
                "--gpu takes nothing, a number, or numbers with commas, such as 0,1. "
                f"Received: --gpu {wanted}"
            ) from None
        if numbers[0] < 0 or numbers[-1] >= len(gpus):
            raise ConfigError(_no_gpu(f"--gpu {wanted}", len(gpus)))
        gpus = [gpus[number] for number in numbers]
    elif wanted == "all" and not gpus:
        raise ConfigError(_no_gpu("--gpu", 0))
    gpus = gpus[:most]
    try:
        tf.config.set_visible_devices(gpus, "GPU")
    except RuntimeError as error:
        if wanted is not None:
            raise ConfigError(
                f"GPUs must be chosen before TensorFlow uses them. Received: --gpu {wanted}"
            ) from error
        gpus = tf.config.get_visible_devices("GPU")
    set_up()
    return len(gpus)


def has_gpu() -> bool:
    """Returns whether TensorFlow sees, and thus uses, a GPU; False on Keras' other backends."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error means that the device or the host ran out of memory.

    TensorFlow has an error for that, but where a convolution's workspace does not fit, it raises
    others, such as UnknownError or InternalError, and so do CUDA, cuDNN and ONNX Runtime. XLA, when
    it tries out algorithms and has no memory for any, says only that it found none. Of oneDNN's
    errors TensorFlow gives the number, of which 1 is a lack of memory.
    """
    # By name: JAX has a separate error for it, and TensorFlow may not be imported.
    is_named = type(error).__name__ == "ResourceExhaustedError" or isinstance(error, MemoryError)
    return is_named or _MEMORY_RAN_OUT.search(str(error)) is not None


def _no_gpu(flag: str, found: int) -> str:
    there = f"TensorFlow sees {found} GPU{'s' if found != 1 else ''}"
    if found:
        there += f", numbered 0 to {found - 1}"
    return (
        f"{there}. Received: {flag}. Omit --gpu to run on what there is; for an NVIDIA GPU "
        "install the driver and `pip install 'cbsn[gpu]'` (from a clone: pip install '.[gpu]')."
    )
