import pytest
from apache_beam.io.filesystem import BeamIOError

from cbsn.errors import ImageError
from cbsn.inference.beam.locations import find_pictures, list_results, local_copy, new_file


@pytest.fixture
def folder(memory):
    """A remote folder."""
    for name in ("", "a.png", "b.JPG", "c.txt", ".d.png", "sub/e.tif"):
        memory.put(f"memory://in/{name}", name.encode())
    return "memory://in"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["a.png", "b.JPG"]),
        ("/", ["a.png", "b.JPG"]),
        ("/a.png", ["a.png"]),
        ("/*", [".d.png", "a.png", "b.JPG", "c.txt"]),
        ("/[ab].*", ["a.png", "b.JPG"]),
        ("/**.tif", ["sub/e.tif"]),
        ("/sub", ["sub/e.tif"]),
    ],
)
def test_pictures_at_urls(folder, pattern, names):
    found = find_pictures(folder + pattern)
    assert sorted(url.removeprefix(f"{folder}/") for url in found) == names


def test_a_copy_is_called_what_it_is_a_copy_of(folder):
    with (
        pytest.raises(ImageError, match=r"^memory://in/a\.png: broken$"),
        local_copy(f"{folder}/a.png") as path,
    ):
        assert path.read_bytes() == b"a.png"
        raise ImageError(f"{path}: broken")
    assert not path.exists()


def test_what_is_not_finished_is_not_there(folder, memory, monkeypatch):
    before = dict(memory.files)
    with pytest.raises(KeyboardInterrupt), new_file(f"{folder}/a.png") as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    def fail(self, sources, targets):
        raise BeamIOError("no network")

    monkeypatch.setattr(memory, "rename", fail)
    with pytest.raises(BeamIOError, match="no network"), new_file(f"{folder}/new.png") as path:
        path.write_bytes(b"whole")
    assert memory.files == before


def test_results_in_a_local_folder(tmp_path):
    """A link that leads nowhere is none, and an OME-Zarr is one."""
    for name in ("a.png", "sub/b.tif", "c.ome.zarr/0/zarr.json", "failed/failed-0.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "d.png").symlink_to("nowhere")
    names = {"a.png", "sub/b.tif", "c.ome.zarr", "failed/failed-0.jsonl"}
    found = list_results(str(tmp_path))
    assert found == {f"{tmp_path}/{name}": (tmp_path / name).stat().st_mtime for name in names}
    assert list_results(str(tmp_path / "none")) == {}
