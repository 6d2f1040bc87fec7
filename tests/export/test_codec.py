"""Files that nobody should send: each is denoised or refused in words.

The number of cases is `CBSN_FUZZ_CASES`, the seed `CBSN_FUZZ_SEED`.
"""

import collections
import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

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
