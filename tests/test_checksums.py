import os
import subprocess

import pytest

from cbsn.errors import ModelError
from cbsn.files import verify_checksums, write_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(bytes(3_000_000))
    write_checksums(tmp_path)
    return tmp_path


def test_what_was_written_is_verified(folder):
    verify_checksums(folder, ("a", "b"))
    (folder / "README.md").write_text("added later")
    verify_checksums(folder, ("a", "b"))


def test_the_format_is_sha256sums(folder):
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=True)


def test_changed_files_are_named(folder):
    (folder / "b").write_bytes(bytes(2_999_999))
    with pytest.raises(ModelError, match=r"b is not the file that was saved"):
        verify_checksums(folder)


@pytest.mark.parametrize("name", ["a", "SHA256SUMS"])
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"incomplete.*{name}"):
        verify_checksums(folder)


def test_files_without_a_checksum_are_named(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    (folder / "SHA256SUMS").write_text(lines[0] + "\n")
    verify_checksums(folder, ("a",))
    with pytest.raises(ModelError, match="does not name b"):
        verify_checksums(folder, ("a", "b"))


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"a", b"a  b  c\n\n", b"0  \0\n", b"0 " * 1_000_000, b"0  " + b"a" * 300 + b"\n"],
)
def test_sums_of_any_bytes_are_a_model_error(folder, content):
    (folder / "SHA256SUMS").write_bytes(content)
    with pytest.raises(ModelError, match="Copy the folder again"):
        verify_checksums(folder, ("a", "b"))


@pytest.mark.parametrize("name", ["../a", "/dev/zero", "sub/a", "./a", ".."])
def test_only_files_of_the_folder_are_looked_at(folder, name):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(ModelError, match=r"no file of this folder|incomplete"):
        verify_checksums(folder)


@pytest.mark.parametrize("name", ["a", "SHA256SUMS"])
def test_what_is_no_file_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"incomplete.*{name}"):
        verify_checksums(folder)
