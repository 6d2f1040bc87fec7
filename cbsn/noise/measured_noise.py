"""Noise like that of pictures that have no clean side, to be added to others."""

from collections.abc import Iterable

import numpy as np

from cbsn.errors import DataError
from cbsn.noise.autocovariance import (
    BLOCK,
    REACH,
    STEP,
    Blocks,
    autocovariance,
    split,
    without_bias,
)
from cbsn.noise.correlated_noise import CorrelatedNoise
from cbsn.noise.estimate import FEWEST, flattest, too_few
from cbsn.noise.survey import Survey, points_of
from cbsn.value_range import value_range

_ENOUGH = 64
"""Flat blocks that a model of the noise is made of."""

_NEAR, _FAR = 6, 12
"""Between these distances in pixels what was found of correlation is made to fade away."""


class MeasuredNoise:
    """Noise of the strength, and the correlation of pixels and channels, that pictures have.

    Pictures that follow each other are taken together, until they have enough flat blocks: so there
    may be several models, as of several cameras and exposures. Each picture to be made noisy gets
    noise by one of them, more or less of it.

    Args:
        pictures: [H, W, C], uint8, uint16 or float in [0, 1], all of one C of 1 or 3; in an order
            in which neighbours may be of one camera.
        gain: lowest and highest > 0, of what the noise is multiplied with; it is drawn uniformly in
            its logarithm.

    Attributes:
        models: list of `CorrelatedNoise`, at least one.
        gain: as given.

    Raises:
        DataError: if there are too few flat blocks, or pictures of different channels.

    Example:
        >>> noise = MeasuredNoise(pictures, gain=(0.5, 2.0))
        >>> noisy = noise(clean, np.random.default_rng(0))
    """

    def __init__(self, pictures: Iterable[np.ndarray], gain: tuple[float, float] = (1.0, 1.0)):
        self.gain = gain
        self.models = []
        survey, group, blocks = Survey(), [], None
        for picture in pictures:
            survey.add(picture, None)
            group.append(picture)
            blocks = survey.blocks and flattest(survey.blocks)
            if blocks and len(blocks) >= _ENOUGH:
                self.models.append(_model(blocks, group))
                survey, group, blocks = Survey(), [], None
        if blocks and len(blocks) >= FEWEST:
            self.models.append(_model(blocks, group))
        if not self.models:
            raise DataError(too_few(survey))

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a picture with noise.

        Args:
            image: as for `CorrelatedNoise`.
            random: draws the model, the gain and the noise.

        Returns:
            As `CorrelatedNoise` does.

        Raises:
            ConfigError: likewise.
        """
        model = self.models[random.integers(len(self.models))]
        low, high = self.gain
        return model(image, random, low * (high / low) ** random.random())

    def clean(self, image: np.ndarray) -> np.ndarray:
        """Returns what the noisy picture is to be compared with, as `CorrelatedNoise` does."""
        return self.models[0].clean(image)

    def check(self, channels: int) -> None:
        """Refuses pictures of other channels, as `CorrelatedNoise` does."""
        self.models[0].check(channels)

    def __str__(self) -> str:
        count = len(self.models)
        gain = "-".join(f"{value:g}" for value in dict.fromkeys(self.gain))
        return f"noise measured in {count} place{'s' * (count > 1)}, {gain} times as strong"


def _model(blocks: Blocks, pictures: list[np.ndarray]) -> CorrelatedNoise:
    rests = np.stack(
        [
            split(_block(pictures[number], *corner))[1]
            for number, corner in zip(blocks.picture, blocks.corner, strict=True)
        ]
    )
    variance = (rests**2).mean(axis=-1)
    levels = [
        np.stack(points_of(*each)[:2], axis=1)
        for each in zip(variance.T, blocks.brightness.T, strict=True)
    ]
    predicted = [
        np.interp(bright, *points.T)
        for bright, points in zip(blocks.brightness.T, levels, strict=True)
    ]
    rests /= np.stack(predicted, axis=-1)[..., None]
    channels = rests.shape[1]
    # Of two channels, by polarization: 4·cov(a, b) = var(a + b) − var(a − b).
    covariance = [
        [
            (_mean(rests[:, a] + rests[:, b]) - _mean(rests[:, a] - rests[:, b])) / 4
            for b in range(channels)
        ]
        for a in range(channels)
    ]
    down, right = np.mgrid[: REACH + 1, -REACH : REACH + 1]
    fade = np.clip((_FAR - np.hypot(down, right)) / (_FAR - _NEAR), 0, 1)
    return CorrelatedNoise(
        levels,
        without_bias(np.array(covariance)) * fade,
        linear=_is_linear(rests, np.stack(predicted, axis=-1), blocks.brightness),
    )


def _is_linear(rests: np.ndarray, sigma: np.ndarray, brightness: np.ndarray) -> bool:
    """Tells by its skewness whether the noise was bent by the sRGB curve.

    Where the curve is s(l), Gaussian noise in linear light l gets a skewness of about 3·σ·s″ / s′²,
    as the second term of the Taylor series has it.

    Args:
        rests: [n, C, BLOCK²], noise of standard deviation 1.
        sigma: [n, C], what it was, in 8-bit levels.
        brightness: [n, C], likewise.
    """
    bent = -3 * 1.4 * sigma / (brightness + 0.055 * 255)
    return bool(np.sum(rests**3 * bent[..., None]) > np.sum(bent**2) * rests.shape[-1] / 2)


def _mean(rests: np.ndarray) -> np.ndarray:
    return autocovariance(rests).mean(axis=0)


def _block(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """float32 [C, BLOCK²], in 8-bit levels."""
    top, left = row * STEP, column * STEP
    cut = picture[top : top + BLOCK, left : left + BLOCK].astype(np.float32)
    return (cut * np.float32(255 / value_range(picture.dtype))).reshape(BLOCK**2, -1).T
