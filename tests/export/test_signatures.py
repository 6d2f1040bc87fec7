import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cbsn.data.image_io import read_picture


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


def _bomb(width, height):
    """A small PNG file that claims any size."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + content


def test_names_shapes_and_types(signatures):
    for name, dtype in (("serving_default", tf.float32), ("uint8", tf.uint8)):
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


def test_files_are_denoised_as_by_infer(signatures, denoiser, random, tmp_path):
    pixels = random.integers(0, 255, (41, 32, 4), np.uint8)
    deep = random.integers(0, 65535, (12, 30, 3), np.uint16)
    image = Image.fromarray(pixels[..., :3])
    files = {
        "RGB": _encoded(pixels[..., :3]),
        "RGBA": _encoded(pixels),
        "gray": _encoded(pixels[..., 0]),
        "gray and alpha": imagecodecs.png_encode(pixels[..., :2].copy()),
        "16 bits": imagecodecs.png_encode(deep),
        "16 bits, gray": imagecodecs.png_encode(deep[..., 0].copy()),
        "palette": _encoded(image.quantize()),
        "palette with a transparent colour": _encoded(image.quantize(), transparency=3),
        "1 bit": _encoded(image.convert("1")),
        "JPEG": _jpeg(random),
        "JPEG, progressive": _jpeg(random, progressive=True, quality=60),
    }
    results = signatures["encoded"](image_bytes=tf.constant([*files.values()]))
    for (name, data), result in zip(files.items(), results["denoised_bytes"].numpy(), strict=True):
        path = tmp_path / "picture"
        path.write_bytes(data)
        expected = denoiser(read_picture(path).pixels)
        path.write_bytes(result)
        found = read_picture(path).pixels
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        assert np.abs(found.astype(int) - expected).max() <= 1, name


def test_no_files_give_none(signatures):
    results = signatures["encoded"](image_bytes=tf.constant([], tf.string))
    assert results["denoised_bytes"].shape == (0,)


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
        _bomb(30000, 30000): "at most 100000 pixels; .*Received: 30000 x 30000",
        _bomb(2**31 - 1, 2**31 - 1): "at most 100000 pixels",
        _bomb(2**32 - 1, 2): "at most 100000 pixels; .*Received: 4294967295 x 2",
        _bomb(0, 5): "at least one pixel. Received: 0 x 5",
    }
    serve = signatures["encoded"]
    for data, message in cases.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            serve(image_bytes=tf.constant([png, data]))
        assert serve(image_bytes=tf.constant([png]))["denoised_bytes"].shape == (1,)
