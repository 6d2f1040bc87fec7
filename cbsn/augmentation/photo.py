"""Pairs of a noisy and a clean photograph out of what a teacher has denoised.

All is `keras.ops`, on any backend, and a function of the random numbers that it is given.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from cbsn.augmentation import clean, jpeg, noise
from cbsn.augmentation.clean import Draws
from cbsn.augmentation.noise import NoiseFamily, NoiseTables, add_measured_noise, add_noise
from cbsn.errors import ConfigError
from cbsn.noise.measured_noise import CorrelatedNoise
from cbsn.noise.synthetic import range_text

Tensor = Any

# How much is left of the light, of the pictures of `OwnNoiseAugmentation` in another one.
_LIGHT = (0.3, 1.0)

# Share of the pictures of `PhotoAugmentation` that are made as crisp as no lens draws them, or get
# a fine pattern.
_CRISP = 0.25

_FAMILY = NoiseFamily()


class OwnNoiseAugmentation:
    """Makes pairs to learn from, on the device that trains.

    A picture that a teacher has denoised is made 2, 3 or 4 times smaller, which leaves it sharp and
    clean; turned; half of the time put into another light; and then given noise of the strength,
    and the correlation of pixels and channels, that was measured.

    Args:
        models: what is added, from `measure_noise`.
        size: side of the pairs in pixels.
        gain: lowest and highest factor > 0 of the noise, drawn uniformly in its logarithm.

    Example:
        >>> augment = OwnNoiseAugmentation(measure_noise(pictures), 64, gain=(0.5, 2.0))
        >>> noisy, clean = ops.split(augment(denoised, StepRandom(0, step, 8)), 2, axis=-1)
    """

    def __init__(
        self, models: Sequence[CorrelatedNoise], size: int, gain: tuple[float, float] = (1.0, 1.0)
    ):
        self._size = size
        self._gain = gain
        self._tables = NoiseTables.of(models, size)

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
        picture = clean.turn(clean.shrink(pictures, self._size, draws), draws)
        picture = ops.clip(clean.relight(picture, draws, _LIGHT), 0.0, 1.0)
        noisy = add_measured_noise(picture, self._tables, self._gain, draws, random)
        return ops.concatenate([noisy, picture], axis=-1)

    def __str__(self) -> str:
        gain = range_text(self._gain)
        return f"noise measured in {_places(self._tables)}, {gain} times as strong"


class PhotoAugmentation:
    """Makes pairs to learn from, on the device that trains.

    A picture that a teacher has denoised is made smaller and turned, as by `OwnNoiseAugmentation`;
    and, now and then, made softer or sharper, given a fine pattern, and put in another light and
    other colours. Then it gets noise like that of real pictures, from next to nothing to more than
    they have, as cameras give it and as JPEGs of cameras and programs have it; some get none.

    Args:
        models: measured noise, from `measure_noise`; of 1 or 3 channels.
        size: side of the pairs in pixels, a multiple of `jpeg.MULTIPLE`.
        family: how strong the noise is.

    Example:
        >>> augment = PhotoAugmentation(measure_noise(pictures), 64)
        >>> noisy, clean = ops.split(augment(denoised, StepRandom(0, step, 8)), 2, axis=-1)

    Raises:
        ConfigError: if the size is not a multiple of `jpeg.MULTIPLE`.
    """

    def __init__(self, models: Sequence[CorrelatedNoise], size: int, family: NoiseFamily = _FAMILY):
        if size % jpeg.MULTIPLE:
            below = max(size // jpeg.MULTIPLE, 1) * jpeg.MULTIPLE
            raise ConfigError(
                f"Patches that are compressed as JPEGs have sides of a multiple of {jpeg.MULTIPLE}:"
                f" take --patchsize {below}. Received: --patchsize {size}"
            )
        self._size = size
        self._family = family
        self._tables = NoiseTables.of(models, size)

    def __call__(self, pictures: Tensor, random: Any) -> Tensor:
        """Makes a pair of each picture, as `OwnNoiseAugmentation` does; noisy ones have 8 bits."""
        draws = Draws(random, pictures.shape[0], 1 + clean.DRAWS + noise.DRAWS)
        crisp = draws.happens(_CRISP)
        picture = clean.shrink(pictures, self._size, draws, crisp)
        picture = clean.vary(clean.turn(picture, draws), draws, crisp)
        noisy = add_noise(picture, crisp, self._tables, self._family, draws, random)
        return ops.concatenate([noisy, picture], axis=-1)

    def __str__(self) -> str:
        gain = "{:g} to {:g}".format(*self._family.processed_gain)
        return f"noise as measured in {_places(self._tables)}, {gain} times as strong"


def _places(tables: NoiseTables) -> str:
    count = len(tables.linear)
    return f"{count} place{'s' * (count > 1)}"
