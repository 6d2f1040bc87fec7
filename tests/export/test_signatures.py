import collections
import functools
import io
import os
import random
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf.config_pb2 import CallableOptions

from cbsn.errors import ImageError
from cbsn.export.signatures import ServedDenoiser
from cbsn.images.image_files import read_picture, write_picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions

DTYPES = {"serving_default": np.float32, "uint8": np.uint8}


@pytest.fixture(scope="module")
def signatures(saved_model):
    loaded = tf.saved_model.load(str(saved_model))
    yield loaded.signatures
    del loaded  # which the signatures do not hold


def _encoded(picture, format="PNG", **options):
    file = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(file, format, **options)
    return file.getvalue()


def _jpeg(random, **options):
    pixels = random.integers(0, 255, (9, 8, 3), np.uint8)
    return _encoded(np.asarray(Image.fromarray(pixels).resize((60, 45))), "JPEG", **options)


def _png(width, height, bits, color, rows, *chunks):
    """A PNG file by its parts; colour 0 is gray, 2 RGB, 3 a palette."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def _bomb(width, height):
    """A small PNG file that claims any size."""
    return _png(width, height, 8, 2, b"\0" * 100)


def _of_bits(bits, values, *chunks, color=0):
    """A PNG file of values [H, W] of less than 16 bits, and these further chunks."""
    places = np.arange(bits)[::-1]
    rows = np.packbits((values[..., None] >> places & 1).reshape(len(values), -1), axis=1)
    rows = np.pad(rows, ((0, 0), (1, 0))).tobytes()  # in front of each row its filter: none
    return _png(values.shape[1], values.shape[0], bits, color, rows, *chunks)


def _transparent(*values):
    return b"tRNS", struct.pack(f">{len(values)}H", *values)


def _interlaced(bits, value):
    """A PNG file of 8 × 8 equal gray values, in seven passes."""
    sizes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    dot = value.to_bytes(bits // 8, "big")
    rows = b"".join((b"\0" + dot * width) * height for width, height in sizes)
    png = bytearray(_png(8, 8, bits, 0, rows))
    png[28] = 1
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


def test_names_shapes_and_types(signatures):
    for name, dtype in DTYPES.items():
        [images] = signatures[name].structured_input_signature[1].values()
        assert images.name == "images"
        assert images.shape.as_list() == [None] * 4
        denoised = signatures[name].structured_outputs["denoised"]
        assert images.dtype == denoised.dtype == dtype
    [image_bytes] = signatures["encoded"].structured_input_signature[1].values()
    assert (image_bytes.name, image_bytes.shape.rank) == ("image_bytes", 1)
    # TensorFlow Serving's REST encodes what has such a name, and fails at other strings.
    assert list(signatures["encoded"].structured_outputs) == ["denoised_bytes"]


@pytest.mark.parametrize("shape", [(1, 61, 70, 3), (3, 5, 30, 1), (1, 1, 1, 4), (2, 30, 1, 2)])
def test_arrays_are_denoised_as_by_infer(signatures, denoiser, random, shape):
    floats = random.random(shape, np.float32)
    result = signatures["serving_default"](images=tf.constant(floats))["denoised"]
    expected = np.stack([denoiser(picture) for picture in floats])
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)
    bytes_ = random.integers(0, 255, shape, np.uint8)
    result = signatures["uint8"](images=tf.constant(bytes_))["denoised"].numpy()
    expected = np.stack([denoiser(picture) for picture in bytes_])
    assert np.abs(result.astype(int) - expected).max() <= 1


def _kinds_of_files(random):
    pixels = random.integers(0, 255, (41, 32, 4), np.uint8)
    deep = random.integers(0, 65535, (12, 30, 3), np.uint16)
    image, gray = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels[..., 0])
    files = {
        "RGB": _encoded(image),
        "RGBA": _encoded(pixels),
        "gray": _encoded(gray),
        "gray and alpha": imagecodecs.png_encode(pixels[..., :2].copy()),
        "gray, a transparent one": _encoded(gray, transparency=int(pixels[0, 0, 0])),
        "gray, a transparent one that is not there": _encoded(
            Image.fromarray(pixels[..., 0] // 2), transparency=200
        ),
        "RGB, a transparent one": _encoded(image, transparency=tuple(map(int, pixels[0, 0, :3]))),
        "palette": _encoded(image.quantize()),
        "palette with a transparent colour": _encoded(image.quantize(), transparency=3),
        "palette with alpha": _encoded(image.quantize(), transparency=bytes(range(0, 250, 5))),
        "palette of 2 bits, with alpha": _of_bits(
            2, pixels[..., 0] % 4, (b"PLTE", bytes(range(99, 111))), (b"tRNS", b"\x70"), color=3
        ),
        "1 bit": _encoded(image.convert("1")),
        "1 bit, a transparent one": _of_bits(1, pixels[..., 0] % 2, _transparent(1)),
        "2 bits": _of_bits(2, pixels[..., 0] % 4),
        "2 bits, a transparent one": _of_bits(2, pixels[..., 0] % 4, _transparent(0)),
        "4 bits": _of_bits(4, pixels[..., 0] % 16),
        "4 bits, a transparent one": _of_bits(4, pixels[..., 0] % 16, _transparent(0)),
        "interlaced": _interlaced(8, 77),
        "interlaced, 16 bits": _interlaced(16, 30000),
        "an animation of one frame": _encoded(image, save_all=True, default_image=False),
        "an animation of one frame, and another picture": _encoded(
            image, save_all=True, append_images=[image], default_image=True
        ),
        "an animation of no frames": _of_bits(2, pixels[..., 0] % 4, (b"acTL", bytes(8))),
        "JPEG": _jpeg(random),
        "JPEG, progressive": _jpeg(random, progressive=True, quality=60),
        "JPEG, gray": _encoded(gray.resize((60, 45)), "JPEG"),
        "16 bits": imagecodecs.png_encode(deep),
        "16 bits, gray": imagecodecs.png_encode(deep[..., 0].copy()),
        "16 bits, black": imagecodecs.png_encode(deep * 0),
    }
    gray = np.ascontiguousarray(deep[..., 0])
    rows = np.pad(gray.byteswap().view(np.uint8), ((0, 0), (1, 0))).tobytes()
    files["16 bits, gray, a transparent one"] = _png(
        30, 12, 16, 0, rows, _transparent(int(gray[0, 0]))
    )
    for bits in range(1, 17):
        files[f"{bits} bits in 16"] = imagecodecs.png_encode(deep >> 16 - bits)
    # What is above white in alpha does not count.
    few = np.concatenate([deep >> 4, deep[..., :1]], axis=-1)
    files["12 bits in 16, and alpha"] = imagecodecs.png_encode(few)
    return files


def test_files_are_denoised_as_by_infer(signatures, denoiser, random, tmp_path):
    path = tmp_path / "picture.png"
    files = _kinds_of_files(random)
    results = signatures["encoded"](image_bytes=tf.constant([*files.values()]))
    for (name, data), result in zip(files.items(), results["denoised_bytes"].numpy(), strict=True):
        path.write_bytes(data)
        picture = read_picture(path)
        white = 255 if picture.pixels.dtype == np.uint8 else 65535
        denoised = denoiser(picture.pixels, white=white)
        write_picture(path, picture.with_pixels(denoised))
        expected = imagecodecs.png_decode(path.read_bytes())
        found = imagecodecs.png_decode(result)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        assert np.abs(found.astype(int) - expected).max() <= 1, name


@pytest.mark.parametrize("bits", [2, 4])
def test_a_transparent_gray_of_few_bits(signatures, bits):
    values = np.arange(2**bits, dtype=np.uint8).reshape(2, -1)
    data = _of_bits(bits, values, _transparent(2))
    [result] = signatures["encoded"](image_bytes=tf.constant([data]))["denoised_bytes"].numpy()
    alpha = imagecodecs.png_decode(result)[..., 1]
    np.testing.assert_array_equal(alpha, np.where(values == 2, 0, 255))


def test_values_of_twelve_bits_are_denoised_as_those_of_eight(signatures, random):
    pixels = random.integers(100, 156, (30, 40, 3), np.uint8)
    pixels[0, 0] = 255
    scale = 4095 / 255
    pictures = pixels, np.rint(pixels * scale).astype(np.uint16)
    files = [imagecodecs.png_encode(picture) for picture in pictures]
    results = signatures["encoded"](image_bytes=tf.constant(files))["denoised_bytes"].numpy()
    eight, twelve = (imagecodecs.png_decode(result).astype(int) for result in results)
    assert np.abs(twelve / scale - eight).max() <= 0.6


def test_no_files_give_none(signatures):
    results = signatures["encoded"](image_bytes=tf.constant([], tf.string))
    assert results["denoised_bytes"].shape == (0,)


def test_floats_that_are_off_by_rounding_are_in_range(signatures, random):
    floats = random.random((1, 20, 20, 3), np.float32)
    floats[0, 0, :2] = [[-4e-7], [1.0000004]]
    serve = signatures["serving_default"]
    found = serve(images=tf.constant(floats))["denoised"]
    expected = serve(images=tf.constant(floats.clip(0, 1)))["denoised"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert 0 <= found.numpy().min() <= found.numpy().max() <= 1


WRONG_RANKS = {
    "serving_default": [(), (4, 4, 3), (0,), (1,) * 9],
    "uint8": [(3,), (1, 1, 4, 4, 3)],
    "encoded": [(), (1, 1), (0, 3)],
}


@pytest.fixture(scope="module")
def serve_as_tensorflow_serving(saved_model):
    """Calls a signature by the loader and the session that TensorFlow Serving has, too.

    They do not check the shapes of what they are given.
    """
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(saved_model))

    @functools.cache
    def make(name):
        signature = loaded.signature_def[name]
        [output], [given] = signature.outputs.values(), signature.inputs.values()
        # What is public of a session checks them, too.
        options = CallableOptions(feed=[given.name], fetch=[output.name])
        return session._make_callable_from_options(options)

    yield make
    session.close()


@pytest.mark.parametrize("name", WRONG_RANKS)
def test_a_wrong_rank_is_told(signatures, serve_as_tensorflow_serving, name):
    what, argument = r"images must be \[N, H, W, C\], pictures of the same size", "images"
    if name == "encoded":
        what, argument = r"image_bytes must be \[N\], each a PNG or JPEG file", "image_bytes"
    for shape in WRONG_RANKS[name]:
        value = (
            np.full(shape, b"text", object) if name == "encoded" else np.zeros(shape, DTYPES[name])
        )
        message = rf"{what}\. Received: shape \[{' '.join(map(str, shape))}\]"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signatures[name](**{argument: tf.constant(value)})
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            serve_as_tensorflow_serving(name)(value)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((1, 0, 4, 3)), r"at least one pixel. Received: shape \[1 0 4 3\]"),
        (np.zeros((0, 4, 4, 3)), r"at least one pixel. Received: shape \[0 4 4 3\]"),
        (np.zeros((1, 4, 4, 5)), r"1 to 4 channels, .*Received: shape \[1 4 4 5\]"),
        (np.zeros((1, 4, 4, 0)), r"1 to 4 channels, .*Received: shape \[1 4 4 0\]"),
        (np.full((1, 4, 4, 3), 2.5), "finite and in .*scale it.* values from 2.5 to 2.5"),
        (np.full((1, 4, 4, 3), np.nan), "finite and in .*values from nan to nan"),
        (np.full((2, 4, 4, 3), -np.inf), "finite and in .*values from -inf to -inf"),
    ],
)
def test_wrong_arrays_are_refused_and_the_next_is_served(signatures, pictures, message):
    serve = signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        serve(images=tf.constant(pictures, tf.float32))
    assert serve(images=tf.zeros((1, 4, 4, 3)))["denoised"].shape == (1, 4, 4, 3)


def test_wrong_files_are_refused_and_the_next_is_served(signatures, random):
    pixels = random.integers(0, 255, (20, 30, 3), np.uint8)
    png, jpeg = _encoded(pixels), _jpeg(random)
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 255
    cases = {
        b"": "PNG or JPEG file. Received: 0 bytes",
        b"some text": "PNG or JPEG file. Received: 9 bytes",
        _encoded(pixels, "GIF"): "PNG or JPEG file",
        png[:20]: "The PNG file is cut off. Received: 20 bytes",
        png[: len(png) // 2]: "Invalid PNG data",
        png[:-12]: "Invalid PNG data",
        bytes(flipped): "Invalid PNG data",
        jpeg[: len(jpeg) // 2]: "Invalid JPEG data",
        jpeg[:10]: "JPEG",
        _encoded(Image.fromarray(pixels).convert("CMYK"), "JPEG"): "CMYK picture; convert it",
        _bomb(30000, 30000): "at most 100000 pixels: .*Received: 30000 x 30000",
        _bomb(2**31 - 1, 2**31 - 1): "at most 100000 pixels",
        _bomb(2**32 - 1, 2): "at most 100000 pixels: .*Received: 4294967295 x 2",
        _bomb(0, 5): "at least one pixel. Received: 0 x 5",
        _png(1, 1, 8, 0, bytes(2), *[(b"teXt", b"")] * 1001): "more than 1000 chunks before",
    }
    serve = signatures["encoded"]
    for data, message in cases.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            serve(image_bytes=tf.constant([png, data]))
        assert serve(image_bytes=tf.constant([png]))["denoised_bytes"].shape == (1,)


def test_animations_are_refused_as_by_infer(signatures, random, tmp_path):
    frames = [Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)) for _ in range(3)]
    for number in (2, 3):
        data = _encoded(frames[0], save_all=True, append_images=frames[1:number])
        (tmp_path / "picture").write_bytes(data)
        message = f"an animation of {number} frames; save them one by one"
        with pytest.raises(ImageError, match=message):
            read_picture(tmp_path / "picture")
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signatures["encoded"](image_bytes=tf.constant([data]))


def test_signatures_with_strength(signatures):
    for name in ("serving_default", "uint8", "encoded"):
        plain, more = signatures[name], signatures[f"{name}_with_strength"]
        inputs = more.structured_input_signature[1]
        own = plain.structured_input_signature[1].keys()
        assert inputs.keys() == own | {"strength", "color_strength"}
        for share in ("strength", "color_strength"):
            assert (inputs[share].shape.as_list(), inputs[share].dtype) == ([None], tf.float32)
        assert more.structured_outputs.keys() == plain.structured_outputs.keys()


def _serve(signatures, name, pictures, luma, color):
    [key] = signatures[name].structured_input_signature[1]
    shares = {"strength": tf.constant(luma, tf.float32)}
    shares["color_strength"] = tf.constant(color, tf.float32)
    serve = signatures[f"{name}_with_strength"]
    [result] = serve(**{key: tf.constant(pictures)}, **shares).values()
    return result.numpy()


def test_arrays_are_denoised_by_their_strength(signatures, denoiser, random):
    floats = random.random((3, 41, 50, 3), np.float32)
    weaker = Denoiser(
        denoiser.recipe,
        denoiser.network,
        DenoiseOptions(tile=24, strength=0.25, color_strength=0.75),
    )
    for name, pictures in (("serving_default", floats), ("uint8", (floats * 255).astype(np.uint8))):
        result = _serve(signatures, name, pictures, [0, 1, 0.25], [0, 1, 0.75])
        [whole] = signatures[name](images=tf.constant(pictures)).values()
        np.testing.assert_array_equal(result[0], pictures[0])
        np.testing.assert_array_equal(result[1], whole[1])
        off = np.abs(result[2].astype(float) - weaker(pictures[2]))
        assert off.max() <= (1e-4 if pictures is floats else 1)


@pytest.mark.slow
def test_files_are_denoised_by_their_strength(signatures, denoiser, random):
    weaker = Denoiser(
        denoiser.recipe, denoiser.network, DenoiseOptions(tile=24, strength=0.5, color_strength=0.9)
    )
    deep = random.integers(0, 65535, (12, 30, 3), np.uint16)
    pictures = [(deep >> 8).astype(np.uint8), deep, deep >> 4, deep[..., 0].copy()]
    files = [imagecodecs.png_encode(picture) for picture in pictures]
    for shares in ((0.5, 0.9), (0, 0), (1, 1)):
        results = _serve(signatures, "encoded", files, *([share] * 4 for share in shares))
        whole = signatures["encoded"](image_bytes=tf.constant(files))["denoised_bytes"].numpy()
        for picture, result, without in zip(pictures, results, whole, strict=True):
            found = imagecodecs.png_decode(result)
            if shares == (0, 0):
                np.testing.assert_array_equal(found, picture, strict=True)
            elif shares == (1, 1):
                assert result == without
            else:
                assert np.abs(found.astype(int) - weaker(picture)).max() <= 1


@pytest.fixture(scope="module")
def planes_signatures(make_stack_denoiser):
    """Those of the second of the channels that a model was trained on."""
    denoiser = make_stack_denoiser(tile=24, strength=0.5)
    return denoiser, ServedDenoiser(denoiser, channel=1).functions


@pytest.mark.slow
def test_planes_of_a_stack_have_signatures_of_their_own(planes_signatures, random):
    denoiser, signatures = planes_signatures
    names = {"serving_default", "uint8", "uint16"}
    assert signatures.keys() == names | {f"{name}_with_strength" for name in names}
    scale = denoiser.scaling.of(1)
    planes = random.normal(scale.mean, scale.deviation, (2, 33, 40))
    whole = Denoiser(denoiser.recipe, denoiser.network, DenoiseOptions(tile=24))
    one = tf.ones(2)
    for name, dtype, high in (
        ("serving_default", np.float32, 1e9),
        ("uint16", np.uint16, 65535),
        ("uint8", np.uint8, 255),
    ):
        some = planes.clip(-high if high > 65535 else 0, high).astype(dtype)
        atol = 0.3 if dtype == np.float32 else 1
        given = tf.constant(some[..., None])
        result = signatures[name](given)["denoised"].numpy()[..., 0]
        expected = denoiser.scaled(some, scale)
        assert result.dtype == dtype
        assert np.abs(result.astype(float) - expected).max() <= atol
        result = signatures[f"{name}_with_strength"](given, one, one)["denoised"].numpy()[..., 0]
        assert np.abs(result.astype(float) - whole.scaled(some, scale)).max() <= atol


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        (np.zeros((1, 4, 4, 2)), r"1 value per pixel, or 3 \(RGB\).*shape \[1 4 4 2\]"),
        (np.zeros((1, 4, 0, 1)), r"at least one pixel. Received: shape \[1 4 0 1\]"),
        (np.full((1, 4, 4, 1), np.nan), "Planes must be finite: fill them.*from nan to nan"),
    ],
)
def test_planes_that_are_refused(planes_signatures, planes, message):
    serve = planes_signatures[1]["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        serve(tf.constant(planes, tf.float32))


@pytest.mark.slow
def test_no_files_of_no_strengths_give_none(signatures):
    serve = signatures["encoded_with_strength"]
    none = tf.constant([], tf.float32)
    results = serve(image_bytes=tf.constant([], tf.string), strength=none, color_strength=none)
    assert results["denoised_bytes"].shape == (0,)


@pytest.mark.parametrize(
    ("luma", "color", "words"),
    [
        ([1.5], [1], r"strength must be \[N\], a number from 0 to 1 for each picture.* \[1.5\]"),
        ([np.nan], [1], r"strength must be \[N\], .*Received: \[nan\]"),
        ([1], [-0.5], r"color_strength must be \[N\], .*Received: \[-0.5\]"),
        ([1, 1], [1], r"strength must be \[N\], .*Received: \[1 1\]"),
        ([], [1], r"strength must be \[N\], .*Received: \[\]"),
    ],
)
@pytest.mark.parametrize("name", ["serving_default", "uint8", "encoded"])
def test_strengths_that_are_none_are_refused(signatures, name, luma, color, words):
    pictures = np.zeros((1, 4, 4, 3), DTYPES.get(name, np.uint8))
    if name == "encoded":
        pictures = [imagecodecs.png_encode(pictures[0])]
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        _serve(signatures, name, pictures, luma, color)


def test_an_export_of_less_strength_has_it_where_none_is_asked_for(denoiser, random):
    weaker = Denoiser(denoiser.recipe, denoiser.network, DenoiseOptions(tile=24, strength=0.4))
    signatures = ServedDenoiser(weaker).functions
    pictures = random.integers(0, 255, (2, 30, 40, 3), np.uint8)
    result = signatures["uint8"](tf.constant(pictures))["denoised"].numpy()
    expected = np.stack([weaker(picture) for picture in pictures])
    assert np.abs(result.astype(int) - expected).max() <= 1
    full = tf.ones(2)
    serve = signatures["uint8_with_strength"]
    result = serve(tf.constant(pictures), full, full)["denoised"].numpy()
    expected = np.stack([denoiser(picture) for picture in pictures])
    assert np.abs(result.astype(int) - expected).max() <= 1


"""Files that nobody should send: each is denoised or refused in words.

The number of cases is `CBSN_FUZZ_CASES`, the seed `CBSN_FUZZ_SEED`.
"""


FEW, MANY = 60, 3000


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_damaged_file_is_denoised_or_refused(saved_model, number):
    number = int(os.environ.get("CBSN_FUZZ_CASES", number))
    seed = int(os.environ.get("CBSN_FUZZ_SEED", "0"))
    loaded = tf.saved_model.load(str(saved_model))
    denoise = loaded.signatures["encoded"]
    counts = collections.Counter()
    for case in range(number):
        file = _file(random.Random(f"{seed} {case}"))
        try:
            [result] = denoise(image_bytes=tf.constant([file]))["denoised_bytes"].numpy()
        except tf.errors.InvalidArgumentError as error:
            assert error.message, (seed, case)
            counts["refused"] += 1
        else:
            assert Image.open(io.BytesIO(result)).format == "PNG", (seed, case)
            counts["denoised"] += 1
    print(counts)
    # So it is not all refused at the door.
    assert min(counts["denoised"], counts["refused"]) > number / 10


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
