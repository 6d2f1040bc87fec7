import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from cbsn.networks import BlindSpotUNet, ProbabilisticBlindSpotUNet
from cbsn.training.step_random import StepRandom
from tests import rounding
from tests.known_noise import know_noise

SMALL = {"filters": 4, "depth": 1, "samples": 6}


@pytest.fixture
def network():
    keras.utils.set_random_seed(1)
    return ProbabilisticBlindSpotUNet(**SMALL)


def _with_normal_noise(network, variance):
    """Normal noise of one variance, for all channels."""
    shape = network.noise.logits.shape
    limits = np.tile([0, 1], (network.channels, 1))
    zeros = np.zeros(shape)
    network.noise.set_weights([np.float32(1), limits, zeros, zeros, zeros + variance])


def _samples(network, x):
    """All samples, [N, H, W, C, K]."""
    samples = network.head(network.features(tf.constant(x))).numpy()
    return samples.reshape(*x.shape, network.samples)


def test_size():
    plain, network = BlindSpotUNet(channels=1), ProbabilisticBlindSpotUNet(channels=1)
    more = (network.samples - 1) * (network.filters + 1)  # of the last convolution
    trained = sum(np.prod(each.shape) for each in network.trainable_variables)
    assert trained == plain.count_params() + more
    assert len(network.trainable_variables) == 36
    assert {each.path.split("/")[-2] for each in network.non_trainable_variables} == {"noise"}


@pytest.mark.parametrize("seed", range(3))
def test_samples_start_nearer_to_each_other_than_pictures_vary(random, seed):
    """Or their errors move the features of a small network so far that it learns nothing."""
    keras.utils.set_random_seed(seed)
    network = ProbabilisticBlindSpotUNet(filters=8, depth=3, channels=1)
    x = random.normal(size=(2, 32, 32, 1)).astype("float32")
    assert _samples(network, x).std(axis=-1).mean() < 0.5 * x.std()


def test_the_result_is_the_mean_of_the_samples_weighted_by_their_likelihood(network, random):
    """Equation 9 of the paper, in float64."""
    _with_normal_noise(network, 0.4)
    x = random.normal(size=(2, 8, 10, 3)).astype("float32")
    samples = _samples(network, x).astype("float64")
    likelihood = scipy.stats.norm.pdf(x[..., None], samples, np.sqrt(0.4))
    expected = (likelihood * samples).sum(axis=-1) / likelihood.sum(axis=-1)
    assert np.abs(expected - samples.mean(axis=-1)).max() > 0.1  # so the noise model matters
    np.testing.assert_allclose(network(x), expected, rtol=0, atol=1e-5)


def test_before_the_noise_is_known_it_is_their_plain_mean(network, random):
    x = random.normal(size=(1, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(network(x), _samples(network, x).mean(axis=-1), rtol=0, atol=1e-6)


def test_values_far_from_all_samples_take_the_nearest(network, random):
    _with_normal_noise(network, 1e-4)  # at 1e3, the likelihood is exp(−5e9)
    x = (1e3 * random.normal(size=(1, 8, 8, 3))).astype("float32")
    samples = _samples(network, x)
    nearest = np.abs(samples - x[..., None]).argmin(axis=-1)[..., None]
    expected = np.take_along_axis(samples, nearest, axis=-1)[..., 0]
    bound = rounding.of_outputs(network, more=network.samples) * np.abs(samples).max()
    np.testing.assert_allclose(network(x), expected, rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((12, 16), {}),
        ((13, 19), {"mask_shape": "x:1"}),  # with margins, in which nothing is masked
        ((6, 9, 8), {"dimensions": 3, "mask_cell": 3}),
    ],
)
def test_samples_of_masked_pixels_are_those_of_a_blind_pass(random, size, changes):
    keras.utils.set_random_seed(1)
    network = ProbabilisticBlindSpotUNet(**{**SMALL, **changes})
    know_noise(network)  # which a blind pass must not use
    x = tf.constant(random.normal(size=(2, *size, 3)), tf.float32)
    mean, mask = network.blind_pass(x, StepRandom(1, 0, 2))
    samples, observed, valid = network.blind_samples(x, StepRandom(1, 0, 2))
    assert samples.shape == (*observed.shape, network.samples)
    where = mask.numpy()[..., 0] == 1
    kept = valid.numpy()[..., 0] == 1
    assert where.sum() == kept.sum() > 0
    found = {
        tuple(value): tuple(each)
        for value, each in zip(
            observed.numpy()[kept], samples.numpy().mean(axis=-1)[kept], strict=True
        )
    }
    assert len(found) == where.sum()
    for value, expected in zip(x.numpy()[where], mean.numpy()[where], strict=True):
        np.testing.assert_allclose(found[tuple(value)], expected, rtol=0, atol=1e-5)


def test_evidence_is_the_mean_likelihood(network, random):
    _with_normal_noise(network, 0.4)
    x = random.normal(size=(2, 3, 4, 3)).astype("float32")
    samples = random.normal(size=(2, 3, 4, 3, 6)).astype("float32")
    logs = scipy.stats.norm.logpdf(x[..., None], samples, np.sqrt(0.4))
    expected = scipy.special.logsumexp(logs, axis=-1) - np.log(6)
    result = network.log_evidence(tf.constant(x), tf.constant(samples))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_sees_pixels_in_float32(random):
    """Of a value near 1, bfloat16 keeps 8 bits."""
    network = ProbabilisticBlindSpotUNet(**SMALL, dtype="mixed_bfloat16")
    head = [np.zeros(each.shape) for each in network.head.get_weights()]
    head[1][:] = np.linspace(0.99, 1.01, network.samples * 3)
    network.head.set_weights(head)
    _with_normal_noise(network, 1e-6)
    results = [network(np.full((1, 4, 4, 3), 1 + step, "float32")) for step in (0, 0.001)]
    assert (results[0].numpy() != results[1].numpy()).any()


@pytest.mark.parametrize(
    "change", [{"samples": 1}, {"noise_model": "poisson"}, {"filters": 0}, {"mask_shape": "ring"}]
)
def test_impossible_values_are_refused(change):
    with pytest.raises(ValueError, match=f"Received: .*{next(iter(change.values()))}"):
        ProbabilisticBlindSpotUNet(**change)
