"""Models of the noise that pictures without a clean side have, to add such noise to others."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy

from cbsn.noise.autocovariance import BLOCK, REACH, autocovariance, split, without_bias
from cbsn.noise.estimate import points_of
from cbsn.noise.survey import FEWEST, STEP, Blocks, Survey
from cbsn.value_range import to_levels

_ENOUGH = 64  # flat blocks that a model of the noise is made of
_NEAR, _FAR = 6, 12  # pixels, between which what was found of correlation is made to fade away


@dataclasses.dataclass(frozen=True, eq=False)
class CorrelatedNoise:
    """Gaussian noise with correlated pixels and channels, as strong as the brightness has it.

    Cameras have their noise in linear light, and the sRGB curve bends it: noisy pixels are darker
    in the mean than clean ones. Where what a camera does next has undone that, it is noise in sRGB
    values. `cbsn.augmentation` adds it to pictures.

    Args:
        levels: of each of C channels float [n, 2], n ≥ 1 intensities, increasing, and the standard
            deviation of the noise there, in 8-bit levels; in between it is interpolated.
        covariance: float [C, C, R + 1, 2·R + 1], of noise of standard deviation 1, between one
            channel's pixel and another's that is 0 to R pixels further down and −R to R to the
            right; 0 beyond. The other half is taken to be equal by symmetry.
        linear: whether it is added, and clipped, in linear light, or else in sRGB values.
    """

    levels: Sequence[np.ndarray]
    covariance: np.ndarray
    linear: bool = True

    def root(self, size: int) -> np.ndarray:
        """Returns what the spectrum of white noise is to be multiplied with, float32 [C, C, S, S].

        At the borders of a picture of S × S pixels, which is `size`, the noise repeats.
        """
        channels, reach = len(self.covariance), self.covariance.shape[2] - 1
        whole = np.zeros((channels, channels, size, size))
        down, right = np.mgrid[: reach + 1, -reach : reach + 1]
        mirrored = self.covariance.copy()
        mirrored[:, :, 0] = 0  # the first row has its other half in itself
        for sign, half in ((1, self.covariance), (-1, mirrored)):
            # What is too far for a small picture is folded into it.
            places: Any = (..., sign * down % size, sign * right % size)
            np.add.at(whole, places, half)
        power = scipy.fft.rfft2(whole).real.transpose(2, 3, 0, 1)
        values, vectors = np.linalg.eigh(power)
        # What was measured with errors may have powers below 0.
        values = np.sqrt(np.maximum(values, 0))
        root = (vectors * values[..., None, :]) @ vectors.swapaxes(-1, -2)
        root = root.transpose(2, 3, 0, 1).astype(np.float32)
        # Of real noise with a real spectrum, this is equal at opposite frequencies.
        opposite = root[:, :, -np.arange(size) % size][..., 1 : (size + 1) // 2][..., ::-1]
        return np.concatenate([root, opposite], axis=-1)


def measure_noise(pictures: Iterable[np.ndarray]) -> list[CorrelatedNoise]:
    """Measures strength of noise, and its correlation from pixel to pixel and channel to channel.

    Pictures that follow each other are taken together, until they have enough flat blocks: so there
    may be several models, as of several cameras and exposures. Pictures and errors are those of
    `estimate_noise`; neighbours in the order of the pictures may be of one camera.
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

    # Of two channels, by polarization: 4·cov(a, b) = var(a + b) − var(a − b).
    covariance = [[(power(a + b) - power(a - b)) / 4 for b in by_channel] for a in by_channel]
    distances = np.hypot(*np.mgrid[: REACH + 1, -REACH : REACH + 1])
    fade = np.clip((_FAR - distances) / (_FAR - _NEAR), 0, 1)
    linear = _is_linear(rests, sigma, blocks.brightness)
    return CorrelatedNoise(levels, without_bias(np.array(covariance)) * fade, linear)


def _is_linear(rests: np.ndarray, sigma: np.ndarray, brightness: np.ndarray) -> bool:
    """Tells by its skewness whether the noise was bent by the sRGB curve.

    Where the curve is s(l), Gaussian noise in linear light l gets a skewness of about 3·σ·s″ / s′²,
    as the second term of the Taylor series has it. The noise [n, C, BLOCK²] has a standard
    deviation of 1; what it was, and the brightness, [n, C], are in 8-bit levels.
    """
    bent = -3 * 1.4 * sigma / (brightness + 0.055 * 255)
    return bool(np.sum(rests**3 * bent[..., None]) > np.sum(bent**2) * rests.shape[-1] / 2)
