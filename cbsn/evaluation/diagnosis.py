"""Judges whether a denoised picture can be trusted when there is no clean one to compare with."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cbsn.evaluation.conventions import check_comparable
from cbsn.evaluation.residual_statistics import (
    CELL,
    TONES,
    grid_power,
    smooth_place_sums,
    structure_sums,
    tone_sums,
)
from cbsn.noise.removal import Removal
from cbsn.value_range import to_levels

SMALLEST = 16  # side in pixels of the smallest picture that can be diagnosed

# Periods of checkerboards in pixels: those that pixel-shuffle downsampling leaves, and the powers
# of two that a U-Net's upsampling leaves.
STRIDES = tuple(range(2, 9))

# Limits of a slight and of a clear effect. With noise of any kind, clean pictures judged as
# denoised ones stay below the first. Structure: a blur of 0.5 px removes 0.04 to 0.08, of 0.7 px
# 0.10 to 0.15, of 1 px 0.17 to 0.25. Checkerboard: 1 level is visible in flat places.
_STRUCTURE = (0.08, 0.2)
_NOISE_LEFT = (0.3, 0.45)
_SHIFT = (0.8, 3.0)
_CHECKERBOARD = (0.4, 0.8)

_UNSURE = 0.1  # standard error above which no structure is reported
_LEAST_BLOCKS = 8
_LEAST_CELLS = 32
_MOST_CLIPPED = 0.03


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What a denoiser did, judged by its noisy input and its output alone.

    Created by `diagnose`, and pooled over pictures by `mean_of`. Levels are 8-bit levels, of 255,
    whatever the dtype. Figures that cannot be determined are None.
    """

    removed: float  # standard deviation of the residual (noisy − denoised), in levels
    removal: Removal  # what was removed within small cells, and the noise in them
    # Share of the contrast of the denoised picture's edges that was removed, in the mean of the
    # channels, and its standard error. It is 0 for an ideal denoiser, whatever the noise; nears 1
    # with blurring; and is slightly below 0 where noise was left or edges were sharpened. Texture
    # that was removed entirely does not count here, but in `removal`.
    structure: float | None
    structure_error: float | None
    # Roughness of the denoised picture as a share of the noisy one's (root mean square, within
    # 8 × 8 px), in the smoothest places: 1 where nothing was removed. Where a picture has texture
    # everywhere and the noise is weak, it measures that texture instead.
    noise_left: float | None
    # Levels by which the denoised picture is brighter than the noisy one on average, and their
    # standard error, in flat places of the channel and tone (in levels) where this is most
    # certain. Excludes what clipping or skewed noise explains.
    shift: float | None
    shift_error: float | None
    shift_channel: str | None
    shift_tone: float | None
    mean_shift: tuple[float | None, ...]  # by channel, the mean of such shifts over all tones
    # By stride in pixels: root mean square, in levels, of a pattern with that period (and none
    # shorter) that is in the mean of the denoised channels but not in that of the noisy ones.
    checkerboard: Mapping[int, float | None]
    _sums: Mapping[str, np.ndarray] = dataclasses.field(repr=False, compare=False)

    @classmethod
    def mean_of(cls, diagnoses: Sequence["Diagnosis"]) -> "Diagnosis":
        """Returns one diagnosis of several pictures, from the sums behind their figures.

        Many pictures may give figures for which each alone is too small. If others are in colour,
        gray ones count in each channel. Takes at least one diagnosis, all with the same strides.
        """
        sums = [each._sums for each in diagnoses]
        channels = max(len(each["tones"]) for each in sums)
        tones = (np.broadcast_to(s["tones"], (channels, *s["tones"].shape[1:])) for s in sums)
        pooled: dict[str, Any] = {"tones": sum(tones)}
        pooled |= {name: sum(s[name] for s in sums) for name in sums[0] if name != "tones"}
        return cls._from_sums(pooled, [*diagnoses[0].checkerboard])

    @classmethod
    def _from_sums(cls, sums: Mapping[str, np.ndarray], strides: Sequence[int]) -> "Diagnosis":
        """Computes the figures from sums over the pictures."""
        pixels, power = sums["residual"]
        structure, structure_error = _structure(sums["structure"])
        smooth, rough = sums["smooth"]
        names = ("gray",) if len(sums["tones"]) == 1 else ("red", "green", "blue")
        shifts = {name: _shifts(tones) for name, tones in zip(names, sums["tones"], strict=True)}
        found = [
            (abs(shift) - 3 * error, shift, error, name, (tone + 0.5) * 256 / TONES)
            for name, channel in shifts.items()
            for tone, shift, error, _ in channel
        ]
        shift, shift_error, shift_channel, shift_tone = max(found)[1:] if found else (None,) * 4
        return cls(
            removed=float(np.sqrt(power / pixels)),
            removal=Removal(*map(float, sums["removal"])),
            structure=structure,
            structure_error=structure_error,
            noise_left=float(np.sqrt(smooth / rough)) if rough else None,
            shift=shift,
            shift_error=shift_error,
            shift_channel=shift_channel,
            shift_tone=shift_tone,
            mean_shift=tuple(
                float(np.average([s for _, s, _, _ in each], weights=[n for *_, n in each]))
                if each
                else None
                for each in shifts.values()
            ),
            checkerboard={
                stride: float(np.sqrt(power / pixels)) if pixels else None
                for stride, (pixels, power) in zip(strides, sums["grid"], strict=True)
            },
            _sums=sums,
        )

    def lines(self) -> list[str]:
        """Returns each figure in plain words, with a verdict."""
        return [
            self._of_removed(),
            self._of_structure(),
            self._of_noise(),
            self._of_shift(),
            self._of_checkerboard(),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as rounded plain values for JSON."""
        removal = {name: round(getattr(self.removal, name), 2) for name in ("removed", "noise")}
        return {
            "removed": rounded(self.removed, 2),
            "removal": removal if self.removal.told else None,
            "structure": rounded(self.structure, 3),
            "structure_error": rounded(self.structure_error, 3),
            "noise_left": rounded(self.noise_left, 3),
            "shift": rounded(self.shift, 2),
            "shift_error": rounded(self.shift_error, 2),
            "shift_channel": self.shift_channel,
            "shift_tone": self.shift_tone,
            "mean_shift": [rounded(each, 2) for each in self.mean_shift],
            "checkerboard": {str(k): rounded(each, 2) for k, each in self.checkerboard.items()},
        }

    def _of_removed(self) -> str:
        if self.removed < 0.05:  # levels
            return "Removed: nothing; the denoised picture equals the noisy one."
        figure = f"Removed: {self.removed:.1f} levels of 255 (standard deviation of the residual)"
        if not self.removal.told:
            return f"{figure}; too few places are not clipped to measure the noise."
        words = (
            " (nothing to speak of beyond the noise)",
            ": much more than the noise, so fine texture was lost",
            ": far more than the noise, so texture was lost. Use another model, or remove "
            "less (cbsn denoise --strength 0.5)",
        )[self.removal.degree]
        return (
            f"{figure}; within {CELL} × {CELL} px it is {self.removal.removed:.1f}, and the noise "
            f"is about {self.removal.noise:.1f}{words}."
        )

    def _of_structure(self) -> str:
        if self.structure is None or self.structure_error is None:
            return "Structure in what was removed: too few edges to tell."
        fine = f" (none to speak of: below {_STRUCTURE[0]})"
        if self.structure + 2 * self.structure_error >= _STRUCTURE[0]:
            fine = f" (too uncertain to tell whether it is above {_STRUCTURE[0]})"
        if self.removal.degree:
            fine = ". This measures the edges that are left, not the texture that was lost"
        words = _verdict(
            self.structure - 2 * self.structure_error,
            _STRUCTURE,
            fine,
            ": the picture was smoothed a little",
            ": the picture was smoothed; edges are visible in the residual. Train longer, or use "
            "a larger network",
        )
        return (
            f"Structure in what was removed: {self.structure:.2f} ± {self.structure_error:.2f} of "
            f"the contrast of the edges left{words}."
        )

    def _of_noise(self) -> str:
        if self.noise_left is None:
            return "Noise left: the picture is too small or has too little noise to tell."
        words = _verdict(
            self.noise_left,
            _NOISE_LEFT,
            f" (none to speak of: below {_NOISE_LEFT[0]})",
            ": a little is left, or it is fine texture, if the noise is weak",
            ": noise was left, unless the picture is fine texture all over. Blind-spot "
            "networks keep correlated noise: use cbsn train with a larger --stride_b or --hole",
        )
        return f"Noise left: {self.noise_left:.2f} of it, in the smoothest places{words}."

    def _of_shift(self) -> str:
        if self.shift is None or self.shift_error is None:
            return "Brightness and colour: too few flat, unclipped places to tell."
        figure = f"{abs(self.shift):.1f} ± {self.shift_error:.1f} levels of 255"
        what = "it" if self.shift_channel == "gray" else self.shift_channel
        side = "bright" if self.shift > 0 else "dark"
        place = f"where {what} is around {self.shift_tone:.0f}, {figure} too {side}"
        words = _verdict(
            abs(self.shift) - 3 * self.shift_error,
            _SHIFT,
            f"fine; the largest measured shift, {figure}, is not certain to be above {_SHIFT[0]}",
            f"{place}: slightly shifted",
            f"{place}: shifted",
        )
        return f"Brightness and colour: {words}."

    def _of_checkerboard(self) -> str:
        told = {stride: each for stride, each in self.checkerboard.items() if each is not None}
        if not told:
            return "Checkerboard: the picture is too small to tell."
        # Only the strongest counts: patterns by chance stay far below the limits at any period.
        stride = max(told, key=lambda each: told[each])
        words = _verdict(
            told[stride],
            _CHECKERBOARD,
            f" (none to speak of: below {_CHECKERBOARD[0]})",
            ": faint",
            ": visible in flat places. Denoise with --r3 if the network can be blind, or train "
            "longer",
        )
        figure = f"{told[stride]:.1f} levels of 255, at a period of {stride} px"
        return f"Checkerboard: at most {figure}{words}."


def _verdict(value: float, limits: tuple[float, float], *words: str) -> str:
    """Returns the words for the number of limits that the value reaches."""
    return words[sum(value >= limit for limit in limits)]


def diagnose(
    noisy: np.ndarray, denoised: np.ndarray, strides: Sequence[int] = STRIDES
) -> Diagnosis:
    """Judges what a denoiser did to a picture, without knowing the clean one.

    Args:
        noisy: [H, W, 1 or 3], uint8, uint16 or float in units of [0, 1], which noise may exceed;
            H and W at least 16. Below about 150 px a side some figures are None; pooling helps.
        denoised: same shape and dtype.
        strides: ints ≥ 2, periods in pixels at which to look for a checkerboard.

    Raises:
        ValueError: for other pictures.
    """
    check_comparable("The diagnosis", noisy, denoised)
    if noisy.ndim != 3 or noisy.shape[2] not in (1, 3) or min(noisy.shape[:2]) < SMALLEST:
        raise ValueError(
            f"The diagnosis needs pictures [H, W, 1 or 3] of at least {SMALLEST} px a side. "
            f"Received: {noisy.shape}"
        )
    removal = Removal.of(noisy, denoised)
    planes = [[to_levels(p[..., c]) for c in range(p.shape[2])] for p in (noisy, denoised)]
    channels = list(zip(*planes, strict=True))
    means = np.mean(planes[0], axis=0), np.mean(planes[1], axis=0)
    sums: dict[str, Any] = {
        "residual": sum(n.size * np.array([1.0, (n - d).var(dtype=float)]) for n, d in channels),
        "removal": np.array(dataclasses.astuple(removal)),
        "structure": structure_sums(*means),
        "smooth": sum(smooth_place_sums(n, d) for n, d in channels),
        "tones": np.stack([tone_sums(n, d) for n, d in channels]),
        "grid": np.stack([grid_power(*means, stride) for stride in strides]),
    }
    return Diagnosis._from_sums(sums, strides)


def _structure(sums: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Returns the share Σ a / Σ b and its standard error over the blocks; None if uncertain."""
    blocks, a, b, aa, ab, bb = sums
    if blocks < _LEAST_BLOCKS or b <= 0:
        return None, None
    share = a / b
    spread = max(aa - 2 * share * ab + share**2 * bb, 0) * blocks / (blocks - 1)
    error = np.sqrt(spread) / b
    return (None, None) if error > _UNSURE else (float(share), float(error))


def _shifts(tones: np.ndarray) -> list[tuple[int, float, float, float]]:
    """Returns number, shift, standard error and cells of each tone with enough unclipped cells.

    A camera's tone curve and clipping move the mean of the noise; Poisson noise moves the median.
    In each case mean and median differ by about skewness · deviation / 6 (Cornish & Fisher), and
    one of them is the true value, so only what lies beyond both is a shift.
    """
    shifts = []
    for tone, (cells, total, squares, second, third, clipped) in enumerate(tones):
        if cells < _LEAST_CELLS or clipped > _MOST_CLIPPED * cells:
            continue
        mean, second, third = total / cells, second / cells, third / cells
        variance = second - mean**2
        skewed = third - 3 * mean * second + 2 * mean**3
        median = mean - skewed / (6 * variance) if variance > 0 else mean
        nearest = min(mean, median, key=abs) if mean * median > 0 else 0.0
        error = np.sqrt(max(squares / cells - mean**2, 0) / (cells - 1))
        shifts.append((tone, float(0.0 - nearest), float(error), float(cells)))
    return shifts


def rounded(value: float | None, decimals: int) -> float | None:
    """Rounds a figure for JSON; None where it is None or not finite, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else round(value, decimals)
