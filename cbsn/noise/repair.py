"""What may be repaired before denoising: defective pixels, and the offsets of lines."""

import numpy as np

from cbsn.errors import ConfigError
from cbsn.noise.defects import find_defects, repair
from cbsn.noise.lines import LINES, line_offsets

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

    A picture with values that are not finite stays as it is, and so do colours where alpha is 0.

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
    if not np.isfinite(colors).all():
        return 0
    repaired, count = colors, 0
    if "pixels" in repairs:
        defects = find_defects([repaired])
        # An outlier of a picture in colour is one in all of them.
        repaired, count = repair(repaired, defects), len(defects) // colors.shape[-1]
    if set(repairs) & {*LINES}:
        offsets = np.zeros((1, 1, 1))
        if "rows" in repairs:
            offsets = offsets + line_offsets(repaired)[:, None]
        if "columns" in repairs:
            offsets = offsets + line_offsets(repaired.swapaxes(0, 1))[None]
        repaired = without_offsets(repaired, offsets)
    if repaired is not colors:
        has_alpha = picture.shape[-1] % 2 == 0
        np.copyto(colors, repaired, where=picture[..., -1:] > 0 if has_alpha else True)
    return count


def without_offsets(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns values minus the offsets of their lines, in their dtype.

    Integers are rounded and clipped to what the dtype holds. Its lowest and its highest value stay:
    they are clipped, so they have no offset.
    """
    result = values.astype(np.float64) - offsets
    if values.dtype.kind == "f":
        return result.astype(values.dtype)
    limits = np.iinfo(values.dtype)
    result = np.clip(np.rint(result), limits.min, limits.max).astype(values.dtype)
    return np.where((values == limits.min) | (values == limits.max), values, result)
