from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbsn.data.records import RecordWriter
from cbsn.errors import DataError
from cbsn.training.dataset import is_gray, open_records


@pytest.fixture
def photos(tmp_path, monkeypatch, random):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        pixels = random.integers(0, 256, (256, 456, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / f"photos/{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("pattern", ["photos", "photos/*.png"])
def test_pictures_are_prepared_once(photos, pattern, tmp_path, capsys):
    assert len(open_records(pattern, tmp_path)) == 4
    assert "already done: 0" in capsys.readouterr().out
    assert len(open_records(pattern, tmp_path)) == 4
    assert "already done: 2" in capsys.readouterr().out


def test_broken_pictures_are_named_and_the_rest_is_used(photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"no picture")
    assert len(open_records("photos", tmp_path)) == 4
    assert "broken.png" in capsys.readouterr().err


def test_prepared_folder_and_record_file(photos, tmp_path):
    first = open_records("photos", tmp_path)
    assert len(open_records(str(tmp_path / "dataset/photos256"), tmp_path)) == 4
    np.testing.assert_array_equal(open_records("dataset/photos256", tmp_path)[2], first[2])


@pytest.mark.parametrize("name", ["SIDD", "dnd"])
def test_the_authors_files_by_name(tmp_path, name):
    with RecordWriter(tmp_path / f"{name.upper()}256.tfrecords") as writer:
        writer.write(np.zeros((256, 256, 3), "uint8"))
    assert len(open_records(name, tmp_path)) == 1


def test_an_unprepared_benchmark_says_how(tmp_path):
    with pytest.raises(DataError, match=r"prepare_dataset\.py --dataset SIDD --source"):
        open_records("SIDD", tmp_path)


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        open_records(str(tmp_path / "nowhere"), tmp_path)


def test_another_process_only_reads(photos, tmp_path, capsys):
    with pytest.raises(DataError, match="photos256"):
        open_records("photos", tmp_path, convert=False)
    first = open_records("photos", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in Path("dataset/photos256").iterdir()}
    capsys.readouterr()
    np.testing.assert_array_equal(open_records("photos", tmp_path, convert=False)[3], first[3])
    assert {p: p.stat().st_mtime_ns for p in Path("dataset/photos256").iterdir()} == before
    assert capsys.readouterr().out == ""


def test_gray_is_told_by_the_patches(photos, tmp_path):
    assert not is_gray(open_records("photos", tmp_path))
    for i, path in enumerate(sorted(photos.iterdir())):
        Image.open(path).convert("L").save(tmp_path / f"{i}.gray.png")
    gray = open_records(str(tmp_path / "*.gray.png"), tmp_path)
    assert is_gray(gray)
    (tmp_path / "negative").mkdir()
    for path in tmp_path.glob("*.gray.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / "negative" / path.name)
    shots = open_records(str(tmp_path / "*.gray.png"), tmp_path, second_shots="negative")
    assert (shots[0][..., 0] != shots[0][..., 3]).any()
    assert is_gray(shots)


def test_second_shots_are_prepared_and_paired(photos, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    for path in photos.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(second / path.name)
    records = open_records("photos", tmp_path, second_shots="second")
    assert len(records) == 4
    assert (records[0].astype(int).reshape(256, 256, 2, 3).sum(axis=2) == 255).all()
