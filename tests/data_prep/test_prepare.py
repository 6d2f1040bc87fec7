import collections
import errno
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

from cbsn.cli.prepare import make_parser
from cbsn.data.manifest import MANIFEST_NAME, Manifest
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError
from data_prep import sources
from data_prep.convert import LOCK_NAME
from data_prep.prepare import prepare, prepared_folder

SIZE = {"patch_size": 16, "stride": 16}


def test_all_patches_are_written_and_listed(photos, out, content):
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
    names = {LOCK_NAME, MANIFEST_NAME, *(shard.name for shard in manifest.shards)}
    assert {path.name for path in out.iterdir()} == names


@pytest.mark.parametrize("kind", ["SIDD", "DND"])
def test_patches_are_the_references(golden, out, kind):
    hashes = json.loads(golden("records/prep_output/hashes.json").read_text())
    prepare(kind.lower(), source=golden("records/prep_input"), out=out)
    found = [
        (hashlib.sha256(p.tobytes()).hexdigest()[:16], p.nbytes) for p in PatchRecords.open(out)
    ]
    assert sorted(found) == sorted(map(tuple, hashes[f"{kind}256.tfrecords"]))


def test_only_broken_pictures(photos, out):
    for path in photos.iterdir():
        path.write_bytes(b"")
    assert len(prepare(photos, out=out, **SIZE).failed) == 6
    with pytest.raises(DataError, match="holds no patches"):
        PatchRecords.open(out)


def test_small_pictures_are_padded_and_said_so(photos, out, save, content):
    save(photos / "tiny.png", 50, shape=(1, 1))
    report = prepare(photos, out=out, **SIZE)
    assert "reflect-padded: 1," in report.summary
    assert content(out)[50] == 1
    assert [s.path for s in Manifest.read(out).sources if s.padded] == ["tiny.png"]


def test_large_patches_are_made_of_large_pictures_only(photos, out, save, content):
    save(photos / "large.png", 7, (150, 10))
    report = prepare(photos, out=out, patch_size=300)
    assert {failure.reason for failure in report.failed} == {
        "is 16 x 32 pixels: too small for patches of 300."
    }
    assert content(out) == {7: 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 0}, "--patch_size must be at least 1"),
        ({"stride": 0}, "--stride must be at least 1"),
        ({"offset": -1}, "--offset must be at least 0"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"workers": 10**30}, "--workers must be at most 1024"),
        ({"patch_size": 10**30}, "--patch_size must be at most 2147483647"),
        ({"patch_size": 257}, "largest has 32 pixels"),
        ({"white": 0.0}, "--white"),
        ({"white": float("nan")}, "--white"),
    ],
)
def test_impossible_numbers_are_refused_before_any_work(photos, out, change, message):
    with pytest.raises(ConfigError, match=message):
        prepare(photos, out=out, **change)
    assert not out.exists()


def test_what_cannot_be_read_or_written_is_an_error(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be prepared.*file"):
        prepare(photos, out=tmp_path / "file", **SIZE)
    error = PermissionError(13, "Permission denied", str(photos))
    for target, name in ((sources, "find_images"), (Path, "mkdir")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, unittest.mock.Mock(side_effect=error))
            with pytest.raises(DataError, match=r"cannot be prepared.*Permission denied.*photos"):
                prepare(photos, out=tmp_path / "out", **SIZE)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "Free some space"), (errno.EACCES, r"another folder: cbsn prepare --out")],
)
def test_where_nothing_can_be_written_it_says_what_to_do(
    photos, tmp_path, monkeypatch, number, advice
):
    error = OSError(number, os.strerror(number))
    monkeypatch.setattr(Path, "mkdir", unittest.mock.Mock(side_effect=error))
    with pytest.raises(DataError, match=advice):
        prepare(photos, out=tmp_path / "out", **SIZE)


@pytest.mark.parametrize("dataset", ["photos", "SIDD_VAL"])
def test_an_empty_path_is_no_folder_to_write_to(photos, tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="A path is empty"):
        prepare(photos if dataset == "photos" else dataset, out="")
    assert not (tmp_path / "dataset").exists()


def test_the_pictures_own_folder_is_no_place_for_patches(photos):
    before = sorted(photos.iterdir())
    with pytest.raises(ConfigError, match="folder of the pictures"):
        prepare(photos, out=photos, **SIZE)
    assert sorted(photos.iterdir()) == before


def test_default_folders_are_named_after_the_data(photos, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for dataset in ("photos", "photos/*.png"):
        found = prepare(dataset, **SIZE).out
        assert found == prepared_folder(dataset, SIZE["patch_size"])
    assert len(PatchRecords.open("dataset/photos16")) == 12
    monkeypatch.chdir(photos)
    prepare(".", **SIZE)
    assert len(PatchRecords.open("dataset/photos16")) == 12


@pytest.fixture
def namesakes(photos, tmp_path, monkeypatch, save):
    """Two folders of one name, with a picture of one name."""
    monkeypatch.chdir(tmp_path)
    for parent, value in (("a", 1), ("b", 2)):
        save(Path(parent, "photos", "x.png"), value)
    return "a/photos", "b/photos"


def test_folders_of_one_name_have_data_sets_of_their_own(namesakes, content):
    for _ in range(2):
        outs = [prepare(folder, **SIZE).out for folder in namesakes]
        assert outs == [prepared_folder(folder, SIZE["patch_size"]) for folder in namesakes]
        assert [content(out) for out in outs] == [{1: 2}, {2: 2}]
    assert str(outs[0]) == "dataset/photos16"
    # Also when the first one is gone.
    shutil.rmtree(outs[0])
    assert prepare(namesakes[1], **SIZE).out == outs[1]


def test_another_folder_is_not_replaced_because_of_equal_names(namesakes, out, content):
    prepare(namesakes[0], out=out, **SIZE)
    with pytest.raises(ConfigError, match=r"the pictures of .*a/photos \(now .*b/photos\)"):
        prepare(namesakes[1], out=out, **SIZE)
    assert content(out) == {1: 2}
    # The first one is gone, but the second is not the first one moved.
    shutil.rmtree(namesakes[0])
    with pytest.raises(ConfigError, match="the pictures of"):
        prepare(namesakes[1], out=out, **SIZE)
    prepare(namesakes[1], out=out, force=True, **SIZE)
    assert content(out) == {2: 2}


def test_two_globs_of_one_folder_have_data_sets_of_their_own(photos, content):
    one, other = (prepare(f"{photos}/{name}.png", **SIZE).out for name in ("[0-2]", "[2-5]"))
    assert content(one) == dict.fromkeys(range(3), 2)
    assert content(other) == dict.fromkeys(range(2, 6), 2)


def test_a_folder_called_like_a_benchmark_is_another_source(tmp_path, monkeypatch, golden, save):
    monkeypatch.chdir(tmp_path)
    prepare("SIDD", source=golden("records/prep_input"))
    save(Path("SIDD/x.png"), 1)
    assert prepare("./SIDD").out != Path("dataset/SIDD256")


def test_the_command_that_is_named_works(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = photos.rename(tmp_path / "my photos")
    prepare(photos, **SIZE)
    with pytest.raises(ConfigError) as caught:
        prepare(photos, white=200.0, **SIZE)
    command = shlex.split(str(caught.value).split("`")[1])
    assert command[:2] == ["cbsn", "prepare"]
    flags = vars(make_parser().parse_args(command[2:]))
    prepare(**{**flags, "workers": None})
    assert Manifest.read("dataset/my photos16").white == 200
    assert "already done: 6" in prepare(photos, white=200.0, **SIZE).summary


def _save_deep(path, value):
    tifffile.imwrite(path, np.full((16, 16), value, np.uint16))


def test_ranges_that_are_not_the_whole_one_are_told(photos, out, content):
    for name, white in (("a", 4000), ("b", 4095), ("c", 1000)):
        _save_deep(photos / f"{name}.tif", white)
    report = prepare(photos, out=out, **SIZE)
    (note,) = report.notes
    assert "2 with 12 bits, white is 4095, such as a.tif" in note
    assert "1 with 10 bits, white is 1023, such as c.tif" in note
    assert "6 with the whole range" in note
    assert "ranges differ" in note
    assert "--white N" in note
    assert max(content(out)) == 65535
    (source,) = (s for s in Manifest.read(out).sources if s.path == "b.tif")
    assert (source.dtype, source.black, source.white) == ("uint16", 0, 4095)
    prepare(photos, out=out, force=True, **SIZE)
    assert prepare(photos, out=out, **SIZE).notes == report.notes


def test_white_counts_for_all_pictures(tmp_path, out, content):
    for name, white in (("a", 4000), ("b", 1000)):
        _save_deep(tmp_path / f"{name}.tif", white)
    report = prepare(tmp_path, out=out, white=16383.0, **SIZE)
    assert report.notes == ("Values of the images: 2 with 14 bits, white is 16383, such as a.tif.",)
    assert [*content(out)] == [round(value * 65535 / 16383) for value in (1000, 4000)]
    (failure,) = prepare(tmp_path, out=out, white=2000.0, force=True, **SIZE).failed
    assert (failure.path, "--white 2000" in failure.reason) == ("a.tif", True)
    with pytest.raises(ConfigError, match=r"white 2000.0 \(now not given\).*--force"):
        prepare(tmp_path, out=out, **SIZE)


def test_the_white_of_benchmarks_is_known():
    for name in ("SIDD", "dnd", "SIDD_VAL"):
        with pytest.raises(ConfigError, match="is known: omit --white"):
            prepare(name, white=1.0)


def test_floats_of_any_unit_are_read(tmp_path, out, random):
    for n in range(2):
        pixels = random.normal(1000, 300, (16, 16, 3)).astype("float32")
        tifffile.imwrite(tmp_path / f"{n}.tif", pixels, photometric="rgb")
    report = prepare(tmp_path, out=out, **SIZE)
    assert "2 with black and white at their lowest and highest value" in report.notes[0]
    assert report.failed == ()
    for patch in PatchRecords.open(out):
        assert 0 <= patch.min() < 0.3 < patch.max() == 1


def test_margins_are_told(tmp_path, out, save):
    save(tmp_path / "x.png", 0, (455, 455))
    (note,) = prepare(tmp_path / "x.png", out=out).notes
    assert note.startswith("68% of the pixels are in no patch: patches of 256 pixels every 200")
    assert prepare(tmp_path / "x.png", out=out, stride=199, force=True).notes == ()


@pytest.mark.parametrize(
    ("name", "workers"), [(b"\xff\xfe", 1), (b"n" * 255, None), ("ü".encode() * 127, None)]
)
def test_names_of_any_bytes_and_length(tmp_path, monkeypatch, save, content, name, workers):
    monkeypatch.chdir(tmp_path)
    folder = Path(os.fsdecode(name))
    for value, file in enumerate((b"\xfe.png", b"l" * 251 + b".png", b"a\nb.png")):
        save(folder / os.fsdecode(file), value)
    report = prepare(folder, workers=workers, **SIZE)
    assert report.failed == ()
    assert content(report.out) == dict.fromkeys(range(3), 2)
    assert "already done: 3" in prepare(folder, **SIZE).summary
    assert len(PatchRecords.open(report.out).describe(0)) > 20


@pytest.mark.parametrize(
    "given",
    [
        {"patch_size": 256},
        {"stride": 200},
        {"offset": 0},
        {"axes": "ZYX"},
        {"select": "z=0"},
        {"normalize": "range"},
        {"nan": "fill"},
        {"repair": "pixels"},
    ],
)
def test_what_has_no_effect_on_pairs_is_refused(tmp_path, out, given):
    ((flag, value),) = given.items()
    with pytest.raises(ConfigError, match=rf"SIDD_VAL.* omit --{flag}\. .*: --{flag} {value}$"):
        prepare("SIDD_VAL", source=tmp_path, out=out, **given)
    assert not out.exists()


def test_a_source_of_what_is_no_benchmark_is_refused(tmp_path, out):
    with pytest.raises(ConfigError, match=r"--source is .* omit it\. Received: --source nowhere"):
        prepare(tmp_path, source="nowhere", out=out)
    assert not out.exists()
