import hashlib
from pathlib import Path

import numpy as np
import pytest

from cbsn.data.records import PatchRecords
from cbsn.errors import ImageError
from cbsn.value_range import ValueRange
from data_prep import shards
from data_prep.cutting import cut, is_too_small, padded, uncovered
from data_prep.shards import Chunk, shard_files, write_chunk
from data_prep.sources import RawData, convert, find_raw


class Texts(RawData):
    """Images of 8x12 pixels that all hold the number in their file."""

    def read(self, path):
        text = path.read_text()
        if not text:
            raise ImageError(f"{path}: is empty.")
        return np.full((8, 12, 3), int(text), np.uint8), ValueRange(0.0, 255.0)


@pytest.fixture
def chunk(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(str(number))
    files = tuple(sorted(tmp_path.glob("*.txt")))
    out = tmp_path / "out"
    out.mkdir()
    raw = Texts("folder", tmp_path, files, "uint8")
    return Chunk(number=7, raw=raw, out=out, patch_size=4, stride=4, offset=0)


def values(out, result):
    records = PatchRecords([out / shard.name for shard in result.shards], 4, np.uint8)
    return [int(patch[0, 0, 0]) for patch in records]


def test_patches_of_all_images_are_mixed(chunk):
    result = write_chunk(chunk)
    found = values(chunk.out, result)
    assert sorted(found) == [number for number in range(4) for _ in range(6)]
    assert found != sorted(found)
    assert len(set(found[:12])) == 4


def test_entries_say_what_was_written(chunk):
    result = write_chunk(chunk)
    assert [(s.path, s.size, s.patches, s.padded, s.chunk) for s in result.sources] == [
        (f"{number}.txt", 1, 6, False, 7) for number in range(4)
    ]
    assert result.sources[0].mtime_ns == chunk.raw.files[0].stat().st_mtime_ns
    (shard,) = result.shards
    assert (shard.name, shard.records, shard.chunk) == ("patches-00007-00.tfrecords", 24, 7)
    assert shard.bytes == (chunk.out / shard.name).stat().st_size
    assert [path.name for path in chunk.out.iterdir()] == [shard.name]


def test_large_chunk_becomes_several_shards_that_each_mix_the_images(chunk, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 12 * 48)
    result = write_chunk(chunk)
    assert [shard.records for shard in result.shards] == [12, 12]
    found = values(chunk.out, result)
    assert len(set(found[:12])) > 1
    assert len(set(found[12:])) > 1


def test_order_is_the_same_every_time_and_another_in_another_chunk(chunk, tmp_path):
    first = values(chunk.out, write_chunk(chunk))
    assert values(chunk.out, write_chunk(chunk)) == first
    other = Chunk(8, chunk.raw, chunk.out, 4, 4, 0)
    assert values(chunk.out, write_chunk(other)) != first


def test_broken_and_vanished_files_are_reported_and_the_others_converted(chunk):
    chunk.raw.files[1].write_text("")
    chunk.raw.files[2].unlink()
    result = write_chunk(chunk)
    assert [failure.path for failure in result.failed] == ["1.txt", "2.txt"]
    assert result.failed[0].reason == "is empty."
    assert "No such file" in result.failed[1].reason
    assert set(values(chunk.out, result)) == {0, 3}


def test_chunk_of_broken_files_writes_no_shard(chunk):
    for path in chunk.raw.files:
        path.write_text("")
    result = write_chunk(chunk)
    assert (len(result.failed), result.sources, result.shards) == (4, (), ())
    assert list(chunk.out.iterdir()) == []


def test_padded_images_are_marked(chunk):
    result = write_chunk(Chunk(0, chunk.raw, chunk.out, patch_size=10, stride=1, offset=0))
    assert [(source.patches, source.padded) for source in result.sources] == [(3, True)] * 4


def test_own_shards_are_told_from_other_files(tmp_path):
    own = ["patches-00003-00.tfrecords", ".patches-00012-01.0a1b2c3d.tfrecords"]
    for name in [*own, "patches-x-0.tfrecords", "patches-1-1.txt", "SIDD256.tfrecords"]:
        (tmp_path / name).touch()
    assert shard_files(tmp_path) == {
        Path(tmp_path / own[0]): 3,
        Path(tmp_path / own[1]): 12,
    }


def coordinates(height, width):
    """An image whose pixels say where they were."""
    return np.stack([*np.indices((height, width)), np.zeros((height, width), int)], axis=-1)


def corners(image, size, stride, offset):
    return [tuple(int(v) for v in patch[0, 0, :2]) for patch in cut(image, size, stride, offset)]


def test_corners_are_offset_plus_multiples_of_the_stride():
    found = corners(coordinates(20, 27), size=8, stride=5, offset=1)
    assert found == [(top, left) for top in (1, 6, 11) for left in (1, 6, 11, 16)]


def test_patch_that_just_fits_is_taken():
    assert corners(coordinates(8, 13), size=8, stride=5, offset=0) == [(0, 0), (0, 5)]
    assert corners(coordinates(8, 12), size=8, stride=5, offset=0) == [(0, 0)]


def test_axis_too_short_for_the_offset_gives_its_last_patch():
    assert corners(coordinates(10, 30), size=8, stride=5, offset=4) == [
        (2, left) for left in (4, 9, 14, 19)
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 20), (7, 7), (8, 5)])
def test_small_pictures_are_reflected_to_one_patch_high_or_wide(shape):
    image = coordinates(*shape)
    patches = list(cut(padded(image, 8), size=8, stride=100, offset=3))
    assert [patch.shape for patch in patches] == [(8, 8, 3)]
    height, width = min(shape[0], 8), min(shape[1], 8)
    left = patches[0][0, 0, 1]  # a long side is cut where the offset says
    np.testing.assert_array_equal(patches[0][:height, :width], image[:height, left : left + width])
    if 1 < shape[0] < 8:
        np.testing.assert_array_equal(patches[0][shape[0]], patches[0][shape[0] - 2])


def test_picture_of_a_patchs_size_is_one_patch():
    image = coordinates(8, 8)
    assert padded(image, 8) is image
    (patch,) = cut(image, size=8, stride=5, offset=3)
    np.testing.assert_array_equal(patch, image)


def test_patches_of_a_sidd_picture_are_the_references(golden):
    path = golden("records/0002_NOISY_SRGB_010.PNG")
    image, _ = find_raw(path, "").read(path)
    hashes = [hashlib.sha256(p.tobytes()).hexdigest()[:16] for p in cut(image, 256, 200, 10)]
    assert hashes == ["d36fa679f8f7e2d7", "07b1a5936e99921f"]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.uint8([0, 1, 255]), "uint8", np.uint8([0, 1, 255])),
        (np.uint8([0, 1, 255]), "uint16", np.uint16([0, 257, 65535])),
        (np.uint8([0, 51, 255]), "float32", np.float32([0, 0.2, 1])),
        (np.uint16([0, 13107, 65535]), "float32", np.float32([0, 0.2, 1])),
        (np.float32([0, 0.2, 1]), "float32", np.float32([0, 0.2, 1])),
    ],
)
def test_white_stays_white_in_a_wider_dtype(values, dtype, expected):
    converted = convert(values, dtype)
    assert converted.dtype == dtype
    np.testing.assert_array_equal(converted, expected)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [(np.uint16([1]), "uint8"), (np.float32([1]), "uint8"), (np.float32([1]), "uint16")],
)
def test_nothing_is_narrowed(values, dtype):
    with pytest.raises(ImageError, match=f"is a {values.dtype} picture in a data set of {dtype}"):
        convert(values, dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ImageError, match="not finite"):
        convert(np.float32([0.5, value]), "float32")


def _seen(image, *grid, **options):
    return {value for patch in cut(image, *grid, **options) for value in patch.ravel().tolist()}


@pytest.mark.parametrize("to_edge", [False, True])
@pytest.mark.parametrize(("size", "stride", "offset"), [(4, 3, 0), (4, 3, 1), (3, 5, 0), (9, 1, 2)])
def test_pixels_in_no_patch_are_counted(size, stride, offset, to_edge):
    for height, width in ((9, 12), (10, 14), (40, 9)):
        image = np.arange(height * width).reshape(height, width, 1)
        seen = _seen(image, size, stride, offset, to_edge=to_edge)
        found = uncovered(height, width, size, stride, offset, to_edge=to_edge)
        assert found == image.size - len(seen)


def test_patches_at_the_far_edges_leave_no_margins_and_come_once():
    image = np.arange(10 * 12).reshape(10, 12, 1)
    assert len(_seen(image, 4, 4, 0)) == 8 * 12
    assert len(_seen(image, 4, 4, 0, to_edge=True)) == image.size
    corners = [patch[0, 0, 0] for patch in cut(image, 4, 4, 0, to_edge=True)]
    assert corners == [12 * top + left for top in (0, 4, 6) for left in (0, 4, 8)]


def test_small_pictures_are_padded_to_the_usual_size_and_to_twice_their_own():
    assert not is_too_small(1, 256)
    assert is_too_small(1, 257)
    assert not is_too_small(300, 600)
    assert is_too_small(300, 601)
