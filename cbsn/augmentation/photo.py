"""Makes pairs of a noisy and a clean photograph from pictures that a teacher has denoised.

Everything uses `keras.ops`, on any backend, and is a function of the given random numbers.
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

# Factor of the brightness of pictures that `OwnNoiseAugmentation` puts into another light.
_LIGHT = (0.3, 1.0)

# Share of the pictures that `PhotoAugmentation` may make crisper than a lens draws them or give a
# fine pattern.
_CRISP = 0.25

_FAMILY = NoiseFamily()


class OwnNoiseAugmentation:
    """Makes training pairs with measured noise, on the training device.

    A picture that a teacher has denoised is downscaled by 2, 3 or 4, which leaves it sharp and
    clean, turned and, half of the time, put into another light. Then it gets noise with the
    measured strength and the measured correlation of pixels and channels.

    Args:
        models: noise models from `measure_noise`.
        size: side of the pairs in pixels.
        gain: lowest and highest factor > 0 of the noise, drawn log-uniformly.

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
        """Makes a pair from each picture.

        Args:
            pictures: float32 [N, P, P, C] in [0, 1], denoised; P is at least the size of the pairs.
                If it is less than twice the size, the pictures keep their scale.
            random: provides `random.uniform(shape)` in [0, 1) and `random.normal(shape)`, float32,
                where the shape begins with N.

        Returns:
            float32 [N, size, size, 2·C] in [0, 1], not rounded: the noisy channels, then the clean
            ones.
        """
        rows, _, _, channels = pictures.shape
        # Three for `shrink`, three for `turn`, 2 + C for `relight`, one each for model and gain.
        draws = Draws(random, rows, 10 + channels)
        picture = clean.turn(clean.shrink(pictures, self._size, draws), draws)
        picture = ops.clip(clean.relight(picture, draws, _LIGHT), 0.0, 1.0)
        noisy = add_measured_noise(picture, self._tables, self._gain, draws, random)
        return ops.concatenate([noisy, picture], axis=-1)

    def __str__(self) -> str:
        gain = range_text(self._gain)
        return f"noise measured in {_places(self._tables)}, {gain} times as strong"


class PhotoAugmentation:
    """Makes varied training pairs with real or processed noise, on the training device.

    A picture that a teacher has denoised is downscaled and turned, as by `OwnNoiseAugmentation`.
    Some are made softer or sharper, get a fine pattern, or are put into another light and other
    colours. Then they get noise like that of cameras or of JPEGs from cameras and programs, from
    almost none to more than real pictures have. Some get no noise.

    Args:
        models: noise models from `measure_noise`, with 1 or 3 channels.
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
                f"JPEG-compressed patches need sides that are a multiple of {jpeg.MULTIPLE}: use "
                f"--patch_size {below}. Received: --patch_size {size}"
            )
        self._size = size
        self._family = family
        self._tables = NoiseTables.of(models, size)

    def __call__(self, pictures: Tensor, random: Any) -> Tensor:
        """Makes a pair from each picture, see `OwnNoiseAugmentation`; noisy ones have 8 bits."""
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
