"""How much memory large pictures take: little beside the pixels, for TIFF."""

import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# The peak of getrusage would not do: it starts with that of the process that began this one.
MEASURE = """
    import sys
    from cbsn.images.image_files import read_picture, write_picture

    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

    start = peak()
    picture = read_picture("in{suffix}")
    write_picture("out{suffix}", picture)
    print((peak() - start) / picture.pixels.nbytes)
"""


@pytest.fixture
def peak_by_pixels(run_python):
    """Reads and writes a file; returns the growth of the memory, by the size of the pixels."""

    def measure(suffix):
        run = run_python(MEASURE.format(suffix=suffix))
        assert run.returncode == 0, run.stderr
        return float(run.stdout)

    return measure


def large_pixels(dtype=np.uint8):
    """30 megapixels that are quickly compressed, and use the range of their dtype."""
    rows = np.add.outer(np.arange(5000), np.arange(6000)) // 40
    rows *= 1 if dtype == np.uint8 else 200
    return np.repeat(rows[..., None].astype(dtype), 3, axis=-1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw", "predictor": True, "tile": (256, 256)},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 5000},
    ],
    ids=["plain", "big-endian", "strips", "tiles", "one strip"],
)
def test_a_tiff_is_in_memory_once(tmp_path, peak_by_pixels, options):
    dtype = np.uint16 if options.get("byteorder") else np.uint8
    tifffile.imwrite(tmp_path / "in.tif", large_pixels(dtype), photometric="rgb", **options)
    assert peak_by_pixels(".tif") < 1.5


def test_the_planes_of_a_tiff_are_put_together_one_by_one(tmp_path, peak_by_pixels):
    planes = np.ascontiguousarray(np.moveaxis(large_pixels(), -1, 0))
    options = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "in.tif", planes, **options)
    assert peak_by_pixels(".tif") < 1.9


def test_pillow_keeps_one_copy(tmp_path, peak_by_pixels):
    Image.fromarray(large_pixels()).save(tmp_path / "in.jpg")
    assert peak_by_pixels(".jpg") < 1 + 4 / 3 + 0.3
