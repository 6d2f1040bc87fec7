"""Where in a picture it is worth to look closely."""

import numpy as np
from scipy.ndimage import uniform_filter

from cbsn.evaluation.report.picture import ReportPicture
from cbsn.evaluation.report.pixels import to_unit

_SMOOTHING = 9


def find_places(picture: ReportPicture, size: int, count: int) -> list[tuple[slice, slice]]:
    """Returns the places that show most of what the first method does wrong.

    With a clean picture, these have the largest mean absolute error. Without, they are where
    it changed the most structure: noise leaves little in the mean of a few neighbours, so what is
    there of noisy − denoised was in the scene, or is noise of a low frequency.

    Args:
        picture: of any size.
        size: int, height and width of a place in px; those of the picture where it is smaller.
        count: int, how many.

    Returns:
        Rows and columns of each place, the worst first. They do not overlap, so there may be
        fewer than `count`, but there is one at least.
    """
    badness = _badness(picture)
    height, width = (min(size, side) for side in badness.shape)
    # `uniform_filter` centres its window; this is the mean of the window that begins at a pixel.
    means = uniform_filter(badness, (height, width))
    means = means[height // 2 :, width // 2 :]
    means = means[: badness.shape[0] - height + 1, : badness.shape[1] - width + 1].copy()
    places = []
    while len(places) < count and np.isfinite(means).any():
        top, left = map(int, np.unravel_index(np.argmax(means), means.shape))
        places.append((slice(top, top + height), slice(left, left + width)))
        means[
            max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width
        ] = -np.inf
    return places


def _badness(picture: ReportPicture) -> np.ndarray:
    """Returns float32 [H, W] ≥ 0."""
    denoised = to_unit(next(iter(picture.denoised.values())))
    if picture.clean is not None:
        return np.abs(denoised - to_unit(picture.clean)).mean(axis=-1)
    removed = to_unit(picture.noisy) - denoised
    return np.abs(uniform_filter(removed, (_SMOOTHING, _SMOOTHING, 1))).mean(axis=-1)
