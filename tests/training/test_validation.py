import numpy as np
import pytest
from PIL import Image

from cbsn.errors import DataError
from cbsn.training.validation import ValidationPairs


def _write(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path, random):
    for i in range(5):
        clean = random.integers(50, 200, (8, 9, 3)).astype("uint8")
        _write(tmp_path / f"clean/{i}.png", clean)
        _write(tmp_path / f"noisy/{i}.bmp", clean + np.uint8(i + 1))
    return tmp_path / "noisy", tmp_path / "clean"


def test_pairs_go_by_name_whatever_the_suffix(folders):
    pairs = list(ValidationPairs(*folders))
    assert [int((noisy - clean).max()) for noisy, clean in pairs] == [1, 2, 3, 4, 5]


def test_limit_is_spread_over_the_list(folders):
    pairs = ValidationPairs(*folders, limit=2)
    assert [int((noisy - clean).max()) for noisy, clean in pairs] == [1, 3]
    assert len(ValidationPairs(*folders, limit=9)) == 5


def test_measure_is_the_mean_of_the_pictures(folders):
    psnr, triples = ValidationPairs(*folders).measure(lambda noisy: noisy, keep=3)
    assert psnr == pytest.approx(np.mean([20 * np.log10(255 / d) for d in range(1, 6)]))
    assert len(triples) == 3
    noisy, denoised, clean = triples[1]
    np.testing.assert_array_equal(noisy, denoised)
    np.testing.assert_array_equal(noisy, clean + 2)


def test_a_noisy_picture_without_a_clean_one_is_named(folders):
    (folders[1] / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 5, such as .*3\.bmp"):
        ValidationPairs(*folders)


def test_two_pictures_of_one_name_are_refused(folders):
    _write(folders[0] / "3.png", np.zeros((8, 9, 3), "uint8"))
    with pytest.raises(DataError, match="one name"):
        ValidationPairs(*folders)


def test_pictures_of_two_sizes_are_no_pair(folders):
    _write(folders[1] / "0.png", np.zeros((9, 8, 3), "uint8"))
    with pytest.raises(DataError, match="not a pair"):
        list(ValidationPairs(*folders))
