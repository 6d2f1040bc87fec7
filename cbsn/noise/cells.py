"""A simulated time series of a fluorescence microscope, to try things on."""

from collections.abc import Iterator

import numpy as np

_OFFSET = 100.0  # counts of the camera without light
_READ_NOISE = 3.0  # counts
_BACKGROUND = 8.0  # photons
_CELLS_PER_PIXEL = 1 / 6500
_SPOTS = 6  # bright spots in a cell


def simulate_cells(
    frames: int, height: int, width: int, *, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the frames of a time series, with and without noise.

    Cells with bright spots drift, turn and wobble, and never leave the picture. A camera of gain 2
    counts them with Poisson noise, and adds read noise of a standard deviation of 3 counts and an
    offset of 100.

    Args:
        frames: int ≥ 1, the number of frames.
        height: int, of a frame in pixels.
        width: int, of a frame in pixels.
        seed: int ≥ 0, for everything random.

    Yields:
        The noisy frame, uint16, and the clean one, float32, both [height, width] in counts.

    Example:
        >>> noisy, clean = next(simulate_cells(1, 128, 128))
    """
    random = np.random.default_rng(seed)
    count = max(3, round(height * width * _CELLS_PER_PIXEL))
    place = random.uniform(0, (height, width), (count, 2))
    speed = random.normal(0, 1, (count, 2))
    angle, spin = random.uniform(0, np.pi, count), random.normal(0, 0.03, count)
    axes = random.uniform(9, 22, (count, 2))
    brightness = random.uniform(15, 50, count)
    spots = random.uniform(-0.6, 0.6, (count, _SPOTS, 2))
    for number in range(frames):
        photons = np.full((height, width), _BACKGROUND)
        for cell in range(count):
            wobble = 1 + 0.08 * np.sin(0.2 * number + cell)
            turn = angle[cell] + spin[cell] * number
            turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            size = axes[cell] * wobble
            # Reflected at the edges.
            center = place[cell] + speed[cell] * number
            period = 2 * np.array([height, width], float)
            center = np.abs((center + period / 2) % period - period / 2)
            _add(photons, center, turned, size, brightness[cell], power=3)
            for spot in spots[cell]:
                _add(photons, center + turned @ (spot * size), turned, (1.6, 2.2), 60.0, power=1)
        counts = 2 * random.poisson(photons) + random.normal(_OFFSET, _READ_NOISE, photons.shape)
        noisy = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
        yield noisy, (2 * photons + _OFFSET).astype(np.float32)


def _add(
    image: np.ndarray, center: np.ndarray, turned: np.ndarray, size, height: float, power: int
) -> None:
    """Adds an ellipse, exp(−r^(2·power)/2), where it is not 0."""
    reach = int(3 * max(size)) + 1
    top, left = (np.rint(center) - reach).astype(int)
    rows = np.arange(max(0, top), min(image.shape[0], top + 2 * reach))
    columns = np.arange(max(0, left), min(image.shape[1], left + 2 * reach))
    if not rows.size or not columns.size:
        return
    offsets = np.stack(np.meshgrid(rows - center[0], columns - center[1], indexing="ij"), -1)
    radius = ((offsets @ turned / size) ** 2).sum(axis=-1)
    image[np.ix_(rows, columns)] += height * np.exp(-(radius**power) / 2)
