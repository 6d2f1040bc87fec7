import numpy as np
import pytest

from cbsn import normalization
from cbsn.inference.options import Strength
from cbsn.inference.pixels import Units
from cbsn.normalization import NORMALIZATIONS, EightBitRange, Standardization
from cbsn.value_range import value_range


def _units(norm, image):
    return Units(*norm.statistics(image), value_range(image.dtype))


def _normalised(norm, image):
    """What a network sees of a picture."""
    output = np.empty(image.shape, "float32")
    _units(norm, image).normalise(image, output)
    return output


def _finished(norm, image, output):
    """The pixels of what a network returned for a picture."""
    return _units(norm, image).finish(output, image, Strength(1.0), "round")


@pytest.mark.parametrize("name", ["p120", "low", "const", "mixed", "p60"])
def test_batch_golden(golden, name):
    data = np.load(golden("common/normalize.npz"))
    result = Standardization().batch(data[name][None])[0]
    tolerance = 2e-4 if name == "low" else 3e-5
    np.testing.assert_allclose(result, data[f"{name}_tf_normalize"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", ["np_in", "np_low"])
def test_statistics_golden(golden, case):
    data = np.load(golden("common/normalize.npz"))
    prefix = "np" if case == "np_in" else "np_low"
    images = data["np_in_f64"] if case == "np_in" else np.stack([data["low"], data["const"]])
    for i, image in enumerate(images.astype("float64")):
        mean, deviation = Standardization().statistics(image)
        np.testing.assert_allclose(mean, data[f"{prefix}_mean_f64"][i, 0, 0], atol=1e-12)
        np.testing.assert_allclose(deviation, data[f"{prefix}_std_f64"][i, 0, 0], atol=1e-12)
        normalised = (image - mean) / deviation
        np.testing.assert_allclose(normalised, data[f"{prefix}_norm_f64"][i], atol=1e-12)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_training_and_inference_agree(random, name):
    image = random.integers(0, 256, (40, 30, 3)).astype("uint8")
    norm = NORMALIZATIONS[name]()
    unit = (image / 255).astype("float32")
    expected = _normalised(norm, image)
    np.testing.assert_allclose(norm.batch(unit[None])[0], expected, atol=1e-5)


def test_eight_bit_values_stay_what_they_are(random):
    image = random.integers(0, 256, (9, 7, 3)).astype("uint8")
    norm = EightBitRange()
    np.testing.assert_array_equal(_normalised(norm, image), image)
    np.testing.assert_array_equal(_finished(norm, image, image.astype("float32")), image)
    deep = image * np.uint16(257)
    np.testing.assert_array_equal(_normalised(norm, deep), image)
    np.testing.assert_array_equal(_finished(norm, deep, image.astype("float32")), deep)


def test_blocks_give_the_statistics_of_the_whole(random, monkeypatch):
    image = random.integers(0, 65536, (101, 37, 3)).astype("uint16")
    monkeypatch.setattr(normalization, "BLOCK_BYTES", 37 * 3 * 8 * 7)
    mean, deviation = Standardization().statistics(image)
    np.testing.assert_allclose(mean, (image / 65535).mean(axis=(0, 1)), rtol=1e-13)
    np.testing.assert_allclose(deviation, (image / 65535).std(axis=(0, 1)), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_have_the_statistics_of_floats(random, dtype):
    """Bright and nearly flat, where a variance is easily lost to rounding."""
    white = np.iinfo(dtype).max
    image = (white - random.integers(0, 3, (50, 41, 3))).astype(dtype)
    found = Standardization().statistics(image)
    for ours, theirs in zip(found, Standardization().statistics(image / white), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_flat_pictures_are_floored_and_come_back():
    norm = Standardization()
    image = np.full((8, 32, 3), 200, "uint8")
    _, deviation = norm.statistics(image)
    np.testing.assert_allclose(deviation, 1 / 16)
    np.testing.assert_array_equal(_finished(norm, image, _normalised(norm, image)), image)
