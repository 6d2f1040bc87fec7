"""What can be added to a picture in training."""

from typing import Protocol

import numpy as np


class PictureNoise(Protocol):
    """Noise for pictures whose clean side is known: `Noise`, or `MeasuredNoise`."""

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a picture [H, W, C] with noise, float32 in units of [0, 1]."""

    def clean(self, image: np.ndarray) -> np.ndarray:
        """Returns what the noisy picture is to be compared with, likewise."""

    def check(self, channels: int) -> None:
        """Raises `ConfigError` for pictures of a number of channels that it cannot be added to."""
