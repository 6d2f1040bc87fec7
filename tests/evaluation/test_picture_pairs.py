import numpy as np
import pytest
from PIL import Image

from cbsn.data.noise import Noise
from cbsn.errors import DataError
from cbsn.evaluation.picture_pairs import PicturePairs


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
    pairs = list(PicturePairs(*folders))
    assert [int((noisy - clean).max()) for noisy, clean in pairs] == [1, 2, 3, 4, 5]


def test_limit_is_spread_over_the_list(folders):
    pairs = PicturePairs(*folders, limit=2)
    assert [int((noisy - clean).max()) for noisy, clean in pairs] == [1, 3]
    assert len(PicturePairs(*folders, limit=9)) == 5


def test_measure_is_the_mean_of_the_pictures(folders):
    psnr, triples = PicturePairs(*folders).measure(lambda noisy, white: noisy, keep=3)
    assert psnr == pytest.approx(np.mean([20 * np.log10(255 / d) for d in range(1, 6)]))
    assert len(triples) == 3
    noisy, denoised, clean = triples[1]
    np.testing.assert_array_equal(noisy, denoised)
    np.testing.assert_array_equal(noisy, clean + 2)


def test_a_noisy_picture_without_a_clean_one_is_named(folders):
    (folders[1] / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 5, such as .*3\.bmp"):
        PicturePairs(*folders)


def test_two_pictures_of_one_name_are_refused(folders):
    _write(folders[0] / "3.png", np.zeros((8, 9, 3), "uint8"))
    with pytest.raises(DataError, match="one name"):
        PicturePairs(*folders)


def test_pictures_of_two_sizes_are_no_pair(folders):
    _write(folders[1] / "0.png", np.zeros((9, 8, 3), "uint8"))
    with pytest.raises(DataError, match="not a pair"):
        list(PicturePairs(*folders))


def test_noise_makes_pairs_of_clean_pictures(folders):
    noise = Noise.parse(None, "25", None)
    pairs = PicturePairs(noise, folders[1], seed=3)
    assert pairs.names == list("01234")
    fewer = PicturePairs(noise, folders[1], limit=2, seed=3)
    some = dict(zip(fewer.names, fewer, strict=True))
    for name, (noisy, clean) in zip(pairs.names, pairs, strict=True):
        assert (noisy - clean).std() == pytest.approx(25 / 255, rel=0.2)
        if name in some:
            np.testing.assert_array_equal(some[name][0], noisy)
    other, _ = next(iter(PicturePairs(noise, folders[1], seed=4)))
    assert (other != next(iter(pairs))[0]).all()


def test_gray_pairs_stay_gray(tmp_path):
    _write(tmp_path / "clean/a.png", np.full((8, 9), 90, "uint8"))
    _write(tmp_path / "noisy/a.png", np.full((8, 9), 95, "uint8"))
    _write(tmp_path / "color/a.png", np.full((8, 9, 3), 95, "uint8"))
    for noisy, channels in (("noisy", 1), ("color", 3)):
        ((noisy, clean),) = PicturePairs(tmp_path / noisy, tmp_path / "clean")
        assert noisy.shape == clean.shape == (8, 9, channels)
