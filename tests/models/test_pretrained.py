"""The models that ship: small, sound, and of use on pictures that they have never seen."""

import numpy as np
import pytest
import skimage.data

from cbsn.evaluation.conventions import psnr
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models import SHIPPED
from cbsn.models.loading import load_model
from cbsn.noise.synthetic import simulate_camera

PHOTO, LARGE = SHIPPED / "photo", SHIPPED / "photo_large"

CROP = (slice(50, 210), slice(150, 310))


@pytest.fixture(scope="module")
def denoisers():
    """In float32, as in bfloat16 processors round in ways of their own."""
    return {
        path: Denoiser.load(path, DenoiseOptions(precision="float32", engine="tensorflow"))
        for path in (PHOTO, LARGE)
    }


@pytest.fixture(scope="module")
def pictures():
    """Noisy and clean crops of three photographs, by a simulated camera."""
    photographs = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    return [
        tuple(
            simulate_camera(photograph, shot=shot, read=read, seed=seed)[CROP]
            for shot, read in ((0.01, 0.02), (0, 0))
        )
        for seed, photograph in enumerate(photographs)
    ]


def _middle(photograph, side=256):
    top, left = ((size - side) // 2 for size in photograph.shape[:2])
    return photograph[top : top + side, left : left + side]


def _shift(denoised, clean):
    """Of the mean of a channel, in levels."""
    return np.abs((denoised.astype(float) - clean).mean(axis=(0, 1))).max()


# Measured: gains of 4.3 and 4.7 dB at least, shifts of 4.5 and 4.8 levels at most. Each bound is
# some way off, so that no rounding decides.
@pytest.mark.parametrize(("model", "gain"), [(PHOTO, 3.5), (LARGE, 4)])
def test_they_denoise(model, gain, denoisers, pictures):
    """Colours change a little, as noise that is clipped makes dark parts brighter."""
    for noisy, clean in pictures:
        denoised = denoisers[model](noisy)
        assert psnr(clean, denoised) - psnr(clean, noisy) > gain
        assert _shift(denoised, clean) < 6


# Measured: 48.6 and 55.5 dB in the mean, shifts of 0.19 and 0.06 levels at most. A student that
# shipped once had 30.4 dB, and shifts of up to 3.7 levels.
@pytest.mark.parametrize(("model", "least"), [(PHOTO, 44), (LARGE, 50)])
def test_they_leave_what_is_clean(model, least, denoisers, photographs):
    scores = []
    for clean in map(_middle, photographs):
        denoised = denoisers[model](clean)
        scores.append(psnr(clean, denoised))
        assert _shift(denoised, clean) < 0.5
    assert np.mean(scores) > least, scores


@pytest.mark.parametrize("model", [PHOTO, LARGE])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_plain_pictures_stay_plain(model, level, denoisers):
    """Measured: within 2 levels."""
    plain = np.full((40, 56, 3), level, "uint8")
    assert np.abs(denoisers[model](plain).astype(int) - level).max() <= 3


def test_both_are_local_and_the_fast_one_is_small():
    """So their results do not depend on tiles."""
    (_, photo), (_, large) = map(load_model, (PHOTO, LARGE))
    assert photo.is_local and large.is_local
    assert photo.count_params() < 1e6 < large.count_params()


def test_all_that_ships_is_below_20_mb_and_has_its_card():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 20e6
    shipped = sorted(path.parent for path in SHIPPED.glob("*/recipe.json"))
    assert shipped == [PHOTO, LARGE]
    for model in shipped:
        card = model.with_suffix(".md").read_text(encoding="utf-8")
        assert f"{load_model(model)[1].count_params():,} parameters" in card
