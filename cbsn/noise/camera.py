"""A simulated camera: its noise, and pictures taken anew by it."""

from typing import Protocol

import numpy as np
import scipy

from cbsn.orientations import NUM_ORIENTATIONS, orient
from cbsn.value_range import value_range


class PictureNoise(Protocol):
    """Noise for pictures whose clean side is known: `Noise`, or `MeasuredNoise`."""

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a picture [H, W, C] with noise, float32 in units of [0, 1]."""

    def clean(self, image: np.ndarray) -> np.ndarray:
        """Returns what the noisy picture is to be compared with, likewise."""

    def check(self, channels: int) -> None:
        """Raises `ConfigError` for pictures of a number of channels that it cannot be added to."""


BAYER = ((0, 1), (1, 2))
"""Colour that each pixel of a 2 × 2 cell of the sensor sees: RGGB."""

WHITE_BALANCE = (2.0, 1.0, 1.6)
"""Gains of red, green and blue, as in daylight."""

_QUARTERS = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4  # red and blue: every fourth pixel
_HALVES = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4  # green: every second


def expose(
    image: np.ndarray,
    *,
    shot: float,
    read: float,
    white_balance: tuple[float, float, float] = WHITE_BALANCE,
    random: np.random.Generator | None = None,
) -> np.ndarray:
    """Photographs a picture anew, with a noisy camera.

    The picture is made linear, seen through a Bayer mosaic, given Poisson-Gaussian noise,
    demosaiced (bilinearly), white-balanced, clipped and given the sRGB curve. The demosaicing
    smears the noise, so that it is correlated between neighbours like that of a real sRGB
    photograph, and its strength depends on the brightness.

    Args:
        image: float [H, W, 3] in [0, 1], sRGB, noise-free; H, W ≥ 2.
        shot: float ≥ 0, variance of the shot noise of a pixel that the light just saturates,
            in units of saturation (the reciprocal of its electrons).
        read: float ≥ 0, standard deviation of the read noise, in units of saturation.
        white_balance: gains of red, green and blue, ≥ 1.
        random: draws the shot noise, then the read noise; needed unless both are 0.

    Returns:
        float64, same shape, in [0, 1], sRGB, not rounded. With `shot=0, read=0` the picture that
        the camera would take without noise: the one to compare with.

    Raises:
        ValueError: if the image is not of that kind, or a value out of its range.
    """
    if image.dtype.kind != "f" or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 2:
        raise ValueError(
            "The camera takes float [H, W, 3] with sides of 2 or more. "
            f"Received: {image.dtype} {image.shape}"
        )
    if shot < 0 or read < 0 or min(white_balance) < 1:
        raise ValueError(
            "shot and read must be 0 or above, gains 1 or above. "
            f"Received: shot={shot}, read={read}, white_balance={white_balance}"
        )
    light = to_linear(image) / white_balance
    seen = _sensor_masks(image.shape[:2])
    signal = (light * seen).sum(axis=-1)
    if shot > 0:
        # Float pictures may lie a little below black, where there is no light.
        signal = random.poisson(np.maximum(signal, 0) / shot) * shot
    if read > 0:
        signal = signal + random.normal(0.0, 1.0, signal.shape) * read
    mosaic = signal[..., None] * seen
    planes = [
        # "mirror" keeps the mosaic's parity beyond the edge.
        scipy.ndimage.convolve(mosaic[..., c], _HALVES if c == 1 else _QUARTERS, mode="mirror")
        for c in range(3)
    ]
    return to_srgb(np.clip(np.stack(planes, axis=-1) * white_balance, 0.0, 1.0))


def simulate_camera(
    image: np.ndarray,
    *,
    shot: float = 0.01,
    read: float = 0.02,
    white_balance: tuple[float, float, float] = WHITE_BALANCE,
    seed: int = 0,
) -> np.ndarray:
    """Photographs a picture anew, as `expose` does, and stores it in 8 bits.

    Args:
        image: uint8 [H, W, 3], sRGB, noise-free; H, W ≥ 2.
        shot: as for `expose`.
        read: likewise.
        white_balance: likewise.
        seed: int ≥ 0; the same seed gives the same noise.

    Returns:
        uint8, same shape. With `shot=0, read=0` the picture to compare with.

    Raises:
        ValueError: if the image is not of that kind, or a value out of its range.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"simulate_camera takes uint8 pictures. Received: {image.dtype}")
    picture = expose(
        image / 255.0,
        shot=shot,
        read=read,
        white_balance=white_balance,
        random=np.random.default_rng(seed),
    )
    return np.rint(picture * 255).astype(np.uint8)


def _sensor_masks(size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3], 1 where a pixel of the sensor sees that colour."""
    rows, columns = np.indices(size) % 2
    return np.eye(3)[np.array(BAYER)[rows, columns]]


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Undoes the sRGB curve (IEC 61966-2-1); any shape, values in [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Applies the sRGB curve (IEC 61966-2-1); any shape, values in [0, 1]."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


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
