"""Recommends training settings for the noise that was measured."""

import dataclasses

import numpy as np

from cbsn.noise.estimate import LAGS, NoiseEstimate

# Correlation from which adjacent pixels count as correlated. Below it, four neighbours together
# predict less than 1 % of a pixel's noise. The grain that any photograph has under added white
# noise of σ = 5 causes 0.02.
_NEXT_MATTERS = 0.05

# The same for pixels further apart, as the mean of both directions. SIDD's noise, for which the
# paper's stride is 5, has 0.017 and 0.014 at 4 pixels, and at most 0.006 beyond. If adjacent pixels
# are not correlated, `_NEXT_MATTERS` applies at all distances.
_FAR_MATTERS = 0.01

_LEFT_OVER = 0.001  # residue of content and bias per sum of all ρ; measured on added noise
_ALONE = 2  # factor on the limit for a correlation in one direction only
_SURE = 4  # standard errors: the largest of many values must not be chance
_LIKELY = 2
_PHOTOGRAPHS = 5  # the paper's stride
_LONG = 6  # larger strides leave little of a picture
_MANY_CLIPPED = 0.05


@dataclasses.dataclass(frozen=True)
class Advice:
    """Recommended training settings."""

    stride_b: int  # in [1, LAGS]: distance in pixels from which the noise is uncorrelated
    stride_i: int  # stride of the downsampled invariance loss that goes with it
    recipe: str  # a key of `cbsn.recipes.RECIPES`
    reasons: list[str]  # whole sentences

    def lines(self) -> list[str]:
        """Returns the `cbsn train` command with its flags, then the reasons."""
        command = f"cbsn train --recipe {self.recipe}"
        if self.recipe != "n2v-unet":  # Noise2Void has no strides
            b, i = self.stride_b, self.stride_i
            command = f"cbsn train --recipe {self.recipe} --stride_b {b} --stride_i {i}"
        return [f"Train with {command}", *(f"- {reason}" for reason in self.reasons)]


def advise(estimate: NoiseEstimate) -> Advice:
    """Recommends training settings for pictures with this noise."""
    rho = _strength(estimate)
    furthest = _furthest(estimate)
    blurred = float(_SURE * np.median(_error(estimate)))
    if furthest == 0:
        stride_b, stride_i, recipe = 1, 1, "n2v-unet"
        reasons = [
            f"The noise is white: its correlation is {rho[0]:.3f} between neighbours, where "
            f"{_NEXT_MATTERS} would count, and at most {rho[1:].max():.3f} further away.",
            "For white noise this is the best of the self-supervised recipes.",
        ]
    else:
        stride_b, stride_i, recipe = min(furthest + 1, LAGS), 2, "cbsn"
        reasons = [
            f"The noise is correlated: {rho[0]:.3f} between neighbours, {rho[furthest - 1]:.3f} "
            f"still at {furthest} px. Recipes for white noise would keep it."
        ]
        if furthest == LAGS:
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
        if blurred > _FAR_MATTERS and stride_b < _PHOTOGRAPHS:
            reasons.append(
                f"Beyond {furthest} px, correlations below {blurred:.3f} cannot be detected, for "
                f"lack of flat blocks. A stride of {_PHOTOGRAPHS}, as for photographs, is safer."
            )
            stride_b = _PHOTOGRAPHS
    if blurred > _FAR_MATTERS:
        reasons.append(
            f"This is uncertain, because it comes from only {estimate.blocks} blocks: use more or "
            "larger pictures."
        )
    share = estimate.clipped.max()
    if share > _MANY_CLIPPED:
        channel, end = np.unravel_index(estimate.clipped.argmax(), estimate.clipped.shape)
        reasons.append(
            f"{share:.0%} of the values of {estimate.channels[channel]} are at "
            f"{('0', 'full scale')[end]}: their noise is clipped, so the denoised result is "
            f"too {('bright', 'dark')[end]} there."
        )
    return Advice(stride_b, stride_i, recipe, reasons)


def limits(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the values from which a correlation counts: it matters, and is more than chance.

    Shape [LAGS], for the mean of both directions. Beyond 1 px, one direction alone needs double.
    """
    return np.maximum(_matters(estimate), _SURE * _error(estimate))


def _furthest(estimate: NoiseEstimate) -> int:
    """Returns the largest distance at which the correlation counts, 0 if none.

    Both signs count, because a blind-spot network exploits negative correlation as well. Directly
    beyond a distance that counts, fewer standard errors are enough.
    """
    mean, error = abs(estimate.correlation[:2].mean(axis=0)), _error(estimate)
    matters = _matters(estimate)
    alone = np.append(matters[0], _ALONE * matters[1:])
    alone = np.maximum(alone, _SURE * estimate.deviation[:2])
    counts = (mean > limits(estimate)) | (abs(estimate.correlation[:2]) > alone).any(axis=0)
    furthest = int(np.max(np.flatnonzero(counts) + 1, initial=0))
    goes_on = mean > np.maximum(matters, _LIKELY * error)
    while furthest < LAGS and goes_on[furthest]:
        furthest += 1
    return furthest


def _matters(estimate: NoiseEstimate) -> np.ndarray:
    matters = np.full(LAGS, _NEXT_MATTERS)
    if _strength(estimate)[0] > _NEXT_MATTERS:
        near = estimate.correlation_map[7:-7, 7:-7]
        matters[1:] = max(_FAR_MATTERS, _LEFT_OVER * near.sum())
    return matters


def _strength(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the larger |ρ| of both directions, [LAGS]."""
    return abs(estimate.correlation[:2]).max(axis=0)


def _error(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the standard error of the mean of both directions, [LAGS]."""
    return np.hypot(*estimate.deviation[:2]) / 2
