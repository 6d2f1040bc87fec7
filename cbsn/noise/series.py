"""The correlation of the noise between the planes of a series: frames in time, slices in depth."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MOST_LAGS = 3
"""The largest distance between planes at which the correlation is measured."""

FAR = 8
"""The distance between planes whose noise is taken to be independent, in a series that long."""

MATTERS = 0.1
"""The correlation from which Noise2Noise with neighbouring planes visibly keeps noise. It keeps
this share of the noise's amplitude; moving structure may pass for smaller ones."""

_BLOCK = 16  # side of a block in pixels
_CELL = 4  # side of the parts of a block whose means show structure
_FLAT = 0.25  # share of the blocks that counts as flat
_FEWEST = 16  # blocks
_SURE = 3  # standard errors
_SHARED = 0.1  # share of what is the same in all planes that is worth a line
_SMOOTH = 0.3  # correlation of neighbouring pixels above which the mask is spread
_MOST_STEPS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class SeriesCorrelation:
    """The correlation of the noise between planes of a series.

    Args:
        correlation: float [lags], between planes 1, 2, … apart.
        error: float [lags], its standard error by chance alone.
        far: int, the distance of the planes that told structure from noise; None without such, and
            then structure that does not move counts as correlated noise.
        shared: float, the share of what varies in flat parts that is the same in planes `far`
            apart: structure, or a pattern of the detector. None without such planes.
        groups: int, how many sets of neighbouring planes were looked at.
    """

    correlation: np.ndarray
    error: np.ndarray
    far: int | None
    shared: float | None
    groups: int

    @property
    def independent_from(self) -> int | None:
        """The distance from which the noise is independent; None if it is beyond those measured.

        Negative values do not count: moving structure causes them, and hardly any camera does.
        """
        counts = self.correlation > np.maximum(MATTERS, _SURE * self.error)
        last = int(np.max(np.flatnonzero(counts) + 1, initial=0))
        return last + 1 if last < len(self.correlation) else None

    def lines(self, planes: str) -> list[str]:
        """Returns the figures, and what they mean; `planes` is "frames" or "slices"."""
        told = [
            f"{value + 0.0:.3f} ± {error:.3f}"
            for value, error in zip(np.round(self.correlation, 3), self.error, strict=True)
        ]
        first = f"Correlation of the noise between {planes} 1"
        more = [f"{number + 2} apart {each}" for number, each in enumerate(told[1:])]
        lines = [", ".join([f"{first} apart: {told[0]}", *more]) + "."]
        distance, nearest = self.independent_from, f"{self.correlation[0]:.2f}"
        if distance == 1:
            lines.append(
                f"- The noise of neighbouring {planes} is independent: they can be pairs for n2n."
            )
        else:
            other = f" Take {planes} {distance} apart." if distance else ""
            lines.append(
                f"- The noise of neighbouring {planes} is correlated ({nearest}), unless it is "
                f"fine structure that moves slowly: n2n with neighbouring {planes} would learn it."
                f"{other}"
            )
        if self.far is None:
            lines.append(
                f"- There are too few {planes} to tell noise from what stays the same in all."
            )
        elif self.shared and self.shared > _SHARED:
            lines.append(
                f"- {self.shared:.0%} of what varies in the flattest parts is the same in {planes} "
                f"{self.far} apart: fine structure, or a fixed pattern of the detector, which n2n "
                "keeps."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain values that JSON can store."""
        return {
            "correlation": np.round(self.correlation, 4).tolist(),
            "error": np.round(self.error, 4).tolist(),
            "independent_from": self.independent_from,
            "far": self.far,
            "shared": None if self.shared is None else round(self.shared, 4),
            "groups": self.groups,
        }


def distances(size: int) -> tuple[list[int], int | None]:
    """Returns the lags to measure in a series of `size` planes, and the far distance, if any."""
    lags = [*range(1, min(MOST_LAGS, size - 1) + 1)]
    far = min(FAR, size - 1)
    return lags, far if lags and far > lags[-1] else None


def series_correlation(
    groups: Iterable[Sequence[np.ndarray]], far: int | None, step: int = 1
) -> SeriesCorrelation | None:
    """Measures the correlation of the noise between planes, in the presence of structure.

    A mask of second differences in both directions removes brightness, slopes and most edges,
    and leaves noise and fine texture:

         1 −2  1
        −2  4 −2
         1 −2  1

    In blocks of 16 × 16, products of two planes give a correlation each. Of these, the flattest
    quarter counts, judged by the means of 4 × 4 pixels, which the mask ignores. A group's value is
    the median over its blocks, so structure that moves through some of them does not count. What
    has not moved in planes `far` apart is structure (or a fixed pattern): with r₁ and r_far the
    means over the groups at distances 1 and `far`, the noise's correlation is
    (r₁ − r_far) / (1 − r_far). They are means, as every second frame may be a repeated one.

    The mask passes noise of high frequencies only, so this takes for granted that noise of other
    frequencies is correlated alike, as it is where a camera or a program averages frames. What
    moves by about a pixel or less from plane to plane, is finer than some pixels, as strong as the
    noise, and in more than half of the flattest blocks, is mistaken for noise.

    Args:
        groups: for each, planes [H, W, C] float at the distances 0, 1, … from `distances`, and last
            one that is `far` apart, if `far` is not None.
        far: from `distances`.
        step: int ≥ 1, the distance of the mask's pixels; larger for noise that is blurred.

    Returns:
        The correlation, or None if there are no groups, or no blocks with noise.

    References:
        Immerkær, "Fast noise variance estimation", 1996, has the mask.

    Example:
        >>> frames = np.random.default_rng(0).normal(size=(9, 64, 64, 1))
        >>> found = series_correlation([[*frames[:4], frames[8]]], 8)
        >>> bool(abs(found.correlation[0]) < 0.1)
        True
    """
    middles, errors = [], []
    for group in groups:
        correlations = _flat_correlations(np.stack(group), step)
        if not len(correlations):
            continue
        middle = np.median(correlations, axis=0)
        # The standard error of a median of normal values, by their median deviation.
        spread = 1.4826 * np.median(abs(correlations - middle), axis=0)
        middles.append(middle)
        errors.append(1.2533 * spread / np.sqrt(len(correlations)))
    if not middles:
        return None
    values = np.mean(middles, axis=0)
    error = np.sqrt(np.sum(np.square(errors), axis=0)) / len(errors)
    shared = None
    if far is not None:
        shared = float(np.clip(values[-1], 0, 0.99))
        values = (values[:-1] - shared) / (1 - shared)
        error = error[:-1] / (1 - shared)
    return SeriesCorrelation(values, error, far, shared, len(middles))


def mask_step(correlation: np.ndarray) -> int:
    """Returns the `step` of `series_correlation` that suits noise.

    Args:
        correlation: float [lags], of the noise between pixels 1, 2, … apart.
    """
    smooth = np.append(correlation > _SMOOTH, False)
    return min(1 + int(np.argmin(smooth)), _MOST_STEPS)


def _flat_correlations(planes: np.ndarray, step: int) -> np.ndarray:
    """Returns the correlation of the first plane with each other one, [flat blocks, planes − 1]."""
    planes = np.moveaxis(planes, -1, 1).astype(np.float32)  # [planes, C, H, W]
    if min(planes.shape[-2:]) < _BLOCK + 2 * step:
        return np.empty((0, len(planes) - 1))
    rough = _second_difference(_second_difference(planes, step).swapaxes(-1, -2), step)
    rough = _blocks(rough.swapaxes(-1, -2))
    inside = planes.mean(axis=0)[..., step:-step, step:-step]
    height, width = (size // _CELL * _CELL for size in inside.shape[-2:])
    cells = inside[..., :height, :width].reshape(
        len(inside), height // _CELL, _CELL, width // _CELL, _CELL
    )
    content = _blocks(cells.mean(axis=(2, 4)), _BLOCK // _CELL).var(axis=(-2, -1)).ravel()
    power = (rough**2).mean(axis=(-2, -1)).reshape(len(planes), -1)
    products = (rough[0] * rough[1:]).mean(axis=(-2, -1)).reshape(len(planes) - 1, -1)
    noisy = np.flatnonzero((power > 0).all(axis=0))
    flattest = noisy[np.argsort(content[noisy] / power[:, noisy].mean(axis=0), kind="stable")]
    taken = flattest[: max(_FEWEST, int(_FLAT * len(flattest)))]
    return (products[:, taken] / np.sqrt(power[0, taken] * power[1:, taken])).T


def _second_difference(planes: np.ndarray, step: int) -> np.ndarray:
    """Returns the second differences along the rows."""
    return planes[..., : -2 * step] - 2 * planes[..., step:-step] + planes[..., 2 * step :]


def _blocks(planes: np.ndarray, side: int = _BLOCK) -> np.ndarray:
    """Returns the whole blocks of planes [..., H, W], as [..., rows, columns, side, side]."""
    rows, columns = (size // side for size in planes.shape[-2:])
    cut = planes[..., : rows * side, : columns * side]
    return cut.reshape(*cut.shape[:-2], rows, side, columns, side).swapaxes(-3, -2)
