"""How much memory large pictures take: little besides the pixels, for TIFF."""

import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.devices import peak_memory, reset_peak_memory
from cbsn.images.image_files import read_picture, write_picture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts the peak anew")


@pytest.fixture
def peak_by_pixels(tmp_path):
    """Reads and writes a file; returns the growth of the memory, by the size of the pixels."""

    def measure(suffix):
        reset_peak_memory()
        start = peak_memory()
        picture = read_picture(tmp_path / f"in{suffix}")
        write_picture(tmp_path / f"out{suffix}", picture)
        return (peak_memory() - start) * 2**30 / picture.pixels.nbytes

    return measure


@pytest.fixture(scope="module")
def large():
    """20 megapixels that are quickly compressed, and use the range of their dtype."""
    sides = (np.arange(side, dtype=np.uint16) for side in (4000, 5000))
    rows = np.add.outer(*sides) // 35
    return np.repeat(rows[..., None].astype(np.uint8), 3, axis=-1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw", "predictor": True, "tile": (256, 256)},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 4000},
    ],
    ids=["plain", "big-endian", "strips", "tiles", "one strip"],
)
def test_a_tiff_is_in_memory_once(tmp_path, peak_by_pixels, large, options):
    pixels = large[:2000].astype(np.uint16) * 256 if options.get("byteorder") else large
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", **options)
    del pixels
    assert peak_by_pixels(".tif") < 1.5


def test_the_planes_of_a_tiff_are_put_together_one_by_one(tmp_path, peak_by_pixels, large):
    planes = np.ascontiguousarray(np.moveaxis(large, -1, 0))
    options = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "in.tif", planes, **options)
    del planes
    assert peak_by_pixels(".tif") < 1.9


def test_pillow_keeps_one_copy(tmp_path, peak_by_pixels, large):
    Image.fromarray(large).save(tmp_path / "in.jpg")
    assert peak_by_pixels(".jpg") < 1 + 4 / 3 + 0.5
