import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import unittest.mock
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.manifest import MANIFEST_NAME, Manifest
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError
from data_prep import folder, processes, shards
from data_prep import prepare as module
from data_prep.prepare import LOCK_NAME, prepare, prepared_folder
from data_prep.shards import Chunk

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
        LOCK_NAME,
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
    write = module.write_chunk
    order = iter([2, 0, 1])

    def write_another(chunk):
        return write(dataclasses.replace(chunks[next(order)], out=chunk.out))

    chunks = []
    monkeypatch.setattr(module, "Chunk", lambda *args: chunks.append(Chunk(*args)) or chunks[-1])
    monkeypatch.setattr(module, "write_chunk", write_another)
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

    def interrupted(path, white):
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(path, white)

    monkeypatch.setattr(folder, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, out=out, **SIZE)
    assert sum(content(out).values()) == 4
    assert {path.name for path in out.iterdir()} == {
        LOCK_NAME,
        MANIFEST_NAME,
        "patches-00000-00.tfrecords",
    }
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
    assert names == {
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
def test_other_parameters_need_force(photos, out, change, message):
    prepare(photos, out=out, **SIZE)
    before = shard_times(out)
    with pytest.raises(ConfigError, match=rf"{message}.*prepare_dataset\.py .*--force.*--out"):
        prepare(photos, out=out, **{**SIZE, **change})
    assert shard_times(out) == before
    prepare(photos, out=out, force=True, **{**SIZE, **change})
    assert before.keys().isdisjoint(shard_times(out))
    assert content(out).keys() == set(range(6))


def test_picture_of_a_wider_dtype_has_all_converted_anew(photos, out):
    prepare(photos, out=out, **SIZE)
    tifffile.imwrite(photos / "x.tif", np.full((16, 16), 65000, np.uint16))
    assert "already done: 0" in prepare(photos, out=out, **SIZE).summary
    assert PatchRecords.open(out).dtype == np.uint16
    assert content(out) == {**{257 * value: 2 for value in range(6)}, 65000: 1}


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
        ({"workers": 10**30}, "--workers must be at most 1024"),
        ({"patch_size": 10**30}, "--patchsize must be at most 2147483647"),
        ({"stride": 10**30}, "--stride must be at most"),
        ({"offset": 10**30}, "--offset must be at most"),
        ({"patch_size": 100_000}, "largest one has 32 pixels"),
        ({"patch_size": 257}, "largest one has 32 pixels"),
        ({"white": 0.0}, "--white"),
        ({"white": float("nan")}, "--white"),
        ({"white": float("inf")}, "--white"),
        ({"white": -1.0}, "--white"),
    ],
)
def test_impossible_numbers_are_refused_before_any_work(photos, out, change, message):
    with pytest.raises(ConfigError, match=message):
        prepare(photos, out=out, **change)
    assert not out.exists()


def test_a_folder_without_permission_is_an_error(photos, tmp_path, monkeypatch):
    error = PermissionError(13, "Permission denied", str(photos))
    for target, name in ((folder, "find_images"), (module.Path, "mkdir")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, unittest.mock.Mock(side_effect=error))
            with pytest.raises(DataError, match=r"cannot be prepared.*Permission denied.*photos"):
                prepare(photos, out=tmp_path / "out", **SIZE)


def test_place_that_cannot_be_written_is_an_error(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be prepared.*file"):
        prepare(photos, out=tmp_path / "file", **SIZE)


def read_or_die(path, white=None):
    """In a process of its own, where nothing can be patched."""
    if path.name in ("1.png", "4.png"):
        os._exit(9)
    return READ(path, white)


READ = folder.read


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_ends_its_process_is_named_and_the_others_go_on(
    photos, out, monkeypatch, workers
):
    monkeypatch.setattr(folder, "read", read_or_die)
    report = prepare(photos, out=out, workers=workers, **SIZE)
    assert [failure.path for failure in report.failed] == ["1.png", "4.png"]
    assert "ended the process that read it" in str(report)
    assert content(out) == dict.fromkeys([0, 2, 3, 5], 2)
    monkeypatch.undo()
    assert prepare(photos, out=out, workers=workers, **SIZE).failed == ()
    assert content(out) == dict.fromkeys(range(6), 2)


def exit_at_once(chunk, reads):
    os._exit(9)


def test_processes_that_end_for_no_file_are_an_error(photos, out, monkeypatch):
    monkeypatch.setattr(processes, "_write", exit_at_once)
    with pytest.raises(DataError, match="A process ended before its work was done"):
        prepare(photos, out=out, workers=2, **SIZE)


@pytest.mark.parametrize("error", [MemoryError, RecursionError, SystemError, ZeroDivisionError])
def test_whatever_a_file_raises_makes_it_a_failed_one(photos, out, monkeypatch, error):
    def read(path, white):
        if path.name == "3.png":
            raise error("as\nit happens")
        return READ(path, white)

    monkeypatch.setattr(folder, "read", read)
    report = prepare(photos, out=out, **SIZE)
    (failure,) = report.failed
    assert failure.reason == f"cannot be read ({error.__name__}: as it happens)."
    assert content(out) == dict.fromkeys([0, 1, 2, 4, 5], 2)


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


@pytest.fixture
def namesakes(photos, tmp_path, monkeypatch):
    """Two folders of one name, with a picture of one name."""
    monkeypatch.chdir(tmp_path)
    for parent, value in (("a", 1), ("b", 2)):
        Path(parent, "photos").mkdir(parents=True)
        save(Path(parent, "photos", "x.png"), value)
    return "a/photos", "b/photos"


def test_folders_of_one_name_have_data_sets_of_their_own(namesakes):
    for _ in range(2):
        outs = [prepare(folder, **SIZE).out for folder in namesakes]
        assert outs == [prepared_folder(folder, SIZE["patch_size"]) for folder in namesakes]
        assert [content(out) for out in outs] == [{1: 2}, {2: 2}]
    assert str(outs[0]) == "dataset/photos16"
    # Also when the first one is gone.
    shutil.rmtree(outs[0])
    assert prepare(namesakes[1], **SIZE).out == outs[1]


def test_another_folder_is_not_replaced_because_of_equal_names(namesakes, out):
    prepare(namesakes[0], out=out, **SIZE)
    with pytest.raises(ConfigError, match=r"the pictures of .*a/photos \(now .*b/photos\)"):
        prepare(namesakes[1], out=out, **SIZE)
    assert content(out) == {1: 2}
    # The first one is gone, but the second is not the first one moved.
    shutil.rmtree(namesakes[0])
    with pytest.raises(ConfigError, match="the pictures of"):
        prepare(namesakes[1], out=out, **SIZE)


def test_two_globs_of_one_folder_have_data_sets_of_their_own(photos):
    one, other = (prepare(f"{photos}/{name}.png", **SIZE).out for name in ("[0-2]", "[2-5]"))
    assert content(one) == dict.fromkeys(range(3), 2)
    assert content(other) == dict.fromkeys(range(2, 6), 2)


def test_a_folder_called_like_a_benchmark_is_another_source(tmp_path, monkeypatch, golden):
    monkeypatch.chdir(tmp_path)
    prepare("SIDD", source=golden("records/prep_input"))
    Path("SIDD").mkdir()
    save(Path("SIDD/x.png"), 1)
    assert prepare("./SIDD").out != Path("dataset/SIDD256")


def test_a_data_set_in_use_stays_until_nobody_reads_it(photos, out):
    prepare(photos, out=out, **SIZE)
    records = PatchRecords.open(out)
    before = list(records)
    for path in photos.iterdir():
        save(path, 99)
    assert "a training may be reading them" in str(prepare(photos, out=out, **SIZE))
    assert content(out) == {99: 12}
    np.testing.assert_array_equal(list(records), before)
    prepare(photos, out=out, force=True, **SIZE)
    np.testing.assert_array_equal(list(records), before)
    del records
    assert "a training" not in str(prepare(photos, out=out, **SIZE))
    assert {path.name for path in out.glob("patches-*")} == {
        shard.name for shard in Manifest.read(out).shards
    }


def test_a_data_set_that_is_done_may_be_read_only(photos, out, monkeypatch):
    prepare(photos, out=out, **SIZE)
    monkeypatch.setattr(Manifest, "write", None)
    monkeypatch.setattr(module.filelock, "FileLock", _raise)
    assert "already done: 6" in prepare(photos, out=out, **SIZE).summary


def _raise(path):
    raise PermissionError(path)


def test_two_preparations_of_one_folder_come_one_after_the_other(photos, out, run_python, capsys):
    out.mkdir()
    code = f"""
        from data_prep.prepare import prepare
        print(prepare({str(photos)!r}, out={str(out)!r}, patch_size=16, stride=16))
    """
    with concurrent.futures.ThreadPoolExecutor() as pool, module._alone(out):
        other = pool.submit(run_python, code)
        with pytest.raises(concurrent.futures.TimeoutError):
            other.result(timeout=4)
        assert not (out / MANIFEST_NAME).exists()
    done = other.result()
    assert "already done: 0" in done.stdout
    assert "waiting for it" in done.stderr


def test_the_command_that_is_named_works(photos, tmp_path, monkeypatch, run_here):
    monkeypatch.chdir(tmp_path)
    photos = photos.rename(tmp_path / "my photos")
    prepare(photos, **SIZE)
    with pytest.raises(ConfigError) as caught:
        prepare(photos, white=200.0, **SIZE)
    command = shlex.split(str(caught.value).split("`")[1])
    assert command[:2] == ["python", "prepare_dataset.py"]
    assert run_here(*command[1:]).returncode == 0
    assert Manifest.read("dataset/my photos16").white == 200
    assert "already done: 6" in prepare(photos, white=200.0, **SIZE).summary


def test_ranges_that_are_not_the_whole_one_are_told(photos, out):
    for name, white in (("a", 4000), ("b", 4095), ("c", 1000)):
        tifffile.imwrite(photos / f"{name}.tif", np.full((16, 16), white, np.uint16))
    report = prepare(photos, out=out, **SIZE)
    (note,) = report.notes
    assert "2 with 12 bits, white is 4095, such as a.tif" in note
    assert "1 with 10 bits, white is 1023, such as c.tif" in note
    assert "6 with the whole range" in note
    assert "mixed" in note
    assert "--white N" in note
    assert max(content(out)) == 65535
    (source,) = (s for s in Manifest.read(out).sources if s.path == "b.tif")
    assert (source.dtype, source.black, source.white) == ("uint16", 0, 4095)
    prepare(photos, out=out, force=True, **SIZE)
    assert prepare(photos, out=out, **SIZE).notes == report.notes


def test_white_counts_for_all_pictures(photos, out):
    for path in photos.iterdir():
        path.unlink()
    for name, white in (("a", 4000), ("b", 1000)):
        tifffile.imwrite(photos / f"{name}.tif", np.full((16, 16), white, np.uint16))
    report = prepare(photos, out=out, white=16383.0, **SIZE)
    assert report.notes == ("Values of the images: 2 with 14 bits, white is 16383, such as a.tif.",)
    assert [*content(out)] == [round(value * 65535 / 16383) for value in (1000, 4000)]
    (failure,) = prepare(photos, out=out, white=2000.0, force=True, **SIZE).failed
    assert (failure.path, "--white 2000" in failure.reason) == ("a.tif", True)
    with pytest.raises(ConfigError, match=r"white 2000.0 \(now None\).*--force"):
        prepare(photos, out=out, **SIZE)


def test_the_white_of_benchmarks_is_known(tmp_path):
    for name in ("SIDD", "dnd", "SIDD_VAL"):
        with pytest.raises(ConfigError, match="is known: omit --white"):
            prepare(name, white=1.0)


def test_floats_of_any_unit_are_read(photos, out, random):
    for path in photos.iterdir():
        path.unlink()
    for n in range(2):
        pixels = random.normal(1000, 300, (16, 16, 3)).astype("float32")
        tifffile.imwrite(photos / f"{n}.tif", pixels, photometric="rgb")
    report = prepare(photos, out=out, **SIZE)
    assert "2 with black and white at their lowest and highest value" in report.notes[0]
    assert report.failed == ()
    for patch in PatchRecords.open(out):
        assert 0 <= patch.min() < 0.3 < patch.max() == 1


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
        done = 0 if dtype == "uint16" else 6
        assert f"already done: {done}," in prepare(photos, out=out, **SIZE).summary
        (photos / "x.tif").unlink(missing_ok=True)


def test_margins_are_told(tmp_path, out):
    save(tmp_path / "x.png", 0, (455, 455))
    (note,) = prepare(tmp_path / "x.png", out=out).notes
    assert note.startswith(
        "68% of the pixels lie in no patch: the margins that 256 pixels every 200"
    )
    assert prepare(tmp_path / "x.png", out=out, stride=199, force=True).notes == ()


def test_large_patches_are_made_of_large_pictures_only(photos, out):
    save(photos / "large.png", 7, (150, 10))
    report = prepare(photos, out=out, patch_size=300)
    assert {failure.reason for failure in report.failed} == {
        "is 16 x 32 pixels: too small for patches of 300."
    }
    assert content(out) == {7: 1}


def test_names_of_any_bytes_and_length(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder_name in (b"\xff\xfe", b"n" * 255, "ü".encode() * 127):
        path = Path(os.fsdecode(folder_name))
        path.mkdir()
        for value, name in enumerate((b"\xfe.png", b"l" * 251 + b".png", b"a\nb.png")):
            save(path / os.fsdecode(name), value)
        report = prepare(path, workers=1, **SIZE)
        assert report.failed == ()
        assert content(report.out) == dict.fromkeys(range(3), 2)
        assert "already done: 3" in prepare(path, **SIZE).summary
        assert len(PatchRecords.open(report.out).describe(0)) > 20


def test_the_pictures_own_folder_is_no_place_for_patches(photos):
    before = sorted(photos.iterdir())
    with pytest.raises(ConfigError, match="own folder"):
        prepare(photos, out=photos, **SIZE)
    assert sorted(photos.iterdir()) == before
