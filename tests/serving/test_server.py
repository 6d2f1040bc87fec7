"""The stand-in, on a toy; what exported models answer through it is tested in tests/export."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from cbsn.errors import ConfigError, ModelError
from tests.serving import toy_model
from tests.serving.server import StandInServer

ROOT = Path(__file__).resolve().parents[2]
PREDICT = "/v1/models/cbsn:predict"
GRAY = [[[0.5], [1.0]]]
PNG = imagecodecs.png_encode(np.full((2, 3, 3), 9, np.uint8))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with the version 2, and a newer version 10."""
    folder = toy_model.save(tmp_path_factory.mktemp("toy"), version=10)
    (folder / "2").mkdir()
    (folder / "2" / "saved_model.pb").write_bytes(b"not to be loaded")
    return folder


@pytest.fixture(scope="module")
def server(toy):
    with StandInServer(toy) as server:
        yield server


@pytest.fixture(scope="module")
def ask(server):
    """Asks by REST; returns the status and the answer."""

    def ask(path, request=None):
        body = json.dumps(request).encode() if isinstance(request, dict | list) else request
        url = f"http://127.0.0.1:{server.rest_api_port}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body)) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return ask


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def predict(stub):
    """Asks by gRPC; returns the outputs."""

    def predict(inputs, signature="", *, model="cbsn", version=None, outputs=()):
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = stub.Predict(request)
        assert (response.model_spec.name, response.model_spec.version.value) == ("cbsn", 10)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    return predict


def test_rest_has_rows_and_columns(ask):
    half = [[[0.25], [0.5]]]
    for request, answer in (
        ({"instances": [GRAY]}, {"predictions": [half]}),
        ({"instances": [{"images": GRAY}] * 2}, {"predictions": [half] * 2}),
        ({"inputs": [GRAY]}, {"outputs": [half]}),
        ({"inputs": {"images": [GRAY]}}, {"outputs": [half]}),
        ({"signature_name": "uint8", "instances": [[[[7, 255]]]]}, {"predictions": [[[[3, 127]]]]}),
    ):
        assert ask(PREDICT, request) == (200, answer)
        assert ask("/v1/models/cbsn/versions/10:predict", request) == (200, answer)


def test_rest_sends_files_as_base64(ask):
    file = {"b64": base64.b64encode(PNG).decode()}
    status, answer = ask(PREDICT, {"signature_name": "encoded", "instances": [file] * 2})
    assert status == 200
    for result in answer["predictions"]:
        pixels = tf.io.decode_png(base64.b64decode(result["b64"]))
        np.testing.assert_array_equal(pixels, np.full((2, 3, 3), 4))
    columns = {"signature_name": "encoded", "inputs": {"image_bytes": [file] * 2}}
    assert ask(PREDICT, columns) == (200, {"outputs": answer["predictions"]})


def test_a_bad_request_by_rest_is_told_and_the_next_is_served(ask):
    for path, request, status, words in (
        (PREDICT, b"{", 400, "JSON Parse error"),
        (PREDICT, [], 400, "Is not object"),
        (PREDICT, {"inputs": [], "instances": []}, 400, "'inputs' and 'instances'"),
        (PREDICT, {"instances": []}, 400, "one value or more"),
        (PREDICT, {"instances": [[[["a"]]]]}, 400, "not of expected type: float32"),
        (PREDICT, {"instances": [{"images": GRAY}, GRAY]}, 400, "must have the keys: images"),
        (PREDICT, {"inputs": {"image": GRAY}}, 400, "named inputs: images"),
        (PREDICT, {"instances": [[[[2.0]]]]}, 400, "finite and in [0, 1]"),
        (PREDICT, {"signature_name": 1, "instances": [GRAY]}, 400, "must be a string"),
        (PREDICT, {"signature_name": "other", "instances": [GRAY]}, 400, '"other" not found'),
        (PREDICT, {"signature_name": "uint8", "instances": [[[[256]]]]}, 400, "JSON Value out"),
        (PREDICT, {"signature_name": "encoded", "instances": [1]}, 400, "expected type: string"),
        (PREDICT, {"signature_name": "encoded", "instances": [["a"], ["b", "c"]]}, 400, "differ"),
        ("/v1/models/other:predict", {"instances": [GRAY]}, 404, "request: Latest(other)"),
        ("/v1/models/cbsn/versions/2:predict", {"instances": [GRAY]}, 404, "Specific(cbsn, 2)"),
        ("/v1/models/cbsn", {"instances": [GRAY]}, 400, "Malformed request: POST"),
        ("/", None, 400, "Malformed request: GET /"),
    ):
        got, answer = ask(path, request)
        assert (got, [*answer]) == (status, ["error"]), (path, request)
        assert words in answer["error"], (path, request)
        assert "Op:" not in answer["error"] and "Graph execution" not in answer["error"]
        assert ask(PREDICT, {"instances": [GRAY]})[0] == 200


def test_grpc_predicts(predict):
    image = np.full((2, 3, 4, 3), 0.5, np.float32)
    np.testing.assert_array_equal(predict({"images": image})["denoised"], image / 2)
    outputs = predict({"images": np.full((1, 2, 2, 1), 9, np.uint8)}, "uint8", version=10)
    assert outputs["denoised"].dtype == np.uint8 and (outputs["denoised"] == 4).all()
    deep = tf.io.encode_png(np.full((1, 1, 4), 60001, np.uint16)).numpy()
    files = predict({"image_bytes": [PNG, deep]}, "encoded", outputs=["denoised_bytes"])
    pixels = [tf.io.decode_png(file, dtype=tf.uint16) for file in files["denoised_bytes"]]
    assert (pixels[0].shape, pixels[1].numpy().tolist()) == ((2, 3, 3), [[[30000] * 4]])
    assert predict({"image_bytes": np.empty(0, object)}, "encoded")["denoised_bytes"].size == 0


def test_a_bad_request_by_grpc_is_told_and_the_next_is_served(predict):
    good = np.zeros((1, 2, 2, 3), np.float32)
    for arguments, options, code, words in (
        (({"images": good + 2},), {}, "INVALID_ARGUMENT", "finite and in [0, 1]"),
        (({"images": np.zeros((1, 2, 2, 3), np.uint8)},), {}, "INVALID_ARGUMENT", "float"),
        (({"image": good},), {}, "INVALID_ARGUMENT", "Missing but required: {images}"),
        (({"images": good}, "other"), {}, "INVALID_ARGUMENT", '"other" not found'),
        (({"image_bytes": [PNG[:-30]]}, "encoded"), {}, "INVALID_ARGUMENT", "PNG"),
        (({"images": good},), {"model": "other"}, "NOT_FOUND", "Latest(other)"),
        (({"images": good},), {"version": 2}, "NOT_FOUND", "Specific(cbsn, 2)"),
        (({"images": good},), {"outputs": ["x"]}, "INVALID_ARGUMENT", "not found in signature: x"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            predict(*arguments, **options)
        assert (caught.value.code().name, words in caught.value.details()) == (code, True), words
        assert predict({"images": good})["denoised"].shape == good.shape


def test_status_and_metadata(ask, stub):
    status, answer = ask("/v1/models/cbsn")
    version = {"version": "10", "state": "AVAILABLE"}
    version["status"] = {"error_code": "OK", "error_message": ""}
    assert (status, answer) == (200, {"model_version_status": [version]})
    answer = ask("/v1/models/cbsn/metadata")[1]
    assert answer["model_spec"] == {"name": "cbsn", "signature_name": "", "version": "10"}
    told = answer["metadata"]["signature_def"]["signature_def"]
    output = told["encoded"]["outputs"]["denoised_bytes"]
    assert output["dtype"] == "DT_STRING" and output["tensor_shape"]["unknown_rank"] is False
    assert output["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "cbsn"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert stub.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
    assert {*signatures.signature_def} == {*told} == {"serving_default", "uint8", "encoded"}


@pytest.fixture
def copy(toy, tmp_path):
    """A version that is not below a folder of versions, and may be changed."""
    folder = tmp_path / "mine"
    (folder / "assets.extra").mkdir(parents=True)
    for path in ("saved_model.pb", "fingerprint.pb", "variables"):
        (folder / path).symlink_to(toy / "10" / path)
    return folder


def warm_up(folder, image):
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "cbsn"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(image))
    with tf.io.TFRecordWriter(str(folder / "assets.extra" / "tf_serving_warmup_requests")) as file:
        file.write(log.SerializeToString())


def test_one_version_by_itself_and_its_warm_up_requests(copy):
    warm_up(copy, np.ones((1, 2, 2, 3), np.float32))
    with StandInServer(copy, "mine") as server:
        assert (server.model.name, server.model.version) == ("mine", 1)
    warm_up(copy, np.ones((1, 2, 2, 5), np.float32))
    with pytest.raises(ModelError, match=r"(?s)warm-up request in .* failed: .*channels"):
        StandInServer(copy)


def test_what_cannot_be_served(toy, server, copy, tmp_path):
    with pytest.raises(ModelError, match=r"holds folders 1, 2, .*Received: .*nowhere"):
        StandInServer(tmp_path / "nowhere")
    (copy / "saved_model.pb").unlink()
    (copy / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be loaded"):
        StandInServer(copy)
    for name, port in (("port", server.port), ("rest_api_port", server.rest_api_port)):
        with pytest.raises(ConfigError, match=f"--{name} {port} --host 127.0.0.1"):
            StandInServer(toy, **{name: port})
    with pytest.raises(ConfigError, match="cannot listen there"):
        StandInServer(toy, host="a..b")
    with pytest.raises(ConfigError, match="--model_name must be the name of a model, in UTF-8"):
        StandInServer(toy, os.fsdecode(b"\xff"))


@pytest.mark.slow
def test_the_command(toy):
    command = [sys.executable, "-m", "tests.serving.server", "--model_base_path", toy]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    with subprocess.Popen(
        [*command, "--port", "0", "--rest_api_port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = process.stdout.readline()
            port = re.search(r"REST at 127\.0\.0\.1:(\d+)", said)[1]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/cbsn") as response:
                assert json.load(response)["model_version_status"][0]["version"] == "10"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=240)
        finally:
            process.kill()
    assert said.startswith("Serving cbsn version 10 from ")
    assert (process.returncode, errors) == (130, "interrupted\n")
