import numpy as np
import pytest

from cbsn.evaluation.report.html import ReportContent
from cbsn.evaluation.report.pictures import ReportPicture


@pytest.fixture
def make_picture(random):
    """Makes a picture of a noisy ramp whose methods are "first" and "second"."""

    def make(size=(96, 80), channels=3, dtype="uint8", clean=True, name="ramp", **denoised):
        ramp = np.add.outer(np.linspace(0, 0.5, size[0]), np.linspace(0, 0.5, size[1]))
        ramp = np.repeat(ramp[..., None], channels, axis=-1)
        noise = random.normal(0, 0.1, ramp.shape)

        def stored(values):
            if dtype == "float32":
                return values.astype(dtype)
            peak = np.iinfo(dtype).max
            return np.rint(values.clip(0, 1) * peak).astype(dtype)

        return ReportPicture(
            name,
            stored(ramp + noise),
            denoised or {"first": stored(ramp + noise / 4), "second": stored(ramp + noise / 2)},
            stored(ramp) if clean else None,
            {"noisy": "20.00 dB", "first": "32.04 dB, SSIM .9"},
        )

    return make


@pytest.fixture
def make_content():
    """Makes the content of a report from its pictures."""

    def make(*pictures, **changes):
        content = {
            "title": "Two denoisers",
            "facts": ["1 picture of a ramp"],
            "table": [
                {"method": "first", "PSNR": "32.04", "LPIPS (1 of 2)": "0.2", "parameters": "–"},
                {"method": "second", "PSNR": "26.02", "LPIPS (1 of 2)": "0.1", "parameters": "1,2"},
            ],
            "notes": {"Noise": ["It is white."]},
            "pictures": pictures,
            "curves": {},
        }
        return ReportContent(**{**content, **changes})

    return make
