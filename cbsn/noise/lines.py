"""Line noise: an offset that all pixels of a row share, or all of a column, and its removal.

Scanners that draw a picture row by row (confocal microscopes, two-photon ones) add one to each row;
amplifiers of the columns of an sCMOS camera add one to each column, the same in all frames. The
correlation that `cbsn.noise.estimate` measures ends after some pixels, so it cannot show them.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy

from cbsn.noise.estimate import middle_mean
from cbsn.value_range import to_levels, to_unit, value_range

LINES = ("rows", "columns")

_GROUP = 16  # lines that are looked at together
_SEGMENT = 16  # pixels along a line of which the mean is taken
_APART = 3  # segments: noise that is blurred does not reach from one to the other
_CONTENT = 4  # side of the cells whose means tell content from noise
_FLAT = 0.5  # share of the segments that counts
_LEAST = 1e-3  # share of the variance that pixels of a line do not share, where there is noise
_FEWEST = 8  # groups that have pairs of segments
_SIDE = 2048  # pixels of a plane that are looked at along each axis, in its middle
_INDEPENDENT = 8.2  # of the 16 second differences of independent values

_MATTERS = 0.02  # share of the variance; photographs have up to 0.01, from their straight edges
_SURE = 4  # standard errors
_SAME = 0.5  # share of the offsets that is the same in all planes, from which it is the camera's
_PLANES = 4  # that are needed to tell

REACH = 8
"""How many lines to each side tell the offset of a line from what the picture shows."""

_CLIP = 2  # standard deviations beyond which a difference of two lines is content
_ENOUGH = 1 / 8  # least share of a line's pixels that tells its offset; fewer may be content only
_BLOCK = 2**18  # values that are looked at together, as memory would not hold all of a picture's


@dataclasses.dataclass(frozen=True)
class LineNoise:
    """The offsets of rows, or of columns.

    Args:
        lines: "rows" or "columns".
        share: float, the share of the noise's variance that all pixels of a line have in common.
        error: float, its standard error.
        level: float, the standard deviation of the offsets, in 8-bit levels (of 255).
        fixed: float, the share of the offsets' variance that is the same in all planes; None where
            there are no four planes of one size.
    """

    lines: str
    share: float
    error: float
    level: float
    fixed: float | None

    @property
    def counts(self) -> bool:
        """Whether there is line noise: enough to matter, and more than chance."""
        return self.share > max(_MATTERS, _SURE * self.error)

    @property
    def is_fixed(self) -> bool:
        """Whether most of it is the same in all planes."""
        return self.fixed is not None and self.fixed > _SAME

    def describe(self, sigma: float | None = None, what: str = "plane") -> str:
        """Says in a sentence what it is.

        Args:
            sigma: the standard deviation of the other noise, in 8-bit levels, if it is known.
            what: what the planes are.
        """
        name = "Line noise" if self.lines == "rows" else "Column noise"
        if self.is_fixed:
            name += f", the same in all {what}s: the camera's"
        elif self.fixed is not None:
            name += f", new in each {what}"
        relative = self.level / sigma if sigma else np.sqrt(self.share / max(1 - self.share, 1e-3))
        return (
            f"{name}: each {self.lines[:-1]} has an offset of its own, with a standard deviation "
            f"of {relative:.2f} times that of the other noise."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain values that JSON can store."""
        values = dataclasses.asdict(self)
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


class LineSearch:
    """Looks for line noise, plane by plane.

    In second differences across the lines, content is small and offsets stay. The mean over 16
    pixels along a line is then correlated with that of another such segment of the same line only
    if they share an offset. Pairs that do not touch count, so noise that is blurred makes no
    difference, nor does an edge, unless it crosses most of the picture along a line. The share is
    the mean correlation of the middle half of all groups of 16 lines, over pairs of the half of the
    segments that have the least content, in units of the variance of the pixels' differences.

    Args:
        aligned: bool, whether planes of one size show the same pixels of a camera, as the planes of
            a stack do. Default True.

    Example:
        >>> search = LineSearch()
        >>> noise = np.random.default_rng(0)
        >>> search.add(noise.normal(size=(256, 256, 1)) + noise.normal(size=(256, 1, 1)))
        >>> rows, columns = search.result()
        >>> rows.counts, columns.counts, round(rows.share, 1)
        (True, False, 0.5)
    """

    def __init__(self, *, aligned: bool = True) -> None:
        self._found = {lines: _Direction(aligned) for lines in LINES}

    def add(self, plane: np.ndarray) -> None:
        """Adds a plane or picture [H, W, C]: uint8, uint16 or float, finite."""
        middle = tuple(
            slice(max(0, (size - _SIDE) // 2), max(0, (size - _SIDE) // 2) + _SIDE)
            for size in plane.shape[:2]
        )
        # Colours were interpolated from each other in most cameras, so they count as one.
        gray = to_levels(plane[middle]).mean(axis=-1)
        rounding = 0.0 if plane.dtype.kind == "f" else (255 / value_range(plane.dtype)) ** 2 / 12
        self._found["rows"].add(gray, rounding)
        self._found["columns"].add(gray.T, rounding)

    def result(self) -> tuple[LineNoise, LineNoise]:
        """Returns what rows and what columns share."""
        rows, columns = (self._found[lines].result(lines) for lines in LINES)
        return rows, columns


class _Direction:
    """Collects what rows share."""

    def __init__(self, aligned: bool) -> None:
        self._aligned = aligned
        self._shares: list[np.ndarray] = []  # of groups: the mean product of pairs of segments,
        self._weights: list[np.ndarray] = []  # and the number of pairs
        self._powers: list[np.ndarray] = []  # of segments: the variance of the differences
        self._squares = self._count = 0.0  # of segments' means
        self._sums: dict[tuple[int, ...], list[np.ndarray]] = {}  # of planes, by shape

    def add(self, plane: np.ndarray, rounding: float) -> None:
        rough = (2 * plane[1:-1] - plane[:-2] - plane[2:]) / np.float32(6**0.5)
        rows, columns = rough.shape[0] // _GROUP, rough.shape[1] // _SEGMENT
        if rows < 1 or columns <= _APART:
            return
        cut = slice(rows * _GROUP), slice(columns * _SEGMENT)
        blocks = rough[cut].reshape(rows, _GROUP, columns, _SEGMENT)
        power = np.mean(blocks**2, axis=(1, 3))
        # Without noise, what pixels of a line have in common is what the picture shows.
        own = power - np.mean(blocks.mean(axis=3) ** 2, axis=1)
        noisy = own > np.maximum(rounding, _LEAST * power)
        if not noisy.any():
            return
        unit = np.where(noisy, power, 1)
        cells = plane[1:-1][cut].reshape(
            rows, _GROUP // _CONTENT, _CONTENT, columns, _SEGMENT // _CONTENT, _CONTENT
        )
        content = np.where(noisy, cells.mean(axis=(2, 5)).var(axis=(1, 3)) / unit, np.inf)
        flat = noisy & (content <= np.quantile(content[noisy], _FLAT))
        means = blocks.mean(axis=3) / np.sqrt(unit)[:, None] * flat[:, None]  # [rows, 16, columns]
        total = means.sum(axis=2)
        products = (total**2 - np.sum(means**2, axis=2)) / 2
        pairs = flat.sum(axis=1) * (flat.sum(axis=1) - 1) / 2
        for apart in range(1, _APART):
            products -= np.sum(means[..., apart:] * means[..., :-apart], axis=2)
            pairs -= np.sum(flat[:, apart:] & flat[:, :-apart], axis=1)
        enough = pairs > 0
        self._shares.append(products.mean(axis=1)[enough] / pairs[enough])
        self._weights.append(pairs[enough])
        self._powers.append(power[flat])
        self._squares += float(np.sum(means**2))
        self._count += _GROUP * float(flat.sum())
        if self._aligned:
            same_size = self._sums.setdefault(plane.shape, [])
            same_size.append(total / np.maximum(flat.sum(axis=1), 1)[:, None])

    def result(self, lines: str) -> LineNoise:
        shares, pairs = (
            np.concatenate(each) if each else np.zeros(0) for each in (self._shares, self._weights)
        )
        if len(shares) < _FEWEST:
            return LineNoise(lines, 0.0, 1.0, 0.0, None)
        # A group's error falls with the root of its pairs, and with what lines share it does not.
        weights = np.sqrt(pairs)
        share = float(middle_mean(shares, weights))
        # 0.69 is the middle mean of |z| for a standard normal z.
        spread = float(middle_mean(abs(shares - share), weights)) / 0.69
        error = 1.1 * spread * np.sqrt(np.sum(weights**2)) / np.sum(weights)
        least = self._squares / self._count / np.sqrt(_INDEPENDENT * np.sum(pairs))
        variance = max(0.0, share) * float(np.median(np.concatenate(self._powers)))
        fixed = None
        planes = max(self._sums.values(), key=len, default=[])
        if len(planes) >= _PLANES and share > 0:
            fixed = float(np.clip(_in_common(np.stack(planes)) / share, 0, 1))
        return LineNoise(lines, share, float(max(error, least)), float(np.sqrt(variance)), fixed)


def _in_common(planes: np.ndarray) -> float:
    """Returns the mean product of what different planes, [n, groups, 16], have.

    Neighbours do not count: some cameras and programs repeat frames.
    """
    total = planes.sum(axis=0)
    products = (total**2 - np.sum(planes**2, axis=0)) / 2
    products -= np.sum(planes[1:] * planes[:-1], axis=0)
    count = len(planes)
    pairs = count * (count - 1) / 2 - (count - 1)
    groups = products.mean(axis=1) / pairs
    return float(middle_mean(groups, np.ones(len(groups))))


def is_lost(values: np.ndarray) -> np.ndarray:
    """Returns where values, of any shape, tell nothing of an offset; bool of that shape.

    These are integers at a limit of their dtype, which are clipped, and floats that are not finite.
    """
    if values.dtype.kind == "f":
        return ~np.isfinite(values)
    limits = np.iinfo(values.dtype)
    return (values == limits.min) | (values == limits.max)


def blocks(length: int, size: int) -> Iterator[slice]:
    """Yields the slices of `length` rows, of `size` values each, that are worked on together."""
    step = max(1, _BLOCK // max(1, size))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def mean_step(differences: np.ndarray) -> np.ndarray:
    """Returns the mean difference of neighbouring lines, without what is content.

    Args:
        differences: float [..., n], of the pixels of two lines; NaN where there is none.

    Returns:
        [...]; 0 where less than an eighth of the pixels has a difference.
    """
    middle = known_median(differences)
    limit = _CLIP * 1.4826 * known_median(abs(differences - middle))
    usual = np.clip(differences, middle - limit, middle + limit)
    count = np.count_nonzero(~np.isnan(usual), axis=-1)
    enough = count >= max(1, _ENOUGH * usual.shape[-1])
    return np.where(enough, np.nansum(usual, axis=-1) / np.maximum(count, 1), 0)


def known_median(values: np.ndarray) -> np.ndarray:
    """Returns the medians of [..., n] without NaN, as [..., 1]; NaN where there is nothing else."""
    missing = np.isnan(values)
    if not missing.any():
        return np.median(values, axis=-1, keepdims=True)
    last = np.maximum(np.count_nonzero(~missing, axis=-1, keepdims=True) - 1, 0)
    ordered = np.sort(values, axis=-1)  # with NaN at the end
    low, high = (np.take_along_axis(ordered, each, -1) for each in (last // 2, (last + 1) // 2))
    return (low + high) / 2


def line_offsets(plane: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Returns the offsets of the rows of a plane, float64 [H, C], as far as they change quickly.

    The difference of two rows is the mean difference of their pixels, without the few that differ
    by content. Their sums, minus the median of 8 rows to each side, are the offsets: edges along a
    row stay in the picture, and a line of a few pixels does unless it crosses most of it.

    Pixels that are clipped or not finite, see `is_lost`, do not count. Rows of which less than an
    eighth counts are taken to have the offset of the row above.

    Args:
        plane: [H, W, C], integers or floats.
        counts: bool [H, W, 1 or C], which pixels count. Default: all.
    """
    height, width, channels = plane.shape
    steps = np.zeros((height - 1, channels))
    for rows in blocks(height - 1, width * channels):
        part = slice(rows.start, rows.stop + 1)
        # Along the last axis of a copy, sums are the same however the plane lies in memory, so that
        # a part has the offsets of the whole.
        values = np.array(plane[part].swapaxes(1, 2), np.float64, order="C")
        lost = is_lost(plane[part])
        if counts is not None:
            lost |= ~counts[part]
        values[lost.swapaxes(1, 2)] = np.nan
        steps[rows] = mean_step(np.diff(values, axis=0))
    sums = np.concatenate([np.zeros((1, channels)), np.cumsum(steps, axis=0)])
    return sums - scipy.ndimage.median_filter(sums, (2 * REACH + 1, 1), mode="nearest")


def without_lines(picture: np.ndarray, lines: tuple[str, ...] = LINES) -> np.ndarray:
    """Returns a picture without the offsets of its rows, its columns, or both, as floats.

    Args:
        picture: [H, W, C], uint8, uint16 or float.
        lines: some of `LINES`.

    Returns:
        float32 [H, W, C], 1 being white; clipped values stay where they are.

    Example:
        >>> offsets = np.random.default_rng(0).normal(size=(64, 1, 1))
        >>> cleaned = without_lines(np.zeros((64, 64, 1)) + offsets, ("rows",))
        >>> bool(cleaned.std() < 0.5)
        True
    """
    unit = to_unit(picture, np.float64)
    result, lost = unit.copy(), is_lost(picture)
    if "rows" in lines:
        result -= line_offsets(unit, ~lost)[:, None]
    if "columns" in lines:
        result -= line_offsets(unit.swapaxes(0, 1), ~lost.swapaxes(0, 1))[None]
    result[lost] = unit[lost]
    return result.astype(np.float32)
