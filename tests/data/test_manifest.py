import contextlib
import dataclasses
import json
import os

import numpy as np
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
        {"patch_size": 0},
        {"patch_size": -1},
        {"patch_size": 1.5},
        {"patch_size": True},
        {"patch_size": "256"},
        {"patch_size": 10**30},
        {"stride": 0},
        {"offset": -1},
        {"offset": None},
        {"root": 3},
        {"root": "a\0b"},
        {"white": 0},
        {"white": "4095"},
        {"white": float("nan")},
        {"white": float("inf")},
        {"white": 10**400},
        {"dtype": ["uint8"]},
        {"failed": [{"path": "a", "reason": None}]},
        {"failed": [3]},
        {"shards": {"a": 1}},
        *(
            {"shards": [{**dataclasses.asdict(MANIFEST.shards[0]), **change}]}
            for change in (
                *({"name": name} for name in ("", ".", "..", "../a", "a/b", "a\\b", "C:a", 3)),
                {"records": -1},
                {"bytes": 2**63},
                {"chunk": -1},
                {"sha256": None},
            )
        ),
        {"shards": [dataclasses.asdict(MANIFEST.shards[0])] * 2},
        *(
            {"sources": [{**dataclasses.asdict(MANIFEST.sources[0]), **change}]}
            for change in (
                {"path": None},
                {"path": "a\0"},
                {"size": -1},
                {"mtime_ns": 1e9},
                {"patches": -4},
                {"padded": 1},
                {"first": -2},
                {"dtype": "int8"},
                {"black": 2.0},
                {"black": None},
                {"white": float("nan")},
                {"white": 1e301},
            )
        ),
    ],
)
def test_foreign_content_is_refused(tmp_path, change):
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=r"manifest\.json cannot be used .*--force"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [*(b"", b"{", b"[]", b"null", b"{}", b"3", b'"', b"\xff\xfe", b"[" * 10**6), b"9" * 10**5],
)
def test_damaged_json_is_refused(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_missing_manifest_is_named(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json.*No such file"):
        Manifest.read(tmp_path)


SHARD = MANIFEST.shards[0].name


def test_a_patch_has_a_picture():
    (source,) = MANIFEST.sources
    assert {*MANIFEST.patches_of(SHARD)} == {(source, number) for number in range(4)}


def test_an_untold_picture_is_an_error():
    old = dataclasses.replace(MANIFEST.sources[0], first=-1)
    older = dataclasses.replace(MANIFEST, sources=(old,))
    for manifest, shard in ((MANIFEST, "other.tfrecords"), (older, SHARD)):
        with pytest.raises(DataError, match=f"which pictures the patches in {shard} come from"):
            manifest.patches_of(shard)


def test_manifests_of_the_first_version_are_read(tmp_path):
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    content = json.loads(path.read_text())
    del content["white"]
    for key in ("first", "dtype", "black", "white", "pixels", "uncovered"):
        del content["sources"][0][key]
    path.write_text(json.dumps(content))
    manifest = Manifest.read(tmp_path)
    assert manifest.white is None
    assert manifest.sources[0].first == -1
    assert manifest.sources[0].value_range is None


def test_names_of_any_bytes_come_back(tmp_path):
    name = os.fsdecode(b"\xff\n\xe2\x82\xac")
    manifest = dataclasses.replace(
        MANIFEST,
        root=name,
        sources=(dataclasses.replace(MANIFEST.sources[0], path=name),),
        failed=(Failure(name, "is empty"),),
    )
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_a_damaged_number_of_patches_takes_no_memory():
    source = dataclasses.replace(MANIFEST.sources[0], patches=2**60)
    with pytest.raises(DataError, match="does not say which pictures"):
        dataclasses.replace(MANIFEST, sources=(source,)).patches_of(SHARD)


@pytest.mark.parametrize("seed", range(5))
def test_any_changed_bytes_are_read_or_refused(tmp_path, seed):
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    content = path.read_bytes()
    random = np.random.default_rng(seed)
    for _ in range(100):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            Manifest.read(tmp_path).patches_of(SHARD)
