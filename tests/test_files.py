import contextlib
import json
import os
from pathlib import Path

import pytest

from cbsn.errors import ConfigError
from cbsn.files import (
    atomic_folder,
    atomic_path,
    expanded,
    remove_folder,
    tidy,
    write_json,
    write_text,
)


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


NAMES = {
    "long": "a" * 251 + ".txt",
    "long, in letters of three bytes": "€" * 83 + ".txt",
    "long suffix": "a." + "b" * 253,
    "no UTF-8": os.fsdecode(b"\xff\xe9.txt"),
    "newline and quotes": "a\n'b\".t xt",
    "leading dash": "-a.txt",
    "leading dot": ".a",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_may_be_of_any_bytes(tmp_path, name):
    for text in ("old", "new"):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_text(text)
            assert len(os.fsencode(temporary.name)) <= 255
        assert (tmp_path / name).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).unlink()
    for text in ("old", "new"):
        _fill(tmp_path / name, text)
        assert (tmp_path / name / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [name]
    remove_folder(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_texts_with_names_that_are_no_utf8_can_be_read(tmp_path):
    write_text(tmp_path / "a", os.fsdecode(b"caf\xe9.png"))
    assert (tmp_path / "a").read_text("utf-8") == r"caf\udce9.png"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["a", *NAMES.values()], ids=["short", *NAMES])
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_at_any_rename_a_folder_is_old_or_new(tmp_path, monkeypatch, renames, name):
    _fill(tmp_path / name, "old")
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
        _fill(tmp_path / name, "new")
    monkeypatch.undo()
    tidy(tmp_path)
    assert (tmp_path / name / "file").read_text() == ("new" if renames == 2 else "old")
    assert [path.name for path in tmp_path.iterdir()] == [name]


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


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(ConfigError, match="empty"):
        expanded("")
