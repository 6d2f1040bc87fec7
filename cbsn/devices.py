"""Choosing GPUs, and the `tf.distribute` strategy that goes with them."""

import tensorflow as tf

from cbsn.errors import ConfigError


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


def make_strategy() -> tf.distribute.Strategy:
    """Returns the strategy for the visible devices: mirrored over several GPUs, else none."""
    if len(tf.config.get_visible_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _no_gpu(flag: str, found: int) -> str:
    there = f"TensorFlow sees {found} GPU{'s' if found != 1 else ''}"
    if found:
        there += f", numbered 0 to {found - 1}"
    return (
        f"{there}. Received: {flag}. Leave --gpu away to run on what there is; for an NVIDIA GPU "
        "install the driver and `pip install 'cbsn[gpu]'` (from a clone: pip install '.[gpu]')."
    )
