import concurrent.futures
import dataclasses
import json
import os

import numpy as np
import pytest
import tifffile

from cbsn.data.manifest import MANIFEST_NAME, Manifest
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError
from data_prep import convert, shards, sources
from data_prep.convert import LOCK_NAME
from data_prep.prepare import prepare
from data_prep.shards import Chunk
from data_prep.sources import RawData

READ = RawData.read
SIZE = {"patch_size": 16, "stride": 16}


@pytest.fixture
def done(photos, out):
    """The photos, whose patches are in `out`."""
    prepare(photos, out=out, **SIZE)
    return photos


def shard_times(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("patches-*")}


def test_second_run_leaves_every_file_alone(done, out):
    before, manifest = shard_times(out), (out / MANIFEST_NAME).read_bytes()
    assert "already done: 6" in prepare(done, out=out, **SIZE).summary
    assert shard_times(out) == before
    assert (out / MANIFEST_NAME).read_bytes() == manifest


def test_a_data_set_that_is_done_may_be_read_only(done, out, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(Manifest, "write", None)
    monkeypatch.setattr(convert.filelock, "FileLock", refuse)
    assert "already done: 6" in prepare(done, out=out, **SIZE).summary


def test_added_pictures_cost_their_own_chunk(done, out, save, content):
    before = shard_times(out)
    save(done / "new.png", 77)
    assert "already done: 6" in prepare(done, out=out, **SIZE).summary
    after = shard_times(out)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"patches-00003-00.tfrecords"}
    assert content(out) == {**dict.fromkeys(range(6), 2), 77: 2}


def test_changed_picture_drops_its_chunk_only(done, out, save, content):
    chunk = next(s.chunk for s in Manifest.read(out).sources if s.path == "3.png")
    before = shard_times(out)
    save(done / "3.png", 99)
    assert "already done: 4" in prepare(done, out=out, **SIZE).summary
    kept = {name for name in before if f"-{chunk:05d}-" not in name}
    assert before.keys() & shard_times(out).keys() == kept
    assert content(out) == dict.fromkeys([0, 1, 2, 4, 5, 99], 2)


def test_removed_picture_takes_its_patches_along(done, out, content):
    (done / "3.png").unlink()
    assert "already done: 4" in prepare(done, out=out, **SIZE).summary
    assert content(out) == dict.fromkeys([0, 1, 2, 4, 5], 2)
    assert "3.png" not in [source.path for source in Manifest.read(out).sources]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_shard_is_made_again(done, out, content, damage):
    path = out / "patches-00001-00.tfrecords"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    assert "already done: 4" in prepare(done, out=out, **SIZE).summary
    assert content(out) == dict.fromkeys(range(6), 2)


def test_broken_picture_is_named_and_tried_again(photos, out, content):
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


def test_left_overs_are_removed_and_other_files_are_not(photos, out, content):
    out.mkdir()
    for name in ("patches-00009-00.tfrecords", ".patches-00004-00.abc.tfrecords", "mine.txt"):
        (out / name).write_text("left behind")
    prepare(photos, out=out, **SIZE)
    assert {path.name for path in out.iterdir()} == {
        *(LOCK_NAME, MANIFEST_NAME, "mine.txt"),
        *(shard.name for shard in Manifest.read(out).shards),
    }
    assert content(out) == dict.fromkeys(range(6), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 8}, r"patch_size 16 \(now 8\)"),
        ({"stride": 8}, r"stride 16 \(now 8\)"),
        ({"offset": 2}, r"offset 0 \(now 2\)"),
    ],
)
def test_other_parameters_need_force(done, out, content, change, message):
    before = shard_times(out)
    with pytest.raises(ConfigError, match=rf"{message}.*cbsn prepare .*--force.*--out"):
        prepare(done, out=out, **{**SIZE, **change})
    assert shard_times(out) == before
    prepare(done, out=out, force=True, **{**SIZE, **change})
    assert before.keys().isdisjoint(shard_times(out))
    assert content(out).keys() == set(range(6))


def test_unreadable_manifest_needs_force(done, out, content):
    (out / MANIFEST_NAME).write_text("{")
    with pytest.raises(DataError, match="--force"):
        prepare(done, out=out, **SIZE)
    prepare(done, out=out, force=True, **SIZE)
    assert content(out) == dict.fromkeys(range(6), 2)


def test_picture_of_a_wider_dtype_has_all_converted_anew(done, out, content):
    tifffile.imwrite(done / "x.tif", np.full((16, 16), 65000, np.uint16))
    assert "already done: 0" in prepare(done, out=out, **SIZE).summary
    assert PatchRecords.open(out).dtype == np.uint16
    assert content(out) == {**{257 * value: 2 for value in range(6)}, 65000: 1}


def test_moved_folder_is_known_again(done, out, tmp_path):
    moved = done.rename(tmp_path / "moved")
    assert "already done: 6" in prepare(moved, out=out, **SIZE).summary
    assert Manifest.read(out).root == str(moved)


def test_data_sets_that_do_not_tell_ranges_are_converted_anew_where_it_matters(photos, out):
    tifffile.imwrite(photos / "x.tif", np.full((16, 16), 1000, np.uint16))
    for dtype in ("uint16", "uint8"):
        prepare(photos, out=out, **SIZE)
        path = out / MANIFEST_NAME
        fields = json.loads(path.read_text())
        del fields["white"]
        for source in fields["sources"]:
            for key in ("dtype", "black", "white", "pixels", "uncovered"):
                del source[key]
        path.write_text(json.dumps(fields))
        expected = 0 if dtype == "uint16" else 6
        assert f"already done: {expected}," in prepare(photos, out=out, **SIZE).summary
        (photos / "x.tif").unlink(missing_ok=True)


def test_large_files_make_smaller_chunks(photos, out, monkeypatch):
    monkeypatch.setattr(convert, "CHUNK_BYTES", 1)
    assert "shards: 6" in prepare(photos, out=out, **SIZE).summary


def test_the_picture_of_every_patch_is_known(photos, out, monkeypatch, save):
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


def test_a_data_set_in_use_stays_until_nobody_reads_it(done, out, save, content):
    records = PatchRecords.open(out)
    before = list(records)
    for path in done.iterdir():
        save(path, 99)
    assert "a training may be reading them" in str(prepare(done, out=out, **SIZE))
    assert content(out) == {99: 12}
    np.testing.assert_array_equal(list(records), before)
    prepare(done, out=out, force=True, **SIZE)
    np.testing.assert_array_equal(list(records), before)
    del records
    assert "a training" not in str(prepare(done, out=out, **SIZE))
    listed = {shard.name for shard in Manifest.read(out).shards}
    assert {path.name for path in out.glob("patches-*")} == listed


def test_interrupted_run_keeps_its_chunks_and_goes_on(photos, out, monkeypatch, content):
    calls = []

    def interrupted(raw, path):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return READ(raw, path)

    monkeypatch.setattr(RawData, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, out=out, **SIZE)
    assert sum(content(out).values()) == 4
    names = {LOCK_NAME, MANIFEST_NAME, "patches-00000-00.tfrecords"}
    assert {path.name for path in out.iterdir()} == names
    monkeypatch.undo()
    monkeypatch.setattr(convert, "CHUNK_FILES", 2)
    assert "already done: 2" in prepare(photos, out=out, **SIZE).summary
    assert content(out) == dict.fromkeys(range(6), 2)


@pytest.mark.parametrize("error", [MemoryError, RecursionError, SystemError, ZeroDivisionError])
def test_whatever_a_file_raises_makes_it_a_failed_one(photos, out, monkeypatch, content, error):
    def read(raw, path):
        if path.name == "3.png":
            raise error("as\nit happens")
        return READ(raw, path)

    monkeypatch.setattr(RawData, "read", read)
    (failure,) = prepare(photos, out=out, **SIZE).failed
    assert failure.reason == f"cannot be read ({error.__name__}: as it happens)."
    assert content(out) == dict.fromkeys([0, 1, 2, 4, 5], 2)


def test_result_does_not_depend_on_which_chunk_ends_first(done, out, tmp_path, monkeypatch):
    write = convert.write_chunk
    order = iter([2, 0, 1])

    def write_another(chunk):
        return write(dataclasses.replace(chunks[next(order)], out=chunk.out))

    chunks = []
    monkeypatch.setattr(convert, "Chunk", lambda *args: chunks.append(Chunk(*args)) or chunks[-1])
    monkeypatch.setattr(convert, "write_chunk", write_another)
    prepare(done, out=tmp_path / "reversed", **SIZE)
    assert Manifest.read(tmp_path / "reversed") == Manifest.read(out)


def test_result_does_not_depend_on_the_number_of_processes(done, out, tmp_path):
    prepare(done, out=tmp_path / "two", workers=2, **SIZE)
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


class Deadly(RawData):
    """For processes of their own, where nothing can be patched."""

    def read(self, path):
        if path.name in ("1.png", "4.png"):
            os._exit(9)
        return super().read(path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_ends_its_process_is_named_and_the_others_go_on(
    photos, out, monkeypatch, content, workers
):
    monkeypatch.setattr(sources, "RawData", Deadly)
    report = prepare(photos, out=out, workers=workers, **SIZE)
    assert [failure.path for failure in report.failed] == ["1.png", "4.png"]
    assert "ended the process that read it" in str(report)
    assert content(out) == dict.fromkeys([0, 2, 3, 5], 2)
    monkeypatch.undo()
    assert prepare(photos, out=out, workers=workers, **SIZE).failed == ()
    assert content(out) == dict.fromkeys(range(6), 2)


def exit_at_once(index, chunk):
    os._exit(9)


def test_processes_that_end_for_no_file_are_an_error(photos, out, monkeypatch):
    monkeypatch.setattr(convert, "_write", exit_at_once)
    with pytest.raises(DataError, match="A process ended before its work was done"):
        prepare(photos, out=out, workers=1, **SIZE)


@pytest.mark.slow
def test_two_preparations_of_one_folder_come_one_after_the_other(photos, out, run_python):
    out.mkdir()
    code = f"""
        from cbsn.progress import shown
        from data_prep.prepare import prepare
        with shown():
            print(prepare({str(photos)!r}, out={str(out)!r}, patch_size=16, stride=16))
    """
    with concurrent.futures.ThreadPoolExecutor() as pool, convert.alone(out):
        other = pool.submit(run_python, code)
        with pytest.raises(concurrent.futures.TimeoutError):
            other.result(timeout=4)
        assert not (out / MANIFEST_NAME).exists()
    done = other.result()
    assert "already done: 0" in done.stdout
    assert "waiting for it" in done.stderr
