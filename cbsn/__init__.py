"""Image denoisers that are trained without clean images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbsn.inference.denoiser import Denoiser

__version__ = "0.2.0"


def load_denoiser(model_path: Any, **options: Any) -> "Denoiser":
    """Loads a trained model as a function from image to image.

    Args:
        model_path: anything that `infer.py --modelpath` takes: a run's folder, a saved-model
            folder, a shipped name, or the prefix of an original TensorFlow 1.15 checkpoint.
        **options: arguments of `cbsn.inference.options.DenoiseOptions`, such as `tile`.

    Returns:
        A callable that maps an array [H, W] or [H, W, C], uint8, uint16 or float in [0, 1], to an
        array of the same shape and dtype.

    Raises:
        cbsn.errors.ConfigError: if an option is invalid or not available here.
        cbsn.errors.ModelError: if there is no such model, or it cannot be read.

    Example:
        >>> denoise = cbsn.load_denoiser("checkpoints/my-run")
        >>> clean = denoise(noisy)
    """
    # Imported here, so that `import cbsn` does not wait for TensorFlow.
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.options import DenoiseOptions

    return Denoiser.load(model_path, DenoiseOptions(**options))
