import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.models.tf1_checkpoint import variable_names
from cbsn.objectives import DownsampledInvariance


class Given:
    """Random numbers that are not: the indices of a golden vector."""

    def __init__(self, indices):
        self.indices = indices

    def integers(self, shape, high):
        assert self.indices.size == np.prod(shape)
        assert self.indices.max() == high - 1
        return self.indices


def test_terms_golden(golden, small_network):
    data = np.load(golden("small/losses.npz"))
    objective = DownsampledInvariance(5, 2, 2.0)
    for i, step in enumerate(data["steps"]):
        assert objective.ramp(step).numpy() == data["schedule"][i]
        terms = objective(small_network, data["x"], step, Given(data["rand_mask"]))
        for ours, theirs in (
            ("blind", "loss_masked_self"),
            ("self", "loss_unmasked_self"),
            ("invariance", "loss_reg"),
            ("total", "total_loss"),
        ):
            np.testing.assert_allclose(terms[ours], data[theirs][i], rtol=2e-6)


@pytest.mark.parametrize(("case", "step"), [("zero", 0), ("half", 100_000), ("one", 200_000)])
def test_gradients_golden(golden, small_network, case, step):
    losses = np.load(golden("small/losses.npz"))
    expected = np.load(golden("small/grads.npz"))
    with tf.GradientTape() as tape:
        terms = DownsampledInvariance()(
            small_network, losses["x"], step, Given(losses["rand_mask"])
        )
    variables = {w.path.split("/", 1)[1]: w.value for w in small_network.trainable_weights}
    gradients = tape.gradient(terms["total"], variables)
    for theirs, ours in variable_names(2):
        want = expected[f"{case}:{theirs}"]
        tolerance = max(2e-4 * np.abs(want).max(), 5e-5)
        np.testing.assert_allclose(gradients[ours], want, rtol=0, atol=tolerance, err_msg=ours)
        if case == "zero" and ours.endswith("masked/kernel"):
            centre = gradients[ours].shape[0] // 2
            assert np.all(gradients[ours][centre, centre] == 0)


def test_the_target_of_the_invariance_term_gets_no_gradient():
    """With f the identity when not blind and w·x when blind, only the blind term moves w."""
    w = tf.Variable(0.5)

    class Network:
        def __call__(self, x, blind):
            assert not blind
            return x

        def blind_pass(self, x, random):
            return x * w, None

    x = tf.ones((1, 10, 10, 1))
    random = Given(np.tile(np.arange(4), 7)[:25])
    with tf.GradientTape() as tape:
        terms = DownsampledInvariance(5, 2, 2.0, ramp_steps=0)(Network(), x, 0, random)
    assert terms["invariance"].numpy() == pytest.approx(0.5)
    assert tape.gradient(terms["total"], w).numpy() == pytest.approx(-1.0)


def test_only_pixels_that_were_blind_count():
    """Of a network that doubles what it is given, and is blind in the left half only."""

    class Network:
        def __call__(self, x, blind):
            return 2 * x

        def blind_pass(self, x, random):
            width = x.shape[2]
            valid = np.zeros((*x.shape[:3], 1), "float32")
            valid[:, :, : width // 2] = 1
            return 3 * x, tf.constant(valid)

    # Pixels of 1 in the left half, of 100 in the right one.
    x = np.where(np.arange(8)[None, None, :, None] < 4, 1.0, 100.0) * np.ones((2, 8, 8, 3))
    terms = DownsampledInvariance(1, 2, 2.0, ramp_steps=0)(
        Network(), tf.constant(x, "float32"), 0, Given(np.tile(np.arange(4), 8))
    )
    assert terms["blind"].numpy() == pytest.approx(2)
    assert terms["self"].numpy() == pytest.approx(50.5)
    assert terms["invariance"].numpy() == pytest.approx(1)


@pytest.mark.parametrize("strides", [(1, 1), (1, 2), (3, 1), (4, 6)])
def test_any_strides(small_network, strides):
    class Random:
        def integers(self, shape, high):
            return np.random.default_rng(5).integers(0, high, shape)

    objective = DownsampledInvariance(*strides)
    size = 2 * objective.patch_multiple
    x = np.random.default_rng(6).normal(size=(2, size, size, 3)).astype("float32")
    terms = objective(small_network, x, 1000, Random())
    assert all(np.isfinite(term) and term > 0 for term in terms.values())


@pytest.mark.parametrize(
    "bad", [{"stride_b": 0}, {"stride_i": -1}, {"lmbda": -1.0}, {"lmbda": float("nan")}]
)
def test_bad_values_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DownsampledInvariance(**bad)
