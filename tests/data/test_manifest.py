import dataclasses
import json

import pytest

from cbsn.data.manifest import MANIFEST_NAME, Failure, Manifest, Shard, Source
from cbsn.errors import DataError

MANIFEST = Manifest(
    kind="folder",
    root="photos",
    patch_size=256,
    stride=200,
    offset=0,
    dtype="uint16",
    sources=(Source("a/b.png", 1234, 1_700_000_000_123_456_789, 4, False, 0, 0),),
    shards=(Shard("patches-00000-00.tfrecords", 4, 1_572_000, "ab" * 32, 0),),
    failed=(Failure("c.png", "is empty"),),
)


def test_comes_back_as_it_was_written(tmp_path):
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


def test_is_readable_json(tmp_path):
    MANIFEST.write(tmp_path)
    content = json.loads((tmp_path / MANIFEST_NAME).read_text())
    assert content["version"] == 1
    assert content["sources"][0]["path"] == "a/b.png"
    assert content["shards"][0]["sha256"] == "ab" * 32


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"format": "something else"},
        {"dtype": "int8"},
        {"sources": [{"path": "a.png"}]},
        {"sources": 3},
        {"surplus": 1},
    ],
)
def test_foreign_content_is_refused(tmp_path, change):
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=r"manifest\.json cannot be used .*--force"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}"])
def test_damaged_json_is_refused(tmp_path, text):
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_missing_manifest_is_named(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json.*No such file"):
        Manifest.read(tmp_path)


SHARD = MANIFEST.shards[0].name


def test_a_patch_has_a_picture():
    assert [MANIFEST.picture_of(SHARD, record) for record in range(4)] == ["photos/a/b.png"] * 4


def test_an_untold_picture_is_an_error():
    old = dataclasses.replace(MANIFEST.sources[0], first=-1)
    older = dataclasses.replace(MANIFEST, sources=(old,))
    for manifest, shard, record in (
        (MANIFEST, SHARD, 4),
        (MANIFEST, SHARD, -1),
        (MANIFEST, "other.tfrecords", 0),
        (older, SHARD, 0),
    ):
        with pytest.raises(DataError, match=rf"not tell the picture of patch {record} of {shard}"):
            manifest.picture_of(shard, record)


def test_manifests_of_the_first_version_are_read(tmp_path):
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    content = json.loads(path.read_text())
    del content["sources"][0]["first"]
    path.write_text(json.dumps(content))
    assert Manifest.read(tmp_path).sources[0].first == -1
