"""The blocks of pictures that show their noise, collected from picture after picture."""

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

STEP = 16  # distance of neighbouring blocks in pixels: they overlap by half
BINS = 64  # of the histogram of pixel values, from 0 to full scale
FEWEST = 8  # blocks that an estimate takes at least

_FIRST = 16  # flat blocks to begin with
_MOST_CONTENT = 1.25  # times the smooth energy that noise of the correlation found would have
_MIDDLE = (0.1, 0.7)  # quantiles of the variance, between which blocks are taken in the end

_MOST_KEPT = 8192  # blocks in memory, those with the least content, of 2 KB for each channel
_AT_ONCE = 1024  # blocks whose pixels are in memory
_TRIED = (512, 8192)  # how many blocks of a picture are measured at least, and at most
_MOST_CLIPPED = 0.1  # share of a block's pixels; on SIDD it moves correlations by less than 0.005
_QUIET = 0.1  # quantile of the variance, among blocks of about one brightness, taken for noise
_BINS = (32, 16)  # blocks of about one brightness, at least; and the most bins of brightness
_LOUDEST = 1.35  # times that variance; louder blocks have texture in them

# As `structure` has it. Noise has 0.9 ± 0.1, of one channel and strongly correlated ± 0.25.
_MOST_STRUCTURED = 1.3


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What was measured on n blocks of 32 × 32 pixels, in C channels.

    The energy of their smooth part, apart from brightness and shading, is where content is, far
    above the noise. All other measurements are made without it, so that choosing by it does not
    bias them.
    """

    content: np.ndarray  # [n], energy of the smooth part, in units of `quiet`
    quiet: np.ndarray  # [n, C], variance of the quietest blocks of this brightness, in levels²
    brightness: np.ndarray  # [n, C], mean in 8-bit levels
    covariance: np.ndarray  # [n, C, REACH + 1, 2·REACH + 1], from `autocovariance`, in levels²
    picture: np.ndarray  # int [n], number of the picture
    corner: np.ndarray  # int [n, 2], row and column of the first pixel, in units of `STEP`

    @property
    def scaled(self) -> np.ndarray:
        """The covariance in units of `quiet`, a first guess of the noise."""
        return self.covariance / self.quiet[:, :, None, None]

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: np.ndarray | slice) -> "Blocks":
        return Blocks(*(values[index] for values in vars(self).values()))

    def __add__(self, other: "Blocks") -> "Blocks":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Blocks(*map(np.concatenate, pairs))


class Survey:
    """Collects the blocks of pictures that may be flat, in memory that does not grow with them."""

    def __init__(self) -> None:
        # Those with the least content of all pictures.
        self.blocks: Blocks | None = None
        # Of each picture, the means [m, C] of all its blocks that are not clipped.
        self.brightness: list[np.ndarray] = []
        # Of blocks, in `all`, and `clipped`, `silent` (without noise) and `uneven`.
        self.counts: collections.Counter[str] = collections.Counter()
        # How many there are; by channel, how many are at 0 and at full scale, and in each bin.
        self.pixels = 0
        self.ends = self.histogram = np.zeros(())

    def add(self, noisy: np.ndarray, denoised: np.ndarray | None = None) -> None:
        """Adds a picture.

        Blocks that are clipped, without noise, louder than others of their brightness, or have
        structure do not count. How flat the others are, their `content` says; a quarter of them
        is measured, the flattest. If there is a denoised picture, the noise is what it lacks, and
        `content` is the variance of what it has.
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
        # Blocks that vary no more than rounding makes them are without noise.
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
        """Returns the blocks without content, None before the first picture that has blocks.

        Blocks are taken in the order of their content, as long as that is not more than noise of
        the correlation that they have would have. Of these, the loudest and the quietest are
        dropped: the former have texture, the latter are of pictures with texture everywhere.
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

    `bins` are how many blocks of about one brightness are taken together at least, and how many
    such bins there are at most. The kind of `sort` decides where blocks of one brightness go.
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
    """Of all blocks, [n, C] each: content, variance of the noise, brightness, share clipped."""
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
    """[n, C, BLOCK²] of a strip [BLOCK, W, C]."""
    windows = np.lib.stride_tricks.sliding_window_view(strip, BLOCK, axis=1)[:, ::STEP]
    blocks = windows.transpose(1, 2, 0, 3)
    return blocks.reshape(*blocks.shape[:2], BLOCK**2)


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
