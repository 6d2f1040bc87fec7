"""Pictures that tell little of a denoiser, or nothing."""

import numpy as np
import pytest

from cbsn.evaluation.diagnosis import diagnose


@pytest.mark.parametrize("size", [(16, 16, 3), (16, 90, 1), (40, 33, 3)])
def test_small_pictures_tell_what_they_can(size):
    random = np.random.default_rng(0)
    clean = np.full(size, 0.5, np.float32)
    diagnosis = diagnose(clean + 0.1 * random.standard_normal(size, np.float32), clean)
    assert diagnosis.removed == pytest.approx(25.5, rel=0.15)
    assert (diagnosis.structure, diagnosis.noise_left, diagnosis.shift) == (None, None, None)
    assert sum("to tell" in each for each in diagnosis.lines()) >= 3
    assert diagnosis.warnings() == []


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
        (np.zeros((15, 99, 1)), np.zeros((15, 99, 1)), r"16 px a side or more.*\(15, 99, 1\)"),
        (np.zeros((32, 32, 1), "int32"), np.zeros((32, 32, 1), "int32"), "int32"),
        (np.full((32, 32, 1), np.nan), np.zeros((32, 32, 1)), "finite"),
        (np.zeros((32, 32, 1)), np.full((32, 32, 1), np.inf), "finite"),
    ],
)
def test_other_pictures_are_refused(noisy, denoised, match):
    with pytest.raises(ValueError, match=match):
        diagnose(noisy, denoised)


@pytest.mark.parametrize("strides", [(), (1, 2), (2.5,)])
def test_other_strides_are_refused(strides):
    with pytest.raises(ValueError, match="whole numbers, 2 or more"):
        diagnose(np.zeros((32, 32, 1)), np.zeros((32, 32, 1)), strides)
