"""Maps of what a method got wrong, and of what it took away."""

import numpy as np
from PIL import Image

from cbsn.evaluation.report.picture import ReportPicture
from cbsn.evaluation.report.pixels import shrunk, to_image, to_unit

HEAT = ("#000000", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
"""Colours of errors from none to the largest, at equal distances; about matplotlib's magma."""

_HEAT_LEVELS = 64  # fewer than a picture could have, for the sake of its size
_EXTREMES = 98  # percentile: the few pixels beyond it would leave all others dark
_RESIDUAL_LEVELS = 32  # halves the size of noise, and is not to be seen in it
_PEAKS = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200)
_GAINS = (16, 8, 4, 2, 1)


def error_maps(picture: ReportPicture) -> tuple[int, dict[str, Image.Image]]:
    """Draws |denoised − clean|, the mean over the channels, on one scale for all methods.

    Args:
        picture: with a clean side.

    Returns:
        What the lightest colour means, in levels of 255; and the maps by method.
    """
    clean = to_unit(picture.clean)
    errors = {
        method: np.abs(to_unit(pixels) - clean).mean(axis=-1) * 255
        for method, pixels in picture.denoised.items()
    }
    extreme = max(np.percentile(error, _EXTREMES) for error in errors.values())
    # Float32 may make a little more than 50 of 50.
    peak = next((peak for peak in _PEAKS if extreme < peak + 0.01), 255)
    stops = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in HEAT])
    at = np.linspace(0, len(HEAT) - 1, _HEAT_LEVELS)
    palette = np.stack([np.interp(at, range(len(HEAT)), c) for c in stops.T], axis=-1)
    maps = {}
    for method, error in errors.items():
        levels = np.minimum(error / peak, 1) * (_HEAT_LEVELS - 1)
        maps[method] = shrunk(Image.fromarray(np.rint(levels).astype(np.uint8)))
        maps[method].putpalette(np.rint(palette).astype(np.uint8).tobytes())
    return peak, maps


def residual_maps(picture: ReportPicture) -> tuple[int, dict[str, Image.Image]]:
    """Draws noisy − denoised around a middle gray, amplified alike for all methods.

    Args:
        picture: any.

    Returns:
        The factor, and the maps by method.
    """
    noisy = to_unit(picture.noisy)
    removed = {method: noisy - to_unit(pixels) for method, pixels in picture.denoised.items()}
    extreme = max(np.percentile(np.abs(each), _EXTREMES) for each in removed.values())
    gain = next((gain for gain in _GAINS if gain * extreme <= 0.5), 1)
    maps = {}
    for method, each in removed.items():
        levels = np.rint((0.5 + gain * each) * _RESIDUAL_LEVELS) / _RESIDUAL_LEVELS
        maps[method] = shrunk(to_image(levels))
    return gain, maps
