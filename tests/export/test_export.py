import dataclasses
import functools
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from skimage import data

from cbsn.errors import CbsnWarning, ConfigError, ModelError
from cbsn.export.export import FACTS, OPSET, WARMUP, write_litert, write_onnx, write_saved_model
from cbsn.export.graph import GraphDenoiser
from cbsn.images.image_files import read_picture
from cbsn.inference.denoiser import Denoiser
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.recipes import customised
from tests.cases import slow_except

"""LiteRT and ONNX, each run by its own runtime, against the `Denoiser`.

A conversion takes seconds, so all but the plain network's are slow.
"""


onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("tf2onnx")

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

SMALL = {
    "cbsn": {"filters": 4, "num_modules": 1},
    "apbsn": {"filters": 4, "num_modules": 1},
    "tmbsn": {"filters": 4, "depth": 2},
    "n2v-unet": {"filters": 4, "depth": 2},
    "pn2v-unet": {"filters": 4, "depth": 2, "samples": 4},
    "n2n-resunet": {"filters": 8, "depth": 2},
}
"""A recipe of every network that can be converted."""

WRITERS = {
    "tflite": functools.partial(write_litert, float16=False),
    "float16.tflite": functools.partial(write_litert, float16=True),
    "onnx": write_onnx,
}
FORMATS = ("tflite", "onnx")
"""Those that compute what TensorFlow does."""

SIZES = ((1, 1, 1), (1, 1, 5), (1, 30, 17), (2, 61, 47))


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes a denoiser to a file of a format."""

    def write(denoiser, format):
        path = tmp_path_factory.mktemp("converted") / f"model.{format}"
        WRITERS[format](path, denoiser)
        assert [*path.parent.iterdir()] == [path]
        return path

    return write


@pytest.fixture(scope="module")
def convert(make_denoiser, write):
    """A small denoiser of a recipe, and the file it was written to."""

    @functools.cache
    def convert(name, format, **options):
        denoiser = make_denoiser(name, SMALL[name], seed=3, **options)
        return denoiser, write(denoiser, format)

    return convert


def _load(path):
    """Loads a converted model as a function of pictures of any size."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        return lambda pictures: session.run(["denoised"], {"images": pictures})[0]
    denoise = interpreter.Interpreter(str(path)).get_signature_runner("serving_default")
    return lambda pictures: denoise(images=pictures)["denoised"]


def _differences(denoiser, path, pictures):
    expected = np.stack([denoiser(picture) for picture in pictures])
    result = _load(path)(pictures)
    assert (result.shape, result.dtype) == (pictures.shape, np.float32)
    if pictures[..., 0].size > 100:
        assert 0.01 < expected.std() < 0.5  # so it is neither flat nor clipped
    return np.abs(result - expected)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", slow_except(SMALL, "cbsn"))
def test_every_network_in_its_runtime(convert, random, capfd, name, format):
    """AP-BSN's with sub-images and R3, as its recipe has it."""
    converted = convert(name, format)
    assert capfd.readouterr() == ("", "")
    for size in SIZES:
        pictures = random.random((*size, 3), np.float32)
        assert _differences(*converted, pictures).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_histogram_of_noise(make_denoiser, write, random, format):
    config = {**SMALL["pn2v-unet"], "noise_model": "histogram"}
    denoiser = make_denoiser("pn2v-unet", config)
    pictures = random.random((2, 40, 31, 3), np.float32)
    assert _differences(denoiser, write(denoiser, format), pictures).max() < 1e-4


@pytest.mark.parametrize("format", FORMATS)
def test_photographs(convert, format):
    pictures = data.chelsea()[None, 60:220, 120:260].astype(np.float32) / 255
    assert _differences(*convert("cbsn", format), pictures).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_noisy_photographs(convert, format):
    path = SHARED / "dnd_crops" / "0001_1.png"
    if not path.exists():
        pytest.skip("the photographs of shared/data/dnd_crops are not here")
    pictures = read_picture(path).pixels[None, :160, :140].astype(np.float32) / 255
    for name in ("cbsn", "apbsn"):
        assert _differences(*convert(name, format), pictures).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("options", [{}, {"strength": 0.3, "color_strength": 1}])
def test_gray(make_denoiser, write, random, format, options):
    denoiser = make_denoiser("cbsn", {**SMALL["cbsn"], "channels": 1}, **options)
    pictures = random.random((2, 20, 31, 1), np.float32)
    assert _differences(denoiser, write(denoiser, format), pictures).max() < 1e-4


@pytest.mark.parametrize(
    ("format", "normalization"),
    [
        ("onnx", "0-1"),
        ("tflite", "standardize"),
        pytest.param("onnx", "standardize", marks=pytest.mark.slow),
        pytest.param("tflite", "0-1", marks=pytest.mark.slow),
    ],
)
def test_planes_of_stacks(make_stack_denoiser, random, tmp_path, format, normalization):
    denoiser = make_stack_denoiser(normalization=normalization, strength=0.75)
    path = tmp_path / f"model.{format}"
    WRITERS[format](path, denoiser, channel=1)
    scale = denoiser.scaling.of(1)
    span = scale.high - scale.low
    for shape in SIZES:
        planes = random.normal(scale.mean, scale.deviation, shape).astype(np.float32)
        result = _load(path)(planes[..., None])[..., 0]
        expected = denoiser.scaled(planes, scale)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * span)
    if format == "onnx":
        session = onnxruntime.InferenceSession(path)
        facts = session.get_modelmeta().custom_metadata_map
        assert facts["stack_channel"] == "1"
        assert json.loads(facts["scale"]) == _finite(scale)
        assert "the values of a stack's file" in facts["images"]


def _finite(scale):
    """The scale as JSON can hold it."""
    return {n: value for n, value in dataclasses.asdict(scale).items() if np.isfinite(value)}


@pytest.mark.parametrize("channel", slow_except((None, 1), None))
def test_a_saved_model_for_stacks(make_stack_denoiser, random, tmp_path, channel):
    denoiser = make_stack_denoiser()
    write_saved_model(tmp_path / "1", denoiser, channel=channel)
    scale = denoiser.scaling.of(channel or 0)
    text = (tmp_path / "1" / FACTS).read_text()
    facts = json.loads(text)
    assert (facts["stack_channel"], facts["scale"]) == (channel or 0, _finite(scale))
    assert "Infinity" not in text
    assert facts["recipe"]["scaling"] == denoiser.scaling.to_dict()
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    planes = random.normal(scale.mean, scale.deviation, (2, 20, 31)).astype(np.float32)
    serve = loaded.signatures["serving_default"]
    result = serve(images=tf.constant(planes[..., None]))["denoised"].numpy()[..., 0]
    expected = denoiser.scaled(planes, scale)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * (scale.high - scale.low))
    _check_warmup(tmp_path / "1", tmp_path.name)


@pytest.mark.slow
def test_weights_of_16_bits(make_denoiser, write):
    """Half the file, and pixels that differ by less than a level."""
    denoiser = make_denoiser("cbsn", {"filters": 32, "num_modules": 2})
    whole, half = (write(denoiser, format) for format in ("tflite", "float16.tflite"))
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    pictures = data.chelsea()[None, 60:220, 120:260].astype(np.float32) / 255
    assert 0 < _differences(denoiser, half, pictures).max() < 1 / 255


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["cbsn", "n2v-unet"])
def test_the_strength_is_the_denoisers(convert, random, name, format):
    denoiser, path = convert(name, format, strength=0.3, color_strength=0.8)
    for size in SIZES:
        assert _differences(denoiser, path, random.random((*size, 3), np.float32)).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("own", [{}, {"strength": 0.4}, {"strength": 0.4, "color_strength": 0.9}])
def test_strengths_are_inputs_in_onnx_that_may_be_omitted(convert, make_denoiser, random, own):
    _, path = convert("cbsn", "onnx", **own)
    session = onnxruntime.InferenceSession(path)
    pictures = random.random((2, 20, 31, 3), np.float32)

    def run(**shares):
        shares = {name: np.array(share, np.float32) for name, share in shares.items()}
        return session.run(["denoised"], {"images": pictures, **shares})[0]

    asked = ({"strength": 0.7}, {"color_strength": 0.2}, {"strength": 0.1, "color_strength": 0.6})
    for shares in ({}, *asked):
        weaker = make_denoiser("cbsn", SMALL["cbsn"], **{**own, **shares})
        expected = np.stack([weaker(picture) for picture in pictures])
        np.testing.assert_allclose(run(**shares), expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(run(strength=0, color_strength=0), pictures)
    same = run(strength=0.5, color_strength=0.5)
    np.testing.assert_array_equal(run(strength=0.5, color_strength=-1), same)


def test_what_an_onnx_model_says_of_itself(convert):
    _, path = convert("cbsn", "onnx")
    session = onnxruntime.InferenceSession(path)
    shape = ["N", "H", "W", 3]
    values = [*session.get_inputs(), *session.get_outputs()]
    assert [(each.name, each.shape) for each in values] == [("images", shape), ("denoised", shape)]
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["recipe"], facts["r3"]) == ("cbsn", "False")
    optional = [each.name for each in session.get_overridable_initializers()]
    assert optional == ["strength", "color_strength"]
    model = onnx.load(path)
    assert ("", OPSET) in [(each.domain, each.version) for each in model.opset_import]
    # ONNX Runtime has none that are dilated and padded.
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 10
    for node in convolutions:
        for attribute in node.attribute:
            assert attribute.name != "dilations" or [*attribute.ints] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_weights_are_stored_once(make_denoiser, write, random, format):
    """With the self-ensemble the network is there eight times."""
    sizes, pictures = [], random.random((1, 13, 20, 3), np.float32)
    for ensemble in (False, True):
        config = {"filters": 128, "num_modules": 1}
        denoiser = make_denoiser("apbsn", config, r3=False, self_ensemble=ensemble)
        path = write(denoiser, format)
        sizes.append(path.stat().st_size)
        assert _differences(denoiser, path, pictures).max() < 1e-4
    assert sizes[1] < 1.5 * sizes[0]


@pytest.mark.slow  # in ONNX a matter of minutes
def test_self_ensemble_with_r3_of_a_network_that_is_not_always_blind(convert, random):
    denoiser, path = convert("cbsn", "tflite", self_ensemble=True, r3=True)
    for size in SIZES:
        pictures = random.random((*size, 3), np.float32)
        assert _differences(denoiser, path, pictures).max() < 1e-4


@pytest.mark.slow
def test_attention_in_onnx(make_denoiser, write, random):
    config = {"filters": 4, "num_modules": 3, "num_attention": 2}
    denoiser = make_denoiser("ssbsn", config, tile=0)
    path = write(denoiser, "onnx")
    for size in SIZES:
        pictures = random.random((*size, 3), np.float32)
        assert _differences(denoiser, path, pictures).max() < 1e-4


def test_attention_in_litert_is_refused(make_denoiser, tmp_path):
    denoiser = make_denoiser("ssbsn", {"filters": 4, "num_modules": 1, "num_attention": 1})
    with pytest.raises(ConfigError, match=r"omit litert from --format.*with recipe ssbsn"):
        write_litert(tmp_path / "model.tflite", denoiser, float16=False)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", slow_except(SMALL, "cbsn"))
def test_strength_without_loops(make_denoiser, random, name):
    denoiser = make_denoiser(name, SMALL[name], strength=0.5)
    denoise = GraphDenoiser(denoiser, loops=False)
    for size in SIZES[1:]:  # that are no multiples of what the network needs
        pictures = random.random((*size, 3), np.float32)
        expected = np.stack([denoiser(picture) for picture in pictures])
        np.testing.assert_allclose(denoise(tf.constant(pictures)), expected, rtol=0, atol=1e-4)


def test_means_of_large_pictures_are_not_lost_to_rounding(denoiser, random):
    """A single float32 sum over that many values would be off by 5 %."""
    pictures = random.normal(0.3, 0.01, (1, 2500, 2500, 3)).astype(np.float32)
    mean, deviation = GraphDenoiser(denoiser, loops=False)._statistics(tf.constant(pictures))
    np.testing.assert_allclose(np.squeeze(mean), pictures.mean((0, 1, 2), float), rtol=1e-5)
    np.testing.assert_allclose(np.squeeze(deviation), pictures.std((0, 1, 2), float), rtol=1e-4)


@pytest.mark.parametrize("format", WRITERS)
def test_what_is_not_float32_is_refused(format, tmp_path):
    recipe = customised("cbsn", **SMALL["cbsn"])
    denoiser = Denoiser(recipe, recipe.build_network("mixed_bfloat16"))
    with pytest.raises(ConfigError, match=r"precision='float32'\. Received: mixed_bfloat16"):
        WRITERS[format](tmp_path / "model", denoiser)
    assert not [*tmp_path.iterdir()]


class Unusual(DenoisingNetwork):
    """A network with an operation that neither format has."""

    receptive_field_radius = 0
    size_multiple = 1

    def call(self, x, blind=False, padding="same"):
        return tf.math.igamma(tf.abs(x) + 1.0, tf.ones_like(x))


@pytest.mark.parametrize("format", WRITERS)
def test_a_converter_that_fails_is_told_in_a_line(format, tmp_path, capfd):
    denoiser = Denoiser(customised("cbsn"), Unusual(filters=1, channels=3))
    with pytest.raises(ModelError, match=r"--format saved_model.*Received: .*Igamma") as told:
        WRITERS[format](tmp_path / "model", denoiser)
    assert len(str(told.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")
    assert not [*tmp_path.iterdir()]


def test_without_tf2onnx(denoiser, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name)
    )
    with pytest.raises(ConfigError, match=r"pip install 'cbsn\[onnx\]'.*Received: --format onnx"):
        write_onnx(tmp_path / "model.onnx", denoiser)


@pytest.mark.slow
def test_a_process_without_this_package_runs_it(saved_model, denoiser, random, run_python):
    """By TensorFlow 2, and by the loader that TensorFlow Serving has, too."""
    folder = saved_model.parent
    pictures = random.integers(0, 255, (2, 40, 31, 3), np.uint8)
    np.save(folder / "pictures.npy", pictures)
    process = run_python(f"""
        import sys
        sys.modules.update(dict.fromkeys(["cbsn", "data_prep", "keras"]))  # not to be imported
        import numpy as np
        import tensorflow as tf

        pictures = np.load({str(folder / "pictures.npy")!r})
        files = [tf.io.encode_png(picture).numpy() for picture in pictures]
        model = tf.saved_model.load({str(saved_model)!r})
        serve = model.signatures
        floats = serve["serving_default"](images=tf.constant(pictures / np.float32(255)))
        encoded = serve["encoded"](image_bytes=tf.constant(files))["denoised_bytes"]
        results = [
            floats["denoised"] * 255,
            serve["uint8"](images=tf.constant(pictures))["denoised"],
            [tf.io.decode_png(file) for file in encoded],
        ]
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], {str(saved_model)!r})
            signature = loaded.signature_def["uint8"]
            output, images = signature.outputs["denoised"].name, signature.inputs["images"].name
            results.append(session.run(output, {{images: pictures}}))
        np.save({str(folder / "results.npy")!r}, np.asarray(results, np.float32))
    """)
    assert process.returncode == 0, process.stderr
    expected = np.stack([denoiser(picture) for picture in pictures]).astype("float32")
    floats, *integers = np.load(folder / "results.npy")
    assert np.abs(floats - expected).max() <= 0.5 + 255e-4
    for result in integers:
        assert np.abs(result - expected).max() <= 1


def test_the_folder_is_what_a_server_expects(saved_model):
    assert saved_model.name == "1"
    assert [path.name for path in saved_model.parent.glob(".*")] == []  # no half of one is left
    assert (saved_model / "saved_model.pb").is_file()
    assert (saved_model / "variables/variables.index").is_file()
    assert json.loads((saved_model / FACTS).read_text())["recipe"]["name"] == "cbsn"


@pytest.mark.slow
def test_warmup_requests_are_answered(saved_model):
    _check_warmup(saved_model, "denoiser")


def _check_warmup(saved_model, name):
    from tensorflow_serving.apis import prediction_log_pb2

    loaded = tf.saved_model.load(str(saved_model))
    signatures = set()
    for record in tf.data.TFRecordDataset(str(saved_model / WARMUP)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == name
        inputs = {key: tf.constant(tf.make_ndarray(x)) for key, x in request.inputs.items()}
        [result] = loaded.signatures[request.model_spec.signature_name](**inputs).values()
        assert result.shape[0] == 1
        signatures.add(request.model_spec.signature_name)
    assert signatures == set(loaded.signatures)


def test_what_cannot_be_written_leaves_nothing(denoiser, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        write_saved_model(tmp_path / "1", denoiser)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_without_tensorflow_serving_s_api_there_are_no_warmup_requests(
    denoiser, tmp_path, monkeypatch
):
    monkeypatch.delitem(sys.modules, "cbsn.client.grpc_transport", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.warns(CbsnWarning, match=r"without warm-up.*pip install 'cbsn\[serving\]'"):
        write_saved_model(tmp_path / "1", denoiser)
    assert (tmp_path / "1" / "saved_model.pb").exists()
    assert not (tmp_path / "1" / WARMUP).exists()
    with pytest.raises(ConfigError, match=r"pip install 'cbsn\[serving\]'"):
        write_saved_model(tmp_path / "2", denoiser, warmup=True)
    assert not (tmp_path / "2").exists()
