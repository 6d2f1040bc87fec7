import contextlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest

from cbsn import files
from cbsn.errors import ConfigError, ModelError
from cbsn.files import (
    atomic_folder,
    atomic_path,
    captured_stderr,
    expanded,
    is_folder_in_use,
    remove_folder,
    share_folder,
    tidy,
    verify_checksums,
    write_checksums,
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    ("error", "shown"), [(None, ""), (ValueError, "chatter"), (KeyboardInterrupt, "")]
)
def test_captured_output_is_shown_of_failures_alone(capfd, error, shown):
    with contextlib.suppress(ValueError, KeyboardInterrupt), captured_stderr():
        os.write(2, b"chatter")
        if error:
            raise error
    assert capfd.readouterr().err == shown


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    """As root, a file could take the place of /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="There is a device or a pipe"):
        write_text(tmp_path / "pipe", "new")
    assert [*tmp_path.iterdir()] == [tmp_path / "pipe"] and (tmp_path / "pipe").is_fifo()


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


# Windows has no named pipes among its files, other tools, and fewer characters for names.
not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")

NAMES = {
    "long": "a" * 251 + ".txt",
    "long, in letters of three bytes": "€" * 83 + ".txt",
    "long suffix": "a." + "b" * 253,
    "no UTF-8": "\udcff\udce9.txt",
    "newline and quotes": "a\n'b\".t xt",
    "leading dash": "-a.txt",
    "leading dot": ".a",
}


@not_on_windows
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


@not_on_windows
def test_texts_with_names_that_are_no_utf8_can_be_read(tmp_path):
    write_text(tmp_path / "a", os.fsdecode(b"caf\xe9.png"))
    assert (tmp_path / "a").read_text("utf-8") == r"caf\udce9.png"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["a", NAMES["long"]], ids=["short", "long"])
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_at_any_rename_a_folder_is_old_or_new(tmp_path, monkeypatch, renames, name):
    _fill(tmp_path / name, "old")
    replace, done = Path.replace, []

    def rename_until_killed(self, target):
        if len(done) == renames:
            raise Killed
        done.append(None)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", rename_until_killed)
    # A process that is killed cleans nothing up.
    monkeypatch.setattr("cbsn.files.shutil.rmtree", lambda *_, **__: None)
    with contextlib.suppress(Killed):
        _fill(tmp_path / name, "new")
    monkeypatch.undo()
    tidy(tmp_path)
    assert (tmp_path / name / "file").read_text() == ("new" if renames == 2 else "old")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def windows(monkeypatch):
    """Makes files behave as on Windows.

    Returns an empty list. For each item that a test puts into it, one attempt to move something
    fails, as if another program had it open.
    """
    fcntl, in_the_way = pytest.importorskip("fcntl"), []

    class System:
        """`os` as on Windows, for the module alone."""

        O_TEMPORARY = 1 << 40
        temporary: ClassVar = {}

        def __getattr__(self, name):
            return getattr(os, name)

        def open(self, path, flags):
            if Path(path).is_dir() or path in self.temporary.values():
                raise PermissionError(13, "Permission denied", str(path))
            descriptor = os.open(path, flags & ~self.O_TEMPORARY)
            if flags & self.O_TEMPORARY:
                self.temporary[descriptor] = path
            return descriptor

        def close(self, descriptor):
            os.close(descriptor)
            if path := self.temporary.pop(descriptor, None):
                path.unlink()

        def fsync(self, descriptor):
            if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
                raise OSError(9, "Bad file descriptor")
            os.fsync(descriptor)

    def replace(self, target, replace=Path.replace):
        if in_the_way:
            in_the_way.pop()
            raise PermissionError(13, "The file is used by another process", str(self))
        return replace(self, target)

    monkeypatch.setattr(files, "os", System())
    monkeypatch.setattr(files, "sys", types.SimpleNamespace(platform="win32"))
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "_WAITS", (0.0,) * 3)
    monkeypatch.setattr(Path, "replace", replace)
    return in_the_way


def test_files_and_folders_are_flushed_on_windows(tmp_path, windows):
    for text in ("old", "new"):
        write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text() == text
        _fill(tmp_path / "a", text)
        assert (tmp_path / "a/file").read_text() == text
    remove_folder(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_on_windows_others_may_have_a_file_open_for_a_moment(tmp_path, windows):
    write_text(tmp_path / "a", "old")
    windows.extend(range(3))
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    windows.extend(range(4))
    with pytest.raises(PermissionError, match="another process"):
        write_text(tmp_path / "a", "newest")
    assert (tmp_path / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_texts_have_the_same_bytes_on_every_system(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "a": 1\n}\n'


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


@pytest.fixture
def summed(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(bytes(3_000_000))
    write_checksums(tmp_path)
    return tmp_path


def test_what_was_written_is_verified(summed):
    verify_checksums(summed, ("a", "b"))
    (summed / "README.md").write_text("added later")
    verify_checksums(summed, ("a", "b"))


@not_on_windows
def test_the_format_is_sha256sums(summed):
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=summed, check=True)


def test_changed_files_are_named(summed):
    (summed / "b").write_bytes(bytes(2_999_999))
    with pytest.raises(ModelError, match=r"b is not the file that was saved"):
        verify_checksums(summed)


@pytest.mark.parametrize("name", ["a", "SHA256SUMS"])
def test_missing_files_are_named(summed, name):
    (summed / name).unlink()
    with pytest.raises(ModelError, match=rf"incomplete.*{name}"):
        verify_checksums(summed)


def test_files_without_a_checksum_are_named(summed):
    lines = (summed / "SHA256SUMS").read_text().splitlines()
    (summed / "SHA256SUMS").write_text(lines[0] + "\n")
    verify_checksums(summed, ("a",))
    with pytest.raises(ModelError, match="does not name b"):
        verify_checksums(summed, ("a", "b"))


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"a", b"a  b  c\n\n", b"0  \0\n", b"0 " * 1_000_000, b"0  " + b"a" * 300 + b"\n"],
)
def test_sums_of_any_bytes_are_a_model_error(summed, content):
    (summed / "SHA256SUMS").write_bytes(content)
    with pytest.raises(ModelError, match="Copy the folder again"):
        verify_checksums(summed, ("a", "b"))


@pytest.mark.parametrize("name", ["../a", "/dev/zero", "sub/a", "./a", ".."])
def test_only_files_of_the_folder_are_looked_at(summed, name):
    (summed / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(ModelError, match=r"no file of this folder|incomplete"):
        verify_checksums(summed)


@not_on_windows
@pytest.mark.parametrize("name", ["a", "SHA256SUMS"])
def test_what_is_no_file_is_not_waited_for(summed, name):
    (summed / name).unlink()
    os.mkfifo(summed / name)
    with pytest.raises(ModelError, match=f"incomplete.*{name}"):
        verify_checksums(summed)


def test_a_folder_is_in_use_as_long_as_somebody_reads_it(tmp_path):
    assert not is_folder_in_use(tmp_path)
    locks = [share_folder(tmp_path) for _ in range(2)]
    while locks:
        assert is_folder_in_use(tmp_path)
        locks.pop()
    assert not is_folder_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_on_windows_a_file_marks_what_is_in_use(tmp_path, windows):
    (tmp_path / ".in-use-0a1b2c3d").touch()  # the machine lost power
    assert not is_folder_in_use(tmp_path)
    locks = [share_folder(tmp_path) for _ in range(2)]
    while locks:
        assert is_folder_in_use(tmp_path)
        locks.pop()
    assert not is_folder_in_use(tmp_path)
    assert len([*tmp_path.iterdir()]) == 1
    assert share_folder(tmp_path / "missing") is None


def test_the_lock_goes_with_its_process(tmp_path, run_python):
    code = f"""
        import os
        from pathlib import Path
        from cbsn.files import is_folder_in_use, share_folder
        lock = share_folder(Path({str(tmp_path)!r}))
        print(is_folder_in_use(Path({str(tmp_path)!r})), flush=True)
        os._exit(0)
    """
    assert run_python(code).stdout == "True\n"
    assert not is_folder_in_use(tmp_path)


@not_on_windows
@pytest.mark.parametrize("missing", [True, False])
def test_where_there_are_no_locks_a_folder_may_be_in_use(tmp_path, monkeypatch, missing):
    if missing:
        monkeypatch.setattr(files, "fcntl", None)
    else:

        def refuse(descriptor, mode):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(files.fcntl, "flock", refuse)
    assert share_folder(tmp_path) is None
    assert is_folder_in_use(tmp_path)
