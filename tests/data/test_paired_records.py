import numpy as np
import pytest
from PIL import Image

from cbsn.data.paired_records import PairedRecords
from cbsn.data.records import PatchRecords, RecordWriter
from cbsn.errors import DataError
from data_prep.prepare import prepare


@pytest.fixture
def folders(tmp_path, random):
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


def test_patches_of_one_place_come_together(folders):
    # In other chunks and another order: the second set has pictures of its own.
    for i in range(20):
        Image.fromarray(np.zeros((25, 25, 3), "uint8")).save(folders[1] / f"0{i}.png")
    first, second = (_open(folder) for folder in folders)
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


def test_scenes_without_a_second_shot_are_named(folders):
    (folders[1] / "3.tif").unlink()
    with pytest.raises(DataError, match="1 of 5 have none, such as 3"):
        PairedRecords(*(_open(folder) for folder in folders))


def test_shots_of_two_sizes_are_no_pair(folders):
    Image.fromarray(np.zeros((50, 50, 3), "uint8")).save(folders[1] / "2.tif")
    with pytest.raises(DataError, match="such as 2: the first gives 6 patches, the second 16"):
        PairedRecords(*(_open(folder) for folder in folders))


def test_patches_of_two_sizes_are_refused(folders):
    first = _open(folders[0])
    with pytest.raises(DataError, match="patch_size 20 and 30"):
        PairedRecords(first, _open(folders[1], 30))


def test_records_that_do_not_tell_their_pictures_are_refused(folders, tmp_path):
    path = tmp_path / "bare.tfrecords"
    with RecordWriter(path) as writer:
        writer.write(np.zeros((256, 256, 3), "uint8"))
    with pytest.raises(DataError, match="tells whose patches"):
        PairedRecords(PatchRecords.open(path), PatchRecords.open(path))


def test_shots_of_unequal_size_are_refused_even_if_they_give_as_many_patches(folders):
    with Image.open(folders[1] / "0.tif") as image:
        image.crop((0, 0, image.width + 1, image.height)).save(folders[1] / "0.tif")
    with pytest.raises(DataError, match=r"0\.png are not of one size: .* 1200 and 1240 pixels"):
        PairedRecords(*map(_open, folders))


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
