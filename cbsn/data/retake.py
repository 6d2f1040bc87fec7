"""Photographs that nobody has taken, for a student to learn from."""

import numpy as np

from cbsn.data.augment import NUM_ORIENTATIONS, orient
from cbsn.data.picture_noise import PictureNoise
from cbsn.value_range import value_range

_SHRINKS = (2, 3, 4)
_OTHER_LIGHT, _DARKEST, _TINT = 0.5, 0.3, 0.6
"""The share that is taken in another light; how much of that is left at least, and how much of each
colour, beside, as lamps differ."""


class Retake:
    """Takes a picture anew, with noise.

    A denoised photograph is soft, and still has faults. Made 2, 3 or 4 times smaller it is sharp,
    and next to free of them: as clean as any. Half of the time it is put into another light, less
    of it and of another colour; and then it is given noise. `OwnNoiseAugmentation` does the same
    with measured noise on the device that trains; simulated cameras draw from Poisson's
    distribution, which is left to NumPy.

    Args:
        noise: what is added.
        size: int, side of the results in pixels.

    Example:
        >>> retake = Retake(Noise.parse("camera", "0.3-8", "30-3000"), 64)
        >>> noisy, clean = np.split(retake(picture, np.random.default_rng(0)), 2, axis=-1)
    """

    def __init__(self, noise: PictureNoise, size: int):
        self._noise = noise
        self._size = size

    def __call__(self, picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a noisy picture and the clean one of it.

        Args:
            picture: uint8, uint16 or float in [0, 1], [P, P, C] with C of 1 or 3 and P at least
                the size of the results. If it is not twice as large, it keeps its scale.
            random: draws all that varies.

        Returns:
            float32 [size, size, 2·C] in units of [0, 1], the noisy picture's channels first.

        Raises:
            ConfigError: as the noise does.
        """
        times = min(int(random.choice(_SHRINKS)), len(picture) // self._size)
        side = self._size * times
        room = len(picture) - side + 1
        top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
        window = orient(picture[top : top + side, left : left + side], orientation)
        cells = window.reshape(self._size, times, self._size, times, -1)
        # Addend by addend: NumPy's mean over so few pixels takes five times as long.
        clean = sum(
            cells[:, i, :, j].astype(np.float32) for i in range(times) for j in range(times)
        )
        clean /= np.float32(times**2 * value_range(picture.dtype))
        if random.random() < _OTHER_LIGHT:
            light = random.uniform(_DARKEST, 1) * random.uniform(_TINT, 1, clean.shape[-1])
            clean = clean * light.astype(np.float32)
        return np.concatenate([self._noise(clean, random), self._noise.clean(clean)], axis=-1)
