import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, median_filter
from skimage import data

from cbsn.images.image_files import read_picture
from cbsn.noise.removal import Removal, Sample
from cbsn.noise.synthetic import Noise

PAIRS = Path(__file__).resolve().parents[3] / "shared" / "data"

NOISES = {
    "weak": ("gaussian", "5", None),
    "gaussian": ("gaussian", "25", None),
    "poisson": ("poisson", None, "30"),
    "camera": ("camera", "5.1", "100"),
}


def photograph(name):
    """uint8 [H, W, 1 or 3], at most 400 × 400."""
    picture = getattr(data, name)()
    return np.ascontiguousarray((picture[..., None] if picture.ndim == 2 else picture)[:400, :400])


def blurred(picture, sigma):
    return gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0)).round().astype(np.uint8)


def noisy_and_clean(name, noise):
    kind, picture = Noise.parse(*NOISES[noise]), photograph(name)
    return [
        np.rint(np.clip(each, 0, 1) * 255).astype(np.uint8)
        for each in (kind.fixed(picture, 1, name), kind.clean(picture))
    ]


@pytest.mark.parametrize(
    ("name", "noise"),
    # The photograph "camera" is gray, and camera noise needs colours.
    [
        each
        for each in itertools.product(("chelsea", "coffee", "rocket", "camera", "grass"), NOISES)
        if not (each[0] in ("camera", "grass") and each[1] == "camera")
    ],
)
def test_removing_the_noise_is_not_too_much(name, noise):
    noisy, clean = noisy_and_clean(name, noise)
    removal = Removal.of(noisy, clean)
    assert removal.told and removal.degree == 0
    # Clipped to [0, 255], or where the noise is strong, it need not be all of it.
    assert removal.removed < 1.5 * removal.noise


@pytest.mark.parametrize("sigma", [5, 15, 40])
def test_noise_is_found_as_strong_as_it_is(sigma):
    random = np.random.default_rng(0)
    smooth = np.full((256, 256, 3), 0.5, np.float32)
    noise = random.normal(0, sigma / 255, smooth.shape).astype(np.float32)
    removal = Removal.of(smooth + noise, smooth)
    # Less mean and slope, of 64 values 61 are left; the rest is chance.
    assert removal.removed == pytest.approx(sigma * (61 / 64) ** 0.5, rel=0.01)
    assert removal.noise == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket", "page", "astronaut"])
def test_texture_that_is_gone_is_too_much(name):
    picture = photograph(name)
    for harmed in (blurred(picture, 2), median_filter(picture, (5, 5, 1))):
        removal = Removal.of(picture, harmed)
        assert removal.degree > 0
        assert str(removal).startswith(f"removed {removal.removed:.1f} levels, where the noise is")
    assert Removal.of(picture, picture).degree == 0


def test_texture_among_weak_noise_is_too_much():
    """Half of the picture is smooth, which tells how weak the noise is."""
    random = np.random.default_rng(0)
    clean = np.linspace(60, 190, 256)[:, None, None] * np.ones((1, 256, 1))
    smooth = clean.round().astype(np.uint8)
    clean[:, 128:] += random.normal(0, 15, (256, 128, 1))
    noisy = (clean + random.normal(0, 3, clean.shape)).round().astype(np.uint8)
    removal = Removal.of(noisy, smooth)
    assert removal.degree == 2
    assert removal.noise == pytest.approx(3, rel=0.2)
    assert removal.removed == pytest.approx(np.hypot(15 / 2**0.5, 3), rel=0.1)
    assert Removal.of(noisy, clean.round().astype(np.uint8)).degree == 0


def test_noise_that_grows_with_the_brightness_is_expected_to():
    random = np.random.default_rng(0)
    clean = np.linspace(0.05, 0.9, 512, dtype=np.float32)[None, :, None].repeat(256, 0)
    noisy = (random.poisson(clean * 30) / 30).astype(np.float32)
    removal = Removal.of(noisy, clean)
    assert removal.removed == pytest.approx(removal.noise, rel=0.1)


def test_a_frame_says_nothing_of_the_noise_within():
    noisy, clean = (
        np.pad(each, ((150, 150), (150, 150), (0, 0)), constant_values=128)
        for each in noisy_and_clean("chelsea", "gaussian")
    )
    assert Removal.of(noisy, clean).degree == 0


def test_what_was_drawn_has_no_noise():
    drawn = np.full((256, 256, 3), 90, np.uint8)
    drawn[12::32, :] = drawn[:, 12::32] = 160
    removal = Removal.of(drawn, blurred(drawn, 2))
    assert removal.told and removal.noise == 0 and removal.degree == 2


def test_noise_that_is_cut_off_in_the_dark_is_not_judged():
    random = np.random.default_rng(0)
    noisy = np.clip(random.normal(0, 20, (256, 256, 3)), 0, 255).round().astype(np.uint8)
    removal = Removal.of(noisy, np.full_like(noisy, 8))
    assert not removal.told and removal.degree == 0


@pytest.mark.parametrize("size", [(1, 1, 1), (7, 100, 3), (16, 16, 3), (9, 8, 1)])
def test_small_pictures_tell_nothing(size):
    noisy = np.random.default_rng(0).integers(100, 200, size, dtype=np.uint8)
    removal = Removal.of(noisy, np.full_like(noisy, 150))
    assert not removal.told and removal.degree == 0


def test_little_is_not_much():
    """Of a picture without noise, two levels may go."""
    smooth = np.full((256, 256, 1), 100, np.uint8)
    rough = smooth + np.random.default_rng(0).integers(0, 3, smooth.shape, dtype=np.uint8)
    rough[:8] = smooth[:8]
    assert Removal.of(rough, smooth).degree == 0


def test_dtypes_agree():
    picture = photograph("coffee")
    harmed = blurred(picture, 2)
    eight = Removal.of(picture, harmed)
    for dtype, one in (("uint16", 257), ("float32", 1 / 255), ("float64", 1 / 255)):
        one = np.dtype(dtype).type(one)
        other = Removal.of(picture.astype(dtype) * one, harmed.astype(dtype) * one)
        assert other.cells == eight.cells
        assert other.removed == pytest.approx(eight.removed, rel=1e-3)
        assert other.noise == pytest.approx(eight.noise, rel=1e-2)


@pytest.mark.parametrize("shape", [(400, 400), (1200, 1500), (40, 40000), (40000, 40), (300, 9000)])
def test_a_sample_stands_for_the_picture(shape):
    tile = photograph("coffee")
    repeats = [-(-side // part) for side, part in zip(shape, tile.shape, strict=False)]
    picture = np.tile(tile, (*repeats, 1))[: shape[0], : shape[1]]
    harmed = blurred(picture, 2)
    whole = Removal.of(picture, harmed)
    pixels = picture.copy()
    sample = Sample(pixels)
    pixels[:] = harmed
    seen = sample.compared_with(pixels)
    assert sum(each.nbytes for each in sample._windows) <= 3 * 2**20
    assert seen.degree == whole.degree
    assert seen.removed == pytest.approx(whole.removed, rel=0.25)


def test_real_photographs():
    """The noise of SIDD is cut off in the dark; that of cc15 is weaker in flat places."""
    if not (PAIRS / "cc15").is_dir():
        pytest.skip(f"real pairs are not here (they lie in {PAIRS})")
    for folder, number in (("cc15", 15), ("sidd_val32", 8)):
        for path in sorted((PAIRS / folder / "clean").iterdir())[:number]:
            noisy = read_picture(PAIRS / folder / "noisy" / path.name).color
            assert Removal.of(noisy, read_picture(path).color).degree == 0
