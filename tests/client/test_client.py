import base64
import contextlib
import http.server
import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from cbsn.cli import client
from cbsn.client.grpc_transport import GrpcTransport
from cbsn.client.transport import RestTransport, denoise_remotely
from cbsn.errors import ConfigError, DataError, ImageError, ModelError
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Picture
from tests.serving import toy_model
from tests.serving.server import StandInServer

TRANSPORTS = {"--grpc": GrpcTransport, "--rest": RestTransport}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with StandInServer(toy_model.save(tmp_path_factory.mktemp("toy"))) as server:
        yield server


@pytest.fixture(params=TRANSPORTS)
def way(request):
    return request.param


@pytest.fixture
def url(server, way):
    return address(server, way)


@pytest.fixture
def run(tmp_path, monkeypatch, way, url):
    """Runs the client in the test's folder; returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        flags = client.make_parser().parse_args([way, "--url", url, "--savepath", "out", *flags])
        return client.main(flags)

    return run


def address(server, way):
    return f"127.0.0.1:{server.port if way == '--grpc' else server.rest_api_port}"


def orientation():
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_pictures_of_all_kinds_come_back_with_all_they_hold(run, random, tmp_path, capsys):
    def integers(dtype, *shape):
        return random.integers(np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)

    floats = random.random((20, 30, 3), np.float32)
    sources = {
        "rgb.png": Picture(integers(np.uint8, 20, 30, 3), "PNG"),
        "deep.png": Picture(integers(np.uint16, 20, 30, 4), "PNG", b"profile", orientation()),
        "alpha.webp": Picture(integers(np.uint8, 20, 30, 4), "WEBP", b"profile"),
        "pair.png": Picture(integers(np.uint8, 20, 30, 2), "PNG"),
        "gray.tif": Picture(integers(np.uint16, 20, 30, 1), "TIFF"),
        "float.tif": Picture(floats, "TIFF", b"profile", orientation()),
        "grayfloat.tif": Picture(floats[..., :1], "TIFF"),
        "dot.bmp": Picture(integers(np.uint8, 1, 1, 3), "BMP"),
        "photo.jpg": Picture(integers(np.uint8, 20, 30, 3), "JPEG", b"profile", orientation()),
        "narrow.tif": Picture(integers(np.uint8, 300, 1, 1), "TIFF"),
        "sub/rgb.png": Picture(integers(np.uint8, 3, 2, 1), "PNG"),
    }
    for name, picture in sources.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(tmp_path / "in" / name, picture)
    (tmp_path / "in" / "broken.png").write_bytes((tmp_path / "in" / "rgb.png").read_bytes()[:90])

    assert run("in/**/*.*", "in") == 1

    output, errors = capsys.readouterr()
    assert "11 of 12 pictures denoised, in out" in output and "Traceback" not in errors
    [failed] = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert failed.startswith("failed: in/broken.png: ")
    targets = {name: name.replace("jpg", "png") for name in sources}
    written = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert written == {*targets.values()}
    for name, target in targets.items():
        source = read_picture(tmp_path / "in" / name)
        result = read_picture(tmp_path / "out" / target)
        half = source.pixels / 2 if name.endswith("float.tif") else source.pixels // 2
        np.testing.assert_array_equal(result.pixels, half, err_msg=name, strict=True)
        assert (result.icc_profile, result.exif) == (source.icc_profile, source.exif), name


def test_a_picture_that_the_server_refuses(run, random, tmp_path, capsys):
    floats = random.random((20, 30, 3), np.float32)
    write_picture(tmp_path / "bright.tif", Picture(1.4 * floats, "TIFF"))
    assert run("bright.tif", "--white", "1") == 1
    [failed] = [line for line in capsys.readouterr().err.splitlines() if "failed: " in line]
    assert failed.startswith("failed: bright.tif: the server rejected it: ")
    assert failed.endswith("[images are finite and in [0, 1]]")


def test_a_picture_of_many_megabytes(run, random, tmp_path):
    pixels = random.integers(256, size=(1200, 1200, 3), dtype=np.uint8)  # more than gRPC's 4 MB
    write_picture(tmp_path / "large.bmp", Picture(pixels, "BMP"))
    assert run("large.bmp", "--format", "tiff", "--version", "1") == 0
    result = read_picture(tmp_path / "out" / "large.tif").pixels
    np.testing.assert_array_equal(result, pixels // 2)


def test_nothing_is_written_where_there_is_nothing_to_ask(run, way, server, tmp_path):
    write_picture(tmp_path / "a.png", Picture(np.zeros((3, 3, 3), np.uint8), "PNG"))
    other_port = address(server, "--rest" if way == "--grpc" else "--grpc")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_url = f"127.0.0.1:{silent.getsockname()[1]}"
        cases = [
            (["--url", other_port], ConfigError, f"No server answers at {other_port}"),
            (["--url", "127.0.0.1:1"], ConfigError, "(?i)connection refused"),
            (["--url", silent_url, "--timeout", "0.2"], ConfigError, "No server answers"),
            (["--url", "http://localhost:8500"], ConfigError, "Received: 'http://localhost:8500'"),
            (["--url", "localhost"], ConfigError, "such as localhost:8500"),
            (["--url", "localhost:99999"], ConfigError, "such as localhost:8500"),
            (
                ["--model", "other"],
                ModelError,
                "'other' is not served at .*Received: Servable not found",
            ),
            (["--model", "of/her"], ModelError, "'of/her' is not served at"),
            (["--model", ""], ConfigError, "--model must be the name of a model"),
            (["--model", "\udcff"], ConfigError, "--model must be the name of a model, in UTF-8"),
            (["--url", "\udcff:1"], ConfigError, "--url must be HOST:PORT"),
            (["--version", "7"], ModelError, "'cbsn' version 7 is not served at"),
            (["--version", "-1"], ConfigError, "Received: --version -1"),
            (["--timeout", "0"], ConfigError, "Received: --timeout 0"),
            (["--timeout", "nan"], ConfigError, "Received: --timeout nan"),
            # The toy is as what was exported before there was a strength.
            (["--strength", "1"], ModelError, "takes no strength: .*or omit --strength"),
            (["--color_strength", "0.5"], ModelError, "takes no strength: .*Received: the sig"),
        ]
        for flags, kind, words in cases:
            with pytest.raises(kind, match=words):
                run("a.png", *flags)
    with pytest.raises(DataError, match="no file matches"):
        run("b.png")
    with pytest.raises(ConfigError, match="A path is empty"):
        run("a.png", "--savepath", "")
    with pytest.raises(ConfigError, match="would overwrite"):
        run("a.png", "--savepath", ".")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_stacks_are_not_sent(run, random, tmp_path, capsys):
    planes = random.integers(4095, size=(3, 20, 30), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "cells.tif", planes, photometric="minisblack")
    words = r"cells\.tif: it is a stack, and cbsn client sends pictures only\. Use cbsn denoise"
    with pytest.raises(ConfigError, match=words):
        run("cells.tif")
    assert not (tmp_path / "out").exists()
    write_picture(tmp_path / "a.png", Picture(np.full((3, 3, 3), 9, np.uint8), "PNG"))
    assert run("*.*") == 1  # the pictures are denoised all the same
    output, errors = capsys.readouterr()
    assert output == "1 of 1 picture denoised, in out\n"
    assert "failed: cells.tif: it is a stack" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_model_for_stacks_is_named(way, tmp_path):
    class Planes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None] * 4, tf.uint16, "images")])
        def __call__(self, images):
            return {"denoised": images}

    module = Planes()
    tf.saved_model.save(module, str(tmp_path / "1"), {"uint16": module.__call__})
    with StandInServer(tmp_path) as server, TRANSPORTS[way](address(server, way)) as transport:
        words = r"was trained on stacks, and cbsn client sends pictures.*the signatures uint16"
        with pytest.raises(ModelError, match=words):
            transport.check()


def test_a_model_of_another_kind_is_refused(way, tmp_path):
    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "images")])
        def __call__(self, images):
            return {"denoised": images}

    tf.saved_model.save(Other(), str(tmp_path / "1"), Other().__call__)
    with StandInServer(tmp_path) as server, TRANSPORTS[way](address(server, way)) as transport:
        words = "not written by cbsn export.*'encoded'.*Received: the signatures serving_default"
        with pytest.raises(ModelError, match=words):
            transport.check()


def test_strengths_are_numbers_from_0_to_1(way):
    for options in ({"strength": 1.5}, {"strength": float("nan")}, {"color_strength": -1}):
        with pytest.raises(ConfigError, match="takes a number from 0 to 1"):
            TRANSPORTS[way]("127.0.0.1:1", **options)


def test_a_server_that_goes_away_fails_the_picture(way, server):
    pixels = np.zeros((3, 3, 3), np.float32)
    with StandInServer(server.model.folder) as leaving:
        transport = TRANSPORTS[way](address(leaving, way))
        transport.check()
        assert transport.predict("serving_default", pixels).shape == (3, 3, 3)
    words = r"the server at 127\.0\.0\.1:\d+ failed: UNAVAILABLE"
    with transport, pytest.raises(ImageError, match=words):
        transport.predict("serving_default", pixels)


def test_a_picture_that_takes_too_long(way):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            TRANSPORTS[way](url, timeout=0.2) as transport,
            pytest.raises(ImageError, match=r"no answer within 0\.2 seconds; .*--timeout"),
        ):
            transport.predict("encoded", b"")


@pytest.mark.parametrize("dripping", ["headers", "body"])
def test_an_answer_in_pieces_takes_too_long(dripping):
    """Each piece is there in time, and all of them are not."""
    headers, body = b"HTTP/1.0 200 OK\r\n\r\n", b'{"predictions": [[[[0, 0, 0]]]]}'
    whole, rest = (b"", headers + body) if dripping == "headers" else (headers, body)

    def serve(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(whole)
            for byte in rest:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        transport = RestTransport(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        with pytest.raises(ImageError, match=r"no answer within 0\.5 seconds"):
            transport.predict("serving_default", np.zeros((1, 1, 3), np.float32))


@pytest.fixture
def answering():
    """A server that gives one answer, whatever it is asked; and a way to it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = self.server.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def answering(status, answer):
            is_json = not isinstance(answer, bytes)
            server.answer = status, json.dumps(answer).encode() if is_json else answer
            return RestTransport(f"127.0.0.1:{server.server_port}")

        yield answering
        server.shutdown()


def test_odd_answers(answering):
    deep = tf.io.encode_png(np.zeros((2, 3, 3), np.uint16)).numpy()
    cases = [
        (200, b"<html>", "UNIMPLEMENTED: an unexpected answer, b'<html>'"),
        (200, {"predictions": []}, "UNIMPLEMENTED"),
        (200, {"predictions": [{"b64": "?"}]}, "UNIMPLEMENTED"),
        (200, {"predictions": [{"b64": 5}]}, "UNIMPLEMENTED"),
        (200, {"predictions": [{"b64": "AAAA"}]}, r"not return a PNG file\. Received: 3 bytes"),
        (
            200,
            {"predictions": [{"b64": base64.b64encode(deep).decode()}]},
            r"Received: uint16 \(2, 3, 3\)",
        ),
        # As TensorFlow Serving writes an error with quotes.
        (400, b'{ "error": "it\\\'s bad" }', "rejected it: .*it.*s bad"),
        (400, {"error": "x" * 9999}, "rejected it: x{500}…$"),
        (503, {"error": "too busy"}, "failed: UNAVAILABLE: too busy"),
        (504, b"", "no answer within 600 seconds"),
        (502, b"bad\ngateway", "failed: HTTP status 502: bad gateway"),
        (200, b"[" * 200_000, r"UNIMPLEMENTED: an unexpected answer, b'\["),
        (502, b"[" * 200_000, r"HTTP status 502: \["),
    ]
    picture = Picture(np.zeros((2, 3, 3), np.uint8), "PNG")
    for status, answer, words in cases:
        with pytest.raises(ImageError, match=words):
            denoise_remotely(answering(status, answer), picture, print)


@pytest.fixture
def answering_by_grpc():
    """A gRPC server that gives one answer to each question; and a way to it."""
    answers = []

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            return answers[-1]

        GetModelMetadata = Predict

    server = grpc.server(ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def answering(answer):
        answers.append(answer)
        return GrpcTransport(f"127.0.0.1:{port}")

    yield answering
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("dtype", "values", "words"),
    [
        (np.uint8, np.ones(1, np.float32), "an answer of another type, float32"),
        (np.uint8, np.ones((1, 2, 3, 3), np.float32), "an answer of another type, ndarray"),
        (np.uint8, [[b"abc"]], "an answer of another type, ndarray"),
        (np.uint8, b"abc", "an answer without a picture"),
        (np.uint8, None, "an answer without a picture"),
        (np.float32, [b"abc"], "an answer of another type, bytes"),
        (np.float32, np.ones(1, np.float32), "an answer of another type, float32"),
        (np.float32, np.ones((), np.float32), "an answer without a picture"),
    ],
)
def test_odd_answers_by_grpc(answering_by_grpc, dtype, values, words):
    """To a picture that is sent as a file, and to one that is sent as floats."""
    answer = predict_pb2.PredictResponse()
    if values is not None:
        name = "denoised_bytes" if dtype == np.uint8 else "denoised"
        answer.outputs[name].CopyFrom(tf.make_tensor_proto(values))
    picture = Picture(np.zeros((2, 3, 3), dtype), "TIFF")
    with (
        answering_by_grpc(answer) as transport,
        pytest.raises(ImageError, match=f"UNIMPLEMENTED: {words}"),
    ):
        denoise_remotely(transport, picture, print)


def test_damaged_signatures_by_grpc(answering_by_grpc):
    answer = get_model_metadata_pb2.GetModelMetadataResponse()
    signatures = answer.metadata["signature_def"]
    signatures.Pack(get_model_metadata_pb2.SignatureDefMap())
    signatures.value = b"\xff\xff\xff"
    words = "does not describe its models as TensorFlow Serving .*an answer without signatures"
    with answering_by_grpc(answer) as transport, pytest.raises(ConfigError, match=words):
        transport.check()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_floats_that_are_no_picture(answering, dtype):
    """Of a dark picture of 16 bits, too, which travels as floats."""
    picture = Picture(np.full((1, 2, 1), 100 if dtype == np.uint16 else 0.5, dtype), "TIFF")
    for value in (np.nan, np.inf, -np.inf, 7.5, -0.01):
        answer = {"predictions": [[[[0.5], [value]]]]}
        words = rf"did not return values from 0 to 1\. Received: values from .*{value:g}"
        with pytest.raises(ImageError, match=words):
            denoise_remotely(answering(200, answer), picture, print)
    answer = {"predictions": [[[[0.5], [10**400]]]]}  # more than a float holds
    with pytest.raises(ImageError, match="UNIMPLEMENTED: an unexpected answer"):
        denoise_remotely(answering(200, answer), picture, print)
    exact = {"predictions": [[[[-5e-6], [1 + 5e-6]]]]}  # but for rounding
    result = denoise_remotely(answering(200, exact), picture, print).pixels.ravel()
    np.testing.assert_allclose(result, [0, 65535 if dtype == np.uint16 else 1], atol=1e-5)


def test_a_server_of_another_kind(answering):
    cases = [(200, b"hello"), (200, {"metadata": 5}), (200, b"[" * 200_000), (401, b"who are you?")]
    for status, answer in cases:
        with pytest.raises(ConfigError, match="does not describe its models as TensorFlow Serving"):
            answering(status, answer).check()


def test_without_tensorflow_serving_s_api(monkeypatch):
    monkeypatch.delitem(sys.modules, "cbsn.client.grpc_transport")
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    flags = ["a.png", "--savepath", "out", "--url", "localhost:8500"]
    with pytest.raises(ConfigError, match=r"pip install 'cbsn\[serving\]' .*--rest"):
        client.main(client.make_parser().parse_args(flags))


@pytest.mark.slow
def test_the_command_by_grpc(server, run_python, tmp_path):
    write_picture(tmp_path / "a.png", Picture(np.full((3, 3, 3), 9, np.uint8), "PNG"))
    (tmp_path / "b.png").write_text("no picture")
    run = run_python(f"""
        import os, runpy, sys
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)  # TensorFlow is to be quiet by itself
        sys.argv = ["cbsn", "client", "--url", "127.0.0.1:{server.port}", ".", "--savepath", "out"]
        runpy.run_module("cbsn", run_name="__main__")
    """)
    assert run.returncode == 1, run.stderr
    assert run.stdout == "1 of 2 pictures denoised, in out\n"
    assert (read_picture(tmp_path / "out" / "a.png").pixels == 4).all()
    assert "failed: b.png: " in run.stderr
    assert "oneDNN" not in run.stderr and "Traceback" not in run.stderr


def test_the_command_by_rest_does_without_tensorflow(server, run_python, tmp_path):
    write_picture(tmp_path / "a.png", Picture(np.full((3, 3, 3), 9, np.uint8), "PNG"))
    run = run_python(f"""
        import runpy, sys
        sys.argv = ["cbsn", "client", "--rest", "--url", "127.0.0.1:{server.rest_api_port}"]
        sys.argv += ["--savepath", "out", "a.png"]
        try:
            runpy.run_module("cbsn", run_name="__main__")
        finally:
            print({{"tensorflow", "keras", "grpc"}} & {{*sys.modules}})
    """)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "1 of 1 picture denoised, in out\nset()\n"
    assert (read_picture(tmp_path / "out" / "a.png").pixels == 4).all()
