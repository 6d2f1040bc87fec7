import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.pairs import PairedRecords, PicturePairs, _find_partners
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.noise.synthetic import Noise
from data_prep.prepare import prepare


@pytest.fixture
def shot_folders(tmp_path, random):
    """Five scenes of two sizes, shot twice; the second shots are negatives, in other files."""
    for i in range(5):
        first = random.integers(0, 256, (40, 30 + 20 * (i % 2), 3)).astype("uint8")
        for name, pixels in ((f"a/{i}.png", first), (f"b/{i}.tif", 255 - first)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def _open(folder, size=20):
    out = folder.with_name(f"{folder.name}-patches")
    prepare(folder, out=out, patch_size=size, stride=10)
    return PatchRecords.open(out)


def test_patches_of_one_place_come_together(shot_folders):
    # In other chunks and another order: the second set has pictures of its own.
    for i in range(20):
        Image.fromarray(np.zeros((25, 25, 3), "uint8")).save(shot_folders[1] / f"0{i}.png")
    first, second = (_open(folder) for folder in shot_folders)
    pairs = PairedRecords(first, second)
    assert len(pairs) == len(first) < len(second)
    assert pairs.counts == first.counts
    for index in range(len(pairs)):
        pair = pairs[index]
        assert pair.shape == (20, 20, 6)
        np.testing.assert_array_equal(pair[..., :3], first[index])
        np.testing.assert_array_equal(pair[..., 3:], 255 - pair[..., :3])
    assert "a/" in pairs.describe(3)
    assert "b/" in pairs.describe(3)


@pytest.mark.parametrize(
    ("first", "second"),
    [("cells.czi", "cells.ome.tif"), ("cells.ome.tif", "cells.tif"), ("a.b.png", "a.b.tif")],
)
def test_second_shots_go_by_name_whatever_the_suffix(first, second):
    def records(name):
        source = SimpleNamespace(path=f"day1/{name}", image=0)
        return SimpleNamespace(patches=lambda: [(source, 0), (source, 1)])

    assert _find_partners(records(first), records(second)) == [0, 1]


def test_scenes_without_a_second_shot_are_named(shot_folders):
    (shot_folders[1] / "3.tif").unlink()
    with pytest.raises(DataError, match="1 of 5 have none, such as 3"):
        PairedRecords(*(_open(folder) for folder in shot_folders))


def test_shots_of_two_sizes_are_no_pair(shot_folders):
    Image.fromarray(np.zeros((50, 50, 3), "uint8")).save(shot_folders[1] / "2.tif")
    with pytest.raises(DataError, match="such as 2: the first shot gives 6 patches, the second 16"):
        PairedRecords(*(_open(folder) for folder in shot_folders))


def test_patches_of_two_sizes_are_refused(shot_folders):
    first = _open(shot_folders[0])
    with pytest.raises(DataError, match="patch_size 20 and 30"):
        PairedRecords(first, _open(shot_folders[1], 30))


def test_records_that_do_not_tell_their_pictures_are_refused(shot_folders, tmp_path):
    path = tmp_path / "bare.tfrecords"
    with RecordWriter(path) as writer:
        writer.write(np.zeros((256, 256, 3), "uint8"))
    with pytest.raises(DataError, match="says where its patches"):
        PairedRecords(PatchRecords.open(path), PatchRecords.open(path))


def test_shots_of_unequal_size_are_refused_even_if_they_give_as_many_patches(shot_folders):
    with Image.open(shot_folders[1] / "0.tif") as image:
        image.crop((0, 0, image.width + 1, image.height)).save(shot_folders[1] / "0.tif")
    with pytest.raises(DataError, match=r"0\.png differ in size: 30 x 40 and 31 x 40 pixels"):
        PairedRecords(*map(_open, shot_folders))


@pytest.mark.parametrize(
    ("first", "second"), [((12, 20), (15, 20)), ((50, 40), (40, 50))], ids=["padded", "turned"]
)
def test_shots_of_unequal_size_are_refused_even_if_padding_or_area_is_equal(
    tmp_path, random, first, second
):
    for folder, (width, height) in (("a", first), ("b", second)):
        (tmp_path / folder).mkdir()
        pixels = random.integers(0, 256, (height, width, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / folder / "0.png")
    told = " and ".join(f"{width} x {height}" for width, height in (first, second))
    with pytest.raises(DataError, match=rf"0\.png differ in size: {told} pixels"):
        PairedRecords(_open(tmp_path / "a"), _open(tmp_path / "b"))


def test_shots_in_ranges_of_their_own_come_in_one(tmp_path, random):
    """10 bits and 12 bits of the same scene: a value is the same brightness in both."""
    scene = random.integers(0, 1024, (30, 40)).astype("uint16")
    scene[0, 0] = 1023
    other = scene.copy()
    other[0, :2] = 4095
    for name, pixels in (("a", scene), ("b", other)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    pairs = PairedRecords(_open(tmp_path / "a"), _open(tmp_path / "b"))
    differences = 0
    for index in range(len(pairs)):
        first, second = np.split(pairs[index].astype(int), 2, axis=-1)
        differences += int((np.abs(first - second) > 16).any(-1).sum())
    assert 0 < differences <= 2 * len(pairs)


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


def test_the_checksum_is_of_the_pictures_wherever_they_lie(folders, tmp_path):
    def checksum(noisy, clean, **options):
        pairs = PicturePairs(noisy, clean, **options)
        pairs.check()
        return pairs.checksum

    noisy, clean = folders
    first = checksum(noisy, clean)
    shutil.copytree(noisy, tmp_path / "moved")
    assert checksum(tmp_path / "moved", clean) == first
    others = [
        checksum(clean, noisy),
        checksum(noisy, clean, limit=2),
        checksum(Noise.parse(None, "25", None), clean),
        checksum(Noise.parse(None, "15", None), clean),
    ]
    assert len({first, *others}) == 5


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
    with pytest.raises(DataError, match="the same name"):
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


def test_single_files_are_a_pair_whatever_their_names(tmp_path, random):
    pictures = random.integers(0, 256, (2, 20, 30, 3)).astype("uint8")
    for name, pixels in zip(("shot", "truth"), pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    pairs = PicturePairs(tmp_path / "shot.png", tmp_path / "truth.png")
    assert pairs.names == ["shot"]
    [pair] = pairs
    np.testing.assert_array_equal(pair, pictures)
