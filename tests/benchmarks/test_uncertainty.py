import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from benchmarks import uncertainty
from benchmarks.settings import Settings
from benchmarks.uncertainty import NOISES, add_noise, clean_pictures, compare, score
from cbsn.errors import CbsnError
from tests.inference.linear import EVEN, gain, linear

QUICK = Settings.make(
    **dict.fromkeys(("repeats", "memory", "sizes", "batches", "pictures", "sides")),
    quick=True,
    huge=False,
)


def test_scores_of_errors_that_are_as_stated_and_half_as_large(random):
    sigmas = [random.uniform(1, 20, (64, 80, 3)) for _ in range(3)]
    errors = [sigma * random.normal(size=sigma.shape) for sigma in sigmas]
    right = score(errors, sigmas)
    # Of 46,080 pixels, the standard error is 0.2 %.
    assert right["within_1"] == pytest.approx(100 * math.erf(1 / math.sqrt(2)), abs=1)
    assert right["within_2"] == pytest.approx(100 * math.erf(math.sqrt(2)), abs=1)
    assert right["predicted"] == pytest.approx(right["actual"], rel=0.02)
    assert right["lowest"] == pytest.approx(1, abs=0.03)
    assert right["highest"] == pytest.approx(1, abs=0.03)
    assert right["ence"] < 2
    timid = score(errors, [2 * sigma for sigma in sigmas])
    assert timid["lowest"] == pytest.approx(2, abs=0.06)
    assert timid["ence"] == pytest.approx(50, abs=2)
    flat = score(errors, [np.full_like(sigma, right["actual"]) for sigma in sigmas])
    assert flat["ence"] < 5  # one number for all is right, too, if that is all that is asked
    assert flat["predicted"] == pytest.approx(right["actual"])


def test_both_sides_of_a_case(random):
    clean = [np.full((160, 160, 1), level, np.uint8) for level in (100, 150)]
    noisy = [add_noise(each, NOISES["gaussian 10"], n) for n, each in enumerate(clean)]
    case = compare("filter", linear(EVEN), clean, noisy)
    assert case["case"] == "filter" and case["pictures"] == 2
    calibrated, alone = case["sides"]
    assert (calibrated["side"], alone["side"]) == ("calibrated", "spread alone")
    assert calibrated["flat"] == 2
    # And what rounding to 8 bits adds.
    assert calibrated["actual"] == pytest.approx(math.hypot(10 * gain(EVEN), 12**-0.5), rel=0.03)
    assert calibrated["predicted"] == pytest.approx(calibrated["actual"], rel=0.25)
    # The filter is the same in all orientations.
    assert alone["within_2"] < 25 and alone["predicted"] < 0.01


def test_clean_pictures(tmp_path, random):
    for number in range(5):
        pixels = np.full((140, 300, 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    settings = dataclasses.replace(QUICK, clean=tmp_path, clean_count=2, pictures=((400, 200),))
    found = clean_pictures(settings)
    assert [each.shape for each in found] == [(140, 200, 3)] * 2
    assert [int(each[0, 0, 0]) for each in found] == [0, 20]
    assert clean_pictures(QUICK)[0].shape == (128, 128, 3)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(CbsnError, match=r"8 bits. Received: --clean"):
        clean_pictures(settings)


@pytest.mark.slow
def test_cases_of_all_models(monkeypatch):
    monkeypatch.setattr(uncertainty, "NOISES", {"gaussian 25": NOISES["gaussian 25"]})
    cases = [*uncertainty.run(QUICK)]
    assert [case["case"] for case in cases] == [
        f"{model}, gaussian 25" for model in ("photo", "photo_large", "n2v-unet")
    ]
    for case in cases:
        for side in case["sides"]:
            assert 0 < side["within_1"] < side["within_2"] <= 100 and len(side["bins"]) == 10
