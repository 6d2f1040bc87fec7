"""Choosing GPUs, and the `tf.distribute` strategy that goes with them."""

import tensorflow as tf

from cbsn.cluster import Cluster
from cbsn.errors import ConfigError, plain_reason


def select_gpus(wanted: str | None) -> int:
    """Makes TensorFlow see the GPUs that `--gpu` asks for. Call before anything runs.

    Args:
        wanted: None for whatever there is, "all", or numbers such as "0" or "0,1".

    Returns:
        How many GPUs are in use; 0 means the CPU.

    Raises:
        ConfigError: if a GPU is asked for that is not there, or the text is neither.
    """
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
    # float32 shall mean it: TensorFlow would multiply in TF32 on recent GPUs, with 10 bits of
    # mantissa. Who wants speed says --precision mixed_bfloat16.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return len(gpus)


def make_strategy(cluster: Cluster | None = None, cpu_devices: int = 1) -> tf.distribute.Strategy:
    """Returns the strategy for the visible devices. Call before anything runs.

    Args:
        cluster: processes that share the work, from `Cluster.read`; it returns when all of them
            have called it. None for this process alone.
        cpu_devices: int ≥ 1, without GPUs: logical devices to split the CPU into.

    Returns:
        `MultiWorkerMirroredStrategy` for several processes, `MirroredStrategy` for several GPUs or
        logical CPU devices, and else TensorFlow's default.

    Raises:
        ConfigError: if the settings do not fit each other, or this process cannot take part.
    """
    gpus = tf.config.get_visible_devices("GPU")
    if cpu_devices < 1 or (cpu_devices > 1 and (gpus or cluster)):
        raise ConfigError(
            "--cpu_devices must be at least 1, and 1 with GPUs or several workers. "
            f"Received: --cpu_devices {cpu_devices}, {len(gpus)} GPUs, "
            f"{len(cluster.addresses) if cluster else 1} workers"
        )
    if cluster:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise ConfigError(
                f"Worker {cluster.index} cannot take part at {cluster.addresses[cluster.index]}: "
                f"{plain_reason(error)}. Check the addresses in TF_CONFIG, and that this one is "
                "free."
            ) from error
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    if cpu_devices > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * cpu_devices,
        )
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpu_devices)])
    return tf.distribute.get_strategy()


def _no_gpu(flag: str, found: int) -> str:
    there = f"TensorFlow sees {found} GPU{'s' if found != 1 else ''}"
    if found:
        there += f", numbered 0 to {found - 1}"
    return (
        f"{there}. Received: {flag}. Leave --gpu away to run on what there is; for an NVIDIA GPU "
        "install the driver and `pip install 'cbsn[gpu]'` (from a clone: pip install '.[gpu]')."
    )
