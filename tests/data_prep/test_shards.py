from pathlib import Path

import numpy as np
import pytest

from cbsn.data.records import PatchRecords
from cbsn.errors import ImageError
from cbsn.value_range import ValueRange
from data_prep import shards
from data_prep.raw import RawData
from data_prep.shards import Chunk, shard_files, write_chunk


def read(path):
    """An image of 8x12 pixels that all hold the number in the file."""
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
    raw = RawData("folder", tmp_path, files, read, len, "uint8")
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
