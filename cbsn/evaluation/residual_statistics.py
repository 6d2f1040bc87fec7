"""Statistics of the residual (noisy − denoised), as sums that can be pooled over pictures.

Pictures are single channels, float32 [H, W], at least 16 px a side, in 8-bit levels.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.lib.stride_tricks import sliding_window_view

CELL = 8  # side in pixels of the cells whose means and roughness are taken
TONES = 16  # bins of the denoised brightness, equally wide

_EDGES = 0.15  # share of the pixels that count as edges: those with the strongest gradients
_ALONG = (-5, -4, 4, 5)  # offsets in pixels along an edge, from the measured pixel to neighbours
_BLOCK = 32  # side in pixels of blocks that are treated as independent of each other
_SMOOTHEST = 0.05  # share of the picture in which to measure the noise that is left
_LEAST_PLACES, _LEAST_TILES, _MANY_TILES = 64, 8, 256
# Offsets in a tile's spectrum that a pattern fills through a Hann window, and those next to them.
_NEAR, _NEXT = (-1, 0, 1), (-2, 2)


def structure_sums(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Measures how much of the denoised picture's edges is in the residual.

    Detail is the difference of Gaussian blurs of 1 and 2 px. At the edges of the denoised picture,
    its detail f a few pixels further *along* the edge predicts the detail at the edge itself. If r
    and n are the detail of the residual and of the noisy picture there, Σ r·f / Σ n·f is the share
    of the edges' contrast that was removed. On average, noise of any strength adds nothing to
    either sum, because its mean is zero whatever f is. Nor does noise that was left in the denoised
    picture, because it does not reach as far as f.

    Returns float64 [6], sums over the blocks with edges, where a block has a = Σ r·f and
    b = Σ n·f: the number of blocks, Σ a, Σ b, Σ a², Σ ab, Σ b².
    """
    wide = scipy.ndimage.gaussian_filter(denoised, 2)
    shown = scipy.ndimage.gaussian_filter(denoised, 1) - wide
    residual = noisy - denoised
    fine, coarse = (scipy.ndimage.gaussian_filter(residual, sigma) for sigma in (1, 2))
    removed = fine - coarse
    dy, dx = np.gradient(wide)
    steep = np.hypot(dy, dx)
    # Not "greater or equal": where nothing is steep, there is no edge.
    y, x = np.nonzero(steep > np.quantile(steep, 1 - _EDGES))
    length = steep[y, x]
    along_y, along_x = -dx[y, x] / length, dy[y, x] / length
    predicted = sum(
        scipy.ndimage.map_coordinates(
            shown, (y + far * along_y, x + far * along_x), order=1, mode="nearest"
        )
        for far in _ALONG
    )
    block = y // _BLOCK * (noisy.shape[1] // _BLOCK + 1) + x // _BLOCK
    a = np.bincount(block, removed[y, x] * predicted)
    b = np.bincount(block, (removed[y, x] + shown[y, x]) * predicted)
    return np.array(
        [len(np.unique(block)), a.sum(), b.sum(), (a * a).sum(), (a * b).sum(), (b * b).sum()]
    )


def smooth_place_sums(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Sums the roughness of the denoised and of the noisy picture in the smoothest places.

    The roughness of a cell is the sum of squares of what its mean and slope do not explain. A place
    is 2 × 2 cells; the smoothest places are those where the roughness fell most. Elsewhere, and
    everywhere in a small picture, the roughness of the denoised picture may be its texture.

    Returns float64 [2]; both are 0 if fewer than 64 places have noise.
    """
    smooth, rough = (_roughness(plane) for plane in (denoised, noisy))
    # Places clipped to black or white have no noise to remove.
    noise = rough > 0.1 * np.median(rough)
    smooth, rough = smooth[noise], rough[noise]
    if len(rough) < _LEAST_PLACES:
        return np.zeros(2)
    order = np.argsort(smooth / rough)[: int(np.ceil(_SMOOTHEST * len(rough)))]
    return np.array([smooth[order].sum(), rough[order].sum()], np.float64)


def tone_sums(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Sums the residual's moments by the denoised picture's brightness.

    Only the flattest half of the cells counts: where brightness changes, smoothing moves it from
    cell to cell, which is no shift.

    Returns float64 [TONES, 6], sums over the cells of each tone, where r is the residual and m its
    mean in a cell: the number of cells, Σ m, Σ m², Σ mean of r², Σ mean of r³, Σ share of noisy
    pixels that are clipped.
    """
    tone = _in_cells(denoised).mean((1, 3))
    residual = noisy - denoised
    clipped = np.zeros(noisy.shape, np.float32)
    # Noise that was added in floats and never clipped extends beyond both ends.
    if noisy.min() >= 0:
        clipped += noisy <= 0
    if noisy.max() <= 255:
        clipped += noisy >= 255
    around = sliding_window_view(np.pad(tone, 1, mode="edge"), (3, 3))
    contrast = around.max((2, 3)) - around.min((2, 3))
    flat = contrast <= np.median(contrast)
    mean, square, cube, clipped = (
        _in_cells(plane).mean((1, 3))[flat]
        for plane in (residual, residual**2, residual**3, clipped)
    )
    bins = np.clip(tone[flat] * (TONES / 256), 0, TONES - 1).astype(int)
    kept = (np.ones_like(mean), mean, mean**2, square, cube, clipped)
    return np.stack([np.bincount(bins, each, TONES) for each in kept], axis=-1)


def grid_power(noisy: np.ndarray, denoised: np.ndarray, stride: int) -> np.ndarray:
    """Measures the power of a grid pattern in the denoised picture that is not in the noisy one.

    It is measured at multiples of 1/stride cycles per pixel, except those that grids of a shorter
    period share, in the flattest half of the picture's tiles of 8 × stride pixels a side. A pattern
    is found in one of two ways. A grid that comes and goes has more power than the neighbouring
    frequencies, horizontally and vertically; the noisy picture's excess is subtracted where it is
    beyond chance. A grid that is the same everywhere is found even if it is much weaker, as it
    remains in the mean over the tiles. Both are compared with the residual, where a pattern that
    the denoiser made has the opposite sign.

    Returns float64 [2]: the number of pixels, and that times the power (the pattern's mean square);
    both are 0 if the picture is too small, below about 20 × stride px a side.
    """
    side = 8 * stride
    if min(noisy.shape) < side:
        return np.zeros(2)
    many = np.prod(np.array(noisy.shape) // side) >= _MANY_TILES
    hop = side if many else side // 2
    tiles = [
        sliding_window_view(plane, (side, side))[::hop, ::hop].reshape(-1, side, side)
        for plane in (denoised, noisy)
    ]
    order = np.argsort(tiles[0].var((1, 2)))[: max(1, len(tiles[0]) // 2)]
    if len(order) < _LEAST_TILES:
        return np.zeros(2)
    window = np.hanning(side + 1)[:-1].astype(np.float32)
    window = np.outer(window, window)
    shown, seen = (
        np.fft.fft2((each[order] - each[order].mean((1, 2), keepdims=True)) * window)
        for each in tiles
    )
    scale = side**2 * (window**2).sum()
    shown_power, seen_power = np.abs(shown) ** 2 / scale, np.abs(seen) ** 2 / scale
    residual = seen - shown
    local_powers, steady_powers = [], []
    there = against = opposite = total = 0.0
    for i, j in itertools.product(range(stride), repeat=2):
        if math.gcd(i, j, stride) != 1:
            continue
        y, x = 8 * i, 8 * j
        power, error = _peak(shown_power, y, x)
        before, doubt = _peak(seen_power, y, x)
        local_powers.append(power - max(0, before - 2 * doubt) if power > 3 * error else 0.0)
        if local_powers[-1] > 0:
            near, removed = (_around(each, y, x, _NEAR, _NEAR) for each in (shown, residual))
            there += (abs(near) ** 2).sum()
            against -= (near.conj() * removed).real.sum()
        at = shown[:, y, x] / window.sum()
        mean, chance = at.mean(), at.var() / len(at)
        # By chance alone, the power exceeds 7 times its expectation once in a thousand cases.
        found = abs(mean) ** 2 > 7 * chance
        steady_powers.append(abs(mean) ** 2 - chance if found else 0.0)
        if found:
            removed = seen[:, y, x].mean() / window.sum() - mean
            opposite -= (mean.conj() * removed).real
            total += abs(mean) ** 2
    made = np.clip(opposite / total, 0, 1) if total else 0.0
    local = np.array(local_powers) * (np.clip(against / there, 0, 1) if there else 0.0)
    steady = np.array(steady_powers)
    power = np.maximum(np.maximum(local - steady * (1 - made), steady * made), 0).sum()
    return noisy.size * np.array([1.0, power])


def _roughness(plane: np.ndarray) -> np.ndarray:
    """Returns the roughness of each place, [places], as `smooth_place_sums` defines it."""
    cells = _in_cells(plane)
    cells = cells - cells.mean((1, 3), keepdims=True)
    slope = np.arange(CELL, dtype=np.float32) - (CELL - 1) / 2
    slope /= np.sqrt(CELL * (slope**2).sum())
    down = np.einsum("hiw,i->hw", cells.sum(3), slope)
    right = cells.sum(1) @ slope
    rough = np.square(cells).sum((1, 3)) - down**2 - right**2
    return np.maximum(_in_cells(rough, 2).sum((1, 3)), 0).ravel()


def _in_cells(plane: np.ndarray, cell: int = CELL) -> np.ndarray:
    """Reshapes to [H // cell, cell, W // cell, cell], dropping the rest at the far edges."""
    height, width = (side // cell for side in plane.shape)
    return plane[: height * cell, : width * cell].reshape(height, cell, width, cell)


def _peak(power: np.ndarray, y: int, x: int) -> tuple[float, float]:
    """Returns the power around a frequency in excess of its neighbours', and the standard error.

    `power` is [tiles, side, side]. Through a Hann window, a pattern fills 3 × 3 frequencies of it.
    """

    def around(rows, columns):
        return 9 * _around(power, y, x, rows, columns).mean((1, 2))

    # The stronger of both directions, as a picture's edges lie on the axes of its spectrum.
    neighbours = max(around(_NEXT, _NEAR), around(_NEAR, _NEXT), key=np.mean)
    above = around(_NEAR, _NEAR) - neighbours
    return above.mean(), above.std() / len(above) ** 0.5


def _around(
    spectrum: np.ndarray, y: int, x: int, rows: Sequence[int], columns: Sequence[int]
) -> np.ndarray:
    """Returns [tiles, rows, columns] of a spectrum [tiles, side, side], which wraps around."""
    side = spectrum.shape[1]
    near_y, near_x = (np.array(rows) + y) % side, (np.array(columns) + x) % side
    return spectrum[:, near_y[:, None], near_x]
