import contextlib
import json
from pathlib import Path

import pytest

from cbsn.files import atomic_folder, atomic_path, remove_folder, tidy, write_json


def test_the_file_appears_whole(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt"
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "half"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert len(list(tmp_path.iterdir())) == 1


def _fill(path, text):
    with atomic_folder(path) as temporary:
        (temporary / "file").write_text(text)


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    for text in ("old", "new"):
        _fill(tmp_path / "a", text)
        assert (tmp_path / "a/file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path):
    _fill(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "file").write_text("new")
        raise RuntimeError
    assert (tmp_path / "a/file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_at_any_rename_a_folder_is_old_or_new(tmp_path, monkeypatch, renames):
    _fill(tmp_path / "a", "old")
    rename, done = Path.rename, []

    def rename_until_killed(self, target):
        if len(done) == renames:
            raise Killed
        done.append(None)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_until_killed)
    # A process that is killed cleans nothing up.
    monkeypatch.setattr("cbsn.files.shutil.rmtree", lambda *_, **__: None)
    with contextlib.suppress(Killed):
        _fill(tmp_path / "a", "new")
    monkeypatch.undo()
    tidy(tmp_path)
    assert (tmp_path / "a/file").read_text() == ("new" if renames == 2 else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_removing_a_folder_leaves_nothing(tmp_path):
    _fill(tmp_path / "a", "old")
    remove_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_tidying_touches_temporary_names_only(tmp_path):
    kept = {".hidden", ".run.lock", "a.0a1b2c3d", ".git.0a1b2c3"}
    for name in (*kept, ".a.0a1b2c3d", ".b.0a1b2c3d.json"):
        (tmp_path / name).write_text("")
    tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
