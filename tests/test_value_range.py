"""Which values are black and white, mostly of pictures in files."""

import warnings

import numpy as np
import pytest
import tifffile

from cbsn.errors import CbsnWarning, ImageError
from cbsn.images.image_files import Picture, read_picture, write_picture
from cbsn.value_range import ValueRange, from_unit, to_levels, to_unit, value_range


@pytest.fixture
def read(tmp_path):
    """Writes values as a TIFF file; returns what is read of it."""

    def read(values, white=None, **options):
        tifffile.imwrite(tmp_path / "in.tif", values, metadata=None, **options)
        return read_picture(tmp_path / "in.tif", white=white)

    return read


def test_white_of_a_dtype():
    assert [value_range(t) for t in ("uint8", "uint16", "float32")] == [255, 65535, 1]
    with pytest.raises(TypeError, match="int32"):
        value_range("int32")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_units_and_back(random, dtype):
    white = value_range(dtype)
    picture = (random.random((5, 6, 3)) * white).astype(dtype)
    unit = to_unit(picture)
    assert unit.dtype == to_levels(picture).dtype == np.float32
    np.testing.assert_allclose(unit, picture / white, rtol=1e-6)
    np.testing.assert_allclose(to_levels(picture), picture / white * 255, rtol=1e-6)
    np.testing.assert_array_equal(from_unit(unit, dtype), picture)
    assert to_unit(picture, np.float64).dtype == np.float64
    assert from_unit(np.array([-1.0, 2.0]), dtype).tolist() == [0, white]


@pytest.mark.parametrize("white", [3, 1023, 4095, 65535])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_values_of_fewer_bits_are_stretched_and_come_back(tmp_path, random, white, suffix):
    values = random.integers(0, white + 1, (16, 20, 4)).astype(np.uint16)
    values[0, 0, :3] = white
    values[..., 3] = 65535
    write_picture(tmp_path / f"in{suffix}", Picture(values, "TIFF"))
    picture = read_picture(tmp_path / f"in{suffix}")
    assert picture.color.max() == 65535
    assert (picture.alpha == 65535).all()
    assert (picture.value_range is None) == (white == 65535)
    write_picture(tmp_path / f"out{suffix}", picture)
    assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"in{suffix}").read_bytes()
    # 8 bits are those of the range.
    write_picture(tmp_path / "out.bmp", picture)
    expected = np.rint(values[..., :3] / white * 255)
    found = read_picture(tmp_path / "out.bmp").pixels
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("bits", range(2, 17, 2))
def test_integers_come_back_as_they_were(bits):
    white = 2**bits - 1
    values = np.arange(white + 1, dtype=np.uint16).reshape(-1, 1, 1)
    found = ValueRange.of(values)
    assert found.white == white
    pixels = values.copy()
    found.stretch(pixels)
    assert (pixels[0], pixels[-1]) == (0, 65535)
    found.stretch(pixels, undo=True)
    np.testing.assert_array_equal(pixels, values)


@pytest.mark.parametrize(("low", "high"), [(0, 300), (-20, 300), (0, 1 / 64), (0, 1e30), (5, 9)])
def test_floats_of_any_range_are_stretched_and_come_back(tmp_path, random, read, low, high):
    values = (low + (high - low) * random.random((16, 20, 3))).astype(np.float32)
    picture = read(values, photometric="rgb")
    assert picture.pixels.min() >= 0 and picture.pixels.max() == 1
    write_picture(tmp_path / "out.tif", picture)
    found = read_picture(tmp_path / "out.tif", white=max(high, 1.0))
    scale = found.value_range.white if found.value_range else 1.0
    np.testing.assert_allclose(found.pixels * scale, values, atol=2e-7 * max(-low, high))


def test_floats_in_the_unit_range_are_as_they_are(random, read):
    values = random.random((16, 20, 3)).astype(np.float32)
    values[0, 0] = 255 / np.float32(254.9999)  # 1.0000004
    picture = read(values, photometric="rgb")
    assert picture.value_range is None
    np.testing.assert_array_equal(picture.pixels, values)


@pytest.mark.parametrize("code", [281, 341])
def test_a_file_may_say_what_white_is(random, read, code):
    values = random.integers(0, 900, (16, 20)).astype(np.uint16)
    stated = [(code, "H", 1, 4095, True)]
    assert read(values, extratags=stated).value_range.white == 4095
    assert read(values, white=16383, extratags=stated).value_range.white == 16383
    wrong = [(code, "H", 1, 100, True)]
    assert read(values, extratags=wrong).value_range.white == 1023


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_faulty_pixels_are_named_and_white_cuts_them_off(random, read, dtype):
    values = random.integers(0, 4096, (60, 70)).astype(dtype)
    values[3, 4] = 4095
    clean = values.copy()
    values[10, 10] = 65535
    with pytest.warns(CbsnWarning, match=r"1 of 4200 values .*: --white 4095 if they are faulty"):
        read(values)
    with pytest.warns(CbsnWarning, match="1 values are beyond --white 4095, and are cut off"):
        picture = read(values, white=4095)
    whole = 65535 if dtype is np.uint16 else 1
    rest = np.ones(values.shape, bool)
    rest[10, 10] = False
    expected = clean / 4095 * whole
    np.testing.assert_allclose(
        picture.color[rest, 0], expected[rest], atol=0.5 if whole > 1 else 1e-6
    )
    assert picture.color[10, 10, 0] == whole * (1 if whole > 1 else 1.5)


def test_noise_beyond_black_and_white_is_not_cut_off(random, read):
    values = (random.random((60, 70)) * 1.4 - 0.2).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read(values, white=1)
    np.testing.assert_array_equal(picture.color[..., 0], values)


def test_hidden_colours_do_not_decide_the_range(random, read):
    values = random.integers(0, 4096, (16, 20, 4)).astype(np.uint16)
    values[0, 0, :3] = 4095
    values[..., 3] = 65535
    values[8:] = [65535, 65535, 65535, 0]
    picture = read(values, photometric="rgb", extrasamples=["unassalpha"])
    assert picture.value_range.white == 4095


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (-np.inf, "not finite"),
        (-np.finfo(np.float32).max, "without data"),
    ],
)
def test_floats_that_are_no_brightness_are_refused(random, read, value, reason):
    values = random.random((16, 20)).astype(np.float32)
    values[3, 4] = value
    with pytest.raises(ImageError, match=reason):
        read(values)


@pytest.mark.parametrize(("dtype", "nodata"), [(np.float32, -9999), (np.uint16, 65535)])
def test_pixels_without_data_are_refused(random, read, dtype, nodata):
    values = random.integers(1, 900, (16, 20)).astype(dtype)
    values[3, 4] = nodata
    with pytest.raises(ImageError, match="without data"):
        read(values, extratags=[(42113, "s", 0, str(nodata), True)])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_below_the_values_is_refused(random, read, dtype):
    values = random.integers(0, 60000, (16, 20)).astype(dtype)
    with pytest.raises(ImageError, match=r"are out of range\. Received: --white 4095"):
        read(values, white=4095)
