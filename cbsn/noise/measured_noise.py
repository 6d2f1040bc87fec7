"""Models the noise of pictures without clean counterparts, to add such noise to others."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy

from cbsn.noise.autocovariance import BLOCK, REACH, autocovariance, split, without_bias
from cbsn.noise.estimate import points_of
from cbsn.noise.survey import FEWEST, STEP, Blocks, Survey
from cbsn.value_range import to_levels

_ENOUGH = 64  # flat blocks that suffice for a model of the noise
_LEAST = 16  # blocks with least content, where there are no flat ones
_NEAR, _FAR = 6, 12  # distances in pixels between which the measured correlation is faded out


@dataclasses.dataclass(frozen=True, eq=False)
class CorrelatedNoise:
    """Gaussian noise, correlated across pixels and channels, with a strength set by brightness.

    Camera noise arises in linear light, and the sRGB curve bends it: noisy pixels are darker on
    average than clean ones. If the camera's later processing has undone this, it is noise in sRGB
    values. `cbsn.augmentation` adds the noise to pictures.

    Args:
        levels: for each of C channels, float [n, 2] with n ≥ 1 increasing intensities and the
            standard deviation of the noise there, in 8-bit levels; interpolated in between.
        covariance: float [C, C, R + 1, 2·R + 1], for noise of standard deviation 1, between a pixel
            of one channel and a pixel of another, 0 to R pixels further down and −R to R to the
            right; 0 beyond. The other half is assumed to be equal by symmetry.
        linear: whether the noise is added and clipped in linear light instead of sRGB values.
    """

    levels: Sequence[np.ndarray]
    covariance: np.ndarray
    linear: bool = True

    def root(self, size: int) -> np.ndarray:
        """Returns the filter for the spectrum of white noise, float32 [C, C, S, S].

        S is `size`. The filtered noise of S × S pixels wraps around at the borders.
        """
        channels, reach = len(self.covariance), self.covariance.shape[2] - 1
        whole = np.zeros((channels, channels, size, size))
        down, right = np.mgrid[: reach + 1, -reach : reach + 1]
        mirrored = self.covariance.copy()
        mirrored[:, :, 0] = 0  # the first row contains its other half
        for sign, half in ((1, self.covariance), (-1, mirrored)):
            # Distances beyond the size of a small picture wrap around.
            places: Any = (..., sign * down % size, sign * right % size)
            np.add.at(whole, places, half)
        power = scipy.fft.rfft2(whole).real.transpose(2, 3, 0, 1)
        values, vectors = np.linalg.eigh(power)
        # Measurement errors may cause powers below 0.
        values = np.sqrt(np.maximum(values, 0))
        root = (vectors * values[..., None, :]) @ vectors.swapaxes(-1, -2)
        root = root.transpose(2, 3, 0, 1).astype(np.float32)
        # For real noise with a real spectrum, the filter is equal at opposite frequencies.
        opposite = root[:, :, -np.arange(size) % size][..., 1 : (size + 1) // 2][..., ::-1]
        return np.concatenate([root, opposite], axis=-1)


def measure_noise(pictures: Iterable[np.ndarray]) -> list[CorrelatedNoise]:
    """Measures the strength of noise and its correlation between pixels and between channels.

    Consecutive pictures, which may be from one camera, are pooled until they have enough flat
    blocks. So there may be several models, as for several cameras and exposures. For the pictures
    and errors, see `estimate_noise`.
    """
    models: list[CorrelatedNoise] = []
    survey, group, blocks = Survey(), [], None
    for picture in pictures:
        survey.add(picture)
        group.append(picture)
        blocks = survey.flattest()
        if blocks and len(blocks) >= _ENOUGH:
            models.append(_model(blocks, group))
            survey, group, blocks = Survey(), [], None
    if blocks and len(blocks) >= FEWEST:
        models.append(_model(blocks, group))
    if not models:
        raise survey.too_few()
    return models


def _model(blocks: Blocks, pictures: list[np.ndarray]) -> CorrelatedNoise:
    parts = []
    for number, (top, left) in zip(blocks.picture, blocks.corner * STEP, strict=True):
        cut = pictures[number][top : top + BLOCK, left : left + BLOCK]
        parts.append(split(to_levels(cut).reshape(BLOCK**2, -1).T)[1])
    rests = np.stack(parts)  # [n, C, BLOCK²]
    variance = (rests**2).mean(axis=-1)
    levels, sigma = [], np.empty_like(blocks.brightness, dtype=np.float64)
    for c, brightness in enumerate(blocks.brightness.T):
        levels.append(np.stack(points_of(variance[:, c], brightness)[:2], axis=1))
        sigma[:, c] = np.interp(brightness, *levels[-1].T)
    rests /= sigma[..., None]
    by_channel = rests.swapaxes(0, 1)

    def power(noise: np.ndarray) -> np.ndarray:
        return autocovariance(noise).mean(axis=0)

    # Covariance of two channels by polarization: 4·cov(a, b) = var(a + b) − var(a − b).
    covariance = [[(power(a + b) - power(a - b)) / 4 for b in by_channel] for a in by_channel]
    distances = np.hypot(*np.mgrid[: REACH + 1, -REACH : REACH + 1])
    fade = np.clip((_FAR - distances) / (_FAR - _NEAR), 0, 1)
    linear = _is_linear(rests, sigma, blocks.brightness)
    return CorrelatedNoise(levels, without_bias(np.array(covariance)) * fade, linear)


def _is_linear(rests: np.ndarray, sigma: np.ndarray, brightness: np.ndarray) -> bool:
    """Returns whether the sRGB curve bent the noise, judging by its skewness.

    A curve s(l) gives Gaussian noise in linear light l a skewness of about 3·σ·s″ / s′², by the
    second term of the Taylor series. The noise `rests` [n, C, BLOCK²] has a standard deviation of
    1; the original `sigma` and the brightness, [n, C], are in 8-bit levels.
    """
    bent = -3 * 1.4 * sigma / (brightness + 0.055 * 255)
    return bool(np.sum(rests**3 * bent[..., None]) > np.sum(bent**2) * rests.shape[-1] / 2)


def measure_roughly(picture: np.ndarray) -> CorrelatedNoise:
    """Measures noise as `measure_noise` does, in the parts of a picture that have least content.

    For pictures without flat parts: their content counts as noise, which is then too strong.

    Raises:
        DataError: if there are too few blocks that show noise.
    """
    survey = Survey()
    survey.add(picture)
    if survey.blocks is None or len(survey.blocks) < FEWEST:
        raise survey.too_few()
    least = np.argsort(survey.blocks.content)[:_LEAST]
    return _model(survey.blocks[least], [picture])
