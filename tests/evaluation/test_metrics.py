import numpy as np
import pytest

from cbsn.evaluation.metrics import psnr


def test_psnr_golden(golden):
    data = np.load(golden("common/psnr.npz"))
    clean, noisy = (np.rint(data[key] * 255).astype("uint8") for key in ("ref", "inside"))
    mean = np.mean([psnr(c, n) for c, n in zip(clean, noisy, strict=True)])
    assert mean == pytest.approx(float(data["psnr_inside"]), abs=1e-9)


def test_the_range_is_that_of_the_dtype():
    for dtype, one in (("uint8", 255), ("uint16", 65535), ("float32", 1.0)):
        clean = np.zeros((4, 4, 3), dtype)
        noisy = clean.copy()
        noisy[0, 0, 0] = one
        assert psnr(clean, noisy) == pytest.approx(10 * np.log10(48))


def test_equal_pictures_are_infinitely_close():
    assert psnr(np.ones((2, 2, 3), "uint8"), np.ones((2, 2, 3), "uint8")) == np.inf


def test_only_equals_are_compared():
    with pytest.raises(ValueError, match="uint16"):
        psnr(np.ones((2, 2, 3), "uint8"), np.ones((2, 2, 3), "uint16"))
