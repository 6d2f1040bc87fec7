import numpy as np
import pytest
from skimage.metrics import structural_similarity

from cbsn.evaluation.conventions import psnr, ssim


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


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_only_finite_values_are_compared(metric, value):
    good = np.zeros((16, 16, 3), "float32")
    bad = good.copy()
    bad[0, 0, 0] = value
    for pair in ((good, bad), (bad, good), (bad, bad)):
        with pytest.raises(ValueError, match="compares finite values"):
            metric(*pair)


@pytest.mark.parametrize(("dtype", "peak"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(random, dtype, peak, channels):
    clean, noisy = (random.random((2, 20, 24, channels)) * peak).astype(dtype)
    planes = [
        structural_similarity(clean[..., c], noisy[..., c], data_range=peak)
        for c in range(channels)
    ]
    assert ssim(clean, noisy) == pytest.approx(np.mean(planes), abs=1e-6)
    assert ssim(clean, clean) == pytest.approx(1)


def test_ssim_compares_only_equals():
    with pytest.raises(ValueError, match=r"SSIM.*uint16"):
        ssim(np.ones((8, 8, 3), "uint8"), np.ones((8, 8, 3), "uint16"))


def test_ssim_needs_room_for_a_window():
    assert ssim(np.ones((7, 7, 1)), np.ones((7, 7, 1))) == 1
    with pytest.raises(ValueError, match=r"at least 7 px.*\(6, 9, 3\)"):
        ssim(np.ones((6, 9, 3)), np.ones((6, 9, 3)))
