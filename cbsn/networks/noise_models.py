"""Noise models: how likely an observed value is for a given signal, learned from pairs of both."""

import math
from typing import Any

import keras
import numpy as np
import scipy
from keras import ops

Tensor = Any

_FEWEST = 30  # pairs to fit a noise model to
_ENDS = (0.1, 99.9)  # percentiles of the signal, at which a mixture is described
_RANGE = (0.05, 99.95)  # percentiles of all values, between which a histogram has its bins
_BEYOND = 4.0  # times as far as from the lower to the upper of these, the variances go on to rise
_LEAST_DEVIATION = 1e-5  # of all noise, in the network's units; less would overflow float32
_LEAST_SHARE = 1e-4  # of the noise's variance, which a part of a mixture may have
_LARGEST = 10.0  # of a mixture's logits and means, the latter in units of the noise's deviation
_RIDGE = 1e-4  # of each parameter's squared change; many mixtures are almost equally likely
_ITERATIONS, _TOLERANCE, _GRADIENT = 500, 1e-11, 1e-7
_LOG_2PI = math.log(2 * math.pi)
_TINY = 1e-30

_NEAREST = 16  # one of this many pairs, or `_ENOUGH`, are taken for each row of a histogram
_ENOUGH = 1000
_OUTLIERS = 1e-3  # share of values that may be anything


class NoiseModel(keras.layers.Layer):
    """The base class of noise models: p(observed | signal), of each channel by itself.

    Its weights are not trained: `fit` computes them from pairs, and `set_weights` sets them.

    Args:
        channels: int, channels of the picture.
        **kwargs: passed to `keras.layers.Layer`.

    Attributes:
        known: float32 scalar weight, 1 if the model has been fitted, else 0.
        limits: float32 weight [channels, 2], the lowest and highest signal that it was fitted to.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.channels = channels

    def build(self, input_shape=None):  # noqa: D102
        self.known = self._add("known", ())
        self.limits = self._add(
            "limits",
            (self.channels, 2),
            lambda shape, dtype: ops.cast([[0, 1]] * self.channels, dtype),
        )

    def _add(self, name: str, shape: tuple[int, ...], initializer: Any = "zeros") -> Any:
        # A network in half precision would cast the weights, too.
        return self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False)

    def log_likelihood(self, observed: Tensor, signal: Tensor, channel: int = 0) -> Tensor:
        """Returns log p(observed | signal), where p is a density over the observed values.

        Args:
            observed: float32 [..., 1], values of one channel.
            signal: float32 [..., K], what they may be without noise.
            channel: int, which channel they are of.

        Returns:
            float32 [..., K], finite.
        """
        raise NotImplementedError

    def fit(self, observed: np.ndarray, signal: np.ndarray) -> list[np.ndarray]:
        """Returns the weights that suit pairs, for `set_weights`; changes nothing.

        The mean of the observed values for a signal is taken to be the signal.

        Args:
            observed: float [M, channels], noisy values.
            signal: float [M, channels], the same without noise, or estimates that do not depend
                on the value's noise.

        Raises:
            ValueError: if there are too few pairs, or values that are not finite.
        """
        observed, signal = (np.asarray(each, np.float64) for each in (observed, signal))
        if observed.shape != signal.shape or observed.shape != (len(observed), self.channels):
            raise ValueError(
                f"Pairs are two arrays [pairs, {self.channels}]. "
                f"Received: {observed.shape} and {signal.shape}"
            )
        if len(observed) < _FEWEST:
            raise ValueError(
                f"A noise model needs at least {_FEWEST} pairs. Received: {len(observed)}"
            )
        if not (np.isfinite(observed).all() and np.isfinite(signal).all()):
            raise ValueError("A noise model needs finite values. Received: others among them")
        fitted = [self._fit(x, s) for x, s in zip(observed.T, signal.T, strict=True)]
        stacked = [np.stack(each) for each in zip(*fitted, strict=True)]
        return [np.asarray(each, np.float32) for each in (1.0, *stacked)]

    def _fit(self, observed: np.ndarray, signal: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the weights of one channel from `limits` on, for pairs [M] in float64."""
        raise NotImplementedError


def _limits(low: float, high: float) -> np.ndarray:
    """Returns the limits, apart from each other in float32."""
    return np.array([low, max(high, low + 1e-5 * max(1.0, abs(low)))])


class GaussianMixture(NoiseModel):
    """p(x | s) = Σ α(s) · N(x; s + μ(s), v(s)), over a few normal distributions.

    (Prakash et al., "Fully unsupervised probabilistic Noise2Void", ISBI 2020, arXiv 1911.12291,
    section 3.) The shares α are a softmax of straight lines between the limits of the signal, and
    the variances v are such lines, as that of Poisson-Gaussian noise is. The means μ are lines less
    their average Σ α · μ, so that the mean of x is s.

    Beyond the limits, all is as at the nearer one, but variances that rise go on to do so above,
    since what is brightest may be rare.

    Args:
        channels, **kwargs: see `NoiseModel`.
        gaussians: int, number of normal distributions.

    Example:
        >>> model = GaussianMixture(channels=1)
        >>> model.build()
        >>> signal = np.linspace(0, 1, 1000)[:, None]
        >>> observed = np.random.default_rng(0).normal(signal, 0.1)
        >>> model.set_weights(model.fit(observed, signal))
    """

    def __init__(self, channels: int, gaussians: int = 3, **kwargs):
        super().__init__(channels, **kwargs)
        self.gaussians = gaussians

    def build(self, input_shape=None):  # noqa: D102
        super().build(input_shape)
        shape = (self.channels, self.gaussians, 2)  # values at the lower and at the upper limit
        self.logits = self._add("logits", shape)
        self.means = self._add("means", shape)
        self.variances = self._add("variances", shape, "ones")
        self.built = True

    def log_likelihood(self, observed: Tensor, signal: Tensor, channel: int = 0) -> Tensor:  # noqa: D102
        low, high = self.limits[channel, 0], self.limits[channel, 1]
        place = (signal - low) / (high - low)
        within, beyond = ops.clip(place, 0.0, 1.0), ops.clip(place, 0.0, _BEYOND)
        shares, means, logs = [], [], []
        # In lists, as not every runtime has tensors of one more axis.
        for number in range(self.gaussians):
            a, a_end = _ends(self.logits, channel, number)
            m, m_end = _ends(self.means, channel, number)
            shares.append(ops.exp(a + (a_end - a) * within))  # `_LARGEST` keeps it in range
            means.append(m + (m_end - m) * within)
        total = sum(shares)
        average = sum(share * mean for share, mean in zip(shares, means, strict=True)) / total
        noise = observed - signal + average
        for number, (share, mean) in enumerate(zip(shares, means, strict=True)):
            v, v_end = _ends(self.variances, channel, number)
            variance = ops.maximum(v + (v_end - v) * beyond, ops.minimum(v, v_end))
            square = ops.square(noise - mean) / variance
            logs.append(ops.log(share / total) - 0.5 * (ops.log(variance) + square))
        largest = logs[0]
        for each in logs[1:]:
            largest = ops.maximum(largest, each)
        likelihood = sum(ops.exp(each - largest) for each in logs)
        return largest + ops.log(likelihood) - 0.5 * _LOG_2PI

    def _fit(self, observed: np.ndarray, signal: np.ndarray) -> tuple[np.ndarray, ...]:
        noise, limits = observed - signal, _limits(*np.percentile(signal, _ENDS))
        deviation = max(float(np.sqrt(np.mean(noise**2))), _LEAST_DEVIATION)
        place = np.clip((signal - limits[0]) / (limits[1] - limits[0]), 0, 1)
        start = np.zeros((3, self.gaussians, 2))
        # Different variances, as equal parts would stay equal.
        start[2] = np.linspace(-1, 1, self.gaussians + 2)[1:-1, None] * math.log(10)
        ends = [(-_LARGEST, _LARGEST)] * 2 * start[0].size
        ends += [(math.log(_LEAST_SHARE), -math.log(_LEAST_SHARE))] * start[0].size
        found = scipy.optimize.minimize(
            _loss_and_gradient,
            start.ravel(),
            (start, noise / deviation, place),
            jac=True,
            bounds=ends,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "ftol": _TOLERANCE, "gtol": _GRADIENT},
        )
        logits, means, logs = found.x.reshape(start.shape)
        return limits, logits, means * deviation, np.exp(logs) * deviation**2


def _ends(weight: Any, channel: int, number: int) -> tuple[Tensor, Tensor]:
    """Returns a Gaussian's value at the lower and at the upper limit."""
    # By index, as a tensor of a graph cannot be unpacked.
    return weight[channel, number, 0], weight[channel, number, 1]


def _loss_and_gradient(
    parameters: np.ndarray, start: np.ndarray, noise: np.ndarray, place: np.ndarray
) -> tuple[float, np.ndarray]:
    """Returns minus the mean log-likelihood of a mixture, with a ridge, and its gradient.

    Args:
        parameters: logits, means, and logarithms of the variances, at both limits.
        start: the parameters that the ridge keeps them near, [3, gaussians, 2].
        noise: observed values less signals, in units of their deviation, [M].
        place: where the signals lie between the limits, in [0, 1], [M].
    """
    change = parameters - start.ravel()
    values = parameters.reshape(start.shape).copy()
    values[2] = np.exp(values[2])
    basis = np.stack([1 - place, place])
    # Not by matrix products, whose threads would wait for each other more than they compute.
    logit, mean, variance = np.einsum("kgc,cm->kgm", values, basis)  # each [gaussians, M]
    share = np.exp(logit - logit.max(axis=0))
    share /= share.sum(axis=0)
    average = (share * mean).sum(axis=0)
    error = noise + average - mean
    density = np.log(share + _TINY) - 0.5 * (np.log(variance) + error**2 / variance)
    largest = density.max(axis=0)
    weight = np.exp(density - largest)
    likelihood = weight.sum(axis=0)
    weight /= likelihood
    loss = -(largest + np.log(likelihood)).mean() + 0.5 * _RIDGE * (change**2).sum()
    # Derivatives of each pair's log-likelihood, [gaussians, M].
    by_mean = weight * error / variance
    by_average = by_mean.sum(axis=0)
    by_variance = weight * (error**2 / variance - 1) / (2 * variance)
    by_logit = weight - share - share * (mean - average) * by_average
    each = np.stack([by_logit, by_mean - share * by_average, by_variance])
    gradient = np.einsum("kgm,cm->kgc", each, basis)
    gradient[2] *= values[2]
    return loss, _RIDGE * change - gradient.ravel() / noise.size


class Histogram(NoiseModel):
    """p(x | s) as a table: for each of many signals, a histogram of the observed values.

    (Krull et al., "Probabilistic Noise2Void", 2020, arXiv 1906.00651, section 3.3.) It takes any
    shape of noise, in steps of 1/`bins` of the range of values. Each histogram is of the noise of
    the pairs whose signals are nearest, and smoothed; between them, it is interpolated.

    The range leaves out the most extreme values, 1 in 2000 at each end: a few pixels that are far
    from all others, such as hot ones, would leave next to no bins for these. Values beyond count in
    the outer bins.

    Args:
        channels, **kwargs: see `NoiseModel`.
        bins: int, number of signals, and of bins of the observed values.
    """

    def __init__(self, channels: int, bins: int = 256, **kwargs):
        super().__init__(channels, **kwargs)
        self.bins = bins

    def build(self, input_shape=None):  # noqa: D102
        super().build(input_shape)
        shape = (self.channels, self.bins, self.bins)  # signals, observed values
        self.density = self._add("density", shape, "ones")
        self.built = True

    def log_likelihood(self, observed: Tensor, signal: Tensor, channel: int = 0) -> Tensor:  # noqa: D102
        low, high = self.limits[channel, 0], self.limits[channel, 1]
        x, s = ((each - low) / (high - low) * self.bins for each in (observed, signal))
        column = ops.cast(ops.clip(ops.floor(x), 0, self.bins - 1), "int32")
        s = ops.clip(s - 0.5, 0.0, self.bins - 1.0)
        row = ops.minimum(ops.floor(s), self.bins - 2.0)
        place, share = ops.cast(row, "int32") * self.bins + column, s - row
        table = ops.reshape(self.density[channel], (-1,))
        before, after = ops.take(table, place), ops.take(table, place + self.bins)
        return ops.log((1 - share) * before + share * after)

    def _fit(self, observed: np.ndarray, signal: np.ndarray) -> tuple[np.ndarray, ...]:
        # Not interpolated, so that of few values the most extreme one is left out, too.
        both, (first, last) = (observed, signal), _RANGE
        low, high = limits = _limits(
            float(min(np.percentile(each, first, method="higher") for each in both)),
            float(max(np.percentile(each, last, method="lower") for each in both)),
        )
        bins, width = self.bins, (high - low) / self.bins
        order = np.argsort(signal, kind="stable")
        # One huge error would shift the mean of its row, and widen the smoothing.
        signal, noise = signal[order], np.clip(observed - signal, low - high, high - low)[order]
        count = max(len(signal) // _NEAREST, min(len(signal), _ENOUGH))
        # Smoothing by Silverman's rule. It adds to the variance, so the noise is shrunk before.
        smoothing = 0.9 * count**-0.2
        table = np.empty((bins, bins))
        for row, middle in enumerate(low + (np.arange(bins) + 0.5) * width):
            first = np.searchsorted(signal, middle) - count // 2
            first = min(max(first, 0), len(signal) - count)
            near = noise[first : first + count]
            values = middle + (near - near.mean()) / math.sqrt(1 + smoothing**2)
            places = np.clip((values - low) / width, 0, bins - 1).astype(int)
            density = np.bincount(places, minlength=bins) / count
            density = scipy.ndimage.gaussian_filter1d(
                density, max(smoothing * near.std() / width, 0.5)
            )
            table[row] = (1 - _OUTLIERS) * density / density.sum() + _OUTLIERS / bins
        return limits, table / width


NOISE_MODELS: dict[str, type[NoiseModel]] = {"gmm": GaussianMixture, "histogram": Histogram}
"""Every noise model that a recipe may name."""
