"""The blocks of pictures that show their noise, collected from picture after picture."""

import collections
import dataclasses
from typing import Literal

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import BLOCK, REACH, autocovariance, split, structure
from cbsn.value_range import to_levels, value_range

STEP = 16
"""Distance of neighbouring blocks in pixels: they overlap by half."""

BINS = 64
"""Of the histogram of pixel values, from 0 to full scale."""

FEWEST = 8
"""Blocks that an estimate takes at least."""

_MOST_KEPT = 8192
"""Blocks in memory, those with the least content, of 2 KB for each channel."""

_AT_ONCE = 1024  # blocks whose pixels are in memory

_MOST_CLIPPED = 0.1
"""Share of a block's pixels. On SIDD, so much changes correlations by less than 0.005."""

_QUIET = 0.1
"""Quantile of the variance, among blocks of about one brightness, that is taken for noise."""

_LOUDEST = 1.35
"""Blocks of more than this many times that variance have texture in them."""

_MOST_STRUCTURED = 1.3
"""As `structure` has it. Noise has 0.9 ± 0.1, of one channel and strongly correlated ± 0.25."""

_TRIED = (512, 8192)
"""How many blocks of a picture are measured at least, and at most."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What was measured on n blocks of 32 × 32 pixels, in C channels.

    Args:
        content: [n], energy of the smooth part, apart from brightness and shading, in units of
            the noise's variance. That is where content is, far above the noise. All other
            measurements are made without it, so that choosing by it does not bias them.
        quiet: [n, C], variance in 8-bit levels² that the quietest blocks of this brightness have
            in this picture: a first guess of the noise.
        brightness: [n, C], mean in 8-bit levels.
        covariance: [n, C, REACH + 1, 2·REACH + 1], from `autocovariance`, in 8-bit levels².
        picture: int [n], number of the picture.
        corner: int [n, 2], row and column of the first pixel, in units of `STEP` pixels.
    """

    content: np.ndarray
    quiet: np.ndarray
    brightness: np.ndarray
    covariance: np.ndarray
    picture: np.ndarray
    corner: np.ndarray

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: np.ndarray | slice) -> "Blocks":
        return Blocks(*(values[index] for values in vars(self).values()))

    def __add__(self, other: "Blocks") -> "Blocks":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Blocks(*map(np.concatenate, pairs))


class Survey:
    """Collects the blocks of pictures that may be flat, in memory that does not grow with them.

    Attributes:
        blocks: `Blocks`, those with the least content of all pictures; None before there are any.
        brightness: of each picture, the means [m, C] of all its blocks that are not clipped.
        counts: blocks in `all`, and `clipped`, `silent` (without noise) and `uneven`.
    """

    def __init__(self) -> None:
        self.blocks: Blocks | None = None
        self.brightness: list[np.ndarray] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self._pixels = 0
        self._ends = self._histogram = np.zeros(())

    def add(self, noisy: np.ndarray, denoised: np.ndarray | None = None) -> None:
        """Adds a picture.

        Blocks that are clipped, without noise, louder than others of their brightness, or have
        structure do not count. How flat the others are, their `content` says; a quarter of them
        is measured, the flattest. If there is a denoised picture, the noise is what it lacks, and
        `content` is the variance of what it has.

        Args:
            noisy: [H, W, C], uint8, uint16 or float, C being 1 or 3.
            denoised: the same shape and dtype.

        Raises:
            DataError: if values are not finite, the two differ in shape or dtype, or this picture
                and others in channels.
        """
        self._check(noisy, denoised)
        scale = value_range(noisy.dtype)
        black, white = noisy == 0, noisy == scale
        self._pixels += noisy.shape[0] * noisy.shape[1]
        self._ends = self._ends + np.stack([each.sum(axis=(0, 1)) for each in (black, white)], 1)
        self._histogram = self._histogram + np.stack(
            [
                np.histogram(np.clip(channel, 0, scale), BINS, (0, scale))[0]
                for channel in np.moveaxis(noisy, 2, 0)
            ]
        )
        if min(noisy.shape[:2]) < BLOCK:
            self.brightness.append(np.zeros((0, noisy.shape[2])))
            return
        # Blocks that vary no more than rounding makes them are without noise.
        rounding = 0 if noisy.dtype.kind == "f" else (255 / scale) ** 2 / 12
        noise = picture = to_levels(noisy)
        if denoised is not None:
            picture = to_levels(denoised)
            noise = noise - picture
        energy, variance = _parts(noise)
        bright, share = (
            np.concatenate([_cut(strip).mean(axis=-1) for strip in _strips(each)])
            for each in (picture, black | white)
        )
        exposed = (share <= _MOST_CLIPPED).all(axis=1)
        heard = (variance > rounding).all(axis=1)
        where = np.flatnonzero(exposed & heard)
        quiet = quietest(variance[where], bright[where], _QUIET, (32, 16), "quicksort")
        tried = np.arange(len(where))
        if denoised is None:
            tried = np.flatnonzero((variance[where] / quiet).mean(axis=1) < _LOUDEST)
        else:
            energy = np.add(*_parts(picture))
        content = (energy[where] / quiet).mean(axis=1)
        tried = tried[np.argsort(content[tried])][: np.clip(len(where) // 4, *_TRIED)]
        rows, columns = np.divmod(where[tried], (noise.shape[1] - BLOCK) // STEP + 1)
        found = Blocks(
            content=content[tried],
            quiet=quiet[tried],
            brightness=bright[where[tried]],
            covariance=_covariance(noise, rows * STEP, columns * STEP),
            picture=np.full(len(tried), len(self.brightness)),
            corner=np.stack([rows, columns], axis=1),
        )
        if denoised is None:
            found = found[structure(found.covariance).mean(axis=1) < _MOST_STRUCTURED]
        self.counts["all"] += len(exposed)
        self.counts["clipped"] += int(np.sum(~exposed))
        self.counts["silent"] += int(np.sum(exposed & ~heard))
        self.counts["uneven"] += len(where) - len(found)
        self.brightness.append(bright[exposed])
        blocks = found if self.blocks is None else self.blocks + found
        if len(blocks) > _MOST_KEPT:
            blocks = blocks[np.argsort(blocks.content)[:_MOST_KEPT]]
        self.blocks = blocks

    def shares(self) -> dict[str, np.ndarray]:
        """`clipped` and `histogram` of `NoiseEstimate`, after at least one picture."""
        return {"clipped": self._ends / self._pixels, "histogram": self._histogram / self._pixels}

    def too_few(self) -> DataError:
        """Says that there are too few flat blocks, what there is, and what to do."""
        counts = self.counts
        pictures = f"{len(self.brightness)} picture{'s' * (len(self.brightness) != 1)}"
        size = f"{BLOCK} × {BLOCK} pixels"
        if not counts["all"]:
            return DataError(f"No picture has {size}: give larger ones. Received: {pictures}")
        return DataError(
            "There are too few flat blocks to see the noise in. Give larger or more pictures, or "
            "let python -m cbsn noise take what a denoiser took away (--modelpath, --denoised); "
            "or scale the pictures down, if their noise is blotches of more than 7 pixels. "
            f"Received: {pictures} with {counts['all']} block{'s' * (counts['all'] != 1)} of "
            f"{size}, of which {counts['clipped']} clipped, {counts['silent']} without noise and "
            f"{counts['uneven']} uneven"
        )

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


def quietest(
    variance: np.ndarray,
    brightness: np.ndarray,
    quantile: float,
    bins: tuple[int, int],
    sort: Literal["quicksort", "stable"],
) -> np.ndarray:
    """Returns a low quantile of the variance as a function of the brightness, all [n, C].

    Args:
        variance: of blocks.
        brightness: theirs.
        quantile: float in [0, 1].
        bins: blocks of about one brightness, at least, and such bins, at most.
        sort: the kind, which decides where blocks of one brightness go.
    """
    quiet = np.empty_like(variance)
    if not len(variance):
        return quiet
    count = np.clip(len(variance) // bins[0], 1, bins[1])
    for channel, (values, by) in enumerate(zip(variance.T, brightness.T, strict=True)):
        parts = np.array_split(np.argsort(by, kind=sort), count)
        centres = [by[each].mean() for each in parts]
        lows = [np.quantile(values[each], quantile) for each in parts]
        quiet[:, channel] = np.interp(by, centres, lows)
    return quiet


def _strips(picture: np.ndarray) -> list[np.ndarray]:
    """All rows of blocks of a picture, [BLOCK, W, C] each."""
    return [picture[top : top + BLOCK] for top in range(0, len(picture) - BLOCK + 1, STEP)]


def _cut(strip: np.ndarray) -> np.ndarray:
    """[n, C, BLOCK²] of a strip [BLOCK, W, C]."""
    windows = np.lib.stride_tricks.sliding_window_view(strip, BLOCK, axis=1)[:, ::STEP]
    blocks = windows.transpose(1, 2, 0, 3)
    return blocks.reshape(*blocks.shape[:2], BLOCK**2)


def _parts(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, C] each, of all blocks: the energy of the smooth part, and the variance of the rest."""
    energies, variances = [], []
    for strip in _strips(picture):
        energy, rest = split(_cut(strip))
        energies.append(energy)
        variances.append((rest**2).mean(axis=-1))
    return np.concatenate(energies), np.concatenate(variances)


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
