import dataclasses
import json

import numpy as np
import pytest
import skimage.data

from cbsn.colors import to_linear
from cbsn.errors import ConfigError
from cbsn.noise import synthetic as module
from cbsn.noise.synthetic import (
    NOISES,
    Noise,
    expose,
    neighbour_correlation,
    retake,
    simulate_camera,
)

GRAY = 0.4

CAMERA = Noise("camera", sigma=(5, 5), peak=(300, 300))


@pytest.fixture(scope="module")
def photograph():
    return skimage.data.chelsea()[:120, :120]


@pytest.mark.parametrize(
    ("noise", "variance"),
    [
        (Noise("gaussian", sigma=(25, 25)), (25 / 255) ** 2),
        (Noise("poisson", peak=(30, 30)), GRAY / 30),
        (
            Noise("poisson-gaussian", sigma=(10, 10), peak=(30, 30)),
            GRAY / 30 + (10 / 255) ** 2,
        ),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_variance(noise, variance, channels, random):
    flat = np.full((300, 300, channels), GRAY, "float32")
    noisy = noise(flat, random)
    assert noisy.dtype == np.float32
    assert noisy.shape == flat.shape
    assert noisy.mean() == pytest.approx(GRAY, abs=5 * (variance / noisy.size) ** 0.5)
    assert noisy.var() == pytest.approx(variance, rel=0.03)
    np.testing.assert_allclose(neighbour_correlation(noisy - flat, 3), 0, atol=0.02)


@pytest.mark.parametrize("value", [0, 1])
def test_not_clipped(value, random):
    noisy = Noise.parse("gaussian", None, None)(np.full((50, 50, 1), value, "float32"), random)
    assert noisy.min() < value < noisy.max()
    assert np.median(noisy) == pytest.approx(value, abs=0.01)


def test_below_black_there_is_no_light(random):
    dark = np.full((4, 4, 3), -0.01, "float32")
    assert not Noise.parse("poisson", None, None)(dark, random).any()
    assert np.isfinite(Noise.parse("camera", None, None)(dark, random)).all()


def test_camera_is_the_simulated_one(photograph, random):
    """The defaults are those of `simulate_camera`; the settings are drawn before the noise."""
    noise = Noise.parse("camera", None, None)
    clean = noise.clean(photograph)
    assert clean.dtype == np.float32
    np.testing.assert_array_equal(np.rint(clean * 255), simulate_camera(photograph, shot=0, read=0))
    noisy = noise(photograph, random)
    assert noisy.dtype == np.float32
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    deviation = np.std(simulate_camera(photograph) / 255 - clean)
    assert np.std(noisy - clean) == pytest.approx(deviation, rel=0.02)
    assert 0.3 < neighbour_correlation(noisy - clean)[0] < 0.7


def test_camera_needs_colour(random):
    noise = Noise.parse("camera", None, None)
    gray = np.zeros((4, 4, 1), "uint8")
    for use in (noise.clean, lambda image: noise(image, random)):
        with pytest.raises(ConfigError, match="Received: 1 channels"):
            use(gray)


@pytest.mark.parametrize("kind", NOISES)
def test_dtypes_agree(kind, photograph):
    noise = Noise.parse(kind, None, None)
    pictures = (
        photograph,
        photograph.astype("uint16") * 257,
        (photograph / 255).astype("float32"),
        photograph / 255,
    )
    expected = noise(photograph, np.random.default_rng(0))
    for picture in pictures:
        np.testing.assert_array_equal(noise(picture, np.random.default_rng(0)), expected)
        np.testing.assert_array_equal(noise.clean(picture), noise.clean(photograph))
    if kind != "camera":
        np.testing.assert_array_equal(noise.clean(photograph), pictures[2])


@pytest.mark.parametrize("kind", NOISES)
def test_seeded(kind, photograph):
    noise = Noise.parse(kind, None, None)
    a, b, c = (noise(photograph, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).mean() > 0.5


def test_settings_are_drawn_for_each_picture(random):
    flat = np.full((64, 64, 3), 0.5, "float32")
    sigmas = [255 * Noise("gaussian", (5, 50))(flat, random).std() for _ in range(100)]
    assert 4.8 < min(sigmas) < 10
    assert 45 < max(sigmas) < 52
    assert np.mean(sigmas) == pytest.approx(27.5, abs=5)  # four standard errors
    peaks = [0.5 / Noise("poisson", None, (10, 100))(flat, random).var() for _ in range(100)]
    assert 9.5 < min(peaks) < 20
    assert 90 < max(peaks) < 106
    assert np.mean(np.log(peaks)) == pytest.approx(np.log(10 * 100) / 2, abs=0.2)


@pytest.mark.parametrize("kind", NOISES)
def test_fixed_is_of_seed_and_name_alone(kind, photograph):
    noise = Noise.parse(kind, None, None)
    names = ("a.png", "b.png", "c.png")
    forwards = {name: noise.fixed(photograph, 7, name) for name in names}
    for name in names[::-1]:
        np.testing.assert_array_equal(noise.fixed(photograph, 7, name), forwards[name])
    for other in (forwards["b.png"], noise.fixed(photograph, 8, "a.png")):
        assert (other != forwards["a.png"]).mean() > 0.5


@pytest.mark.parametrize(
    ("flags", "expected", "shown"),
    [
        ((None, "25", None), Noise("gaussian", (25, 25)), "gaussian noise, σ 25"),
        ((None, "2.5-7.5", None), Noise("gaussian", (2.5, 7.5)), "gaussian noise, σ 2.5-7.5"),
        ((None, None, "10-100"), Noise("poisson", None, (10, 100)), "poisson noise, peak 10-100"),
        (
            (None, "0", "30"),
            Noise("poisson-gaussian", (0, 0), (30, 30)),
            "poisson-gaussian noise, peak 30, σ 0",
        ),
        (("gaussian", None, None), Noise("gaussian", (25, 25)), "gaussian noise, σ 25"),
        (("poisson", None, None), Noise("poisson", None, (30, 30)), "poisson noise, peak 30"),
        (
            ("poisson-gaussian", None, None),
            Noise("poisson-gaussian", (5, 5), (30, 30)),
            "poisson-gaussian noise, peak 30, σ 5",
        ),
        (
            ("poisson-gaussian", None, "4"),
            Noise("poisson-gaussian", (5, 5), (4, 4)),
            "poisson-gaussian noise, peak 4, σ 5",
        ),
        (
            ("camera", None, None),
            Noise("camera", (5.1, 5.1), (100, 100)),
            "camera noise, peak 100, σ 5.1",
        ),
        (
            ("camera", "1-3", None),
            Noise("camera", (1, 3), (100, 100)),
            "camera noise, peak 100, σ 1-3",
        ),
    ],
)
def test_parse(flags, expected, shown):
    noise = Noise.parse(*flags)
    assert noise == expected
    assert str(noise) == shown
    assert json.loads(json.dumps(dataclasses.asdict(noise)))["kind"] == noise.kind


def test_parse_of_nothing_is_no_noise():
    assert Noise.parse(None, None, None) is None


@pytest.mark.parametrize(
    "text", ["", "strong", "-5", "50-5", "5-", "5--9", "5-10-20", "nan", "inf", "1-inf", "1e10"]
)
@pytest.mark.parametrize("flag", ["sigma", "peak"])
def test_settings_that_are_no_range(flag, text):
    flags = {"kind": None, "sigma": None, "peak": None, flag: text}
    with pytest.raises(ConfigError, match=f"such as .* Received: --noise_{flag} {text}$"):
        Noise.parse(**flags)


@pytest.mark.parametrize("text", ["0", "0-30"])
def test_a_peak_of_no_photons(text):
    with pytest.raises(ConfigError, match=f"above 0.* Received: --noise_peak {text}$"):
        Noise.parse("poisson", None, text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("gaussian", None, "30"), "--noise gaussian .* Received: --noise_peak 30$"),
        (("poisson", "25", None), "--noise poisson .* Received: --noise_sigma 25$"),
        (("snow", None, None), "gaussian, poisson, poisson-gaussian, camera. Received: .* snow$"),
    ],
)
def test_flags_that_do_not_go_together(flags, message):
    with pytest.raises(ConfigError, match=message):
        Noise.parse(*flags)


def _many(noise, picture, size=32, count=60):
    """Pictures and their clean sides, retaken with different seeds."""
    made = [retake(picture, size, noise, np.random.default_rng(seed)) for seed in range(count)]
    return [np.split(pair, 2, axis=-1) for pair in made]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_retaking_makes_pairs(dtype):
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    picture = (skimage.data.astronaut()[:256, :256] / 255 * full).astype(dtype)
    for noisy, clean in _many(CAMERA, picture, count=20):
        for each in (noisy, clean):
            assert each.shape == (32, 32, 3) and each.dtype == np.float32
            assert each.min() > -0.1 and each.max() < 1.1
        assert 0.005 < np.abs(noisy - clean).mean() < 0.2


def test_retaking_of_gray_pictures_and_those_no_larger_than_the_result(random):
    picture = random.integers(0, 256, (32, 32, 1)).astype("uint8")
    for noisy, _ in _many(Noise("gaussian", sigma=(10, 10)), picture):
        assert noisy.shape == (32, 32, 1)


def test_retaking_is_seeded():
    picture = skimage.data.astronaut()[:256, :256]
    first, second, other = (
        retake(picture, 32, CAMERA, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_retaken_pictures_become_sharp(monkeypatch):
    """Of a slope of one level a pixel 2, 3 and 4 are left."""
    monkeypatch.setattr(module, "_OTHER_LIGHT", 0)
    slope = np.arange(256, dtype="uint8")[:, None, None] * np.ones((1, 256, 3), "uint8")
    for size, expected in ((32, [2, 3, 4]), (100, [2]), (200, [1])):
        steps = set()
        for _, clean in _many(Noise("gaussian", sigma=(0, 0)), slope, size):
            steps.add(round(255 * max(np.abs(np.diff(clean, axis=a)).mean() for a in (0, 1)), 3))
        assert sorted(steps) == expected


def test_some_are_retaken_in_another_light():
    picture = np.full((64, 64, 3), 200, np.uint8)
    cleans = _many(Noise("gaussian", sigma=(0, 0)), picture)
    colors = np.array([clean.mean(axis=(0, 1)) for _, clean in cleans]) / (200 / 255)
    as_it_was = np.isclose(colors, 1, atol=1e-3).all(axis=1)
    assert 0.25 < as_it_was.mean() < 0.75
    others = colors[~as_it_was]
    assert 0.3 * 0.6 < others.min() < 0.4 and 0.8 < others.max() < 1
    tints = others.max(axis=1) / others.min(axis=1)
    assert 1.3 < tints.max() < 1 / 0.6


def test_correlation_of_known_noise(random):
    white = random.normal(size=(200, 200, 1))
    np.testing.assert_allclose(neighbour_correlation(white, 3), 0, atol=0.02)
    smooth = white[:, 1:] + white[:, :-1]
    np.testing.assert_allclose(neighbour_correlation(smooth, 3), [0.5, 0, 0], atol=0.02)


@pytest.fixture(scope="module")
def chelsea():
    return skimage.data.chelsea()


@pytest.fixture(scope="module")
def clean(chelsea):
    return simulate_camera(chelsea, shot=0, read=0)


def test_without_noise_the_picture_is_nearly_kept(chelsea, clean):
    difference = clean.astype(float) - chelsea
    assert np.abs(difference.mean()) < 0.5
    assert difference.std() < 8


def test_flat_pictures_come_through_exactly():
    for value in (0, 1, 90, 200, 255):
        flat = np.full((7, 10, 3), value, "uint8")
        np.testing.assert_array_equal(simulate_camera(flat, shot=0, read=0), flat)


def test_noise_is_correlated_like_a_photographs(chelsea, clean):
    noise = simulate_camera(chelsea).astype(float) - clean
    correlation = neighbour_correlation(noise)
    assert 0.3 < correlation[0] < 0.7
    assert np.all(np.abs(correlation[2:]) < 0.1)
    assert np.all(np.abs(noise.mean(axis=(0, 1))) < 3)  # the sRGB curve bends


def test_noise_has_the_variance_asked_for():
    """On linear values: Poisson-Gaussian, a·x + b²."""
    gray = np.full((400, 400, 3), 150, "uint8")
    x = to_linear(150 / 255)
    result = to_linear(simulate_camera(gray, shot=0.002, read=0.01) / 255)
    # Where green was measured its variance is that of the sensor, and its gain is 1.
    measured = result[0::2, 1::2, 1]
    assert measured.var() == pytest.approx(0.002 * x + 0.01**2, rel=0.05)
    assert measured.mean() == pytest.approx(x, rel=0.01)


def test_the_camera_is_seeded(chelsea):
    a, b, c = (simulate_camera(chelsea[:40, :40], seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).mean() > 0.5


def test_simulate_camera_is_expose_rounded(chelsea, random):
    exposed = expose(chelsea[:40, :40] / 255, shot=0.01, read=0.02, random=random)
    assert exposed.min() >= 0
    assert exposed.max() <= 1
    np.testing.assert_array_equal(np.rint(exposed * 255), simulate_camera(chelsea[:40, :40]))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 4), "uint8"), ((4, 4, 3), "float32"), ((1, 4, 3), "uint8")]
)
def test_what_no_camera_takes_is_refused(shape, dtype):
    with pytest.raises(ValueError, match="Received"):
        simulate_camera(np.zeros(shape, dtype))


def test_expose_takes_float_pictures_alone(chelsea):
    with pytest.raises(ValueError, match="Received: uint8"):
        expose(chelsea, shot=0, read=0, random=None)


@pytest.mark.parametrize("bad", [{"shot": -1}, {"read": -1}])
def test_noise_of_a_camera_is_not_negative(bad):
    with pytest.raises(ValueError, match="must be 0 or above"):
        simulate_camera(np.zeros((4, 4, 3), "uint8"), **bad)
