"""What is collected of picture after picture."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import (
    BLOCK,
    REACH,
    STEP,
    Blocks,
    Values,
    autocovariance,
    split,
    structure,
)
from cbsn.value_range import value_range

_AT_ONCE = 1024  # blocks in memory

_MOST_CLIPPED = 0.1
"""Share of a block's pixels. On SIDD, so much changes correlations by less than 0.005."""

_QUIET = 0.1
"""Quantile of the variance, among blocks of about one brightness, that is taken for noise."""

_LOUDEST = 1.35
"""Blocks of more than so many times that variance have texture in them."""

_MOST_STRUCTURED = 1.3
"""As `structure` has it. Noise has 0.9 ± 0.1, of one channel and strongly correlated ± 0.25."""

_TRIED = (512, 8192)
"""How many blocks of a picture are measured at least, and at most."""


def flat_blocks(
    noisy: np.ndarray, denoised: np.ndarray | None, clipped: np.ndarray, rounding: float
) -> tuple[Blocks, np.ndarray, dict[str, int]]:
    """Finds the blocks of a picture that may be flat.

    Of the blocks, which overlap by half, those are left out that are clipped, without noise,
    louder than others of their brightness, or have structure. How flat the others are, their
    `content` says; a quarter of them is measured, the flattest. If there is a denoised picture,
    the noise is what it lacks, and `content` is the variance of what it has.

    Args:
        noisy: float32 [H, W, C], in 8-bit levels; H, W ≥ BLOCK.
        denoised: likewise, or None.
        clipped: bool [H, W, C], where the noisy picture is at 0 or at full scale.
        rounding: variance in 8-bit levels² that the rounding of the picture's values makes:
            blocks that have no more are without noise.

    Returns:
        The blocks, of picture 0; the mean brightness [m, C] of all that are not clipped; and how
        many blocks there are in `all`, and `clipped`, `silent` (without noise) and `uneven`.
    """
    noise = noisy if denoised is None else noisy - denoised
    strips = [slice(top, top + BLOCK) for top in range(0, len(noise) - BLOCK + 1, STEP)]
    energy, variance = _parts(noise, strips)
    bright, share = (
        np.concatenate([_blocks(each[strip]).mean(axis=-1) for strip in strips])
        for each in (noisy if denoised is None else denoised, clipped)
    )
    exposed = (share <= _MOST_CLIPPED).all(axis=1)
    heard = (variance > rounding).all(axis=1)
    where = np.flatnonzero(exposed & heard)
    quiet = _quiet(variance[where], bright[where])
    tried = np.arange(len(where))
    if denoised is None:
        tried = np.flatnonzero((variance[where] / quiet).mean(axis=1) < _LOUDEST)
    else:
        energy = sum(_parts(denoised, strips))
    content = (energy[where] / quiet).mean(axis=1)
    tried = tried[np.argsort(content[tried])][: np.clip(len(where) // 4, *_TRIED)]

    rows, columns = np.divmod(where[tried], (noise.shape[1] - BLOCK) // STEP + 1)
    found = Blocks(
        content=content[tried],
        quiet=quiet[tried],
        brightness=bright[where[tried]],
        covariance=_covariance(noise, rows * STEP, columns * STEP),
        picture=np.zeros(len(tried), int),
        corner=np.stack([rows, columns], axis=1),
    )
    if denoised is None:
        found = found[structure(found.covariance).mean(axis=1) < _MOST_STRUCTURED]
    counts = {
        "all": len(exposed),
        "clipped": int(np.sum(~exposed)),
        "silent": int(np.sum(exposed & ~heard)),
        "uneven": len(where) - len(found),
    }
    return found, bright[exposed], counts


def _parts(picture: np.ndarray, strips: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    """[n, C] each, of all blocks: the energy of the smooth part, and the variance of the rest."""
    energies, variances = [], []
    for strip in strips:
        energy, rest = split(_blocks(picture[strip]))
        energies.append(energy)
        variances.append((rest**2).mean(axis=-1))
    return np.concatenate(energies), np.concatenate(variances)


def _blocks(strip: np.ndarray) -> np.ndarray:
    """[n, C, BLOCK²] of a strip [BLOCK, W, C]."""
    windows = np.lib.stride_tricks.sliding_window_view(strip, BLOCK, axis=1)[:, ::STEP]
    blocks = windows.transpose(1, 2, 0, 3)
    return blocks.reshape(*blocks.shape[:2], BLOCK**2)


def _quiet(variance: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """[n, C], the low quantile of the variance as a function of the brightness."""
    quiet = np.empty_like(variance)
    if not len(variance):
        return quiet
    for channel, (values, by) in enumerate(zip(variance.T, bright.T, strict=True)):
        bins = np.array_split(np.argsort(by), np.clip(len(by) // 32, 1, 16))
        centres = [by[each].mean() for each in bins]
        lows = [np.quantile(values[each], _QUIET) for each in bins]
        quiet[:, channel] = np.interp(by, centres, lows)
    return quiet


def _covariance(noise: np.ndarray, tops: np.ndarray, lefts: np.ndarray) -> np.ndarray:
    """[n, C, REACH + 1, 2·REACH + 1] of the blocks at these corners."""
    channels = noise.shape[2]
    output = np.empty((len(tops), channels, REACH + 1, 2 * REACH + 1), np.float32)
    for start in range(0, len(tops), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        blocks = [
            noise[top : top + BLOCK, left : left + BLOCK].reshape(-1, channels).T
            for top, left in zip(tops[some], lefts[some], strict=True)
        ]
        output[some] = autocovariance(split(np.stack(blocks))[1])
    return output


_MOST_KEPT = 8192
"""Blocks in memory, those with the least content, of 2 KB for each channel."""


class Survey:
    """Collects the blocks of pictures that may be flat, in memory that does not grow with them.

    Attributes:
        blocks: `Blocks`, those with the least content of all pictures; None before there are any.
        brightness: of each picture, the means [m, C] of all its blocks that are not clipped.
        counts: blocks in `all`, `clipped`, `silent` and `uneven`, as `flat_blocks` has it.
        values: `Values` of all pictures.
    """

    def __init__(self) -> None:
        self.blocks: Blocks | None = None
        self.brightness: list[np.ndarray] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.values = Values()

    def add(self, noisy: np.ndarray, denoised: np.ndarray | None) -> None:
        """Adds a picture.

        Args:
            noisy: [H, W, C], uint8, uint16 or float, C being 1 or 3.
            denoised: likewise, or None.

        Raises:
            DataError: if values are not finite, the two differ in shape or dtype, or this picture
                and others in channels.
        """
        self._check(noisy, denoised)
        clipped = self.values.add(noisy)
        if min(noisy.shape[:2]) < BLOCK:
            self.brightness.append(np.zeros((0, noisy.shape[2])))
            return
        step = 0 if noisy.dtype.kind == "f" else 255 / value_range(noisy.dtype)
        found, brightness, counts = flat_blocks(
            _in_levels(noisy),
            None if denoised is None else _in_levels(denoised),
            clipped,
            rounding=step**2 / 12,
        )
        found.picture[:] = len(self.brightness)
        blocks = found if self.blocks is None else Blocks.joined([self.blocks, found])
        if len(blocks) > _MOST_KEPT:
            blocks = blocks[np.argsort(blocks.content)[:_MOST_KEPT]]
        self.blocks = blocks
        self.brightness.append(brightness)
        self.counts.update(counts)

    def _check(self, noisy: np.ndarray, denoised: np.ndarray | None) -> None:
        if not all(np.isfinite(each).all() for each in (noisy, denoised) if each is not None):
            raise DataError(
                "No noise can be seen in values that are not finite: take that picture away. "
                f"Received: NaN or infinity in picture {len(self.brightness) + 1}"
            )
        if self.brightness and noisy.shape[2] != self.brightness[0].shape[1]:
            raise DataError(
                "Give pictures that are all gray, or all in colour. Received: one of "
                f"{noisy.shape[2]} channels after others of {self.brightness[0].shape[1]}"
            )
        if denoised is not None and (noisy.shape, noisy.dtype) != (denoised.shape, denoised.dtype):
            raise DataError(
                "A noisy picture and the denoised one must be of equal size and depth. Received: "
                f"{noisy.shape}, {noisy.dtype} and {denoised.shape}, {denoised.dtype}"
            )


def _in_levels(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.float32) * np.float32(255 / value_range(picture.dtype))


_BINS = 12
_IN_BIN = 8  # blocks at least


def noise_levels(
    variance: np.ndarray,
    brightness: np.ndarray,
    picture: np.ndarray,
    everywhere: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Returns how strong the noise is.

    Flat blocks are not as bright as the rest of their picture. So a picture's variance is that of
    the flat blocks of all pictures, as a function of the brightness, averaged over the picture,
    times how much more or less its own flat blocks have.

    Args:
        variance: [n, C] of the noise in the flat blocks, in 8-bit levels².
        brightness: [n, C] of the flat blocks, in 8-bit levels.
        picture: int [n], index of their pictures.
        everywhere: brightness [m, C] of all blocks of each picture.

    Returns:
        `level`, `spread`, `slope`, `floor`, `misfit` and `points` of `NoiseEstimate`.
    """
    points = [points_of(v, b) for v, b in zip(variance.T, brightness.T, strict=True)]

    def predicted(bright: np.ndarray) -> np.ndarray:
        curves = zip(bright.T, points, strict=True)
        return np.stack([np.interp(b, at, sigma**2) for b, (at, sigma, _) in curves], axis=1)

    levels = []
    for number, bright in enumerate(everywhere):
        if not len(bright):
            continue
        mean = predicted(bright).mean(axis=0)
        mine = picture == number
        if mine.any():
            mean *= variance[mine].sum(axis=0) / predicted(brightness[mine]).sum(axis=0)
        levels.append(np.sqrt(mean))
    fits = np.array([_fit(*each) for each in points])
    return {
        "level": np.median(levels, axis=0),
        "spread": np.quantile(levels, [0.1, 0.9], axis=0).T,
        "slope": fits[:, 0],
        "floor": fits[:, 1],
        "misfit": fits[:, 2],
        "points": [np.stack([at, sigma], axis=1) for at, sigma, _ in points],
    }


def points_of(variance: np.ndarray, brightness: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the strength of the noise by the brightness, for one channel.

    Args:
        variance: [n] of the noise in flat blocks.
        brightness: [n], theirs.

    Returns:
        Brightness, σ and number of blocks, [m] each, of bins with about as many blocks each, by
        increasing brightness.
    """
    bins = np.array_split(np.argsort(brightness), np.clip(len(variance) // _IN_BIN, 1, _BINS))
    # Medians, as texture here and there is not to count.
    typical = [(np.median(brightness[i]), np.median(variance[i]) ** 0.5, len(i)) for i in bins]
    return tuple(np.array(typical).T)


def _fit(brightness: np.ndarray, sigma: np.ndarray, number: np.ndarray) -> tuple[float, ...]:
    """Slope and floor of the variance, and the relative deviation of σ from that."""
    # The error of a variance is in proportion to it.
    weights = np.sqrt(number) / sigma**2
    terms = np.stack([brightness, np.ones_like(brightness)], axis=1)
    if np.ptp(brightness) < 1:  # level of 255: no slope can be seen
        terms[:, 0] = 0
    slope, floor = np.linalg.lstsq(terms * weights[:, None], sigma**2 * weights, rcond=None)[0]
    fitted = np.sqrt(np.maximum(terms @ [slope, floor], 0))
    misfit = np.sqrt(np.average((fitted / sigma - 1) ** 2, weights=number))
    return slope, floor, misfit
