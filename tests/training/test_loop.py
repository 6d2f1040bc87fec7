import numpy as np
import pytest
from PIL import Image

from cbsn.data.picture_pairs import PicturePairs
from cbsn.training.loop import validate


def test_validation_is_the_mean_of_the_pictures(tmp_path, random):
    for name in ("noisy", "clean"):
        (tmp_path / name).mkdir()
    for i in range(1, 6):
        clean = random.integers(50, 200, (8, 9, 3)).astype("uint8")
        Image.fromarray(clean).save(tmp_path / f"clean/{i}.png")
        Image.fromarray(clean + np.uint8(i)).save(tmp_path / f"noisy/{i}.png")
    pairs = PicturePairs(tmp_path / "noisy", tmp_path / "clean")
    psnr, triples = validate(pairs, lambda noisy, white: noisy, stop=lambda: False)
    assert psnr == pytest.approx(np.mean([20 * np.log10(255 / d) for d in range(1, 6)]))
    noisy, denoised, clean = triples[1]
    np.testing.assert_array_equal(noisy, denoised)
    np.testing.assert_array_equal(noisy, clean + 2)
    assert validate(pairs, lambda noisy, white: noisy, stop=lambda: True) is None
