import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.picture_pairs import PicturePairs
from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.noise.synthetic import Noise


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


def _write_tiff(path, pixels):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_both_of_a_pair_are_read_in_one_range(tmp_path, random, dtype):
    clean = random.integers(900, 4000, (20, 30)).astype(dtype)
    noisy = clean + random.normal(0, 300, clean.shape).round().astype(dtype)
    noisy[0, 0] = 5000  # one bit more
    if dtype == "float32":
        noisy[0, 1] = -100
    _write_tiff(tmp_path / "noisy/a.tif", noisy)
    _write_tiff(tmp_path / "clean/a.tif", clean)
    ((ours, theirs),) = PicturePairs(tmp_path / "noisy", tmp_path / "clean")
    black, white, full = (0, 16383, 65535) if dtype == "uint16" else (-100, 5000, 1)
    for read, stored in ((ours, noisy), (theirs, clean)):
        wanted = (stored.astype(float) - black) / (white - black) * full
        wanted = np.rint(wanted) if dtype == "uint16" else wanted
        np.testing.assert_allclose(read[..., 0], wanted, atol=1e-6)


def test_white_counts_for_both(tmp_path):
    _write_tiff(tmp_path / "noisy/a.tif", np.full((8, 9), 5, "float32"))
    _write_tiff(tmp_path / "clean/a.tif", np.full((8, 9), 4, "float32"))
    ((noisy, clean),) = PicturePairs(tmp_path / "noisy", tmp_path / "clean", white=20)
    assert (noisy[0, 0, 0], clean[0, 0, 0]) == pytest.approx((0.25, 0.2))


def test_all_pairs_are_checked_at_once(folders):
    pairs = PicturePairs(*folders)
    pairs.check()
    _write(folders[1] / "4.png", np.zeros((9, 8, 3), "uint8"))
    with pytest.raises(DataError, match=r"4\.bmp.*not a pair"):
        pairs.check()
    (folders[1] / "4.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"4\.png"):
        pairs.check()


def test_noise_that_a_clean_picture_cannot_get_is_noticed_by_the_check(tmp_path):
    _write(tmp_path / "clean/a.png", np.full((8, 9), 90, "uint8"))
    with pytest.raises(ConfigError, match="camera"):
        PicturePairs(Noise.parse("camera", None, None), tmp_path / "clean").check()


def test_values_that_are_not_finite_are_noticed_by_the_check(tmp_path):
    for value, name in ((0.5, "noisy"), (np.nan, "clean")):
        _write_tiff(tmp_path / name / "a.tif", np.full((8, 9), value, "float32"))
    with pytest.raises(ImageError, match="not finite"):
        PicturePairs(tmp_path / "noisy", tmp_path / "clean").check()
    with pytest.raises(ImageError, match="not finite"):
        PicturePairs(Noise.parse(None, "25", None), tmp_path / "clean").check()


def test_names_of_any_bytes(tmp_path):
    name = os.fsdecode(b"\xff\xfe.png")
    for kind in ("noisy", "clean"):
        _write(tmp_path / kind / name, np.full((8, 9), 90, "uint8"))
    PicturePairs(tmp_path / "noisy", tmp_path / "clean").check()
    PicturePairs(Noise.parse(None, "25", None), tmp_path / "clean").check()


def test_floats_are_in_the_range_of_the_clean_one(tmp_path, random):
    """Noise that was not clipped is no reason for another peak."""
    clean = random.random((9, 8, 3)).astype(np.float32)
    clean[0, 0] = 0, 1, 1
    for folder, pixels in (("clean", clean), ("noisy", clean * 3 - 1)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", pixels, photometric="rgb")
    pairs = PicturePairs(tmp_path / "noisy", tmp_path / "clean")
    ((noisy, ours),) = pairs
    np.testing.assert_array_equal(ours, clean)
    np.testing.assert_allclose(noisy, clean * 3 - 1, atol=1e-6)
    assert (pairs.ranges["a"].black, pairs.ranges["a"].white) == (0, 1)
