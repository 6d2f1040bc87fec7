"""From which values on correlations of noise count: they matter, and are more than chance."""

import numpy as np

from cbsn.noise.estimate import LAGS, NoiseEstimate

# Correlation from which adjacent pixels count as correlated. Below it, four neighbours together
# predict less than 1 % of a pixel's noise. The grain that any photograph has under added white
# noise of σ = 5 causes 0.02.
NEXT_MATTERS = 0.05

# The same for pixels further apart, as the mean of both directions. SIDD's noise, for which the
# paper's stride is 5, has 0.017 and 0.014 at 4 pixels, and at most 0.006 beyond. If adjacent pixels
# are not correlated, `NEXT_MATTERS` applies at all distances.
FAR_MATTERS = 0.01

SURE = 4  # standard errors: the largest of many values must not be chance

_LEFT_OVER = 0.001  # residue of content and bias per sum of all ρ; measured on added noise
_ALONE = 2  # factor on the limit for a correlation in one direction only
_LIKELY = 2


def limits(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the values from which a correlation counts: it matters, and is more than chance.

    Shape [LAGS], for the mean of both directions. Beyond 1 px, one direction alone needs double.
    """
    return np.maximum(matters_from(estimate), SURE * mean_error(estimate))


def furthest(estimate: NoiseEstimate) -> int:
    """Returns the largest distance at which the correlation counts, 0 if none.

    Both signs count, because a blind-spot network exploits negative correlation as well. Directly
    beyond a distance that counts, fewer standard errors are enough.
    """
    mean, error = abs(estimate.correlation[:2].mean(axis=0)), mean_error(estimate)
    alone = np.maximum(alone_limits(estimate), SURE * estimate.deviation[:2])
    counts = (mean > limits(estimate)) | (abs(estimate.correlation[:2]) > alone).any(axis=0)
    last = int(np.max(np.flatnonzero(counts) + 1, initial=0))
    goes_on = mean > np.maximum(matters_from(estimate), _LIKELY * error)
    while last < LAGS and goes_on[last]:
        last += 1
    return last


def matters_from(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the values from which the mean correlation of both directions matters, [LAGS]."""
    matters = np.full(LAGS, NEXT_MATTERS)
    if strength(estimate)[0] > NEXT_MATTERS:
        near = estimate.correlation_map[7:-7, 7:-7]
        matters[1:] = max(FAR_MATTERS, _LEFT_OVER * near.sum())
    return matters


def alone_limits(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the values from which the correlation in one direction matters, [LAGS]."""
    matters = matters_from(estimate)
    return np.append(matters[0], _ALONE * matters[1:])


def strength(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the larger |ρ| of both directions, [LAGS]."""
    return abs(estimate.correlation[:2]).max(axis=0)


def least_seen(estimate: NoiseEstimate) -> float:
    """Returns the correlation below which none can be told from chance."""
    return float(SURE * np.median(mean_error(estimate)))


def mean_error(estimate: NoiseEstimate) -> np.ndarray:
    """Returns the standard error of the mean of both directions, [LAGS]."""
    return np.hypot(*estimate.deviation[:2]) / 2
