"""Image denoisers that are trained without clean images.

Example:
    >>> import cbsn
    >>> clean = cbsn.denoise(noisy, strength=0.7)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbsn.api import adapt, denoise, estimate_noise, evaluate, load, train
    from cbsn.errors import (
        CbsnError,
        CbsnWarning,
        ConfigError,
        DataError,
        ImageError,
        ModelError,
        TrainingError,
        TrainingStopped,
    )
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.options import DenoiseOptions
    from cbsn.recipes import RECIPES, Recipe

__version__ = "0.2.0"

__all__ = [
    "RECIPES",
    "CbsnError",
    "CbsnWarning",
    "ConfigError",
    "DataError",
    "DenoiseOptions",
    "Denoiser",
    "ImageError",
    "ModelError",
    "Recipe",
    "TrainingError",
    "TrainingStopped",
    "adapt",
    "denoise",
    "estimate_noise",
    "evaluate",
    "load",
    "train",
]

_HOMES = {
    "cbsn.errors": [name for name in __all__ if name.endswith(("Error", "Warning", "Stopped"))],
    "cbsn.inference.options": ["DenoiseOptions"],
    "cbsn.inference.denoiser": ["Denoiser"],
    "cbsn.recipes": ["RECIPES", "Recipe"],
    "cbsn.api": ["adapt", "denoise", "estimate_noise", "evaluate", "load", "train"],
}
"""The public names by the module that defines them. They load when they are first used, as
TensorFlow takes seconds to start."""


def __getattr__(name: str) -> Any:
    """Loads a public name; `load_denoiser` is the earlier name of `load`."""
    wanted = "load" if name == "load_denoiser" else name
    for home, names in _HOMES.items():
        if wanted in names:
            if home not in ("cbsn.errors", "cbsn.inference.options"):
                from cbsn.importing import import_tensorflow

                import_tensorflow()
            value = globals()[name] = getattr(importlib.import_module(home), wanted)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns the public names, loaded or not."""
    return [*__all__, "__version__"]
