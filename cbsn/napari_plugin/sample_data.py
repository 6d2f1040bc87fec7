"""A noisy series to try the plugin with, without any data."""

from typing import Any

import numpy as np

from cbsn.noise.cells import simulate_cells

SHAPE = (64, 128, 128)


def make_series() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Returns moving cells as a layer, see `simulate_cells`.

    Example:
        >>> data, settings, kind = make_series()[0]
    """
    noisy, _ = noisy_and_clean()
    settings = {"name": "noisy series", "metadata": {"path": None, "format": "synthetic"}}
    return [(noisy, settings, "image")]


def noisy_and_clean(
    shape: tuple[int, int, int] = SHAPE, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a noisy series, uint16, and the same without noise, float32, both [T, Y, X]."""
    noisy, clean = zip(*simulate_cells(*shape, seed=seed), strict=True)
    return np.stack(noisy), np.stack(clean)
