import warnings

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter, shift

from cbsn.data.records import PatchRecords
from cbsn.data.stack_records import NextFrames
from cbsn.errors import CbsnWarning
from cbsn.training.motion import moving_share, warn_of_motion
from data_prep.prepare import prepare


@pytest.fixture
def frames(tmp_path, random):
    """Frames of bright spots that move a number of pixels from each to the next, with noise."""

    def make(move, light=1.0, smooth=0.0, of=1.0):
        spots = np.zeros((128, 128))
        spots[random.integers(0, 128, 40), random.integers(0, int(128 * of), 40)] = 1
        spots = gaussian_filter(spots, 1.5, mode="wrap")
        spots /= spots.max()
        series = []
        for t in range(10):
            place = shift(spots, (0, move * t), order=3, mode="wrap") if move else spots
            photons = random.poisson((20 + 300 * np.clip(place, 0, None)) * light**t)
            series.append(gaussian_filter(photons.astype(float), smooth) if smooth else photons)
        path = tmp_path / "a.tif"
        pixels = np.array(series).astype("float32")
        tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "TYX"})
        prepare(path, out=tmp_path / "out", force=True)
        return NextFrames(PatchRecords.open(tmp_path / "out"))

    return make


@pytest.mark.parametrize(("light", "smooth"), [(1.0, 0.0), (0.97, 0.0), (1.0, 0.7)])
def test_noise_and_light_are_no_motion(frames, light, smooth):
    """Nor is noise that is correlated between pixels."""
    still = frames(0, light, smooth)
    assert moving_share(still) < 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_motion(still)


@pytest.mark.parametrize("smooth", [0.0, 0.7])
def test_motion_is_seen_and_said(frames, smooth):
    moving = frames(4, smooth=smooth)
    share = moving_share(moving)
    # 40 spots, each in one to four of 256 blocks before, and as many after.
    assert 0.1 < share < 0.8
    with pytest.warns(CbsnWarning, match=rf"{share:.0%} of the area differs .* n2v-unet"):
        warn_of_motion(moving)
