"""Recommends training settings for the noise that was measured."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cbsn.noise.estimate import LAGS, NoiseEstimate
from cbsn.noise.limits import FAR_MATTERS, NEXT_MATTERS, furthest, least_seen, strength
from cbsn.noise.lines import LineNoise
from cbsn.noise.structure import mask_for, uncertainty

_PHOTOGRAPHS = 5  # the paper's stride
_LONG = 6  # larger strides leave little of a picture
_NEAR = 2  # pixels that a mask in both directions reaches at most, to be offered besides strides
_MANY_CLIPPED = 0.05


@dataclasses.dataclass(frozen=True)
class Advice:
    """Recommended training settings."""

    stride_b: int  # in [1, LAGS]: distance in pixels from which the noise is uncorrelated
    stride_i: int  # stride of the downsampled invariance loss that goes with it
    recipe: str  # a key of `cbsn.recipes.RECIPES`
    reasons: list[str]  # whole sentences
    mask: str = "point"  # for n2v-unet, see `cbsn.networks.masking.parse_mask_shape`
    repair: tuple[str, ...] = ()  # what to repair first, see `cbsn.noise.repair.REPAIRS`

    @property
    def hole(self) -> int:
        """Width of the hole that hides all pixels of a row or column whose noise is correlated."""
        return 2 * self.stride_b - 1

    def lines(self) -> list[str]:
        """Returns the `cbsn train` command with its flags, then the reasons."""
        command = ["cbsn train", "--recipe"]
        first = ["--repair", ",".join(self.repair)] if self.repair else []
        shape = f"'{self.mask}'" if ";" in self.mask else self.mask
        mask = ["--struct_mask", shape] if self.mask != "point" else []
        if self.recipe == "n2v-unet":  # Noise2Void has no strides
            told = [["Train with", *command, self.recipe, *mask, *first]]
        else:
            strides = ["--stride_b", str(self.stride_b), "--stride_i", str(self.stride_i)]
            hole = ["--hole", str(self.hole)]
            told = [
                ["Train with", *command, self.recipe, *strides, *first],
                ["or with", *command, "tmbsn", *hole, *first],
            ]
            if mask:
                told.append(["or with", *command, "n2v-unet", *mask, *first])
        return [*map(" ".join, told), *(f"- {reason}" for reason in self.reasons)]


def advise(
    estimate: NoiseEstimate,
    lines: Sequence[LineNoise] = (),
    what: str = "plane",
    *,
    outliers: bool = False,
) -> Advice:
    """Recommends training settings for pictures with this noise.

    Args:
        estimate: of the noise, without that of lines if there is some.
        lines: the line noise, as far as it counts.
        what: what the pictures are. Default "plane".
        outliers: whether there are hot or dead pixels. Default False.
    """
    rho = strength(estimate)
    far = furthest(estimate)
    blurred = least_seen(estimate)
    offered = mask_for(estimate)
    is_masked = offered.shape != "point" and (offered.in_one_direction or _is_near(estimate, far))
    if far == 0 and is_masked:
        stride_b, stride_i, recipe, reasons = 1, 1, "n2v-unet", []
    elif far == 0:
        stride_b, stride_i, recipe = 1, 1, "n2v-unet"
        reasons = [
            f"The noise is white: its correlation is {rho[0]:.3f} between neighbours, where "
            f"{NEXT_MATTERS} would count, and at most {rho[1:].max():.3f} further away.",
            "For white noise this is the best of the self-supervised recipes.",
        ]
    else:
        stride_b, stride_i, recipe = min(far + 1, LAGS), 2, "cbsn"
        reasons = [
            f"The noise is correlated: {rho[0]:.3f} between neighbours, {rho[far - 1]:.3f} "
            f"still at {far} px. Recipes for white noise would keep it."
        ]
        if far == LAGS:
            reasons.append(
                f"The noise is still correlated at {LAGS} px, so no stride fits: JPEG compression "
                "or enlargement is likely. Use the original files, or scale the pictures down by "
                "half, which halves the distances, and measure again."
            )
        elif stride_b > _LONG:
            reasons.append(
                f"Sub-images of every {stride_b}th pixel keep little of a picture. Noise usually "
                "reaches that far after JPEG compression or enlargement: use the original files, "
                "or scale the pictures down by half, which halves the distances, and measure again."
            )
        if blurred > FAR_MATTERS and stride_b < _PHOTOGRAPHS:
            reasons.append(
                f"Beyond {far} px, correlations below {blurred:.3f} cannot be detected, for "
                f"lack of flat blocks. A stride of {_PHOTOGRAPHS}, as for photographs, is safer."
            )
            stride_b = _PHOTOGRAPHS
    reasons += uncertainty(estimate)
    if is_masked:
        reasons.append(f"{offered.reasons[0]} A mask hides the pixels that share a pixel's noise.")
    if lines:
        sigma = float(np.median(estimate.level))
        reasons += [each.describe(sigma, what) for each in lines]
        names = ",".join(each.lines for each in lines)
        reasons.append(
            f"--repair {names} removes the offsets, in cbsn train and in cbsn denoise. Any network "
            "would keep part of them."
        )
    share = estimate.clipped.max()
    if share > _MANY_CLIPPED:
        channel, end = np.unravel_index(estimate.clipped.argmax(), estimate.clipped.shape)
        reasons.append(
            f"{share:.0%} of the values of {estimate.channels[channel]} are at "
            f"{('0', 'full scale')[end]}: their noise is clipped, so the denoised result is "
            f"too {('bright', 'dark')[end]} there."
        )
    repair = (*(["pixels"] if outliers else []), *(each.lines for each in lines))
    mask = offered.shape if is_masked else "point"
    return Advice(stride_b, stride_i, recipe, reasons, mask, repair)


def _is_near(estimate: NoiseEstimate, far: int) -> bool:
    """Returns whether noise of gray pictures is correlated at a short reach only.

    That of colours is due to demosaicing, and reaches further than can be seen in every picture.
    """
    return len(estimate.level) == 1 and far <= _NEAR
