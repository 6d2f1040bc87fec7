import numpy as np
import pytest

from cbsn.evaluation.report.html import HEAT, error_maps, residual_maps
from cbsn.evaluation.report.pictures import ReportPicture


def _picture(noisy, clean, **denoised):
    return ReportPicture("", noisy, denoised, clean, {})


def _color(image, x, y):
    return "#{:02x}{:02x}{:02x}".format(*image.convert("RGB").getpixel((x, y)))


def test_errors_of_all_methods_have_one_scale():
    clean = np.full((10, 10, 3), 100, "uint8")
    near, far = clean + 10, clean.copy()
    far[:, 5:] += 50
    peak, maps = error_maps(_picture(clean, clean, near=near, far=far))
    assert peak == 50
    assert _color(maps["far"], 0, 0) == HEAT[0]
    assert _color(maps["far"], 9, 9) == HEAT[-1]
    # 10 of 50 is the second of the six colours, as far as the levels are as fine.
    color = np.array(maps["near"].convert("RGB").getpixel((0, 0)))
    assert np.abs(color - [0x3B, 0x0F, 0x70]).max() <= 4


@pytest.mark.parametrize(("error", "peak"), [(0, 5), (6, 10), (51, 75), (220, 255)])
def test_the_scale_fits_the_errors(error, peak):
    clean = np.zeros((8, 8, 1), "uint8")
    assert error_maps(_picture(clean, clean, m=clean + np.uint8(error)))[0] == peak


def test_errors_of_16_bits_are_in_levels_of_255():
    clean = np.zeros((8, 8, 1), "uint16")
    assert error_maps(_picture(clean, clean, m=clean + np.uint16(15 * 257)))[0] == 15


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_residuals_lie_around_middle_gray(dtype, channels):
    one = 255 if dtype == "uint8" else 1
    noisy = np.full((8, 8, channels), 0.4 * one).astype(dtype)
    denoised = noisy.copy()
    denoised[:4] = 0.5 * one
    gain, maps = residual_maps(_picture(noisy, None, m=denoised))
    assert gain == 4
    pixels = np.asarray(maps["m"].convert("RGB")).astype(int)
    assert np.abs(pixels[4:] - 128).max() <= 1
    assert np.abs(pixels[:4] - (128 - 4 * 25.5)).max() <= 5
