"""A noisy series to try the plugin with, without any data."""

from typing import Any

import numpy as np

SHAPE = (64, 128, 128)

_BACKGROUND, _OFFSET = 4.0, 100.0  # photons, and the camera's value for none
_GAIN, _READ_NOISE = 2.0, 3.0  # values of a photon, and deviation of the camera's noise in values


def make_series() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Returns moving blobs as a layer, with the noise of few photons and that of a camera.

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
    random = np.random.default_rng(seed)
    frames, height, width = shape
    size = np.array([height, width])
    rows, columns = np.arange(height)[:, None], np.arange(width)
    photons = np.full(shape, _BACKGROUND)
    for _ in range(max(4, height * width // 500)):
        start, speed = random.uniform(0, 1, 2) * size, random.normal(0, 0.5, 2)
        radius, brightness = random.uniform(1.5, 5), random.uniform(8, 40)
        for frame in range(frames):
            y, x = (start + speed * frame) % size
            # Blobs that leave at one side come back at the other.
            down = (rows - y + height / 2) % height - height / 2
            across = (columns - x + width / 2) % width - width / 2
            photons[frame] += brightness * np.exp(-(down**2 + across**2) / (2 * radius**2))
    noise = random.normal(0, _READ_NOISE, shape)
    noisy = np.rint(_OFFSET + _GAIN * random.poisson(photons) + noise).clip(0, 65535)
    return noisy.astype(np.uint16), (_OFFSET + _GAIN * photons).astype(np.float32)
