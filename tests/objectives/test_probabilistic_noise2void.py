import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError, TrainingError
from cbsn.networks import ProbabilisticBlindSpotUNet
from cbsn.objectives import Noise2Void, ProbabilisticNoise2Void
from cbsn.objectives.probabilistic_noise2void import flattest
from cbsn.training.step_random import StepRandom

STEPS = 10
OBJECTIVE = ProbabilisticNoise2Void(bootstrap_steps=STEPS)


@pytest.fixture
def network():
    keras.utils.set_random_seed(1)
    return ProbabilisticBlindSpotUNet(filters=4, depth=1, samples=5)


@pytest.fixture
def noisy(random):
    return tf.constant(random.normal(size=(2, 12, 16, 3)), tf.float32)


def _draws():
    return StepRandom(3, 0, 2)


def _know_normal_noise(network, variance):
    _, limits, logits, *_ = network.noise.get_weights()
    zeros = np.zeros(logits.shape)
    network.noise.set_weights([np.float32(1), limits, zeros, zeros, zeros + variance])


def test_minus_the_logarithm_of_the_mean_likelihood(network, noisy):
    """Equation 7 of the paper, in float64, over the pixels that a blind pass masks."""
    _know_normal_noise(network, 0.3)
    terms = OBJECTIVE(network, noisy, STEPS, _draws())
    samples, observed, valid = network.blind_samples(noisy, _draws())
    assert np.all(valid.numpy() == 1)
    x, s = observed.numpy().astype("float64")[..., None], samples.numpy().astype("float64")
    density = np.exp(-((x - s) ** 2) / 0.6) / np.sqrt(2 * np.pi * 0.3)
    expected = -np.log(density.mean(axis=-1)).mean()
    assert float(terms["nll"]) == float(terms["total"]) == pytest.approx(expected, rel=1e-5)
    blind = np.mean((s.mean(axis=-1) - x[..., 0]) ** 2)
    assert float(terms["blind"]) == pytest.approx(blind, rel=1e-5)
    assert terms["blind"] == Noise2Void()(network, noisy, 0, _draws())["blind"]


@pytest.mark.parametrize(("known", "step"), [(False, 0), (False, STEPS), (True, STEPS - 1)])
def test_until_the_noise_is_known_and_the_bootstrap_is_over_every_sample_is_fitted(
    network, noisy, known, step
):
    if known:
        _know_normal_noise(network, 0.3)
    terms = OBJECTIVE(network, noisy, step, _draws())
    samples, observed, _ = network.blind_samples(noisy, _draws())
    expected = np.mean((samples.numpy() - observed.numpy()[..., None]) ** 2)
    assert float(terms["total"]) == pytest.approx(expected, rel=1e-5)
    if not known:  # the entropy of a normal distribution
        entropy = 0.5 * np.log(2 * np.pi * np.e * float(terms["blind"]))
        assert float(terms["nll"]) == pytest.approx(entropy, rel=1e-5)


def test_the_gradient_trains_all_weights_but_the_noise_model(network, noisy):
    _know_normal_noise(network, 0.3)
    with tf.GradientTape() as tape:
        total = OBJECTIVE(network, noisy, STEPS, _draws())["total"]
    gradients = tape.gradient(total, [each.value for each in network.trainable_variables])
    assert all(np.isfinite(each).all() and np.any(each) for each in map(np.asarray, gradients))


@pytest.mark.parametrize("known", [False, True])
def test_the_loss_held_out_is_positive_and_comparable(network, noisy, known):
    if known:
        _know_normal_noise(network, 0.3)
    nll = OBJECTIVE(network, noisy, STEPS, _draws())["nll"]
    held_out = OBJECTIVE.held_out(network, noisy, STEPS, _draws())
    np.testing.assert_allclose(held_out, np.exp(nll), rtol=1e-5)


def test_the_loss_held_out_is_finite_and_rises_with_nll(monkeypatch):
    """Of impossible pixels, too; exp(nll) would be infinite from 88.8 on."""
    nlls = np.float32([-30, -1, 0, 19, 20, 21, 88, 90, 1000, 1e10])
    losses = []
    for nll in nlls:
        monkeypatch.setattr(ProbabilisticNoise2Void, "__call__", lambda *_: {"nll": nll})  # noqa: B023
        losses.append(float(OBJECTIVE.held_out(None, None, None, None)))
    assert np.isfinite(losses).all()
    assert (np.diff(losses) > 0).all() and losses[0] > 0
    np.testing.assert_allclose(losses[:5], np.exp(nlls[:5]), rtol=1e-6)


@pytest.mark.slow
def test_xla_compiles_the_loss(network, noisy):
    _know_normal_noise(network, 0.3)

    def loss(step):
        return OBJECTIVE(network, noisy, step, StepRandom(3, step, 2))["total"]

    for step in (0, STEPS):
        compiled = tf.function(loss, jit_compile=True)(tf.constant(step, tf.int64))
        np.testing.assert_allclose(compiled, loss(tf.constant(step, tf.int64)), rtol=1e-4)


class Predicting:
    """Predicts a picture with an error, whatever the noise is; hides every second pixel."""

    def __init__(self, network, predicted):
        self.noise = network.noise
        self._predicted = tf.constant(predicted, tf.float32)

    def blind_pass(self, noisy, random):
        mask = np.zeros((*noisy.shape[:-1], 1), "float32")
        mask[:, ::2, ::2] = 1
        return self._predicted, tf.constant(mask)


def test_noise_is_learned_where_predictions_are_smooth(network):
    """Half of the picture has a texture, of which half is predicted."""
    random = np.random.default_rng(0)
    smooth = np.tile(np.linspace(0, 1, 64)[None, :, None, None], (1, 1, 64, 3))
    texture = random.normal(0, 0.3 * np.sin(np.pi * smooth))
    texture[:, :, :32] = 0
    clean = smooth + texture
    deviation = 0.05 + 0.1 * smooth

    def batches():
        for number in itertools.count():
            noisy = random.normal(clean, deviation).astype("float32")
            yield tf.constant(noisy), StepRandom(0, number, 1)

    predicting = Predicting(network, smooth + texture / 2)
    objective = ProbabilisticNoise2Void(bootstrap_steps=100)
    weights, text = objective.fit(predicting, batches())
    network.noise.set_weights(weights)
    pixels = 100 * 32 * 32 // 10
    assert text.startswith(f"The noise model is fitted to {pixels:,} pixels: σ ")
    dark, bright = (float(part.split()[0]) for part in text.split("σ ")[1].split("darkest, "))
    x = np.linspace(-2, 3, 5001)
    for signal, said in ((0.05, dark), (0.5, None), (0.95, bright)):
        logs = network.noise.log_likelihood(x[:, None].astype("float32"), [[signal]], 1)
        density = np.exp(np.asarray(logs, "float64")[:, 0])
        variance = (density * (x - signal) ** 2).sum() * (x[1] - x[0])
        expected = 0.05 + 0.1 * signal
        # Of 10,000 values of a line's end: 5 · 2 · √(2/10⁴) of the variance, half of the deviation.
        # Its square is no line: 0.1² t (1 − t) of the variance are in excess in the middle.
        excess = 0.1**2 * signal * (1 - signal) / (2 * expected)
        bound = 0.07 * expected + excess
        assert np.sqrt(variance) == pytest.approx(expected, abs=bound)
        if said:
            assert said == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("learned", "doubted"), [(0.0, True), (1.0, False)])
def test_a_network_that_has_learned_nothing_is_told(network, learned, doubted):
    random = np.random.default_rng(0)
    clean = np.tile(np.linspace(-1, 1, 64)[None, :, None, None], (1, 1, 64, 3))

    def batches():
        for number in itertools.count():
            noisy = random.normal(clean, 0.1).astype("float32")
            yield tf.constant(noisy), StepRandom(0, number, 1)

    predicting = Predicting(network, learned * clean)
    _, text = ProbabilisticNoise2Void(bootstrap_steps=100).fit(predicting, batches())
    assert ("give more --bootstrap_steps or --channels" in text) == doubted


def test_the_flattest_are_taken_of_every_signal():
    random = np.random.default_rng(1)
    signal = random.permutation(np.linspace(0, 1, 40_000))
    variation = random.random(signal.size) + 5 * signal  # least where it is dark
    chosen = flattest(signal, variation)
    assert len(chosen) == len({*chosen}) == pytest.approx(4000, abs=32)
    counts = np.histogram(signal[chosen], 32, (0, 1))[0]
    assert counts.max() - counts.min() <= 2
    group = np.clip(signal * 32, 0, 31).astype(int)
    for number in range(32):
        inside = np.flatnonzero(group == number)
        kept = np.isin(inside, chosen)
        least, rest = variation[inside[kept]], variation[inside[~kept]]
        assert least.max() <= np.sort(rest)[2]  # up to a pixel at each end of a group


@pytest.mark.parametrize("count", [1, 31, 150, 1999])
def test_of_few_pixels_almost_all_are_taken(count):
    chosen = flattest(np.arange(count), np.arange(count)[::-1])
    assert count - count % (count // 100 + 1) == len(chosen)


def _few(network, value, count):
    predicting = Predicting(network, np.zeros((1, 4, 4, 3)))
    batch = tf.constant(np.full((1, 4, 4, 3), value, "float32"))
    return ProbabilisticNoise2Void(1).fit(predicting, [(batch, None)] * count)


def test_values_that_are_not_finite_do_not_count(network):
    """Nor do more patches count than the bootstrap took, or 16."""
    with pytest.raises(TrainingError, match=r"at least 30 pairs. Received: 0.*--patch_size"):
        _few(network, np.nan, 40)
    assert "to 64 pixels" in _few(network, 0.5, 40)[1]
    with pytest.raises(TrainingError, match="Received: 4"):
        _few(network, 0.5, 1)


def test_without_a_bootstrap_the_noise_model_is_kept(network):
    objective = ProbabilisticNoise2Void(bootstrap_steps=0)
    with pytest.raises(ConfigError, match=r"--init MODEL\. Received: --bootstrap_steps 0"):
        objective.fit(network, [])
    _know_normal_noise(network, 0.3)
    weights, text = objective.fit(network, [])
    assert "--init" in text
    for new, old in zip(weights, network.noise.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_milestones():
    assert OBJECTIVE.milestones == (STEPS,)
    assert Noise2Void().milestones == ()
    with pytest.raises(ConfigError, match="bootstrap_steps=-1"):
        ProbabilisticNoise2Void(-1)
