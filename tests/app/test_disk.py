import shutil
import tempfile
from types import SimpleNamespace

import pytest

from cbsn.app.disk import Disk, FullError
from cbsn.errors import ConfigError

PLENTY = 2**50


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Temporary folders are made here, on a disk with plenty of room."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=PLENTY))
    return tmp_path


def test_bytes_are_taken_and_released():
    disk = Disk(100, lambda size: None)
    disk.take(60)
    with pytest.raises(FullError, match="--max_disk_gb"):
        disk.take(41)
    assert disk.used == 60
    disk.release(60)
    disk.take(100)


def test_room_is_made_where_that_helps():
    missing = []

    def make_room(size):
        missing.append(size)
        disk.release(50)

    disk = Disk(100, make_room)
    disk.take(80)
    disk.take(30)
    assert missing == [10] and disk.used == 60


def test_the_disk_itself_may_be_full(monkeypatch):
    disk = Disk(100, lambda size: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30 + 10))
    disk.take(10)
    with pytest.raises(FullError, match=r"besides 1\.07 GB for others.*TMPDIR"):
        disk.take(11)


def test_a_disk_that_is_too_full_for_anything_is_told_at_the_start(monkeypatch, place):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    with pytest.raises(ConfigError, match=r"set TMPDIR to one\. Received: .*, with 1\.07 GB free"):
        Disk(100, lambda size: None)
    assert [*place.iterdir()] == []


def test_what_an_error_ends_gives_its_bytes_back():
    disk = Disk(100, lambda size: None)
    with pytest.raises(ValueError), disk.taken(50):
        raise ValueError
    assert disk.used == 0
    with disk.taken(50):
        pass
    assert disk.used == 50


def test_the_folder_goes_at_the_end(place):
    disk = Disk(100, lambda size: None)
    (disk.folder / "file").write_text("x")
    disk.close()
    assert [*place.iterdir()] == []


def test_folders_of_killed_servers_are_deleted_and_those_in_use_stay(place):
    (place / "cbsn-app-left").mkdir()
    (place / "cbsn-app-left" / "file").write_text("x")
    (place / "another").mkdir()
    first = Disk(100, lambda size: None)
    second = Disk(100, lambda size: None)
    assert {*place.iterdir()} == {first.folder, second.folder, place / "another"}
    first.close()
    second.close()
