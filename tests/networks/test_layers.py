import keras
import numpy as np
import pytest
import tensorflow as tf

from cbsn.networks import layers
from cbsn.networks.layers import (
    FAN_IN_UNIFORM,
    HE,
    HE_UNTRUNCATED,
    ConditionalMaskedConv2D,
    Convolution,
    DilatedBranch,
    DilatedModule,
)
from cbsn.networks.ssbsn import SelfSimilarityAttention
from tests.cases import slow_except


def _dilated_form(branch, x, blind):
    """The branch as the paper draws it: every module with dilated convolutions."""
    x = branch.masked(x, blind=blind)
    x = branch.pointwise2(branch.pointwise1(x))
    for module in branch.dilated_modules:
        spatial = keras.ops.conv(
            x, module.spatial.kernel, padding="same", dilation_rate=branch.dilation
        )
        x = x + module.pointwise(keras.ops.relu(spatial + module.spatial.bias))
    return branch.pointwise3(x)


@pytest.mark.parametrize("natively", [False, True])
@pytest.mark.parametrize("dilation", slow_except((2, 3), 2))
@pytest.mark.parametrize("size", [(n, 14 - n) for n in range(1, 14)] + [(24, 24), (60, 60)])
def test_branch_equals_dilated_form(random, monkeypatch, natively, dilation, size):
    monkeypatch.setattr(layers, "has_gpu", lambda: natively)
    keras.utils.set_random_seed(4)
    branch = DilatedBranch(4, 2 * dilation - 1, dilation, [DilatedModule(4) for _ in range(2)])
    branch.build((None, None, None, 4))
    for weight in branch.weights:
        weight.assign(random.normal(size=weight.shape) * 0.4)
    x = tf.constant(random.normal(size=(2, *size, 4)).astype("float32"))
    weigh = random.normal(size=(2, *size, 4)).astype("float32")

    def outputs_and_gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            loss = tf.reduce_sum(y * weigh)
        return [y, *tape.gradient(loss, [x, *(w.value for w in branch.trainable_weights)])]

    ours = outputs_and_gradients(lambda x: branch(x, blind=True))
    theirs = outputs_and_gradients(lambda x: _dilated_form(branch, x, True))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("dilation", [2, 3])
def test_both_forms_have_the_same_inside(random, monkeypatch, dilation):
    """With valid padding, where each form cuts off what it cannot know."""
    keras.utils.set_random_seed(4)
    branch = DilatedBranch(4, 2 * dilation - 1, dilation, [DilatedModule(4) for _ in range(2)])
    side = 4 * branch.size_multiple + 2 * branch.radius
    x = random.normal(size=(1, side, side + branch.size_multiple, 4)).astype("float32")
    forms = []
    for natively in (False, True):
        monkeypatch.setattr(layers, "has_gpu", lambda natively=natively: natively)
        forms.append(branch(x, padding="valid").numpy())
    assert forms[0].shape[1:3] == tuple(n - 2 * branch.radius for n in x.shape[1:3])
    # Some hundred products and sums of float32 in either form.
    np.testing.assert_allclose(*forms, rtol=0, atol=1e-5 * np.abs(forms[0]).max())


def test_masked_convolution_switches_its_centre(random):
    layer = ConditionalMaskedConv2D(2, 3, activation=None)
    x = random.normal(size=(1, 5, 5, 2)).astype("float32")
    whole = layer(x, blind=False)
    centre = np.einsum("nhwi,io->nhwo", x, layer.kernel.numpy()[1, 1])
    np.testing.assert_allclose(whole - layer(x, blind=True), centre, atol=1e-5)


def _model(random):
    """A model of one's own that holds all layers that are public, with weights that tell."""
    inputs = keras.Input((24, 24, 3))
    x = Convolution(4, 3, activation="relu")(inputs)
    x = ConditionalMaskedConv2D(4, 3)(x, blind=True)
    branch = DilatedBranch(4, 3, 2, [DilatedModule(4, None, FAN_IN_UNIFORM)], (HE, HE_UNTRUNCATED))
    x = branch(x, blind=False)
    x = DilatedModule(4)(x)
    x = SelfSimilarityAttention(4, 1, 2)(x)
    model = keras.Model(inputs, x)
    model.set_weights([random.normal(size=w.shape) * 0.3 for w in model.get_weights()])
    return model


def test_models_of_ones_own_with_our_layers_are_saved(random, tmp_path):
    model = _model(random)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    x = random.normal(size=(1, 24, 24, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), again(x))


def test_even_masked_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel_size=4"):
        ConditionalMaskedConv2D(2, 4)


def test_a_dilation_that_would_leak_is_refused():
    with pytest.raises(ValueError, match="kernel_size=5, dilation=2"):
        DilatedBranch(4, 5, 2, [])
