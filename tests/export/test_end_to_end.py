"""An exported model on a server gives a client what `infer.py` writes."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from cbsn.cli import client
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_files, plan_files
from cbsn.inference.options import DenoiseOptions
from tests.inference.beam.samples import GOOD, REASONS, save_bad, save_good
from tests.serving.server import StandInServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(saved_model):
    with StandInServer(saved_model.parent) as server:
        yield server


@pytest.fixture(params=["--grpc", "--rest"])
def both(request, server, denoiser, tmp_path, monkeypatch):
    """Denoises as infer.py does to `expected`, and by the client to `out`; gives both statuses."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()

    def run(*flags, white=None, **options):
        options = DenoiseOptions(tile=24, **options)
        local = Denoiser(denoiser.recipe, denoiser.network, options)
        outputs = plan_files(["in/**"], "expected", white=white)
        status = denoise_files(local, outputs, "expected", white=white)
        port = server.port if request.param == "--grpc" else server.rest_api_port
        flags = [*flags, request.param, "--url", f"127.0.0.1:{port}", "--savepath", "out", "in/**"]
        flags += [] if white is None else ["--white", str(white)]
        return status, client.main(client.make_parser().parse_args(flags))

    return run


def test_files_are_those_of_infer(both, capsys):
    save_good(Path("in"))
    save_bad(Path("in"))
    assert both() == (1, 1)

    failures = [line for line in capsys.readouterr().err.splitlines() if "failed: " in line]
    for name in REASONS:
        assert sum(line.startswith(f"failed: in/{name}") for line in failures) == 2, name
    written = sorted(path.relative_to("out") for path in Path("out").rglob("*.*"))
    assert len(written) == len(GOOD)
    for name in written:
        found, wanted = read_picture("out" / name), read_picture("expected" / name)
        for what in ("format", "exif", "icc_profile"):
            assert getattr(found, what) == getattr(wanted, what), name
        assert (found.pixels.dtype, found.pixels.shape) == (
            wanted.pixels.dtype,
            wanted.pixels.shape,
        )
        assert np.abs(found.pixels.astype(int) - wanted.pixels).max() <= 1, name


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0.6},
        {"color_strength": 0.3},
        {"strength": 0.2, "color_strength": 0.9},
        {"strength": 0},
    ],
)
def test_less_strength_is_that_of_infer(both, random, options):
    bytes_ = random.integers(0, 255, (30, 40, 4), np.uint8)
    floats = random.random((30, 40, 3), np.float32)
    sources = {
        "rgb.png": Picture(bytes_[..., :3].copy(), "PNG"),
        "alpha.png": Picture(bytes_, "PNG"),
        "deep.png": Picture((floats * 65535).astype(np.uint16), "PNG"),
        "dark.png": Picture((floats * 4095).astype(np.uint16), "PNG"),
        "float.tif": Picture(floats, "TIFF"),
    }
    for name, picture in sources.items():
        write_picture(Path("in", name), picture)
    flags = [text for name, share in options.items() for text in (f"--{name}", str(share))]
    assert both(*flags, **options) == (0, 0)
    for name, source in sources.items():
        found, wanted = (read_picture(Path(each, name)).pixels for each in ("out", "expected"))
        off = np.abs(found.astype(float) - wanted)
        # A level, of which a file of 12 bits has fewer than what is read of it.
        level = {"float.tif": 1e-4, "dark.png": 65535 / 4095 + 1}.get(name, 1)
        assert off.max() <= level, name
        if options == {"strength": 0}:
            np.testing.assert_array_equal(found, read_picture(Path("in", name)).pixels, name)
        else:
            assert (found != source.pixels).any(), name


def test_rest_takes_strengths_by_rows_and_by_columns(server, denoiser, random):
    pictures = random.integers(0, 255, (2, 9, 8, 3), np.uint8)
    rows = [
        {"images": picture.tolist(), "strength": share, "color_strength": 1}
        for picture, share in zip(pictures, (0, 0.5), strict=True)
    ]
    columns = {"images": pictures.tolist(), "strength": [0, 0.5], "color_strength": [1, 1]}
    named = {"signature_name": "uint8_with_strength"}
    by_rows = _ask(server, {**named, "instances": rows})["predictions"]
    assert by_rows == _ask(server, {**named, "inputs": columns})["outputs"]
    for picture, share, found in zip(pictures, (0, 0.5), by_rows, strict=True):
        options = {"tile": 24, "strength": share, "color_strength": 1}
        expected = Denoiser(denoiser.recipe, denoiser.network, DenoiseOptions(**options))(picture)
        assert np.abs(np.array(found) - expected).max() <= 1
    del rows[0]["color_strength"]
    said = _refused_by_rest(server, {**named, "instances": rows})
    assert "must have the keys: color_strength,images,strength" in said


@pytest.mark.parametrize("white", [None, 4095, 65535])
def test_values_of_twelve_bits_come_out_in_their_own_scale(both, random, white):
    """Also where the user says another range than the values show."""
    shades = random.integers(500, 4000, (30, 40, 3), np.uint16)
    dark = shades // 10
    for name, pixels in {"shades": shades, "dark": dark}.items():
        Path("in", f"{name}.png").write_bytes(imagecodecs.png_encode(pixels))
        Path("in", f"{name}16.png").write_bytes(imagecodecs.png_encode(pixels[..., 0].copy()))
    assert both(white=white) == (0, 0)
    for name, high in (("shades", 4095), ("shades16", 4095), ("dark", 1023), ("dark16", 1023)):
        found, wanted = (
            imagecodecs.png_decode(Path(folder, f"{name}.png").read_bytes()).astype(int)
            for folder in ("out", "expected")
        )
        assert np.abs(found - wanted).max() <= 1, name
        assert wanted.std() > 10, name
        assert wanted.max() <= (white or high), name


def test_requests_of_another_rank_or_type_are_refused_in_words(server):
    gray = [[0, 1], [1, 0]]
    rgb = [[[0, 0, 0], [1, 1, 1]]] * 2
    rank = "images must be [N, H, W, C], pictures of the same size. Received: shape "
    file_rank = "image_bytes must be [N], each a PNG or JPEG file. Received: shape "
    for signature in ("serving_default", "uint8"):
        kind = "float" if signature == "serving_default" else signature
        by_rest = {
            "[2 2 3]": rgb,
            "[2 2]": gray,
            "[2]": [0, 1],
            "[1 1 2 2 3]": [[rgb]],
            "[1 0]": [[]],
            f"type: {kind}": [[[[0]], [[0], [0]]]],
            f"images is not of expected type: {kind}": ["text"],
        }
        for words, value in by_rest.items():
            for key in ("instances", "inputs"):
                said = _refused_by_rest(server, {"signature_name": signature, key: value})
                assert words in said and (rank in said or "type: " in said), said
        said = _refused_by_rest(server, {"signature_name": signature, "inputs": 0})
        assert f"{rank}[]" in said
        for shape in ((), (2,), (2, 2), (2, 2, 3), (1, 1, 2, 2, 3), (0,)):
            value = np.zeros(shape, np.float32 if signature == "serving_default" else np.uint8)
            said = _refused_by_grpc(server, signature, "images", value)
            assert f"{rank}[{' '.join(map(str, shape))}]" in said
        for value in (np.zeros((1, 2, 2, 3)), np.array([b"text"], object)):
            assert kind in _refused_by_grpc(server, signature, "images", value)
    text = {"b64": "AAAA"}
    for value, words in {"[1 1]": [[text]], "[1 2]": [[text] * 2], "[1 0]": [[]]}.items():
        said = _refused_by_rest(server, {"signature_name": "encoded", "instances": words})
        assert file_rank + value in said
    said = _refused_by_rest(server, {"signature_name": "encoded", "inputs": [[text], [text] * 2]})
    assert "image_bytes is not of expected type: string. Lists of one level differ" in said
    for shape in ((), (1, 1)):
        value = np.full(shape, b"text", object)
        said = _refused_by_grpc(server, "encoded", "image_bytes", value)
        assert f"{file_rank}[{' '.join(map(str, shape))}]" in said


def _ask(server, request):
    url = f"http://127.0.0.1:{server.rest_api_port}/v1/models/cbsn:predict"
    with urllib.request.urlopen(url, json.dumps(request).encode()) as answer:
        return json.load(answer)


def _refused_by_rest(server, request):
    with pytest.raises(urllib.error.HTTPError) as caught:
        _ask(server, request)
    with caught.value as answer:
        assert answer.status == 400
        return json.load(answer)["error"]


def _refused_by_grpc(server, signature, name, value):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "cbsn", signature
    dtype = tf.string if value.dtype == object else None
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    return caught.value.details()
