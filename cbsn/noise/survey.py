"""Collects the blocks that show the noise of pictures, picture by picture."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import (
    BLOCK,
    REACH,
    autocovariance,
    smooth_energy,
    split,
    structure,
    without_bias,
)
from cbsn.value_range import to_levels, value_range

STEP = 16  # distance between neighbouring blocks in pixels; they overlap by half
BINS = 64  # bins of the histogram of pixel values, from 0 to full scale
FEWEST = 8  # blocks that an estimate needs

_FIRST = 16  # flat blocks that the search starts with
_MOST_CONTENT = 1.25  # limit relative to the smooth energy of noise with the measured correlation
_MIDDLE = (0.1, 0.7)  # the final blocks lie between these quantiles of the variance

_MOST_KEPT = 8192  # blocks kept in memory, those with the least content; 2 KB each per channel
_AT_ONCE = 1024  # blocks whose pixels are in memory at a time
_TRIED = (512, 8192)  # fewest and most blocks that are measured in a picture
_MOST_CLIPPED = 0.1  # share of a block's pixels; shifts correlations on SIDD by less than 0.005
_QUIET = 0.1  # quantile of the variance, among blocks of similar brightness, taken as noise
_BINS = (32, 16)  # fewest blocks in a brightness bin, and most bins
_LOUDEST = 1.35  # times that variance; louder blocks contain texture

# Limit of `structure`. Noise scores 0.9 ± 0.1, or ± 0.25 with one channel and strong correlation.
_MOST_STRUCTURED = 1.3


class TooFewBlocksError(DataError):
    """There are too few flat blocks to measure noise."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Measurements of n blocks of 32 × 32 pixels, in C channels.

    Content shows in the energy of the smooth part (without brightness and shading), far above the
    noise. All other measurements exclude the smooth part, so that selecting blocks by its energy
    does not bias them.
    """

    content: np.ndarray  # [n], energy of the smooth part, in units of `quiet`
    quiet: np.ndarray  # [n, C], variance of the quietest blocks of this brightness, in levels²
    brightness: np.ndarray  # [n, C], mean in 8-bit levels
    covariance: np.ndarray  # [n, C, REACH + 1, 2·REACH + 1], from `autocovariance`, in levels²
    picture: np.ndarray  # int [n], number of the picture
    corner: np.ndarray  # int [n, 2], row and column of the first pixel, in units of `STEP`

    @property
    def scaled(self) -> np.ndarray:
        """The covariance in units of `quiet`, a first guess of the noise's variance."""
        return self.covariance / self.quiet[:, :, None, None]

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: np.ndarray | slice) -> "Blocks":
        return Blocks(*(values[index] for values in vars(self).values()))

    def __add__(self, other: "Blocks") -> "Blocks":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Blocks(*map(np.concatenate, pairs))


class Survey:
    """Collects blocks that may be flat, and keeps a limited number of them in memory."""

    def __init__(self) -> None:
        # The blocks with the least content of all pictures.
        self.blocks: Blocks | None = None
        # For each picture, the means [m, C] of all blocks that are not clipped.
        self.brightness: list[np.ndarray] = []
        # Numbers of blocks: `all`, `clipped`, `silent` (without noise) and `uneven`.
        self.counts: collections.Counter[str] = collections.Counter()
        # Number of pixels; by channel, how many are at 0 and at full scale, and in each bin.
        self.pixels = 0
        self.ends = self.histogram = np.zeros(())

    def add(self, noisy: np.ndarray, denoised: np.ndarray | None = None) -> None:
        """Adds a picture.

        Excludes blocks that are clipped or without noise, louder than others of their brightness,
        or structured. Of the others, measures the flattest quarter, judged by their `content`.
        With a denoised picture, the noise is the difference between the two pictures, `content` is
        the denoised one's variance, and loud or structured blocks stay.
        """
        self._check(noisy, denoised)
        scale = value_range(noisy.dtype)
        black, white = noisy == 0, noisy == scale
        self.pixels += noisy.shape[0] * noisy.shape[1]
        self.ends = self.ends + np.stack([each.sum(axis=(0, 1)) for each in (black, white)], 1)
        channels = [np.clip(channel, 0, scale) for channel in np.moveaxis(noisy, 2, 0)]
        counts = [np.histogram(channel, BINS, (0, scale))[0] for channel in channels]
        self.histogram = self.histogram + np.stack(counts)
        if min(noisy.shape[:2]) < BLOCK:
            self.brightness.append(np.zeros((0, noisy.shape[2])))
            return
        # Blocks that vary no more than rounding explains have no noise.
        rounding = 0 if noisy.dtype.kind == "f" else (255 / scale) ** 2 / 12
        noise = picture = to_levels(noisy)
        if denoised is not None:
            picture = to_levels(denoised)
            noise = noise - picture
        energy, variance, bright, share = _look(noise, picture, black | white)
        exposed = np.all(share <= _MOST_CLIPPED, axis=1)
        heard = (variance > rounding).all(axis=1)
        where = np.flatnonzero(exposed & heard)
        quiet = quietest(variance[where], bright[where], _QUIET, _BINS, "quicksort")
        tried = np.arange(len(where))
        if denoised is None:
            tried = np.flatnonzero((variance[where] / quiet).mean(axis=1) < _LOUDEST)
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

    def flattest(self) -> Blocks | None:
        """Returns the blocks without content, or None before the first picture that has blocks.

        Takes blocks by increasing content, as long as noise with their measured correlation
        explains it. Drops the loudest of these, which have texture, and the quietest, which come
        from pictures with texture everywhere.
        """
        if self.blocks is None:
            return None
        blocks = self.blocks[np.argsort(self.blocks.content)]
        scaled = blocks.scaled.mean(axis=1)
        sums = np.cumsum(scaled, axis=0, dtype=np.float64)
        number, size = 0, _FIRST
        while size <= len(blocks):
            predicted = smooth_energy(without_bias(sums[size - 1] / size))
            if blocks.content[size - 1] <= _MOST_CONTENT * predicted:
                number = size
            elif number:
                break
            size += size // 8
        if not number:
            return blocks[:0]
        variance = scaled[:number, 0, REACH]
        low, high = np.quantile(variance, _MIDDLE)
        return blocks[:number][(variance >= low) & (variance <= high)]

    def too_few(self) -> TooFewBlocksError:
        """Returns the error for too few flat blocks, which says what was found and what to do."""
        counts = self.counts
        pictures = f"{len(self.brightness)} picture{'s' * (len(self.brightness) != 1)}"
        size = f"{BLOCK} × {BLOCK} pixels"
        if not counts["all"]:
            return TooFewBlocksError(
                f"No picture has {size}: use larger ones. Received: {pictures}"
            )
        return TooFewBlocksError(
            "There are too few flat blocks to measure the noise. Use larger or more pictures, or "
            "measure what a denoiser removes (cbsn noise --model or --denoised). If the noise is "
            "blotches of more than 7 pixels, scale the pictures down. "
            f"Received: {pictures} with {counts['all']} block{'s' * (counts['all'] != 1)} of "
            f"{size}, of which {counts['clipped']} clipped, {counts['silent']} without noise and "
            f"{counts['uneven']} uneven"
        )

    def _check(self, noisy: np.ndarray, denoised: np.ndarray | None) -> None:
        if not all(np.isfinite(each).all() for each in (noisy, denoised) if each is not None):
            raise DataError(
                "Noise cannot be measured in values that are not finite: remove that picture. "
                f"Received: NaN or infinity in picture {len(self.brightness) + 1}"
            )
        if self.brightness and noisy.shape[2] != self.brightness[0].shape[1]:
            raise DataError(
                "Use pictures that are all gray or all in colour. Received: one of "
                f"{noisy.shape[2]} channels after others of {self.brightness[0].shape[1]}"
            )
        if denoised is not None and (noisy.shape, noisy.dtype) != (denoised.shape, denoised.dtype):
            raise DataError(
                "A noisy picture and the denoised one must have the same size and bit depth. "
                f"Received: {noisy.shape}, {noisy.dtype} and {denoised.shape}, {denoised.dtype}"
            )


def quietest(
    variance: np.ndarray,
    brightness: np.ndarray,
    quantile: float,
    bins: tuple[int, int],
    sort: Literal["quicksort", "stable"],
) -> np.ndarray:
    """Returns a low quantile of the variance as a function of the brightness, all [n, C].

    `bins` are the fewest blocks in a brightness bin and the most bins. The kind of `sort` decides
    to which bins blocks of equal brightness go.
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


def _look(noise: np.ndarray, picture: np.ndarray, clipped: np.ndarray) -> Iterator[np.ndarray]:
    """Returns content, noise variance, brightness and clipped share of all blocks, [n, C] each."""
    rows = []
    for top in range(0, len(noise) - BLOCK + 1, STEP):
        blocks, shown, ends = (_cut(each[top : top + BLOCK]) for each in (noise, picture, clipped))
        energy, rest = split(blocks)
        if picture is not noise:
            smooth, content = split(shown)
            energy = smooth + (content**2).mean(axis=-1)
        rows.append((energy, (rest**2).mean(axis=-1), shown.mean(axis=-1), ends.mean(axis=-1)))
    return map(np.concatenate, zip(*rows, strict=True))


def _cut(strip: np.ndarray) -> np.ndarray:
    """Returns the blocks [n, C, BLOCK²] of a strip [BLOCK, W, C]."""
    windows = np.lib.stride_tricks.sliding_window_view(strip, BLOCK, axis=1)[:, ::STEP]
    blocks = windows.transpose(1, 2, 0, 3)
    return blocks.reshape(*blocks.shape[:2], BLOCK**2)


def _covariance(noise: np.ndarray, tops: np.ndarray, lefts: np.ndarray) -> np.ndarray:
    """Returns the autocovariance [n, C, REACH + 1, 2·REACH + 1] of the blocks at these corners."""
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
