import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cbsn.errors import ConfigError
from cbsn.evaluation.conventions import Conventions, psnr, ssim

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture
def pair(random):
    """A clean picture and a denoised one in floats, beyond the range here and there."""
    clean = random.integers(0, 256, (40, 52, 3)).astype("uint8")
    return clean, clean / 255 + random.normal(scale=0.1, size=clean.shape)


@pytest.mark.parametrize(
    ("rounding", "name"), [("round", "addcon0.5_floor"), ("none", "addcon0_nofloor")]
)
def test_ap_bsn_golden(golden, rounding, name):
    data = np.load(golden("submission_and_metric/metric.npz"))
    conventions = Conventions(rounding=rounding)
    for key, denoised in (
        ("uint8pair", data["noisy"]),
        ("float", data["denoised_float"] / np.float64(255)),
    ):
        got = conventions.psnr_and_ssim(data["clean"], denoised)
        expected = [float(data[f"{key}_{name}_{metric}"]) for metric in ("psnr", "ssim")]
        assert got == pytest.approx(expected, abs=1e-6)


def test_roundings_differ(pair):
    clean, denoised = pair
    levels = np.clip(denoised * 255, 0, 255)
    for rounding, rounded in (
        ("round", np.rint(levels)),
        ("floor", np.floor(levels)),
        ("none", levels),
    ):
        np.testing.assert_array_equal(Conventions(rounding).levels(denoised, clean.dtype), rounded)
        psnr, _ = Conventions(rounding).psnr_and_ssim(clean, denoised)
        expected = peak_signal_noise_ratio(clean.astype(float), rounded, data_range=255)
        assert psnr == pytest.approx(expected, abs=1e-9)


def test_integers_are_taken_as_they_are(pair):
    clean, _ = pair
    for rounding in ("round", "floor", "none"):
        for dtype, picture in (("uint8", clean), ("uint16", clean * np.uint16(257))):
            levels = Conventions(rounding).levels(picture, np.dtype(dtype))
            np.testing.assert_array_equal(levels, picture)


def test_floats_are_rounded_to_8_bits(pair):
    clean, denoised = pair
    unit = (clean / 255).astype("float32")
    psnr, ssim = Conventions().psnr_and_ssim(unit, denoised)
    assert (psnr, ssim) == pytest.approx(Conventions().psnr_and_ssim(clean, denoised), rel=1e-6)
    assert Conventions("none").psnr_and_ssim(unit, denoised)[0] != psnr


def test_clipping(pair):
    clean, denoised = pair
    clipped, _ = Conventions().psnr_and_ssim(clean, denoised)
    free, _ = Conventions(clip=False).psnr_and_ssim(clean, denoised)
    assert free == pytest.approx(
        peak_signal_noise_ratio(clean.astype(float), np.rint(denoised * 255), data_range=255)
    )
    assert clipped > free + 0.05


def test_data_range(pair):
    clean, denoised = pair
    clean = clean // 2 + 30
    base, _ = Conventions().psnr_and_ssim(clean, denoised)
    for text, peak in (("clean", np.ptp(clean)), ("100", 100.0)):
        psnr, ssim = Conventions(data_range=text).psnr_and_ssim(clean, denoised)
        assert psnr == pytest.approx(base + 20 * np.log10(peak / 255))
        levels = Conventions().levels(denoised, clean.dtype)
        expected = structural_similarity(
            clean.astype(float), levels, data_range=peak, channel_axis=-1
        )
        assert ssim == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="flat"):
        Conventions(data_range="clean").psnr_and_ssim(np.full_like(clean, 3), denoised)


def test_luma(pair):
    clean, denoised = pair
    denoised = np.rint(np.clip(denoised, 0, 1) * 255).astype("uint8")
    y = [rgb2ycbcr(picture)[..., 0] for picture in (clean, denoised)]
    psnr, ssim = Conventions(color="luma").psnr_and_ssim(clean, denoised)
    assert psnr == pytest.approx(peak_signal_noise_ratio(*y, data_range=255), abs=1e-9)
    assert ssim == pytest.approx(structural_similarity(*y, data_range=255), abs=1e-9)
    white = np.full((8, 8, 3), 65535, "uint16")
    assert Conventions(color="luma").psnr_and_ssim(white, white - white)[0] == pytest.approx(
        -20 * np.log10(219 / 255)
    )
    gray = clean[..., :1], denoised[..., :1]
    assert Conventions(color="luma").psnr_and_ssim(*gray) == Conventions().psnr_and_ssim(*gray)


def test_gaussian_ssim(pair):
    clean, denoised = pair
    levels = Conventions().levels(denoised, clean.dtype)
    expected = structural_similarity(
        clean.astype(float), levels, data_range=255, channel_axis=-1, **GAUSSIAN
    )
    for flavour in ("gaussian", "matlab"):  # too small to be made smaller
        _, ssim = Conventions(ssim=flavour).psnr_and_ssim(clean, denoised)
        assert ssim == pytest.approx(expected, abs=1e-12)


def test_gaussian_ssim_by_its_formula(pair):
    """Equation 13 of Wang et al. (2004), window by window."""
    clean, denoised = (Conventions().levels(x, np.dtype("uint8"))[:13, :12] for x in pair)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    values = []
    for top, left, c in np.ndindex(3, 2, 3):
        x, y = (p[top : top + 11, left : left + 11, c] for p in (clean, denoised))
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        covariance = (window * (x - mx) * (y - my)).sum()
        c1, c2 = 2.55**2, 7.65**2
        values.append(
            (2 * mx * my + c1) * (2 * covariance + c2) / (mx**2 + my**2 + c1) / (vx + vy + c2)
        )
    _, ssim = Conventions(ssim="gaussian").psnr_and_ssim(
        clean.astype("uint8"), denoised.astype("uint8")
    )
    assert ssim == pytest.approx(np.mean(values), abs=1e-9)


@pytest.mark.parametrize(("height", "factor"), [(383, 1), (384, 2), (768, 3), (900, 4)])
def test_matlab_ssim_makes_large_pictures_smaller(random, height, factor):
    clean, denoised = random.integers(0, 256, (2, height, 905, 1)).astype("uint8")
    _, ssim = Conventions(ssim="matlab").psnr_and_ssim(clean, denoised)
    # As `imfilter(…, ones(f)/f², 'symmetric')` does it: the window's middle is at ⌊(f + 1)/2⌋.
    before, after = (factor - 1) // 2, factor // 2
    smaller = []
    for picture in (clean, denoised):
        padded = np.pad(picture[..., 0].astype(float), ((before, after),) * 2, "symmetric")
        rows = sum(padded[i : i + height] for i in range(factor))
        averaged = sum(rows[:, i : i + 905] for i in range(factor)) / factor**2
        smaller.append(averaged[::factor, ::factor])
    expected = structural_similarity(*smaller, data_range=255, **GAUSSIAN)
    assert ssim == pytest.approx(expected, abs=1e-9)


def test_border(pair):
    clean, denoised = pair
    cut = Conventions(border=5)
    assert cut.psnr_and_ssim(clean, denoised) == Conventions().psnr_and_ssim(
        clean[5:-5, 5:-5], denoised[5:-5, 5:-5]
    )
    with pytest.raises(ConfigError, match=r"--border 20 leaves nothing.*use a smaller one"):
        Conventions(border=20).psnr_and_ssim(clean, denoised)


def test_what_is_compared(pair):
    clean, denoised = pair
    reference, result = Conventions(border=4).compared(clean, denoised)
    assert reference.dtype == result.dtype == np.float64
    np.testing.assert_array_equal(reference, clean[4:-4, 4:-4])
    expected = np.clip(np.rint(denoised * 255), 0, 255)[4:-4, 4:-4]
    np.testing.assert_array_equal(result, expected)
    luma, _ = Conventions(color="luma").compared(clean, denoised)
    np.testing.assert_allclose(luma[..., 0], rgb2ycbcr(clean)[..., 0])
    assert Conventions().peak(reference, 255.0) == 255
    assert Conventions(data_range="100").peak(reference, 255.0) == 100
    assert Conventions(data_range="clean").peak(reference[..., :1] / 2, 255.0) <= 127.5


def test_depths_are_not_mixed(pair):
    clean, denoised = pair
    with pytest.raises(ValueError, match=r"uint16.*uint8"):
        Conventions().psnr_and_ssim(clean, clean.astype("uint16"))
    with pytest.raises(ValueError, match="same shape"):
        Conventions().psnr_and_ssim(clean, denoised[1:])


@pytest.mark.parametrize(
    "settings",
    [
        {"rounding": "up"},
        {"color": "hsv"},
        {"ssim": "wang"},
        {"border": -1},
        {"data_range": "0"},
        {"data_range": "nan"},
        {"data_range": "max"},
    ],
)
def test_refuses(settings):
    ((field, value),) = settings.items()
    with pytest.raises(ConfigError, match=f"Received: --{field} {value}"):
        Conventions(**settings)


def test_says_what_it_does():
    assert str(Conventions(clip=False, border=3)) == (
        "rounding round, not clipped, data range dtype, rgb, SSIM uniform, 3 px cut off"
    )


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_only_finite_values_are_compared(value):
    good = np.zeros((16, 16, 3), "float32")
    bad = good.copy()
    bad[0, 0, 0] = value
    for pair in ((good, bad), (bad, good), (bad, bad)):
        with pytest.raises(ValueError, match="needs finite values"):
            psnr(*pair)


@pytest.mark.parametrize(("dtype", "peak"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(random, dtype, peak, channels):
    clean, noisy = (random.random((2, 20, 24, channels)) * peak).astype(dtype)
    planes = [
        structural_similarity(clean[..., c], noisy[..., c], data_range=peak)
        for c in range(channels)
    ]
    assert ssim(clean, noisy, peak) == pytest.approx(np.mean(planes), abs=1e-6)
    assert ssim(clean, clean, peak) == pytest.approx(1)


def test_ssim_needs_room_for_a_window():
    assert ssim(np.ones((7, 7, 1)), np.ones((7, 7, 1)), 1) == 1
    with pytest.raises(ValueError, match=r"at least 7 px.*\(6, 9, 3\)"):
        ssim(np.ones((6, 9, 3)), np.ones((6, 9, 3)), 1)


def test_ssim_compares_only_equals():
    with pytest.raises(ValueError, match=r"SSIM.*uint16"):
        ssim(np.ones((8, 8, 3), "uint8"), np.ones((8, 8, 3), "uint16"), 255)
    with pytest.raises(ValueError, match="SSIM needs finite values"):
        ssim(np.ones((8, 8, 3)), np.full((8, 8, 3), np.nan), 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [2.0**600, 2.0**-600])
def test_values_whose_squares_float64_does_not_hold(random, factor):
    clean, noisy = random.uniform(0, 100, (2, 24, 24, 1))
    for score in psnr, ssim:
        found = score(clean * factor, noisy * factor, 100 * factor)
        assert found == pytest.approx(score(clean, noisy, 100.0), rel=1e-9)
