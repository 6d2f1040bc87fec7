import pytest

from cbsn import files as folder_lock


def test_a_folder_is_in_use_as_long_as_somebody_reads_it(tmp_path):
    assert not folder_lock.is_folder_in_use(tmp_path)
    locks = [folder_lock.share_folder(tmp_path) for _ in range(2)]
    while locks:
        assert folder_lock.is_folder_in_use(tmp_path)
        locks.pop()
    assert not folder_lock.is_folder_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_goes_with_its_process(tmp_path, run_python):
    code = f"""
        import os
        from pathlib import Path
        from cbsn import files as folder_lock
        lock = folder_lock.share_folder(Path({str(tmp_path)!r}))
        print(folder_lock.is_folder_in_use(Path({str(tmp_path)!r})), flush=True)
        os._exit(0)
    """
    assert run_python(code).stdout == "True\n"
    assert not folder_lock.is_folder_in_use(tmp_path)


@pytest.mark.parametrize("missing", [True, False])
def test_where_there_are_no_locks_a_folder_may_be_in_use(tmp_path, monkeypatch, missing):
    if missing:
        monkeypatch.setattr(folder_lock, "fcntl", None)
    else:

        def refuse(descriptor, mode):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    assert folder_lock.share_folder(tmp_path) is None
    assert folder_lock.is_folder_in_use(tmp_path)
