import json

import pytest

from cbsn.files import atomic_path, write_json


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
