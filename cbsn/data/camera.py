"""A simulated noisy camera, for pictures whose clean side is known."""

import numpy as np
import scipy

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
