"""Requests that nobody should make: each gets a result or is refused in words.

The number of cases is `CBSN_FUZZ_CASES`, the seed `CBSN_FUZZ_SEED`.
"""

import base64
import collections
import copy
import http.client
import io
import json
import os
import random
import struct
import zlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.serving.server import StandInServer

FEW, MANY = 400, 10_000
TIMEOUT = 60
PREDICT = "/v1/models/denoiser:predict"
STATUSES = {200, 400, 404, 413}
CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}


@pytest.fixture(scope="module")
def server(saved_model):
    with StandInServer(saved_model.parent, "denoiser") as server:
        yield server


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_every_request_is_answered(server, number):
    number = int(os.environ.get("CBSN_FUZZ_CASES", number))
    counts = run_cases(server, number, int(os.environ.get("CBSN_FUZZ_SEED", "0")))
    print(*sorted(counts.items()), sep="\n")
    assert sum(counts.values()) == number
    # So it is not all refused at the door.
    assert {("REST", 200), ("REST", 400), ("gRPC", "OK"), ("gRPC", "INVALID_ARGUMENT")} <= {*counts}


def run_cases(server, number, seed=0):
    """Makes so many requests; returns how many had which answer.

    Raises:
        AssertionError: of the first that is not answered as it should be, with its number: the
            same seed and number make the same request.
    """
    counts = collections.Counter()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        for case in range(number):
            chance = random.Random(f"{seed} {case}")
            if chance.random() < 0.6:
                path, body = _rest_request(chance)
                answer = _ask(server.rest_api_port, path, body)
                assert _is_proper(*answer), (seed, case, path, body, answer)
                counts["REST", answer[0]] += 1
            else:
                request = _grpc_request(chance)
                code, details = _call(predict, request)
                assert code in CODES, (seed, case, request, code, details)
                assert code == "OK" or details, (seed, case, request)
                counts["gRPC", code] += 1
            if case % 10 == 0 or case == number - 1:
                good = json.dumps({"instances": [[[[0.5, 0.5, 0.5]]]]}).encode()
                assert _ask(server.rest_api_port, PREDICT, good)[0] == 200, (seed, case)
                assert _call(predict, _good_grpc_request())[0] == "OK", (seed, case)
    return counts


def _ask(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _is_proper(status, body):
    answer = json.loads(body)
    if status == 200:
        return len(answer) == 1 and {*answer} < {"predictions", "outputs"}
    return status in STATUSES and [*answer] == ["error"] and bool(answer["error"])


def _call(predict, request):
    try:
        predict(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def _pixels(chance):
    shape = [chance.randint(1, 9), chance.randint(1, 9), chance.choice((1, 2, 3, 4))]
    return np.random.default_rng(chance.randrange(2**32)).random(shape, np.float32)


def _file(chance):
    """A PNG or JPEG file, usually damaged."""
    kind = chance.choice(("L", "LA", "RGB", "RGBA", "P", "1", "I;16", "CMYK"))
    pixels = (255 * _pixels(chance)[..., 0]).astype(np.uint8)
    if kind == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) << chance.randint(0, 8))
    else:
        image = Image.fromarray(pixels).convert(kind)
    file = io.BytesIO()
    is_jpeg = kind == "CMYK" or (kind in ("L", "RGB") and chance.random() < 0.5)
    image.save(file, "JPEG" if is_jpeg else "PNG")
    data = file.getvalue()
    if not is_jpeg and chance.random() < 0.5:
        data = _with_odd_chunks(chance, data)
    for _ in range(chance.choice((0, 0, 1, 1, 5))):
        data = _damaged(chance, data)
    return data


def _damaged(chance, data):
    place = chance.randint(0, len(data))
    other = chance.randbytes(chance.choice((1, 1, 4, 40)))
    return chance.choice(
        (
            data[:place],
            data[place:],
            data[:place] + other + data[place:],
            data[:place] + other + data[place + len(other) :],
            data[:place] + data[place + 1 :],
            data + data,
        )
    )


def _with_odd_chunks(chance, png):
    """A PNG file whose checksums are right, but little else."""
    chunks, place = [], 8
    while place < len(png):
        size = int.from_bytes(png[place : place + 4], "big")
        chunks.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + size]))
        place += size + 12
    for _ in range(chance.randint(1, 3)):
        index = chance.randrange(len(chunks))
        kind, content = chunks[index]
        what = chance.randrange(4)
        if what == 0:
            chunks[index] = kind, _damaged(chance, content)
        elif what == 1:
            kind = chance.choice((b"tRNS", b"acTL", b"fcTL", b"PLTE", b"gAMA", b"abcd", b"IDAT"))
            content = chance.randbytes(chance.choice((0, 2, 6, 8, 26, 100)))
            chunks.insert(index, (kind, content))
        elif what == 2:
            chunks.insert(index, chance.choice(chunks))
        elif kind == b"IHDR" and len(content) == 13:
            fields = [*struct.unpack(">IIBBBBB", content)]
            fields[chance.randrange(7)] = chance.choice((0, 1, 2, 3, 4, 6, 16, 200))
            chunks[index] = kind, struct.pack(">IIBBBBB", *fields)
    return png[:8] + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _rest_request(chance):
    """The path and the body of a request that was good, and has been changed."""
    pixels = _pixels(chance)
    signature = chance.choice(("serving_default", "uint8", "encoded"))
    if signature == "encoded":
        values = [{"b64": base64.b64encode(_file(chance)).decode()}]
    elif signature == "uint8":
        values = [(255 * pixels).astype(int).tolist()]
    else:
        values = [pixels.tolist()]
    values *= chance.choice((1, 1, 1, 2))
    name = "image_bytes" if signature == "encoded" else "images"
    request = chance.choice(
        (
            {"instances": values},
            {"instances": [{name: value} for value in values]},
            {"inputs": values},
            {"inputs": {name: values}},
        )
    )
    request["signature_name"] = signature
    request = copy.deepcopy(request)  # no list is in it twice
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        request = _changed(chance, request)
    body = json.dumps(request).encode()
    if chance.random() < 0.2:
        body = _damaged(chance, body)
    paths = (
        "/",
        PREDICT[:-8],
        PREDICT.replace("denoiser", "other"),
        f"{PREDICT}/",
        "/v1/%00:predict",
    )
    versions = [PREDICT.replace(":", f"/versions/{each}:") for each in (1, 2, "x", 10**30, 2**64)]
    path = chance.choice((*paths, *versions)) if chance.random() < 0.1 else PREDICT
    return path, body


def _odd(chance):
    """A value of JSON that fits nowhere."""
    depth = chance.choice((1, 2, 5, 40, 70, 900))
    nested = 0.5
    for _ in range(depth):
        nested = [nested]
    numbers = (-1, 0, 0.5, 2, 255, 256, 1e-40, 1e39, -1e400, float("nan"), 10**30, -(2**63), 2**64)
    texts = ("", "text", "\ud800", "\0", "A" * 1000, "serving_default", "encoded")
    files = ({"b64": "?"}, {"b64": 5}, {"b64": ""}, {"b64": "AAAA"}, {"b64": "AAAA", "x": 1})
    kinds = (numbers, texts, files, (None, True, False, {}, [], [[]], {"": 1}), (nested,))
    return chance.choice(chance.choice(kinds))


def _changed(chance, value):
    """The same value of JSON with something in it changed, anywhere."""
    if isinstance(value, dict | list) and value and chance.random() < 0.8:
        keys = [*value] if isinstance(value, dict) else range(len(value))
        key = chance.choice(keys)
        value[key] = _changed(chance, value[key])
        return value
    what = chance.randrange(6)
    if what == 0 and isinstance(value, list):
        return value[:-1]
    if what == 1 and isinstance(value, list):
        return [*value, _odd(chance)]
    if what == 2 and isinstance(value, dict) and value:
        value[chance.choice(("instances", "inputs", "images", "b64", "other"))] = value.popitem()[1]
        return value
    if what == 3:
        return [value]
    if what == 4 and isinstance(value, list) and value:
        return value[0]
    return _odd(chance)


def _good_grpc_request():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "denoiser"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.full((1, 2, 2, 3), 0.5, np.float32)))
    return request


def _grpc_request(chance):
    """A `PredictRequest` that was good, and has been changed."""
    request = _good_grpc_request()
    signature = chance.choice(("serving_default", "uint8", "encoded"))
    request.model_spec.signature_name = signature
    if signature == "encoded":
        files = [_file(chance) for _ in range(chance.randint(0, 2))]
        tensor = tf.make_tensor_proto(np.array(files, object), tf.string)
        del request.inputs["images"]
        request.inputs["image_bytes"].CopyFrom(tensor)
    else:
        pixels = _pixels(chance)[None]
        pixels = (255 * pixels).astype(np.uint8) if signature == "uint8" else pixels
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(pixels))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        _change_request(chance, request)
    return request


def _change_request(chance, request):
    spec = request.model_spec
    what = chance.randrange(12)
    if what == 0:
        spec.name = chance.choice(("", "other", "denoiser\0"))
    elif what == 1:
        spec.version.value = chance.choice((-1, 0, 1, 2, 2**63 - 1))
    elif what == 2:
        spec.signature_name = chance.choice(("", "uint8", "encoded", "__saved_model_init_op"))
    elif what == 3:
        request.output_filter.append(chance.choice(("", "denoised", "denoised_bytes", "other")))
    elif what == 4:
        name = chance.choice(("", "images", "image_bytes", "other"))
        request.inputs[name].CopyFrom(next(iter(request.inputs.values()), request.inputs[name]))
    elif what == 5 and request.inputs:
        del request.inputs[next(iter(request.inputs))]
    elif request.inputs:
        _change_tensor(chance, chance.choice([*request.inputs.values()]))


def _change_tensor(chance, tensor):
    dims = tensor.tensor_shape.dim
    what = chance.randrange(8)
    if what == 0:
        tensor.dtype = chance.choice((*range(32), 101, 999))
    elif what == 1 and dims:
        chance.choice(dims).size = chance.choice((-1, -(2**63), 0, 1, 2, 5, 2**20, 2**40))
    elif what == 2:
        dims.add().size = chance.choice((0, 1, 2, 2**20))
    elif what == 3 and dims:
        del dims[chance.randrange(len(dims))]
    elif what == 4:
        tensor.tensor_content = _damaged(chance, tensor.tensor_content)
    elif what == 5:
        tensor.float_val.extend(chance.choice(((), (0.5,), (float("nan"), 2), (0.5,) * 12)))
        tensor.tensor_content = b""
    elif what == 6:
        tensor.string_val.append(_file(chance))
    else:
        tensor.tensor_shape.unknown_rank = True
