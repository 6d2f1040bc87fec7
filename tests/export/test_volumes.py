"""Exports of models of volumes, which take [N, Z, H, W, C]."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cbsn.client import transport
from cbsn.errors import ConfigError
from cbsn.export.export import WARMUP, write_litert, write_onnx, write_saved_model
from cbsn.export.graph import GraphDenoiser, stack_scale
from cbsn.images.stacks.scaling import Scale, Scaling
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.orientations import orient
from cbsn.recipes import customised

SIZES = [(43, 75, 70), (1, 1, 1), (5, 7, 9)]


@pytest.fixture
def make(volume_model):
    """Makes a denoiser whose results are whole numbers."""

    def make(**options):
        given = {"tile": 24, "engine": "tensorflow", "precision": "float32"} | options
        return Denoiser(*volume_model, DenoiseOptions(**given))

    return make


def _volumes(random, size, dtype=np.float32, channels=1):
    return random.integers(0, 8, (2, *size, channels)).astype(dtype)


def _turned(volume, orientation):
    """A view of a volume [Z, H, W, C] whose planes are turned."""
    return np.moveaxis(orient(np.moveaxis(volume, 0, 2), orientation), 2, 0)


def _expected(denoiser, volumes):
    """What the denoiser makes of each volume."""
    scale = denoiser.scaling.of(0)
    return np.stack([denoiser.scaled(each, scale) for each in volumes])


@pytest.mark.slow
def test_saved_models_equal_the_denoiser(make, random, tmp_path):
    """To the last bit, in tiles along all axes; for integers and colours, too."""
    denoiser = make()
    write_saved_model(tmp_path / "1", denoiser, warmup=False)
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    assert {*signatures} == {
        name + end
        for name in (transport.FLOATS, transport.BYTES, transport.WORDS)
        for end in ("", transport.WITH_STRENGTH)
    }
    for name, dtype in (
        (transport.FLOATS, np.float32),
        (transport.BYTES, np.uint8),
        (transport.WORDS, np.uint16),
    ):
        for size, channels in zip(SIZES, (1, 1, 3), strict=True):
            volumes = _volumes(random, size, dtype, channels)
            result = signatures[name](images=tf.constant(volumes))["denoised"].numpy()
            assert result.dtype == dtype
            np.testing.assert_array_equal(result, _expected(denoiser, volumes))
    volumes = _volumes(random, (5, 7, 9))
    shares = dict.fromkeys(("strength", "color_strength"), tf.constant([0.5, 0.0]))
    serve = signatures[transport.FLOATS + transport.WITH_STRENGTH]
    result = serve(images=tf.constant(volumes), **shares)["denoised"].numpy()
    whole = _expected(denoiser, volumes)
    np.testing.assert_array_equal(result[0], (volumes[0] + whole[0]) / 2)
    np.testing.assert_array_equal(result[1], volumes[1])


def test_what_a_saved_model_refuses(make, random, tmp_path):
    write_saved_model(tmp_path / "1", make(), warmup=False)
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures[transport.FLOATS]
    for volumes, message in (
        (_volumes(random, (2, 3, 4))[..., [0, 0]], r"\[N, Z, H, W, C\]"),
        (_volumes(random, (2, 3, 4))[:, :0], "at least one pixel"),
        (np.full((1, 2, 3, 4, 1), np.nan, np.float32), "finite"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            serve(images=tf.constant(volumes))


@pytest.mark.slow
def test_the_self_ensemble_and_tiles_by_default(make, random):
    """In a graph with loops and in one without."""
    for options in ({"self_ensemble": True}, {"tile": "auto"}, {"tile": 0}):
        denoiser = make(**options)
        volumes = _volumes(random, (5, 20, 17))
        expected = _expected(denoiser, volumes)
        for loops, channels in ((True, None), (False, 1)):
            spec = tf.TensorSpec((None, None, None, None, channels), tf.float32)
            graph = tf.function(
                GraphDenoiser(denoiser, loops=loops), input_signature=[spec], autograph=False
            )
            np.testing.assert_array_equal(graph(volumes).numpy(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("loops", [True, False])
def test_only_orientations_that_suit_the_mask_count(volume_model, random, loops):
    """Four with a mask along rows; the mean of whole numbers, turned back, is exact."""
    recipe, network = volume_model
    recipe = customised(
        "n2v-unet-3d", filters=4, depth=2, channels=1, scaling=recipe.scaling, mask_shape="x:1"
    )
    masked = recipe.build_network()
    masked.set_weights(network.get_weights())
    options = DenoiseOptions(self_ensemble=True, engine="tensorflow", precision="float32", tile=24)
    denoiser = Denoiser(recipe, masked, options)
    plain = Denoiser(recipe, masked, dataclasses.replace(options, self_ensemble=False))
    volumes = _volumes(random, (5, 20, 17))
    total = np.zeros_like(volumes)
    for orientation in (0, 2, 4, 6):
        turned = np.stack([_turned(each, orientation) for each in volumes])
        for out, each in zip(total, _expected(plain, turned), strict=True):
            _turned(out, orientation)[...] += each
    np.testing.assert_array_equal(_expected(denoiser, volumes), total / 4)
    spec = tf.TensorSpec((None, None, None, None, None if loops else 1), tf.float32)
    graph = tf.function(
        GraphDenoiser(denoiser, loops=loops), input_signature=[spec], autograph=False
    )
    np.testing.assert_array_equal(graph(volumes).numpy(), total / 4)


@pytest.mark.parametrize("self_ensemble", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_onnx_equals_the_denoiser(make, random, tmp_path, self_ensemble):
    onnxruntime = pytest.importorskip("onnxruntime")
    denoiser = make(self_ensemble=self_ensemble)
    write_onnx(tmp_path / "model.onnx", denoiser)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert session.get_inputs()[0].shape == ["N", "Z", "H", "W", 1]
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["images"].startswith("float32 [N, Z, H, W, C]")
    for size in SIZES[self_ensemble:]:
        volumes = _volumes(random, size)
        (result,) = session.run(None, {"images": volumes})
        np.testing.assert_array_equal(result, _expected(denoiser, volumes))


@pytest.mark.slow
@pytest.mark.parametrize("self_ensemble", [False, True])
def test_litert_equals_the_denoiser(make, random, tmp_path, self_ensemble):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    denoiser = make(self_ensemble=self_ensemble)
    write_litert(tmp_path / "model.tflite", denoiser, float16=False)
    denoise = interpreter.Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
    for size in SIZES[self_ensemble:]:
        volumes = _volumes(random, size)
        result = denoise(images=volumes)["denoised"]
        np.testing.assert_array_equal(result, _expected(denoiser, volumes))


@pytest.mark.slow
def test_networks_of_any_weights_and_scale(random, tmp_path):
    """Within rounding: with the statistics of all planes, of colours, and a network of colours."""
    scaling = Scaling("deviation", (Scale(1000.0, 1080.0, 1000.0, 80.0),)).to_dict()
    recipe = customised(
        "n2v-unet-3d", filters=4, depth=1, z_halvings=1, channels=3, scaling=scaling
    )
    options = DenoiseOptions(tile=4, engine="tensorflow", precision="float32")
    denoiser = Denoiser(recipe, recipe.build_network(), options)
    graph = tf.function(
        GraphDenoiser(denoiser),
        input_signature=[tf.TensorSpec([None] * 5, tf.float32)],
        autograph=False,
    )
    for channels in (1, 3):
        volumes = random.normal(1000, 80, (2, 26, 30, 27, channels)).astype(np.float32)
        expected = _expected(denoiser, volumes)
        # Seven layers add up to 27 · 16 products each, in an order of their own.
        bound = 7 * 432 * 2.0**-24 * abs(expected).max()
        np.testing.assert_allclose(graph(volumes).numpy(), expected, rtol=0, atol=bound)


def test_warm_up_requests_have_volumes(make, tmp_path):
    pytest.importorskip("tensorflow_serving.apis")
    from cbsn.client.grpc_transport import prediction_log_pb2

    write_saved_model(tmp_path / "1", make(), warmup=True)
    shapes = set()
    for record in tf.data.TFRecordDataset(str(tmp_path / "1" / WARMUP)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        image = log.predict_log.request.inputs[transport.IMAGES]
        shapes.add(tuple(dim.size for dim in image.tensor_shape.dim))
    assert shapes == {(1, 16, 64, 64, 1)}


def test_without_the_scaling_of_stacks_there_is_no_export(volume_model):
    recipe = customised("n2v-unet-3d", **volume_model[0].network_config)
    with pytest.raises(ConfigError, match="this one has none"):
        stack_scale(Denoiser(recipe, volume_model[1]), None)
