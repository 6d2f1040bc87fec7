"""A simulated camera and its noise."""

import numpy as np
import scipy

from cbsn.colors import to_linear, to_srgb

BAYER = ((0, 1), (1, 2))  # colour that each pixel of a 2 × 2 cell of the sensor sees: RGGB
WHITE_BALANCE = (2.0, 1.0, 1.6)  # gains of red, green and blue, as in daylight

_QUARTERS = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4  # red and blue: every fourth pixel
_HALVES = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4  # green: every second


def expose(
    image: np.ndarray, *, shot: float, read: float, random: np.random.Generator
) -> np.ndarray:
    """Photographs a picture anew, with a noisy camera.

    The picture is made linear, seen through a Bayer mosaic, given Poisson-Gaussian noise,
    demosaiced (bilinearly), white-balanced, clipped and given the sRGB curve. The demosaicing
    smears the noise, so that it is correlated between neighbours like that of a real sRGB
    photograph, and its strength depends on the brightness.

    Args:
        image: float [H, W, 3] in [0, 1], sRGB, noise-free; H, W ≥ 2.
        shot: ≥ 0, variance of the shot noise of a pixel that the light just saturates, in units of
            saturation (the reciprocal of its electrons).
        read: ≥ 0, standard deviation of the read noise, in units of saturation. With 0 for both,
            the result is the picture to compare with.
        random: draws the shot noise, then the read noise.

    Returns:
        float64, same shape, in [0, 1], sRGB, not rounded.
    """
    if image.dtype.kind != "f" or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 2:
        raise ValueError(
            "The camera takes float [H, W, 3] with sides of 2 or more. "
            f"Received: {image.dtype} {image.shape}"
        )
    if shot < 0 or read < 0:
        raise ValueError(f"shot and read must be 0 or above. Received: shot={shot}, read={read}")
    rows, columns = np.indices(image.shape[:2]) % 2
    seen = np.eye(3)[np.array(BAYER)[rows, columns]]  # [H, W, 3], 1 where the sensor sees it
    signal = (to_linear(image) / WHITE_BALANCE * seen).sum(axis=-1)
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
    return to_srgb(np.clip(np.stack(planes, axis=-1) * WHITE_BALANCE, 0.0, 1.0))


def simulate_camera(
    image: np.ndarray, *, shot: float = 0.01, read: float = 0.02, seed: int = 0
) -> np.ndarray:
    """Photographs a picture anew, as `expose` does, from 8 bits to 8 bits.

    The same seed gives the same noise.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"simulate_camera takes uint8 pictures. Received: {image.dtype}")
    random = np.random.default_rng(seed)
    exposed = expose(image / 255.0, shot=shot, read=read, random=random)
    return np.rint(exposed * 255).astype(np.uint8)
