import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, median_filter
from skimage import data

from cbsn.evaluation.diagnosis import Diagnosis, diagnose
from cbsn.images.image_files import read_picture
from cbsn.noise.synthetic import Noise

PAIRS = Path(__file__).resolve().parents[3] / "shared" / "data"

NOISES = {
    "gaussian": ("gaussian", "25", None),
    "weak": ("gaussian", "10", None),
    "strong": ("gaussian", "50", None),
    "poisson": ("poisson", None, "30"),
    "camera": ("camera", "5.1", "100"),
}
PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "camera")


def photograph(name):
    """float32 [300, 400, 1 or 3] in [0, 1]."""
    picture = getattr(data, name)()
    picture = picture[..., None] if picture.ndim == 2 else picture
    return picture[:300, :400].astype(np.float32) / 255


def pair(name="chelsea", noise="gaussian"):
    """Noisy and clean; the noise is neither rounded nor clipped (but by the camera)."""
    noise, picture = Noise.parse(*NOISES[noise]), photograph(name)
    return noise.fixed(picture, 1, name), noise.clean(picture)


def warnings(diagnosis):
    """The lines that say what is wrong."""
    fine = ("to speak of", ": fine;", "to tell", "to measure the noise", "the edges that are left")
    return [line for line in diagnosis.lines() if not any(words in line for words in fine)]


def blurred(picture, sigma):
    return gaussian_filter(picture, (sigma, sigma, 0))


def stored(picture, dtype="uint8"):
    top = np.iinfo(dtype).max
    return np.rint(np.clip(picture, 0, 1) * top).astype(dtype)


def grid(shape, stride, seed=0):
    """A pattern of that period with mean 0 and root mean square 1 level, [H, W, 1]."""
    if stride == 2:
        pattern = np.array([[1.0, -1.0], [-1.0, 1.0]])
    else:
        pattern = np.random.default_rng(seed).standard_normal((stride, stride))
        pattern = (pattern - pattern.mean()) / pattern.std()
    y, x = np.indices(shape[:2]) % stride
    return (pattern[y, x] / 255).astype(np.float32)[..., None]


@pytest.mark.parametrize(
    ("name", "noise"),
    [*((name, "weak") for name in PHOTOGRAPHS), *(("astronaut", noise) for noise in NOISES)],
)
def test_an_ideal_denoiser_is_fine(name, noise):
    noisy, clean = pair(name, noise)
    diagnosis = diagnose(noisy, clean)
    assert warnings(diagnosis) == []
    assert abs(diagnosis.structure) < 0.06
    assert diagnosis.removed == pytest.approx(255 * (noisy - clean).std(), rel=0.01)
    assert warnings(diagnose(stored(noisy), stored(clean))) == []


@pytest.mark.parametrize("noise", ["strong", "camera"])
def test_the_structure_that_was_removed_grows_with_blur(noise):
    noisy, clean = pair("astronaut", noise)
    found = [diagnose(noisy, blurred(clean, sigma)) for sigma in (0.5, 0.7, 1, 1.5, 2)]
    structures = [each.structure for each in found]
    assert structures == sorted(structures)
    assert structures[2] > 0.15
    assert structures[4] > 0.35
    assert any("was smoothed" in each for each in warnings(found[2]))
    assert any("edges are visible" in each for each in warnings(found[4]))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_blur_is_no_shift_and_leaves_no_grid(name):
    noisy, clean = pair(name, "weak")
    diagnosis = diagnose(noisy, blurred(clean, 2))
    assert not any(each.startswith(("Bright", "Check")) for each in warnings(diagnosis))


def test_structure_is_that_of_the_picture_whatever_the_noise():
    shares = []
    for noise in ("weak", "gaussian", "poisson"):
        noisy, clean = pair("chelsea", noise)
        shares.append(diagnose(noisy, blurred(clean, 1)).structure)
    assert np.ptp(shares) < 0.06


def test_structure_by_chance_is_not_warned_of():
    noisy, clean = pair("chelsea", "strong")
    crops = [
        diagnose(noisy[y : y + 120, x : x + 120], clean[y : y + 120, x : x + 120])
        for y in (0, 60, 120, 180)
        for x in (0, 70, 140, 210, 280)
    ]
    told = [each for each in crops if each.structure is not None]
    assert len(told) > 5
    assert max(abs(each.structure) for each in told) > 0.08
    assert not any(each.startswith("Structure") for crop in told for each in warnings(crop))


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_texture_that_was_removed_entirely_is_said(name):
    """Fine texture leaves no edges behind for structure to be seen at."""
    clean = photograph(name)
    noisy = Noise.parse("gaussian", "1", None).fixed(clean, 1, name)
    harmed = median_filter(clean, (5, 5, 1))
    diagnosis = diagnose(noisy, harmed)
    assert diagnosis.removal.degree > 0
    (words,) = (each for each in warnings(diagnosis) if each.startswith("Removed"))
    assert f"the noise is about {diagnosis.removal.noise:.1f}: " in words
    assert "texture was lost" in words
    structure = next(each for each in diagnosis.lines() if each.startswith("Structure"))
    assert "none to speak of" not in structure


def test_structure_is_not_reassuring_where_texture_was_removed():
    """In half of the picture there is texture and no edge; in the other one, an edge that stays."""
    random = np.random.default_rng(0)
    smooth = np.linspace(0.3, 0.6, 256, dtype=np.float32)[:, None, None].repeat(256, 1)
    smooth[64:, 192:] += 0.3
    clean = smooth.copy()
    clean[:, :128] += random.uniform(-0.2, 0.2, (256, 128, 1)).astype(np.float32)
    noisy = clean + random.normal(0, 1 / 255, clean.shape).astype(np.float32)
    diagnosis = diagnose(noisy, smooth)
    assert diagnosis.removal.degree > 0
    structure = next(each for each in diagnosis.lines() if each.startswith("Structure"))
    assert "not the texture that was lost" in structure and "none" not in structure


def test_noise_that_was_left_is_no_structure():
    noisy, clean = pair()
    assert abs(diagnose(noisy, 0.5 * noisy + 0.5 * clean).structure) < 0.05


@pytest.mark.parametrize("noise", ["gaussian", "camera"])
def test_noise_left(noise):
    noisy, clean = pair("chelsea", noise)
    left = [diagnose(noisy, part * noisy + (1 - part) * clean) for part in (0, 0.5, 1)]
    assert left[0].noise_left < 0.25
    assert left[1].noise_left == pytest.approx(0.5, abs=0.05)
    assert left[2].noise_left == 1
    assert any("noise was left" in each for each in warnings(left[1]))
    assert left[2].removed == 0
    assert warnings(left[2])[0].startswith("Removed: nothing")
    assert (left[2].structure, left[2].shift) == (0, 0)


def test_shading_is_no_noise():
    shaded = np.linspace(0, 1, 300, dtype=np.float32)[:, None, None] * np.ones((1, 300, 1), "f4")
    noisy = Noise.parse(*NOISES["weak"]).fixed(shaded, 1, "shaded")
    assert diagnose(noisy, shaded).noise_left < 0.02


@pytest.mark.parametrize(("channel", "levels"), [(0, 2), (1, -3), (2, 1.5)])
def test_a_shift_of_one_channel(channel, levels):
    noisy, clean = pair()
    clean[..., channel] += levels / 255
    diagnosis = diagnose(noisy, clean)
    assert diagnosis.shift_channel == ("red", "green", "blue")[channel]
    assert diagnosis.shift == pytest.approx(levels, abs=3 * diagnosis.shift_error)
    assert diagnosis.mean_shift[channel] == pytest.approx(levels, abs=0.3)
    assert np.abs(np.delete(diagnosis.mean_shift, channel)).max() < 0.3
    (warning,) = warnings(diagnosis)
    assert f"{diagnosis.shift_channel} is around" in warning
    assert f"too {'bright' if levels > 0 else 'dark'}" in warning


@pytest.mark.parametrize("noise", ["poisson", "camera"])
@pytest.mark.parametrize("levels", [4, -4])
def test_a_shift_under_skewed_noise_is_told_as_far_as_it_is_certain(noise, levels):
    noisy, clean = pair("chelsea", noise)
    clean[..., 1] += levels / 255
    diagnosis = diagnose(noisy, clean)
    assert diagnosis.shift_channel == "green"
    assert 1 < diagnosis.shift * np.sign(levels) < 5
    assert len(warnings(diagnosis)) == 1


def test_a_shift_of_the_dark_tones_alone():
    noisy, clean = pair("camera", "weak")
    dark = clean < 0.3
    diagnosis = diagnose(noisy, clean + dark * np.float32(4 / 255))
    assert diagnosis.shift == pytest.approx(4, abs=0.5)
    assert diagnosis.shift_channel == "gray"
    assert diagnosis.shift_tone < 0.3 * 255
    assert diagnosis.mean_shift[0] < 3
    assert "where it is around" in warnings(diagnosis)[0]


def test_clipping_is_no_shift():
    noise = Noise.parse("gaussian", "25", None)
    dark = 0.3 * photograph("chelsea")
    noisy, clean = stored(noise.fixed(dark, 1, "dark")), stored(dark)
    assert (noisy == 0).mean() > 0.1
    assert (noisy / 255.0 - clean / 255.0).mean() * 255 > 0.5  # the bias that clipping makes
    assert warnings(diagnose(noisy, clean)) == []


def test_a_picture_that_is_clipped_all_over_tells_no_shift():
    noisy = np.where(np.random.default_rng(0).random((200, 200, 1)) < 0.5, 0, 255).astype("uint8")
    diagnosis = diagnose(noisy, np.full_like(noisy, 128))
    assert (diagnosis.shift, diagnosis.mean_shift) == (None, (None,))
    assert any("unclipped places to tell" in each for each in diagnosis.lines())


@pytest.mark.parametrize(
    ("noise", "levels", "stride", "other"),
    [("gaussian", 1, 2, 5), ("gaussian", 2, 5, 2), ("camera", 1, 5, 2), ("camera", 2, 2, 5)],
)
def test_a_checkerboard_is_found(noise, levels, stride, other):
    noisy, clean = pair("chelsea", noise)
    diagnosis = diagnose(noisy, clean + levels * grid(clean.shape, stride))
    assert diagnosis.checkerboard[stride] == pytest.approx(levels, rel=0.3)
    assert diagnosis.checkerboard[other] < 0.15
    assert any(each.startswith("Checkerboard") for each in warnings(diagnosis))


def test_a_checkerboard_of_less_than_a_level_is_found_in_stored_pictures():
    noisy, clean = pair("coffee")
    # Blurred, so that not all levels are whole before they are rounded.
    denoised = stored(blurred(clean, 0.6) + 0.6 * grid(clean.shape, 2))
    assert diagnose(stored(noisy), denoised).checkerboard[2] == pytest.approx(0.6, rel=0.3)


def test_a_checkerboard_that_comes_and_goes_is_found():
    """Where each sub-image has blotches of its own, their signs differ from place to place."""
    noisy, clean = pair("chelsea", "weak")
    random, pattern = np.random.default_rng(0), np.zeros_like(clean)
    for y in range(2):
        for x in range(2):
            part = pattern[y::2, x::2]
            blotches = gaussian_filter(random.standard_normal(part.shape[:2]), 4)
            part[...] = (2 / 255 * blotches / blotches.std())[..., None]
    # Three quarters of the blotches' power are at the grid's frequencies, 1 in 4 at their own.
    expected = 2 * np.sqrt(3 / 4)
    assert diagnose(noisy, clean + pattern).checkerboard[2] == pytest.approx(expected, rel=0.3)
    # As a texture of the picture it is no checkerboard.
    assert diagnose(noisy + pattern, clean + pattern).checkerboard[2] < 0.7 * expected


@pytest.mark.parametrize("period", [3, 4, 7, 10])
def test_other_periods_are_no_checkerboard(period):
    noisy, clean = pair()
    y, x = np.indices(clean.shape[:2])
    stripes = (3 / 255 * np.cos(2 * np.pi * (x + y) / period))[..., None].astype(np.float32)
    found = diagnose(noisy, clean + stripes, strides=(2, 5)).checkerboard
    assert max(found.values()) < 0.15


@pytest.mark.parametrize(
    ("noise", "stride"),
    [*(("gaussian", stride) for stride in (2, 3, 4, 5, 6, 7, 8)), ("camera", 2), ("camera", 5)],
)
def test_the_strongest_period_is_named(noise, stride):
    noisy, clean = pair("chelsea", noise)
    diagnosis = diagnose(noisy, clean + 1.5 * grid(clean.shape, stride))
    assert max(diagnosis.checkerboard, key=diagnosis.checkerboard.get) == stride
    # A random pattern of a period has up to a quarter of its power at those that divide it.
    assert diagnosis.checkerboard[stride] == pytest.approx(1.5, rel=0.4)
    (words,) = (each for each in warnings(diagnosis) if each.startswith("Checkerboard"))
    assert f"at a period of {stride} px" in words and words.count("period") == 1


def test_a_period_counts_once():
    """A grid of period 2 is one of period 4 and 8, too, and is reported as what it is."""
    noisy, clean = pair()
    found = diagnose(noisy, clean + 2 * grid(clean.shape, 2)).checkerboard
    assert found[2] == pytest.approx(2, rel=0.3)
    assert max(found[4], found[6], found[8]) < 0.15


def test_the_pattern_of_a_facade_is_no_checkerboard():
    """It is the picture's, however strong the noise that hides it is."""
    noisy, clean = pair("chelsea", "strong")
    x = np.indices(clean.shape[:2])[1]
    facade = (12 / 255 * np.cos(2 * np.pi * x / 5))[..., None].astype(np.float32)
    facade[100:] = 0
    assert warnings(diagnose(noisy + facade, clean + facade)) == []


@pytest.mark.parametrize("stride", [2, 5])
def test_a_grid_of_the_picture_itself_is_no_checkerboard(stride):
    noisy, clean = pair()
    pattern = 4 * grid(clean.shape, stride)
    assert diagnose(noisy + pattern, clean + pattern).checkerboard[stride] < 0.4


def test_strides_are_those_asked_for():
    noisy, clean = pair()
    diagnosis = diagnose(noisy, clean + grid(clean.shape, 3), strides=[3, 4])
    assert list(diagnosis.checkerboard) == [3, 4]
    assert diagnosis.checkerboard[3] == pytest.approx(1, rel=0.3)
    assert diagnosis.checkerboard[4] < 0.15


def test_dtypes_and_gray_agree():
    noisy, clean = (stored(each) for each in pair("camera"))
    smooth = stored(blurred(clean / 255, 1))
    eight = diagnose(noisy, smooth)
    for dtype, one in (("uint16", 257), ("float32", 1 / 255), ("float64", 1 / 255)):
        one = np.dtype(dtype).type(one)
        other = diagnose(noisy.astype(dtype) * one, smooth.astype(dtype) * one)
        for name, value in eight.to_dict().items():
            assert other.to_dict()[name] == pytest.approx(value, abs=0.02), name
    colour = diagnose(*(each.repeat(3, -1) for each in (noisy, smooth)))
    assert colour.structure == pytest.approx(eight.structure, abs=1e-3)
    assert colour.noise_left == pytest.approx(eight.noise_left, abs=1e-3)
    assert colour.mean_shift == pytest.approx(eight.mean_shift * 3)


def test_pooling_pieces_is_the_whole():
    noisy, clean = pair("astronaut")
    smooth = blurred(clean, 1) + 2 / 255
    whole = diagnose(noisy[:288, :384], smooth[:288, :384])
    pieces = [
        diagnose(noisy[y : y + 96, x : x + 96], smooth[y : y + 96, x : x + 96])
        for y in range(0, 288, 96)
        for x in range(0, 384, 96)
    ]
    pooled = Diagnosis.mean_of(pieces)
    assert pooled.removed == pytest.approx(whole.removed, rel=0.01)
    assert pooled.removal.removed == pytest.approx(whole.removal.removed, rel=0.01)
    assert pooled.removal.noise == pytest.approx(whole.removal.noise, rel=0.3)
    assert pooled.structure == pytest.approx(whole.structure, abs=0.03)
    assert pooled.mean_shift == pytest.approx(whole.mean_shift, abs=0.4)
    # Together they tell more surely than each alone.
    for name in ("shift_error", "structure_error"):
        alone = [getattr(piece, name) for piece in pieces if getattr(piece, name) is not None]
        assert getattr(pooled, name) < np.median(alone)


def test_pooling_weighs_by_what_is_behind_a_figure():
    noisy, clean = pair("chelsea")
    made, none = (diagnose(noisy, clean + each * grid(clean.shape, 2)) for each in (2, 0))
    half = Diagnosis.mean_of([made, none])
    assert half.checkerboard[2] == pytest.approx(np.sqrt(2), rel=0.05)  # power adds up
    tiny = diagnose(noisy[:20, :20], clean[:20, :20])
    assert tiny.checkerboard == {2: None, 3: None, 4: None, 5: None, 6: None, 7: None, 8: None}
    assert Diagnosis.mean_of([made, tiny]).checkerboard == made.checkerboard
    assert Diagnosis.mean_of([made]) == made


def test_gray_and_colour_are_pooled_by_channel():
    noisy, clean = pair("chelsea")
    gray = diagnose(noisy[..., :1], clean[..., :1] + 2 / 255)
    colour = diagnose(noisy, clean)
    pooled = Diagnosis.mean_of([gray, colour])
    assert len(pooled.mean_shift) == 3
    assert pooled.mean_shift == pytest.approx([1, 1, 1], abs=0.4)


def test_json_and_frozen():
    noisy, clean = pair("camera")
    diagnosis = diagnose(noisy, blurred(clean, 2))
    plain = json.loads(json.dumps(diagnosis.to_dict()))
    assert plain == diagnosis.to_dict()
    assert plain["structure"] == round(diagnosis.structure, 3)
    assert list(plain["checkerboard"]) == [*"2345678"]
    assert plain["removal"]["noise"] == round(diagnosis.removal.noise, 2)
    assert plain.keys() == {
        field.name for field in dataclasses.fields(Diagnosis) if not field.name.startswith("_")
    }
    assert len(diagnosis.lines()) == 5
    assert set(warnings(diagnosis)) < set(diagnosis.lines())
    with pytest.raises(dataclasses.FrozenInstanceError):
        diagnosis.structure = 0


def test_real_photographs():
    """The noise of cc15 is twice as strong at edges as elsewhere, as the camera smoothed it."""
    if not (PAIRS / "cc15").is_dir():
        pytest.skip(f"real pairs are not here (they lie in {PAIRS})")
    names = sorted(path.name for path in (PAIRS / "cc15" / "clean").iterdir())[:2]
    pairs = [
        [read_picture(PAIRS / "cc15" / side / name).color for side in ("noisy", "clean")]
        for name in names
    ]
    clean = Diagnosis.mean_of([diagnose(*each) for each in pairs])
    assert abs(clean.structure) < 0.02
    assert max(clean.checkerboard.values()) < 0.1
    smooth = [diagnose(noisy, stored(blurred(c / 255, 1))) for noisy, c in pairs]
    assert Diagnosis.mean_of(smooth).structure > 0.15


@pytest.mark.parametrize("size", [(16, 16, 3), (16, 90, 1), (40, 33, 3)])
def test_small_pictures_tell_what_they_can(size):
    random = np.random.default_rng(0)
    clean = np.full(size, 0.5, np.float32)
    diagnosis = diagnose(clean + 0.1 * random.standard_normal(size, np.float32), clean)
    assert diagnosis.removed == pytest.approx(25.5, rel=0.15)
    assert (diagnosis.structure, diagnosis.noise_left, diagnosis.shift) == (None, None, None)
    assert sum("to tell" in each for each in diagnosis.lines()) >= 3
    assert warnings(diagnosis) == []


def test_a_picture_without_anything():
    flat = np.full((200, 200, 3), 80, np.uint8)
    diagnosis = diagnose(flat, flat)
    assert (diagnosis.structure, diagnosis.noise_left, diagnosis.shift) == (None, None, 0)
    assert set(diagnosis.checkerboard.values()) == {0}


@pytest.mark.parametrize(
    ("noisy", "denoised", "match"),
    [
        (np.zeros((32, 32, 3), "uint8"), np.zeros((32, 32, 3), "uint16"), "uint16"),
        (np.zeros((32, 32, 3)), np.zeros((32, 32, 1)), r"\(32, 32, 1\)"),
        (np.zeros((32, 32)), np.zeros((32, 32)), r"Received: \(32, 32\)"),
        (np.zeros((32, 32, 2)), np.zeros((32, 32, 2)), r"Received: \(32, 32, 2\)"),
        (np.zeros((15, 99, 1)), np.zeros((15, 99, 1)), r"at least 16 px a side.*\(15, 99, 1\)"),
        (np.full((32, 32, 1), np.nan), np.zeros((32, 32, 1)), "finite"),
        (np.zeros((32, 32, 1)), np.full((32, 32, 1), np.inf), "finite"),
    ],
)
def test_other_pictures_are_refused(noisy, denoised, match):
    with pytest.raises(ValueError, match=match):
        diagnose(noisy, denoised)
