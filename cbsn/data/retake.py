"""Photographs that nobody has taken, for a student to learn from."""

import io

import numpy as np
from PIL import Image

from cbsn.data.augment import NUM_ORIENTATIONS, orient
from cbsn.data.noise import Noise
from cbsn.value_range import value_range

_SHRINKS = (2, 3, 4)
_SCALES = (1, 1, 1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 7 / 16)
_DARKEST = 0.3
_QUALITIES = (75, 98)
_SHARE_DARK, _SHARE_JPEG = 0.5, 0.3


class Retake:
    """Takes a picture anew, with noise, as many kinds of cameras and programs might have done.

    A denoised photograph is soft, and still has faults. Made 2, 3 or 4 times smaller it is sharp,
    and next to free of them: as clean as any. It is made darker, half of the time; given noise;
    enlarged up to 2.3 times, so that noise and blur reach farther; and compressed as a JPEG, three
    times in ten.

    Args:
        noise: what is added.
        size: int, side of the results in pixels.

    Example:
        >>> retake = Retake(Noise.parse("camera", "0.3-8", "30-3000"), 64)
        >>> noisy, clean = np.split(retake(picture, np.random.default_rng(0)), 2, axis=-1)
    """

    def __init__(self, noise: Noise, size: int):
        self._noise = noise
        self._size = size

    def __call__(self, picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a noisy picture and the clean one of it.

        Args:
            picture: uint8, uint16 or float in [0, 1], [P, P, C] with C of 1 or 3 and P at least
                the size of the results.
            random: draws all that varies.

        Returns:
            float32 [size, size, 2·C] in units of [0, 1], the noisy picture's channels first.

        Raises:
            ConfigError: as `Noise` does.
        """
        inner = max(2, round(self._size * random.choice(_SCALES)))
        times = min(int(random.choice(_SHRINKS)), len(picture) // inner)
        room = len(picture) - inner * times + 1
        top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
        window = picture[top : top + inner * times, left : left + inner * times]
        clean = _shrunk(orient(window, orientation), times)
        if random.random() < _SHARE_DARK:
            clean = clean * np.float32(random.uniform(_DARKEST, 1))
        both = [self._noise(clean, random), self._noise.clean(clean)]
        if inner < self._size:
            both = [_enlarged(each, self._size) for each in both]
        if random.random() < _SHARE_JPEG:
            both[0] = _compressed(both[0], int(random.integers(*_QUALITIES)))
        return np.concatenate(both, axis=-1)


def _shrunk(image: np.ndarray, times: int) -> np.ndarray:
    """The means of cells of `times` × `times` pixels, float32 in units of [0, 1]."""
    height, width, channels = image.shape
    cells = image.reshape(height // times, times, width // times, times, channels)
    return cells.mean(axis=(1, 3), dtype=np.float32) / np.float32(value_range(image.dtype))


def _enlarged(image: np.ndarray, size: int) -> np.ndarray:
    planes = [
        Image.fromarray(np.ascontiguousarray(plane)).resize((size, size), Image.Resampling.BICUBIC)
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels).save(
        file, "JPEG", quality=quality
    )
    decoded = np.asarray(Image.open(file), np.float32) / np.float32(255)
    return decoded.reshape(image.shape)
