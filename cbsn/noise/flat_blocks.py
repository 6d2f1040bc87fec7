"""Finding the blocks of a picture in which there is noise and nothing else."""

import numpy as np

from cbsn.noise.autocovariance import BLOCK, REACH, autocovariance, split, structure
from cbsn.noise.blocks import STEP, Blocks

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
