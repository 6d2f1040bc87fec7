import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import SelfSimilarityBlindSpotNetwork
from cbsn.networks import ssbsn as attention
from cbsn.networks.layers import to_phases
from cbsn.networks.ssbsn import SelfSimilarityAttention
from cbsn.sampling import batch_to_space, space_to_batch


@pytest.fixture(scope="module")
def data(golden):
    return np.load(golden("ssbsn/ssblock.npz"))


@pytest.fixture(params=[2, 3])
def layer(request, data):
    layer = SelfSimilarityAttention(16, dilation=request.param, scale=2)
    layer.build((None, None, None, 16))
    layer.set_weights([data[f"w_stride{request.param}/wqk"]])
    return layer


def _on_picture(function, x, dilation):
    """Applies something that works on phases to a feature map; cuts the padding off."""
    phases, inside = to_phases(tf.constant(x), dilation, 2 * dilation)
    y = batch_to_space(function(phases, inside), dilation)
    return y[:, : x.shape[1], : x.shape[2]]


@pytest.mark.parametrize("size", ["12x24", "21x27"])
def test_output_golden(layer, data, size):
    case = f"f{2 * layer.dilation}_{size}"
    result = _on_picture(layer, data[f"x_{case}"], layer.dilation)
    np.testing.assert_allclose(result, data[f"att_{case}"], rtol=0, atol=1e-5)


def test_layer_normalisation_golden(layer, data):
    d = layer.dilation
    case = f"f{2 * d}_12x24"
    result = _on_picture(lambda x, m: attention.normalise(x, m, d * d), data[f"x_{case}"], d)
    np.testing.assert_allclose(result, data[f"layernorm_{case}"], rtol=0, atol=1e-5)


def test_weights_golden(layer, data):
    f = 2 * layer.dilation
    tokens = space_to_batch(tf.constant(data[f"layernorm_f{f}_12x24"]), f)
    tokens = tf.reshape(tokens, (f * f, -1, 16))
    queries = attention.unit_length(tokens @ layer.embedding.value)
    result = attention.attention_weights(queries, queries)
    np.testing.assert_allclose(result, data[f"softmax_f{f}_12x24"], rtol=0, atol=1e-5)
    logits = np.log(result)  # up to a constant for each query
    expected = data[f"logits_f{f}_12x24"]
    np.testing.assert_allclose(
        logits - logits[..., :1], expected - expected[..., :1], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("chunk", [1, 1000, 10**9])
def test_chunks_change_nothing(random, monkeypatch, chunk):
    """Neither the output nor the gradients, whether sizes are known or not."""
    queries = attention.unit_length(random.normal(size=(3, 37, 5)).astype("float32"))
    values = tf.constant(random.normal(size=(3, 37, 4)).astype("float32"))
    weigh = random.normal(size=(3, 37, 4)).astype("float32")

    def outputs_and_gradients(queries, values):
        with tf.GradientTape() as tape:
            tape.watch((queries, values))
            y = attention.attend(queries, values)
            loss = tf.reduce_sum(y * weigh)
        return y, *tape.gradient(loss, (queries, values))

    expected = outputs_and_gradients(queries, values)
    monkeypatch.setattr(attention, "KEPT", 0)
    monkeypatch.setattr(attention, "CHUNK", chunk)
    unknown = [tf.TensorSpec((None, None, 5)), tf.TensorSpec((None, None, 4))]
    for function in (
        tf.function(outputs_and_gradients),
        tf.function(outputs_and_gradients, input_signature=unknown),
    ):
        for result, wanted in zip(function(queries, values), expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-5)


def test_the_weights_of_a_chunk_are_the_largest_tensor(random, monkeypatch):
    """Of 4096 tokens all weights would be 16 million; a chunk has about 2^18."""
    monkeypatch.setattr(attention, "CHUNK", 2**18)
    sizes = []
    weights = attention.attention_weights

    def listening(queries, keys):
        result = weights(queries, keys)
        sizes.append(result.shape.num_elements())
        return result

    monkeypatch.setattr(attention, "attention_weights", listening)
    tokens = attention.unit_length(random.normal(size=(1, 4096, 4)).astype("float32"))
    monkeypatch.setattr(attention, "KEPT", 0)
    attention.attend(tokens, tokens)
    assert max(sizes) <= 2**18 + 4096


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
