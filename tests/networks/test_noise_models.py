import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf

from cbsn.networks import noise_models
from cbsn.networks.noise_models import NOISE_MODELS, GaussianMixture, Histogram

PAIRS = 40_000
PEAK, READ = 30.0, 2.0
"""Photons of white, and deviation of the read noise in photons."""


def _poisson_gaussian(signal, random):
    """In units of white, as the signal is."""
    return (random.poisson(PEAK * signal) + READ * random.normal(size=signal.shape)) / PEAK


NOISES = {
    "gaussian": (lambda s, random: random.normal(s, 0.1), lambda s: 0.01 + 0 * s),
    "poisson-gaussian": (_poisson_gaussian, lambda s: (PEAK * s + READ**2) / PEAK**2),
}
"""For each: draws observed values for signals, and the variance for a signal."""


def _fitted(kind, observed, signal, **sizes):
    model = NOISE_MODELS[kind](observed.shape[-1], **sizes)
    model.build()
    model.set_weights(model.fit(observed, signal))
    return model


@pytest.fixture(scope="module", params=sorted(NOISES))
def noise(request):
    return NOISES[request.param]


@pytest.fixture(scope="module", params=sorted(NOISE_MODELS))
def model(request, noise):
    random = np.random.default_rng(1)
    signal = random.uniform(0.1, 1, (PAIRS, 1))
    return _fitted(request.param, noise[0](signal, random), signal)


def _density(model, signal, channel=0):
    """The density at a grid of observed values, the values, and their distance."""
    low, high = np.asarray(model.limits)[channel]
    if isinstance(model, Histogram):  # the middles of its bins
        step = (high - low) / model.bins
        x = low + (np.arange(model.bins) + 0.5) * step
    else:
        x = np.linspace(-3, 5, 20_001)
        step = x[1] - x[0]
    logs = model.log_likelihood(x[:, None].astype("float32"), np.full((1, 1), signal, "float32"))
    return np.exp(np.asarray(logs, "float64")[:, 0]), x, step


def test_known_noise_is_recovered(model, noise):
    for signal in (0.2, 0.4, 0.7, 0.9):
        density, x, step = _density(model, signal)
        total = density.sum() * step
        # Float32 logarithms of a density of up to 10 are off by about 1e-6.
        assert total == pytest.approx(1, abs=1e-4)
        mean = (density * x).sum() * step
        variance = (density * (x - mean) ** 2).sum() * step
        expected = noise[1](signal)
        pairs, outliers = PAIRS, 0.0
        if isinstance(model, Histogram):
            pairs = PAIRS // noise_models._NEAREST
            # Those have a share of the mass, evenly over the range; a bin's width counts, too.
            outliers = noise_models._OUTLIERS * (np.mean((x - signal) ** 2) - expected)
            outliers += step**2 / 6
        # A variance from n pairs is off by √(2/n) of it; at the end of a line of variances, by
        # twice as much. Five times that.
        bound = 5 * 2 * np.sqrt(2 / pairs) * expected
        assert variance - outliers == pytest.approx(expected, abs=bound)
        # The mean is the signal, whatever the pairs are; outliers pull it to the middle.
        pull = noise_models._OUTLIERS * abs(x.mean() - signal) + step / 2
        assert mean == pytest.approx(
            signal, abs=1e-4 if isinstance(model, GaussianMixture) else pull
        )


def test_a_mixture_has_the_likelihood_of_the_true_noise():
    """On pairs that it was not fitted to."""
    random = np.random.default_rng(2)
    signal = random.uniform(0.1, 1, (2 * PAIRS, 1))
    observed = _poisson_gaussian(signal, random)
    model = _fitted("gmm", observed[:PAIRS], signal[:PAIRS])
    x, s = observed[PAIRS:], signal[PAIRS:]
    logs = np.asarray(model.log_likelihood(x.astype("float32"), s.astype("float32")))
    photons = np.arange(100)
    normal = scipy.stats.norm.pdf(PEAK * x, photons, READ) * PEAK
    true = np.log((normal * scipy.stats.poisson.pmf(photons, PEAK * s)).sum(axis=-1))
    loss = np.mean(true) - np.mean(logs)
    # Each of 18 parameters costs 1/(2n). The mean over n pairs of a difference has an error, too.
    # Photons are skewed, which straight lines cannot follow for every signal: 0.002 for that, a
    # thousandth of what the likelihood of values that have any variance but the true one loses.
    error = np.std(true - logs[:, 0]) / np.sqrt(PAIRS)
    assert -5 * error < loss < 18 / (2 * PAIRS) + 5 * error + 0.002
    one = scipy.stats.norm.logpdf(x - s, 0, np.std(x - s))
    assert np.mean(true) - np.mean(one) > 10 * loss


@pytest.mark.parametrize("kind", sorted(NOISE_MODELS))
def test_what_is_far_off_is_finite(kind):
    random = np.random.default_rng(3)
    signal = random.uniform(0, 1, (2000, 1))
    model = _fitted(kind, random.normal(signal, 0.1 + 0.2 * signal), signal)
    far = tf.constant([[-1e4], [-2.0], [0.5], [3.0], [1e4]])
    for x in (-1e4, 0.0, 1e4):
        with tf.GradientTape() as tape:
            tape.watch(far)
            logs = model.log_likelihood(tf.constant([[x]]), far)
        assert np.isfinite(logs).all()
        assert np.isfinite(tape.gradient(logs, far)).all()


def test_a_mixture_is_the_sum_of_its_normal_distributions():
    """Within its limits and beyond: variances go on to rise up to 4 times as far, or stay."""
    random = np.random.default_rng(4)
    model = GaussianMixture(2)
    model.build()
    shape = (2, 3, 2)
    logits, means = random.normal(size=(2, *shape))
    variances = random.uniform(0.1, 1, shape)
    variances[0, :2] = [[0.2, 0.5], [0.5, 0.2]]
    limits = np.array([[0, 2], [-1, 1]])
    model.set_weights([np.float32(1), limits, logits, means, variances])
    x, s = random.uniform(-1, 2, (50, 1)), random.uniform(-5, 15, (50, 4))
    for channel, (low, high) in enumerate(limits):
        place = ((s - low) / (high - low))[..., None]
        t = np.clip(place, 0, 1)
        logit, mean = (
            each[channel, :, 0] * (1 - t) + each[channel, :, 1] * t for each in (logits, means)
        )
        v, end = variances[channel].T
        variance = np.where(end > v, v + (end - v) * np.clip(place, 0, 4), v + (end - v) * t)
        share = np.exp(logit) / np.exp(logit).sum(axis=-1, keepdims=True)
        mean = mean - (share * mean).sum(axis=-1, keepdims=True)
        logs = scipy.stats.norm.logpdf(x[..., None], s[..., None] + mean, np.sqrt(variance))
        expected = scipy.special.logsumexp(np.log(share) + logs, axis=-1)
        result = model.log_likelihood(x.astype("float32"), s.astype("float32"), channel)
        # The largest terms are squares of up to 17 over 0.1: float32 is off by 2⁻²⁴ of 1500.
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)


def test_the_gradient_of_the_fit_is_that_of_its_loss():
    random = np.random.default_rng(5)
    fixed = random.normal(size=(3, 4, 2)), random.normal(size=200), random.uniform(size=200)
    point = random.normal(size=24)
    numeric = scipy.optimize.approx_fprime(
        point, lambda p: noise_models._loss_and_gradient(p, *fixed)[0], 1e-7
    )
    analytic = noise_models._loss_and_gradient(point, *fixed)[1]
    # Differences over 1e-7 are off by about 1e-7 times a second derivative, and 1e-16 / 1e-7.
    np.testing.assert_allclose(analytic, numeric, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(NOISE_MODELS))
def test_channels_have_noise_of_their_own(kind):
    random = np.random.default_rng(6)
    pairs = 5000
    signal = random.uniform(0, 1, (pairs, 2))
    observed = random.normal(signal, [0.05, 0.2])
    model = _fitted(kind, observed, signal)
    for channel, deviation in enumerate((0.05, 0.2)):
        alone = _fitted(kind, observed[:, [channel]], signal[:, [channel]])
        for both, one in zip(model.get_weights()[1:], alone.get_weights()[1:], strict=True):
            np.testing.assert_array_equal(both[channel], one[0])
        x = np.float32([[0.5 + deviation]])
        ratio = model.log_likelihood(x - deviation, [[0.5]], channel)
        ratio = float((ratio - model.log_likelihood(x, [[0.5]], channel))[0, 0])
        # A density falls by exp(−½) to one deviation. With 18 parameters it is off by √(18/n) of
        # itself; a histogram's bin of about 40 pairs, smoothed over several, by less than that.
        assert ratio == pytest.approx(0.5, abs=5 * np.sqrt(18 / pairs))


@pytest.mark.parametrize("kind", sorted(NOISE_MODELS))
def test_a_fit_changes_nothing_until_its_weights_are_set(kind):
    random = np.random.default_rng(7)
    signal = random.uniform(0, 1, (500, 1))
    model = NOISE_MODELS[kind](1)
    model.build()
    before = model.get_weights()
    assert float(model.known) == 0
    weights = model.fit(random.normal(signal, 0.1), signal)
    for weight, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)
    model.set_weights(weights)
    assert float(model.known) == 1
    assert model.trainable_variables == []
    for weight, new in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, new)


@pytest.mark.parametrize("kind", sorted(NOISE_MODELS))
@pytest.mark.parametrize("signal", [np.zeros((50, 1)), np.linspace(0, 1, 50)[:, None]])
def test_without_noise_the_weights_are_finite(kind, signal):
    model = _fitted(kind, signal, signal)
    assert np.isfinite(model.log_likelihood(np.float32([[0.0], [1.0]]), np.float32([[0.5]]))).all()


@pytest.mark.parametrize("count", [1000, PAIRS])
@pytest.mark.parametrize("value", [-1000.0, 5.0, 1000.0])
def test_one_hot_pixel_leaves_a_histogram_as_it_is(count, value):
    """Its bins are where all other values lie, and so is the noise that they hold."""
    random = np.random.default_rng(8)
    signal = random.uniform(0, 1, (count, 1))
    observed = random.normal(signal, 0.1)
    hot = observed.copy()
    hot[count // 2] = value
    x, s = (each.astype("float32") for each in (random.normal(signal, 0.1), signal))
    plain, other = (
        np.mean(_fitted("histogram", each, signal).log_likelihood(x, s)) for each in (observed, hot)
    )
    # It takes 1 of the values that a row is made of, and the bins become wider by the distance of
    # the most extreme values, at most a tenth.
    assert other == pytest.approx(plain, abs=0.02)
    # Minus the entropy of the noise. Smoothing, bins and outliers cost some of it.
    assert -0.1 < plain - (-0.5 * np.log(2 * np.pi * np.e * 0.01)) < 0.05


@pytest.mark.parametrize(
    ("observed", "signal", "message"),
    [
        (np.zeros((29, 1)), np.zeros((29, 1)), "at least 30 pairs. Received: 29"),
        (np.zeros((99, 2)), np.zeros((99, 2)), r"arrays \[pairs, 1\]. Received: \(99, 2\)"),
        (np.zeros((99, 1)), np.zeros((98, 1)), r"\(99, 1\) and \(98, 1\)"),
        (np.full((99, 1), np.nan), np.zeros((99, 1)), "finite"),
    ],
)
def test_unfit_pairs_are_refused(observed, signal, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(1).fit(observed, signal)


def test_the_example_runs():
    model = GaussianMixture(channels=1)
    model.build()
    signal = np.linspace(0, 1, 1000)[:, None]
    observed = np.random.default_rng(0).normal(signal, 0.1)
    model.set_weights(model.fit(observed, signal))
    assert isinstance(model, keras.layers.Layer)
