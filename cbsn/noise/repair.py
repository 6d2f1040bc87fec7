"""What may be repaired before denoising: defective pixels, and the offsets of lines."""

import dataclasses

import numpy as np
import scipy

from cbsn.errors import ConfigError
from cbsn.noise.defects import find_defects, repair
from cbsn.noise.lines import LINES, blocks, is_lost, line_offsets

REPAIRS = ("pixels", *LINES)
"""Values of `--repair`, of which several are joined by commas."""


def parse_repairs(text: str | None) -> tuple[str, ...]:
    """Returns what `--repair` states, some of `REPAIRS`, in their order; none for no text.

    Raises:
        ConfigError: if it is something else.

    Example:
        >>> parse_repairs("rows,pixels")
        ('pixels', 'rows')
    """
    if not text:
        return ()
    given = {part.strip().lower() for part in text.split(",")}
    if given <= {*REPAIRS}:
        return tuple(each for each in REPAIRS if each in given)
    raise ConfigError(
        "--repair takes pixels (hot, dead and stuck ones), rows and columns (their offsets), or "
        f"several of them, such as pixels,rows. Received: --repair {text}"
    )


def repair_picture(picture: np.ndarray, repairs: tuple[str, ...]) -> int:
    """Repairs the colours of a picture in place, and returns how many pixels were outliers.

    A picture with values that are not finite stays as it is. Colours where alpha is 0 stay, too, do
    not count, and make no difference.

    Args:
        picture: [H, W, C], gray or RGB, also with alpha; integers or floats.
        repairs: from `parse_repairs`.

    Example:
        >>> picture = np.random.default_rng(0).normal(100, 5, (64, 64, 1))
        >>> picture[20, 30] = 1000
        >>> repair_picture(picture, ("pixels",)), bool(picture[20, 30, 0] < 120)
        (1, True)
    """
    colors = picture[..., : 1 if picture.shape[-1] < 3 else 3]
    has_alpha = picture.shape[-1] % 2 == 0
    visible = picture[..., -1:] > 0 if has_alpha else np.ones((*picture.shape[:2], 1), bool)
    if not repairs or not visible.any() or not np.isfinite(colors).all(where=visible):
        return 0
    repaired = colors if visible.all() else _filled(colors, ~visible[..., 0])
    count = 0
    if "pixels" in repairs:
        defects = find_defects([repaired])
        seen = visible[tuple(defects.places[:, :2].T)][:, 0]
        defects = dataclasses.replace(
            defects, places=defects.places[seen], kinds=defects.kinds[seen]
        )
        # An outlier of a picture in colour is one in all of them.
        repaired, count = repair(repaired, defects), len(defects) // colors.shape[-1]
    if set(repairs) & {*LINES}:
        offsets = []
        if "rows" in repairs:
            offsets.append(line_offsets(repaired, visible)[:, None])
        if "columns" in repairs:
            across = repaired.swapaxes(0, 1), visible.swapaxes(0, 1)
            offsets.append(line_offsets(*across)[None])
        repaired = without_offsets(repaired, *offsets)
    if repaired is not colors:
        np.copyto(colors, repaired, where=visible)
    return count


def _filled(colors: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Returns colours [H, W, C] with the median around the nearest visible pixel in hidden ones.

    A median, as copies of an outlier at the edge of what is visible would make it no outlier.
    """
    rows, columns = scipy.ndimage.distance_transform_edt(
        hidden, return_distances=False, return_indices=True
    )
    nearest = rows[hidden], columns[hidden]
    filled = colors.copy()
    filled[hidden] = colors[nearest]
    medians = scipy.ndimage.median_filter(filled, (3, 3, 1), mode="nearest")
    filled[hidden] = medians[nearest]
    return filled


def without_offsets(values: np.ndarray, *offsets: np.ndarray) -> np.ndarray:
    """Returns values minus the offsets of their lines, in their dtype.

    Integers are rounded and clipped to what the dtype holds. Its lowest and its highest value stay:
    they are clipped, so they have no offset.

    Args:
        values: [H, W] or [H, W, C].
        offsets: those of rows, of columns, or both, each such that it is broadcast to the values.
    """
    offsets = tuple(np.broadcast_to(each, values.shape) for each in offsets)
    result = np.empty_like(values)
    # By blocks, as the differences are floats, of up to eight times the size of the values.
    for rows in blocks(len(values), values[:1].size):
        part = values[rows]
        cleaned = part - sum(each[rows] for each in offsets)
        if values.dtype.kind != "f":
            limits = np.iinfo(values.dtype)
            cleaned = np.clip(np.rint(cleaned), limits.min, limits.max)
            cleaned = np.where(is_lost(part), part, cleaned.astype(values.dtype))
        result[rows] = cleaned
    return result
