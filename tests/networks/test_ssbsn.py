import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import SelfSimilarityBlindSpotNetwork
from cbsn.networks.layers import to_phases
from cbsn.sampling import batch_to_space


@pytest.fixture(scope="module")
def network(torch_model):
    return torch_model("ssbsn", "ssbsnl.npz")[1]


@pytest.mark.parametrize("stride", [2, 3])
def test_module_golden(golden, stride):
    """Output and gradients of one module with attention."""
    data = np.load(golden("ssbsn/ssblock.npz"))
    network = SelfSimilarityBlindSpotNetwork(16, num_modules=1, num_attention=1)
    module = network.branches[stride - 2].dilated_modules[0]
    names = [key.split("/")[1] for key in data.files if key.startswith(f"w_stride{stride}/")]
    module.set_weights([data[f"w_stride{stride}/{name}"] for name in names])
    f = 2 * stride

    def run(x):
        phases, inside = to_phases(x, stride, f)
        y = batch_to_space(module(phases, inside), stride)
        return y[:, : x.shape[1], : x.shape[2]]

    small = run(tf.constant(data[f"x_f{f}_12x24"]))
    np.testing.assert_allclose(small, data[f"y_f{f}_12x24"], rtol=0, atol=1e-4)
    x = tf.constant(data[f"x_f{f}_21x27"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = run(x)
        loss = 0.5 * tf.reduce_mean(tf.square(y))
    np.testing.assert_allclose(y, data[f"y_f{f}_21x27"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(loss, data[f"gradloss_stride{stride}"], rtol=0, atol=1e-4)
    of_x, *of_weights = tape.gradient(loss, [x, *(w.value for w in module.trainable_weights)])
    expected = [data[f"gx_stride{stride}"], *(data[f"g_stride{stride}/{name}"] for name in names)]
    for result, wanted in zip([of_x, *of_weights], expected, strict=True):
        assert np.linalg.norm(result - wanted) <= 1e-3 * np.linalg.norm(wanted)


def test_full_size():
    network = SelfSimilarityBlindSpotNetwork()
    assert len(network.weights) == 140
    assert network.count_params() == 6_410_947
    assert network.receptive_field_radius == 56
    assert network.size_multiple == 12


def test_the_trace_of_a_pixel_in_its_own_output_is_faint(golden, network):
    """It comes by the mean over all features; see test_conformance.py for everything else."""
    x = tf.constant(np.load(golden("ssbsn/ssbsnl.npz"))["x_60x60"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(network(x)[0, 30, 30])
    gradient = np.abs(tape.gradient(y, x).numpy()[0]).sum(axis=-1)
    own = gradient[30, 30]
    gradient[30, 30] = 0
    assert 0 < own < 1e-3 * gradient.sum()


@pytest.mark.parametrize(
    ("config", "received"),
    [
        ({"num_attention": 10}, "num_attention=10, num_modules=9"),
        ({"num_attention": -1}, "num_attention=-1"),
        ({"scale": 0}, "scale=0"),
    ],
)
def test_impossible_sizes_are_refused(config, received):
    with pytest.raises(ValueError, match=received):
        SelfSimilarityBlindSpotNetwork(filters=4, **config)
