import io
import zipfile

import pytest

from cbsn.app.archive import zipped


def _read(parts):
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("size", [0, 1, 2**20, 3 * 2**20 + 5])
def test_files_are_whole(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    assert _read(zipped({"folder/ä.png": tmp_path / "a"}, [])) == {"folder/ä.png": content[:size]}


def test_it_is_sent_in_parts(tmp_path):
    (tmp_path / "a").write_bytes(bytes(5 * 2**20))
    assert max(map(len, zipped({"a": tmp_path / "a"}, []))) < 2 * 2**20


def test_files_that_are_gone_are_named(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    found = _read(zipped({"gone.png": tmp_path / "gone", "a.png": tmp_path / "a"}, ["b: bad"]))
    assert found.keys() == {"a.png", "failed.txt"}
    first, second = found["failed.txt"].decode().splitlines()
    assert first == "b: bad" and second.startswith("gone.png: ")
