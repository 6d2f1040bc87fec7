"""Where noise is correlated, by direction, and which mask of a blind-spot network hides that.

A network that is blind at one pixel predicts its noise from neighbours that share it, and keeps it.
structN2V (Broaddus et al., "Removing structured noise with self-supervised blind-spot networks",
ISBI 2020) hides those neighbours, too. Which ones is left to the user there; here it is measured.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import FAR
from cbsn.noise.bands import Bands, BandSearch
from cbsn.noise.estimate import LAGS, NoiseEstimate, estimate_noise
from cbsn.noise.limits import FAR_MATTERS, SURE, alone_limits, least_seen, limits
from cbsn.noise.lines import LINES, LineNoise, LineSearch, without_lines
from cbsn.noise.series import distances, mask_step, series_correlation
from cbsn.noise.survey import TooFewBlocksError

Offset = tuple[int, int]
"""Distance of two pixels, down and to the right."""

_MOST = 6  # pixels that a mask in both directions may reach: it hides up to 13 × 13
_FEW = 4  # pairs of offsets that are named one by one
# Pixels to each side that are hidden of a line that shares an offset. After 600 steps, a U-Net of
# depth 3 keeps 52 % of the offsets without a mask, 34, 13 and 3 % with 2, 4 and 8 px hidden, and no
# less with 16, which cost more of the picture.
_LINE = 8

_MIDDLE = 14  # place of the offset 0 in `NoiseEstimate.correlation_map`
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # as in `estimate.DIRECTIONS`


@dataclasses.dataclass(frozen=True)
class Mask:
    """The mask that suits noise.

    Args:
        shape: text, see `cbsn.networks.masking.parse_mask_shape`.
        reasons: whole sentences.
        fits: bool, whether it hides all pixels that share a pixel's noise, except those of the
            same row or column that are further away.
    """

    shape: str
    reasons: list[str]
    fits: bool = True

    @property
    def in_one_direction(self) -> bool:
        """Whether it hides pixels in one direction only."""
        others = ("point", "square", "cross", "+")
        return not any(each in self.shape for each in others)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseStructure:
    """What the noise of pictures is like: across nearby pixels, and along whole lines.

    Args:
        estimate: of the noise without that of lines; None if there are too few flat parts.
        reason: why there is none, or empty.
        lines: the noise of rows and of columns.
        bands: regular patterns of lines.
    """

    estimate: NoiseEstimate | None
    reason: str
    lines: tuple[LineNoise, LineNoise]
    bands: list[Bands]

    @property
    def found_lines(self) -> tuple[LineNoise, ...]:
        """The line noise that there is."""
        return tuple(each for each in self.lines if each.counts)


def measure_structure(
    read: Callable[[], Iterable[np.ndarray]], *, aligned: bool = True
) -> NoiseStructure:
    """Measures the noise of pictures, that of whole lines by itself.

    Line noise would pass for correlation of any reach, and bands for structure, so where there are
    some, they are removed before the other noise is measured.

    Args:
        read: returns the pictures, as for `estimate_noise`. It is called again if there is line
            noise, or if there are bands.
        aligned: whether they show the same pixels of a camera, as the planes of a stack do. Default
            True.

    Raises:
        DataError: different channels, or values that are not finite.
    """
    search, band_search = LineSearch(aligned=aligned), BandSearch()

    def watched() -> Iterable[np.ndarray]:
        for picture in read():
            if np.isfinite(picture).all():  # else the estimate says which picture it is
                search.add(picture)
                band_search.add(picture)
            yield picture

    estimate, error = None, None
    try:
        estimate = estimate_noise(watched())
    except TooFewBlocksError as found:
        error = found
    structure = NoiseStructure(estimate, str(error or ""), search.result(), band_search.result())
    disturbed = {each.lines for each in structure.found_lines}
    disturbed |= {each.lines for each in structure.bands}
    if lines := tuple(sorted(disturbed, key=LINES.index)):
        try:
            estimate = estimate_noise(without_lines(picture, lines) for picture in read())
            estimate = _without_bias(estimate, lines)
            return dataclasses.replace(structure, estimate=estimate, reason="")
        except TooFewBlocksError as found:
            return dataclasses.replace(structure, estimate=None, reason=str(found))
    return structure


def _without_bias(estimate: NoiseEstimate, lines: Sequence[str]) -> NoiseEstimate:
    """Corrects the correlation for what the removal of line noise takes.

    The mean of a line holds some of the other noise, too. Removing it lowers the correlation along
    the line at all distances alike, so it is raised to be 0 on average from 8 px on.
    """
    correlation, around = estimate.correlation.copy(), estimate.correlation_map.copy()
    for name in lines:
        direction = LINES.index(name)
        bias = correlation[direction, FAR - 1 :].mean()
        correlation[direction] -= bias
        line = around if direction == 0 else around.T
        line[_MIDDLE, np.arange(len(line)) != _MIDDLE] -= bias
    return dataclasses.replace(estimate, correlation=correlation, correlation_map=around)


def choose_mask(
    read: Callable[[], Iterable[np.ndarray]],
    volumes: Iterable[np.ndarray] | None = None,
    *,
    aligned: bool = False,
) -> tuple[str, list[str]]:
    """Returns the mask that suits the noise of pictures, and whole sentences that say why.

    Args:
        read: see `measure_structure`.
        volumes: [D, H, W, C] each, of planes along z, if the network has three dimensions. Default
            None: it has two.
        aligned: see `measure_structure`. Default False.

    Raises:
        DataError: if no noise is seen (`TooFewBlocksError`), or it is correlated too far for a
            mask.

    Example:
        >>> noise = np.random.default_rng(0).normal(0.5, 0.1, (4, 256, 258, 1))
        >>> choose_mask(lambda: (noise[:, :, 1:-1] + noise[:, :, 2:] + noise[:, :, :-2]) / 3)[0]
        'x:2'
    """
    structure = measure_structure(read, aligned=aligned)
    lines = structure.found_lines
    if structure.estimate is None and not lines:
        raise TooFewBlocksError(structure.reason)
    mask = mask_for(structure.estimate, lines, dimensions=2 if volumes is None else 3)
    if not mask.fits:
        raise DataError(" ".join(mask.reasons))
    shape, reasons = mask.shape, [*mask.reasons]
    if structure.estimate:
        reasons += uncertainty(structure.estimate, alone=True)
    if volumes is not None:
        step = 1
        if structure.estimate:
            step = mask_step(structure.estimate.correlation[:2].mean(axis=0))
        reach, reason = _along_z(volumes, step)
        reasons += [reason] if reason else []
        if reach:
            shape = f"z:{reach}" if shape == "point" else f"{shape}+z:{reach}"
    return shape, reasons


def _along_z(volumes: Iterable[np.ndarray], step: int) -> tuple[int, str]:
    """Returns how many planes to each side share the noise of a volume's plane, and a sentence."""
    groups: list[list[np.ndarray]] = []
    far = None
    for volume in volumes:
        lags, far = distances(len(volume))
        if lags:
            groups.append([volume[n] for n in (0, *lags, *([far] if far else []))])
    if not groups or not (found := series_correlation(groups, far, step)):
        return 0, ""
    last = len(found.correlation)
    reach = last if found.independent_from is None else found.independent_from - 1
    rho = found.correlation[0]
    if not reach:
        return 0, f"The noise of neighbouring planes is independent: its correlation is {rho:.3f}."
    planes = f"{reach} plane{'s' * (reach > 1)} along z"
    planes += ", and maybe more" * (found.independent_from is None)
    return reach, (
        f"The noise is correlated over {planes}: {rho:.3f} between neighbours, unless that is fine "
        "structure."
    )


def uncertainty(estimate: NoiseEstimate, *, alone: bool = False) -> list[str]:
    """Returns a sentence if there are too few flat blocks to see what matters, or none.

    What matters to a mask is the correlation in each direction `alone`.
    """
    seen, matters = least_seen(estimate), FAR_MATTERS
    if alone:
        seen, matters = SURE * np.median(estimate.deviation[:2]), alone_limits(estimate).min()
    if seen <= matters:
        return []
    return [
        f"This is uncertain, because it comes from only {estimate.blocks} blocks: use more or "
        "larger pictures."
    ]


def mask_for(
    estimate: NoiseEstimate | None, lines: Sequence[LineNoise] = (), *, dimensions: int = 2
) -> Mask:
    """Returns the mask that suits noise.

    Args:
        estimate: of the noise without that of lines; None if it is not known.
        lines: the noise of lines, as far as it counts.
        dimensions: int, 2 or 3, of the network: it decides how offsets are written.
    """
    sigma = float(np.median(estimate.level)) if estimate else None
    reasons = [each.describe(sigma) for each in lines]
    found = correlated_offsets(estimate) if estimate else set()
    x, y = (max((abs(o[axis]) for o in found if not o[1 - axis]), default=0) for axis in (1, 0))
    others = {offset for offset in found if offset[0] and offset[1]}
    if estimate and not found:
        reasons.append(
            "The noise of neighbouring pixels is independent: the correlation is at most "
            f"{abs(estimate.correlation).max():.3f}, so no mask is needed around a pixel."
        )
    elif min(x, y) > _MOST:
        reasons.append(
            f"The noise is correlated over {x} px along rows and {y} px along columns: a mask "
            "would hide most of what a pixel can be predicted from. Train with cbsn train --recipe "
            "cbsn --stride_b auto, or scale the pictures down by half."
        )
        return Mask("point", reasons, fits=False)
    elif found:
        assert estimate
        reasons.append(_describe(estimate, x, y, others))
    for each in lines:
        if each.lines == "rows":
            x = max(x, _LINE)
        else:
            y = max(y, _LINE)
    if lines:
        names = [each.lines for each in lines]
        reasons.append(
            f"A mask cannot hide whole {' and '.join(names)}: it hides {_LINE} px to each side, "
            "which is about as far as a network sees single lines. Part of the offsets remains. It "
            f"is better to remove them before, by --repair {','.join(names)} of cbsn train."
        )
    parts = _parts(x, y, others, dimensions)
    return Mask("+".join(parts) or "point", reasons)


def _describe(estimate: NoiseEstimate, x: int, y: int, others: set[Offset]) -> str:
    """Says in a sentence where noise is correlated."""
    far = [
        f"{reach} px{' or more' * (reach == LAGS)} along {name}"
        for reach, name in ((x, "rows"), (y, "columns"))
        if reach
    ]
    rho = abs(estimate.correlation[:, 0])
    if not far:
        return (
            "The noise is correlated along diagonals only: "
            f"{max(rho[2:]):.3f} between diagonal neighbours."
        )
    told = f"The noise is correlated over {' and '.join(far)}"
    if not (x and y):
        along, across = (0, 1) if x else (1, 0)
        return f"{told} only: {rho[along]:.3f} between neighbours there, {rho[across]:.3f} across."
    diagonal = "and between them" if others else "but not diagonally"
    return f"{told}, {diagonal}: {rho[0]:.3f} and {rho[1]:.3f} between neighbours."


def _parts(x: int, y: int, others: set[Offset], dimensions: int) -> list[str]:
    """Returns the parts of a mask that hides x pixels along rows, y along columns, and others."""
    parts: list[str] = []
    listed = sorted(offset for offset in others if offset > (0, 0))
    side = max((max(map(abs, offset)) for offset in others), default=0)
    is_full = len(others) > 2 * side**2  # at least half of a square without its axes
    if others and (is_full or len(listed) > _FEW):
        parts.append(f"square:{side}")
        x, y = (reach if reach > side else 0 for reach in (x, y))
        listed = []
    if x and x == y:
        parts.append(f"cross:{x}")
    else:
        parts += [f"{axis}:{reach}" for axis, reach in (("x", x), ("y", y)) if reach]
    if listed:
        zeros = "0," * (dimensions - 2)
        both = [*listed, *((-down, -right) for down, right in listed)]
        parts.append(";".join(f"{zeros}{down},{right}" for down, right in both))
    return parts


def correlated_offsets(estimate: NoiseEstimate) -> set[Offset]:
    """Returns the offsets of the pixels whose noise is correlated with that of the one in between.

    Along rows, columns and diagonals, a correlation counts as for the strides that `advise`
    recommends: if it is larger than what matters, and than chance makes the largest of them. Within
    that reach, so do those of other pixels. Each comes with its opposite.
    """
    alone = alone_limits(estimate)
    rho = abs(estimate.correlation)
    counts = rho > np.maximum(alone, SURE * estimate.deviation)
    # Both directions also count if only their mean does, unless it is due to one of them.
    mean = abs(estimate.correlation[:2].mean(axis=0))
    counts[:2] |= (mean > limits(estimate)) & (rho[:2] > mean / 2)
    reach = int(np.max(np.flatnonzero(counts.any(axis=0)) + 1, initial=0))
    found = {
        (lag * down, lag * right)
        for (down, right), row in zip(_DIRECTIONS, counts, strict=True)
        for lag in np.flatnonzero(row).tolist()
        for lag in (lag + 1,)
    }
    for down in range(1, reach + 1):
        for right in range(-reach, reach + 1):
            lag = max(down, abs(right)) - 1
            if right and abs(right) != down:
                value = abs(estimate.correlation_map[_MIDDLE + down, _MIDDLE + right])
                if value > max(alone[lag], SURE * estimate.deviation[:, lag].max()):
                    found.add((down, right))
    return found | {(-down, -right) for down, right in found}
