"""The objective of Probabilistic Noise2Void."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy
from keras import ops

from cbsn.errors import ConfigError, TrainingError
from cbsn.objectives.objective import Objective, mean_where

Tensor = Any

_PIXELS = 200_000  # to choose the pairs from; more would not make the noise model better
_FEWEST_PATCHES = 16
_FLAT = 1 / 10  # share of the pixels that the noise model is fitted to
_ENOUGH = 2000  # pairs; none are dropped below
_GROUPS = 32  # of pixels of similar signal
_WINDOW = 5  # pixels, side of the square in which the signal's variation is measured
_TINY = 1e-12
_UNEXPLAINED = 0.9  # share of the pixels' variance; a network that learns nothing leaves 1
_WIDEST = 20.0  # nll up to which the loss held out is its exponential


class ProbabilisticNoise2Void(Objective):
    """Trains a network to predict the distribution of a pixel's signal from other pixels.

    For a noisy batch x, whose masked pixels the network predicts by K samples s each (Krull et al.,
    "Probabilistic Noise2Void", 2020, arXiv 1906.00651, equation 7):

        nll   = mean −log (1/K) Σ p(x | s)    over the masked pixels
        blind = mean ((1/K) Σ s − x)²         over the masked pixels, as in Noise2Void

    p is the noise model. It is learned from the noisy pictures, too (Prakash et al., ISBI 2020,
    arXiv 1911.12291): the first `bootstrap_steps` minimise (s − x)² for every sample, which is
    Noise2Void. Then the noise model is fitted to blind predictions and the values observed there.
    From then on, the loss is `nll`.

    The predictions have errors of their own, which look like noise. So of pixels with a similar
    signal, only the tenth counts around which the predictions vary least.

    Until the noise model is fitted, `nll` is that of the normal distribution around the prediction.

    Args:
        bootstrap_steps: int ≥ 0, number of steps before the noise model is fitted. 0 keeps the
            noise model that the network already has.

    Raises:
        ConfigError: if a value is out of its range.
    """

    TERMS = ("nll", "blind")
    NEEDS_SAMPLES = True

    def __init__(self, bootstrap_steps: int = 20_000):
        if bootstrap_steps < 0:
            raise ConfigError(
                f"bootstrap_steps must be at least 0. Received: bootstrap_steps={bootstrap_steps}"
            )
        self.bootstrap_steps = bootstrap_steps
        self.milestones = (bootstrap_steps,)

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch; see `Objective`."""
        samples, observed, valid = network.blind_samples(noisy, random)
        every = ops.mean(ops.square(samples - observed[..., None]), axis=-1)
        blind = mean_where(ops.square(ops.mean(samples, axis=-1) - observed), valid)
        normal = 0.5 * ops.log(2 * math.pi * math.e * ops.maximum(blind, _TINY))
        known = network.noise.known > 0
        evidence = -mean_where(network.log_evidence(observed, samples), valid)
        nll = ops.where(known, evidence, normal)
        is_late = ops.cast(step, "float32") >= ops.cast(self.bootstrap_steps, "float32")
        total = ops.where(ops.logical_and(known, is_late), nll, mean_where(every, valid))
        return {"total": total, "nll": nll, "blind": blind}

    def held_out(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> Tensor:
        """Returns exp(nll): how wide what is predicted is, in units of the normalised pixels.

        Of values that are spread evenly over an interval, it is the interval's length. It can be
        compared before and after the noise model is fitted.

        Above exp(20), where float32 would soon overflow, it goes on as a straight line. Widths that
        large mean nothing but that the pixels are as good as impossible, though some are more so.
        """
        nll = self(network, noisy, step, random)["nll"]
        width = ops.minimum(nll, _WIDEST)
        return ops.exp(width) * (1 + nll - width)

    def fit(
        self, network: Any, batches: Iterable[tuple[Tensor, Any]]
    ) -> tuple[list[np.ndarray], str]:
        """Fits the noise model to a network's blind predictions; see `Objective`."""
        if not self.bootstrap_steps:
            if not float(ops.convert_to_numpy(network.noise.known)):
                raise ConfigError(
                    "Without --bootstrap_steps, the noise model must come from another model of "
                    "the same recipe, by --init MODEL. Received: --bootstrap_steps 0"
                )
            return network.noise.get_weights(), "The noise model is that of --init."
        found = _pixels(network, batches, max(_FEWEST_PATCHES, self.bootstrap_steps))
        observed, predicted, variation = found
        chosen = [flattest(p, v) for p, v in zip(predicted.T, variation.T, strict=True)]
        pairs = [
            np.stack([values[each] for values, each in zip(array.T, chosen, strict=True)], axis=-1)
            for array in (observed, predicted)
        ]
        try:
            weights = network.noise.fit(*pairs)
        except ValueError as error:
            raise TrainingError(
                f"The noise model cannot be fitted: {error}. Use larger patches (--patch_size), "
                "or pictures of finite values."
            ) from error
        return weights, " ".join([_describe(*pairs), *_doubts(observed, predicted)])


def _pixels(
    network: Any, batches: Iterable[tuple[Tensor, Any]], patches: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the values of masked pixels, the predictions, and their variation, all [M, C]."""
    parts: list[tuple[np.ndarray, ...]] = []
    pixels = seen = 0
    for noisy, random in batches:
        predicted, mask = map(ops.convert_to_numpy, network.blind_pass(noisy, random))
        predicted, noisy = predicted.astype("float64"), ops.convert_to_numpy(noisy)
        where = np.broadcast_to(mask, (*mask.shape[:-1], 1))[..., 0] > 0
        window = (*[1] * (predicted.ndim - 3), _WINDOW, _WINDOW, 1)
        mean, square = (
            scipy.ndimage.uniform_filter(each, window) for each in (predicted, predicted**2)
        )
        part = [each[where] for each in (noisy, predicted, square - mean**2)]
        finite = np.isfinite(np.concatenate(part, axis=-1)).all(axis=-1)
        parts.append(tuple(each[finite] for each in part))
        pixels, seen = pixels + int(finite.sum()), seen + len(noisy)
        if pixels >= _PIXELS or seen >= patches:
            break
    observed, predicted, variation = map(np.concatenate, zip(*parts, strict=True))
    return observed, predicted, variation


def flattest(signal: np.ndarray, variation: np.ndarray) -> np.ndarray:
    """Returns which tenth of the pixels varies least, by their indices.

    Taken from pixels of similar signal each, so that all signals remain.
    """
    count = len(signal)
    groups = min(_GROUPS, count // 100 + 1)
    keep = max(_FLAT, min(1.0, _ENOUGH / max(1, count)))
    size = math.ceil(keep * (count // groups))  # the same of each channel
    return np.concatenate(
        [
            group[np.argsort(variation[group], kind="stable")[:size]]
            for group in np.array_split(np.argsort(signal, kind="stable"), groups)
        ]
    )


def _doubts(observed: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Returns a sentence if blind predictions explain next to nothing of the pictures."""
    left = float(np.mean((observed - predicted) ** 2) / max(observed.var(axis=0).mean(), _TINY))
    if left < _UNEXPLAINED:
        return []
    return [
        f"But the predictions leave {left:.0%} of the pictures' variance unexplained. Unless that "
        "is noise, the network has not learned enough: give more --bootstrap_steps or --channels."
    ]


def _describe(observed: np.ndarray, predicted: np.ndarray) -> str:
    """Returns a line about the noise of pairs."""
    order = np.argsort(predicted.mean(axis=-1))
    tenth = max(1, len(order) // 10)
    dark, bright = (
        math.sqrt(np.mean((observed[part] - predicted[part]) ** 2))
        for part in (order[:tenth], order[-tenth:])
    )
    return (
        f"The noise model is fitted to {len(observed):,} pixels: σ {dark:.3g} where they are "
        f"darkest, {bright:.3g} where they are brightest."
    )
