import collections
import hashlib
import json
import os
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.manifest import MANIFEST_NAME, Manifest
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError
from data_prep import folder, shards
from data_prep import prepare as module
from data_prep.prepare import prepare, prepared_folder

SIZE = {"patch_size": 16, "stride": 16}


def save(path, value, shape=(32, 16)):
    """A picture of one value: two patches of 16x16."""
    Image.fromarray(np.full((*shape, 3), value, np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six pictures, in chunks of two."""
    monkeypatch.setattr(module, "CHUNK_FILES", 2)
    photos = tmp_path / "photos"
    photos.mkdir()
    for value in range(6):
        save(photos / f"{value}.png", value)
    return photos


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def content(out):
    """How often each value occurs among the patches."""
    return dict(
        sorted(collections.Counter(int(p[0, 0, 0]) for p in PatchRecords.open(out)).items())
    )


def shard_times(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("patches-*")}


def test_all_patches_are_written_and_listed(photos, out):
    report = prepare(photos, out=out, **SIZE)
    assert content(out) == dict.fromkeys(range(6), 2)
    assert "12 patches of 16x16 uint8 from 6 of 6 images (shards: 3" in str(report)
    assert report.failed == ()
    manifest = Manifest.read(out)
    assert (manifest.kind, manifest.root, manifest.offset) == ("folder", str(photos), 0)
    assert [source.path for source in manifest.sources] == [f"{n}.png" for n in range(6)]
    assert {source.patches for source in manifest.sources} == {2}
    assert collections.Counter(s.chunk for s in manifest.sources) == {0: 2, 1: 2, 2: 2}
    for shard in manifest.shards:
        stored = (out / shard.name).read_bytes()
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (shard.bytes, shard.sha256)
    assert sorted(p.name for p in out.iterdir()) == [
        MANIFEST_NAME,
        *(shard.name for shard in manifest.shards),
    ]


@pytest.mark.parametrize("kind", ["SIDD", "DND"])
def test_patches_are_the_references(golden, out, kind):
    hashes = json.loads(golden("records/prep_output/hashes.json").read_text())
    prepare(kind.lower(), source=golden("records/prep_input"), out=out)
    found = [
        (hashlib.sha256(p.tobytes()).hexdigest()[:16], p.nbytes) for p in PatchRecords.open(out)
    ]
    assert sorted(found) == sorted(map(tuple, hashes[f"{kind}256.tfrecords"]))


def test_second_run_leaves_every_file_alone(photos, out):
    prepare(photos, out=out, **SIZE)
    before = {path: path.stat().st_mtime_ns for path in out.glob("patches-*")}
    manifest = (out / MANIFEST_NAME).read_bytes()
    assert "already done: 6" in prepare(photos, out=out, **SIZE).summary
    assert {path: path.stat().st_mtime_ns for path in out.glob("patches-*")} == before
    assert (out / MANIFEST_NAME).read_bytes() == manifest


def test_result_does_not_depend_on_the_number_of_processes(photos, out, tmp_path):
    prepare(photos, out=out, workers=1, **SIZE)
    prepare(photos, out=tmp_path / "two", workers=2, **SIZE)
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_result_does_not_depend_on_which_chunk_ends_first(photos, out, tmp_path, monkeypatch):
    prepare(photos, out=out, **SIZE)
    run = module._run
    monkeypatch.setattr(module, "_run", lambda chunks, workers: run(chunks[::-1], workers))
    prepare(photos, out=tmp_path / "reversed", **SIZE)
    assert Manifest.read(tmp_path / "reversed") == Manifest.read(out)


def test_added_pictures_cost_their_own_chunk(photos, out):
    prepare(photos, out=out, **SIZE)
    before = shard_times(out)
    save(photos / "new.png", 77)
    assert "already done: 6" in prepare(photos, out=out, **SIZE).summary
    after = shard_times(out)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"patches-00003-00.tfrecords"}
    assert content(out) == {**dict.fromkeys(range(6), 2), 77: 2}


def test_changed_picture_drops_its_chunk_only(photos, out):
    prepare(photos, out=out, **SIZE)
    chunk = next(s.chunk for s in Manifest.read(out).sources if s.path == "3.png")
    before = shard_times(out)
    save(photos / "3.png", 99)
    assert "already done: 4" in prepare(photos, out=out, **SIZE).summary
    kept = {name for name in before if f"-{chunk:05d}-" not in name}
    assert before.keys() & shard_times(out).keys() == kept
    assert content(out) == dict.fromkeys([0, 1, 2, 4, 5, 99], 2)


def test_removed_picture_takes_its_patches_along(photos, out):
    prepare(photos, out=out, **SIZE)
    (photos / "3.png").unlink()
    assert "already done: 4" in prepare(photos, out=out, **SIZE).summary
    assert content(out) == dict.fromkeys([0, 1, 2, 4, 5], 2)
    assert "3.png" not in [source.path for source in Manifest.read(out).sources]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_shard_is_made_again(photos, out, damage):
    prepare(photos, out=out, **SIZE)
    path = out / "patches-00001-00.tfrecords"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    assert "already done: 4" in prepare(photos, out=out, **SIZE).summary
    assert content(out) == dict.fromkeys(range(6), 2)


def test_broken_picture_is_named_and_tried_again(photos, out):
    whole = (photos / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[:50])
    (photos / "note.png").write_text("not a picture")
    for already_done in (0, 5):
        report = prepare(photos, out=out, **SIZE)
        assert [failure.path for failure in report.failed] == ["2.png", "note.png"]
        assert f"already done: {already_done}, failed: 2" in report.summary
        assert "note.png: is not a PNG" in str(report)
        assert content(out) == dict.fromkeys([0, 1, 3, 4, 5], 2)
        assert Manifest.read(out).failed == report.failed
    (photos / "2.png").write_bytes(whole)
    (photos / "note.png").unlink()
    assert prepare(photos, out=out, **SIZE).failed == ()
    assert content(out) == dict.fromkeys(range(6), 2)


def test_only_broken_pictures(photos, out):
    for path in photos.iterdir():
        path.write_bytes(b"")
    assert len(prepare(photos, out=out, **SIZE).failed) == 6
    with pytest.raises(DataError, match="holds no patches"):
        PatchRecords.open(out)


def test_interrupted_run_keeps_its_chunks_and_goes_on(photos, out, monkeypatch):
    read, calls = folder.read, []

    def interrupted(path):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(folder, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, out=out, **SIZE)
    assert sum(content(out).values()) == 4
    assert len(list(out.iterdir())) == 2
    monkeypatch.setattr(folder, "read", read)
    assert "already done: 2" in prepare(photos, out=out, **SIZE).summary
    assert content(out) == dict.fromkeys(range(6), 2)


def test_left_overs_are_removed_and_other_files_are_not(photos, out):
    out.mkdir()
    for name in ("patches-00009-00.tfrecords", ".patches-00004-00.abc.tfrecords", "mine.txt"):
        (out / name).write_text("left behind")
    prepare(photos, out=out, **SIZE)
    names = {path.name for path in out.iterdir()}
    assert "mine.txt" in names
    assert len(names) == 5
    assert content(out) == dict.fromkeys(range(6), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 8}, r"patch_size 16 \(now 8\)"),
        ({"stride": 8}, r"stride 16 \(now 8\)"),
        ({"offset": 2}, r"offset 0 \(now 2\)"),
    ],
)
def test_other_parameters_need_force(photos, out, change, message):
    prepare(photos, out=out, **SIZE)
    before = shard_times(out)
    with pytest.raises(ConfigError, match=rf"{message}.*--out.*--force"):
        prepare(photos, out=out, **{**SIZE, **change})
    assert shard_times(out) == before
    prepare(photos, out=out, force=True, **{**SIZE, **change})
    assert before.keys().isdisjoint(shard_times(out))
    assert content(out).keys() == set(range(6))


def test_picture_of_a_wider_dtype_needs_force(photos, out):
    prepare(photos, out=out, **SIZE)
    tifffile.imwrite(photos / "x.tif", np.full((16, 16), 1000, np.uint16))
    with pytest.raises(ConfigError, match=r"dtype uint8 \(now uint16\)"):
        prepare(photos, out=out, **SIZE)
    prepare(photos, out=out, force=True, **SIZE)
    assert PatchRecords.open(out).dtype == np.uint16
    assert content(out) == {**{257 * value: 2 for value in range(6)}, 1000: 1}


def test_other_folder_needs_force(photos, out, tmp_path):
    prepare(photos, out=out, **SIZE)
    other = tmp_path / "other"
    other.mkdir()
    save(other / "x.png", 9)
    with pytest.raises(ConfigError, match=r"the pictures of .*photos \(now .*other\)"):
        prepare(other, out=out, **SIZE)
    prepare(other, out=out, force=True, **SIZE)
    assert content(out) == {9: 2}


def test_moved_folder_is_known_again(photos, out, tmp_path):
    prepare(photos, out=out, **SIZE)
    moved = photos.rename(tmp_path / "moved")
    assert "already done: 6" in prepare(moved, out=out, **SIZE).summary
    assert Manifest.read(out).root == str(moved)


def test_unreadable_manifest_needs_force(photos, out):
    prepare(photos, out=out, **SIZE)
    (out / MANIFEST_NAME).write_text("{")
    with pytest.raises(DataError, match="--force"):
        prepare(photos, out=out, **SIZE)
    prepare(photos, out=out, force=True, **SIZE)
    assert content(out) == dict.fromkeys(range(6), 2)


def test_small_pictures_are_padded_and_said_so(photos, out):
    save(photos / "tiny.png", 50, shape=(1, 1))
    report = prepare(photos, out=out, **SIZE)
    assert "reflect-padded: 1," in report.summary
    assert content(out)[50] == 1
    assert [s.path for s in Manifest.read(out).sources if s.padded] == ["tiny.png"]


def test_large_files_make_smaller_chunks(photos, out, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    assert "shards: 6" in prepare(photos, out=out, **SIZE).summary


def test_default_folders_are_named_after_the_data(photos, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    prepare("photos", **SIZE)
    assert len(PatchRecords.open("dataset/photos16")) == 12
    monkeypatch.chdir(photos)
    prepare(".", **SIZE)
    assert len(PatchRecords.open("dataset/photos16")) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 0}, "--patchsize must be at least 1"),
        ({"stride": 0}, "--stride must be at least 1"),
        ({"offset": -1}, "--offset must be at least 0"),
        ({"workers": 0}, "--workers must be at least 1"),
    ],
)
def test_impossible_numbers_are_refused_before_any_work(photos, out, change, message):
    with pytest.raises(ConfigError, match=message):
        prepare(photos, out=out, **change)
    assert not out.exists()


def test_place_that_cannot_be_written_is_an_error(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be prepared.*file"):
        prepare(photos, out=tmp_path / "file", **SIZE)


def test_worker_that_dies_is_an_error_that_keeps_what_is_done(photos, out, monkeypatch):
    monkeypatch.setattr(module, "write_chunk", die_at_chunk_2)
    with pytest.raises(DataError, match="fewer --workers"):
        prepare(photos, out=out, workers=2, **SIZE)
    monkeypatch.undo()
    kept = Manifest.read(out)
    assert len(kept.sources) in (2, 4)
    assert f"already done: {len(kept.sources)}," in prepare(photos, out=out, **SIZE).summary
    assert content(out) == dict.fromkeys(range(6), 2)


def die_at_chunk_2(chunk):
    if chunk.number < 2:
        return module.write_chunk(chunk)
    while not (chunk.out / MANIFEST_NAME).exists():  # written when the first chunk is done
        time.sleep(0.01)
    os._exit(9)


def test_the_picture_of_every_patch_is_known(photos, out, monkeypatch):
    """Also after some were added, in shards of several to a chunk."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * 16 * 16 * 3)
    prepare(photos, out=out, **SIZE)
    save(photos / "05.png", 7, (16, 48))
    save(photos / "9.png", 9, (48, 48))
    prepare(photos, out=out, **SIZE)
    records = PatchRecords.open(out)
    assert len({path.name for path in records.paths}) > 4
    for index, patch in enumerate(records):
        value = int(patch[0, 0, 0])
        name = "05.png" if value == 7 else f"{value}.png"
        assert f"({photos / name})" in records.describe(index)


def test_where_patches_will_be_is_known_before(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for dataset in ("photos", "photos/*.png"):
        assert prepare(dataset, **SIZE).out == prepared_folder(dataset, SIZE["patch_size"])
