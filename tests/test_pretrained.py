"""The models that ship: small, sound, and of use on pictures that they have never seen."""

import numpy as np
import pytest
import skimage.data

from cbsn.data.camera import simulate_camera
from cbsn.denoising import STUDENT
from cbsn.evaluation.metrics import psnr
from cbsn.inference.denoiser import Denoiser
from cbsn.model_path import SHIPPED, load_model

TEACHER = SHIPPED / "teacher"

CROP = (slice(50, 210), slice(150, 310))


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


@pytest.mark.parametrize(("model", "gain", "shift"), [(STUDENT, 4, 6), (TEACHER, 2.5, 4)])
def test_they_denoise(model, gain, shift, pictures):
    """By so many dB at least, and so many levels of brightness or colour at most."""
    denoise = Denoiser.load(model)
    gains, shifts = [], []
    for noisy, clean in pictures:
        denoised = denoise(noisy)
        gains.append(psnr(clean, denoised) - psnr(clean, noisy))
        shifts.append(np.abs((denoised.astype(float) - clean).mean(axis=(0, 1))).max())
    assert min(gains) > gain, gains
    assert max(shifts) < shift, shifts


def test_the_student_is_small_and_fast():
    (student, network), (teacher, other) = map(load_model, (STUDENT, TEACHER))
    assert (student.name, teacher.name) == ("distill", "cbsn")
    assert network.count_params() < 1.2e6
    assert network.is_local and not other.has_loop


def test_all_that_ships_is_below_20_mb_and_has_its_card():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 20e6
    for model in (STUDENT, TEACHER):
        card = model.with_suffix(".md").read_text(encoding="utf-8")
        assert f"{load_model(model)[1].count_params():,} parameters" in card
