"""Pairs of a noisy and a clean photograph, with just the noise that was measured."""

from typing import Any

from keras import ops

from cbsn.augmentation.clean import relight, shrink, turn
from cbsn.augmentation.draws import Draws
from cbsn.augmentation.noise import NoiseTables, add_measured_noise
from cbsn.noise.measured_noise import MeasuredNoise

Tensor = Any

_LIGHT = (0.3, 1.0)
"""How much is left of the light, of the pictures that are put into another one."""


class OwnNoiseAugmentation:
    """Makes pairs to learn from, on the device that trains.

    As `cbsn.data.retake.Retake` does, a picture that a teacher has denoised is made 2, 3 or 4 times
    smaller, which leaves it sharp and clean; turned; half of the time put into another light; and
    then given noise of the strength, and the correlation of pixels and channels, that was measured.

    All is `keras.ops`, on any backend, and a function of the random numbers that it is given.

    Args:
        noise: what is added: its models, and how many times as strong.
        size: int, side of the pairs in pixels.

    Example:
        >>> augment = OwnNoiseAugmentation(MeasuredNoise(pictures, gain=(0.5, 2.0)), 64)
        >>> noisy, clean = ops.split(augment(denoised, StepRandom(0, step, 8)), 2, axis=-1)
    """

    def __init__(self, noise: MeasuredNoise, size: int):
        self._noise = noise
        self._size = size
        self._tables = NoiseTables.on_device(noise.models, size)

    def __call__(self, pictures: Tensor, random: Any) -> Tensor:
        """Makes a pair of each picture.

        Args:
            pictures: float32 [N, P, P, C] in [0, 1], denoised, P at least the size of the pairs. If
                it is not twice as large, the pictures keep their scale.
            random: gives `random.uniform(shape)` in [0, 1) and `random.normal(shape)`, float32,
                where the shape begins with N.

        Returns:
            float32 [N, size, size, 2·C] in [0, 1], not rounded: the noisy channels, then the clean
            ones.
        """
        rows, _, _, channels = pictures.shape
        # Three to shrink, three to turn, light and tints, model and gain.
        draws = Draws(random, rows, 10 + channels)
        clean = turn(shrink(pictures, self._size, draws), draws)
        clean = ops.clip(relight(clean, draws, _LIGHT), 0.0, 1.0)
        noisy = add_measured_noise(clean, self._tables, self._noise.gain, draws, random)
        return ops.concatenate([noisy, clean], axis=-1)

    def __str__(self) -> str:
        return str(self._noise)
