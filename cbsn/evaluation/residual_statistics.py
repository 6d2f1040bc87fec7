"""What the residual, noisy less denoised, is like: sums that can be pooled over pictures.

Pictures are planes of one channel, float32 [H, W], of 16 px a side or more, in 8-bit levels.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter, map_coordinates

CELL = 8  # side in pixels of the cells whose means and roughness are taken
TONES = 16  # bins of the denoised brightness, equally wide

_EDGES = 0.15  # share of the pixels, those of the strongest gradients, that counts as edges
_ALONG = (-5, -4, 4, 5)  # pixels along an edge from where it is measured to its neighbours
_BLOCK = 32  # side in pixels of the blocks that are taken as independent of each other
_SMOOTHEST = 0.05  # share of the picture in which the noise that is left is looked for
_LEAST_PLACES, _LEAST_TILES, _MANY_TILES = 64, 8, 256
# Steps in the spectrum of a tile: where a pattern is, through a Hann window; and next to that.
_NEAR, _NEXT = (-1, 0, 1), (-2, 2)


def structure_sums(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Measures how much of the edges that the denoised picture shows is in the residual.

    Detail is what lies between Gaussian blurs of 1 and 2 px. At the edges of the denoised picture
    its detail f some pixels further *along* the edge predicts the detail at the edge itself. With
    r and n the detail of the residual and of the noisy picture there, Σ r·f / Σ n·f is the share of
    the edges' contrast that was removed. Noise of any strength adds nothing on average to either
    sum, as it is zero on average whatever f is; nor does noise that was left in the denoised
    picture, as it does not reach as far as f.

    Returns float64 [6]: over blocks of the picture with edges, with a = Σ r·f and b = Σ n·f of a
    block: the number of blocks, Σ a, Σ b, Σ a², Σ ab, Σ b².
    """
    wide = gaussian_filter(denoised, 2)
    shown = gaussian_filter(denoised, 1) - wide
    residual = noisy - denoised
    removed = gaussian_filter(residual, 1) - gaussian_filter(residual, 2)
    dy, dx = np.gradient(wide)
    steep = np.hypot(dy, dx)
    # "greater": where nothing is steep, there is no edge.
    y, x = np.nonzero(steep > np.quantile(steep, 1 - _EDGES))
    length = steep[y, x]
    along_y, along_x = -dx[y, x] / length, dy[y, x] / length
    predicted = sum(
        map_coordinates(shown, (y + far * along_y, x + far * along_x), order=1, mode="nearest")
        for far in _ALONG
    )
    block = y // _BLOCK * (noisy.shape[1] // _BLOCK + 1) + x // _BLOCK
    a = np.bincount(block, removed[y, x] * predicted)
    b = np.bincount(block, (removed[y, x] + shown[y, x]) * predicted)
    return np.array(
        [len(np.unique(block)), a.sum(), b.sum(), (a * a).sum(), (a * b).sum(), (b * b).sum()]
    )


def smooth_place_sums(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Sums up the roughness of the smoothest places, denoised and noisy.

    The roughness of a cell is what is left of it less its mean and its slope, squared. A place is
    2 × 2 cells; the smoothest are those where it has fallen most. Elsewhere the roughness of
    the denoised picture may be its texture; so it may be everywhere in a small picture.

    Returns float64 [2]; both are 0 where there are fewer than 64 places with noise.
    """
    smooth, rough = (_roughness(plane) for plane in (denoised, noisy))
    # Clipped to black or white there is no noise to remove.
    noise = rough > 0.1 * np.median(rough)
    smooth, rough = smooth[noise], rough[noise]
    if len(rough) < _LEAST_PLACES:
        return np.zeros(2)
    order = np.argsort(smooth / rough)[: int(np.ceil(_SMOOTHEST * len(rough)))]
    return np.array([smooth[order].sum(), rough[order].sum()], np.float64)


def tone_sums(noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Sums up the residual's moments by the denoised picture's brightness.

    They are taken of cells, of the half of them in the flattest places: where brightness changes,
    smoothing moves it from cell to cell, which is no shift.

    Returns float64 [TONES, 6]: over the cells of each tone, with r the residual and m its mean in a
    cell: their number, Σ m, Σ m², Σ of the mean of r², Σ of the mean of r³, Σ of the share of noisy
    pixels that are clipped.
    """
    tone = _in_cells(denoised).mean((1, 3))
    residual = noisy - denoised
    clipped = np.zeros(noisy.shape, np.float32)
    # Noise that was added in floats and never clipped goes beyond both ends.
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

    It is measured at the multiples of 1/stride cycles per pixel, apart from those that grids of a
    shorter period have, too; in the flattest half of the picture's tiles, of 8 × stride pixels a
    side. A pattern is found in one of two ways: as power above that of the neighbouring
    frequencies, horizontally and vertically (a grid that comes and goes; the same of the noisy
    picture is subtracted where it is beyond chance); or, much weaker, as what is left of the mean
    over the tiles (a grid that is the same everywhere). Both are compared with the residual: a
    pattern that the denoiser has made is there with the opposite sign.

    Returns float64 [2]: the number of pixels, and it times the power (the pattern's mean square);
    both 0 if the picture is too small to tell, below about 20 × stride a side.
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
        # By chance alone it exceeds 7 times its expectation once in a thousand.
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
    """What is left of each cell less mean and slope, squared and summed over places; [places]."""
    cells = _in_cells(plane)
    cells = cells - cells.mean((1, 3), keepdims=True)
    slope = np.arange(CELL, dtype=np.float32) - (CELL - 1) / 2
    slope /= np.sqrt(CELL * (slope**2).sum())
    down = np.einsum("hiw,i->hw", cells.sum(3), slope)
    right = cells.sum(1) @ slope
    rough = np.square(cells).sum((1, 3)) - down**2 - right**2
    return np.maximum(_in_cells(rough, 2).sum((1, 3)), 0).ravel()


def _in_cells(plane: np.ndarray, cell: int = CELL) -> np.ndarray:
    """[H // cell, cell, W // cell, cell], without what is left at the far edges."""
    height, width = (side // cell for side in plane.shape)
    return plane[: height * cell, : width * cell].reshape(height, cell, width, cell)


def _peak(power: np.ndarray, y: int, x: int) -> tuple[float, float]:
    """Power around a frequency above that of its neighbours, and its standard error.

    Of `power` [tiles, side, side], with a Hann window, a pattern fills 3 × 3 frequencies.
    """

    def around(rows, columns):
        return 9 * _around(power, y, x, rows, columns).mean((1, 2))

    # Of both directions: the edges of a picture lie on the axes of its spectrum.
    neighbours = max(around(_NEXT, _NEAR), around(_NEAR, _NEXT), key=np.mean)
    above = around(_NEAR, _NEAR) - neighbours
    return above.mean(), above.std() / len(above) ** 0.5


def _around(
    spectrum: np.ndarray, y: int, x: int, rows: Sequence[int], columns: Sequence[int]
) -> np.ndarray:
    """[tiles, rows, columns] of a spectrum [tiles, side, side], which wraps around."""
    side = spectrum.shape[1]
    near_y, near_x = (np.array(rows) + y) % side, (np.array(columns) + x) % side
    return spectrum[:, near_y[:, None], near_x]
