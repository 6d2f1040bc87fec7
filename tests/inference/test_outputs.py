import os
from pathlib import Path

import pytest

from cbsn.errors import ConfigError
from cbsn.inference.outputs import check_writable, find_sources, plan_outputs


def planned(names, format="auto"):
    targets = plan_outputs([Path("/in", name) for name in names], "/out", format)
    return [str(target.relative_to("/out")) for target in targets.values()]


@pytest.mark.parametrize(
    ("names", "format", "targets"),
    [
        (["a.jpg", "b.JPEG", "c.png"], "auto", ["a.png", "b.png", "c.png"]),
        (["a.TIFF", "b.webp", "c.bmp"], "auto", ["a.TIFF", "b.webp", "c.bmp"]),
        (["a.raw", "b"], "auto", ["a.png", "b.png"]),
        (["a.jpg", "b.jpeg", "c.png"], "jpeg", ["a.jpg", "b.jpeg", "c.jpg"]),
        (["a.jpg", "b.tiff"], "tiff", ["a.tif", "b.tiff"]),
        # one folder
        (["a.jpg", "a.png"], "auto", ["a.jpg.png", "a.png"]),
        (["a.jpg", "a.jpeg", "b.jpg"], "auto", ["a.jpg.png", "a.jpeg.png", "b.png"]),
        # several folders
        (["x/a.png", "y/a.png", "y/b.png"], "auto", ["x/a.png", "y/a.png", "b.png"]),
        (["a.png", "y/z/a.jpg"], "auto", ["a.png", "y/z/a.png"]),
        (["x/a.png", "y/A.png"], "auto", ["x/a.png", "y/A.png"]),
        # both
        (["x/a.jpg", "x/a.png", "y/a.png"], "auto", ["a.jpg.png", "x/a.png", "y/a.png"]),
    ],
)
def test_names(names, format, targets):
    assert planned(names, format) == targets


def test_one_file_keeps_its_name():
    assert planned(["deep/down/a.png"]) == ["a.png"]


def test_overwriting_a_source_is_refused():
    with pytest.raises(ConfigError, match=r"/in/a\.png would overwrite /in/a\.png"):
        plan_outputs([Path("/in/a.png")], "/in")


def test_results_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ConfigError, match="rename one"):
        planned(["a.jpg", "a.png", "a.jpg.png"])


def test_unknown_format():
    with pytest.raises(ConfigError, match="gif"):
        planned(["a.png"], "gif")


@pytest.mark.parametrize(
    ("name", "format", "kept"),
    [
        ("x" * 251 + ".png", "auto", "x" * 251 + ".png"),
        ("x" * 251 + ".png", "webp", "x" * 241),
        ("x" * 255, "auto", "x" * 242),
        ("画" * 85, "auto", "画" * 80),
        ("\udcff" * 255, "auto", "\udcff" * 242),
    ],
)
def test_names_are_no_longer_than_a_file_may_have(name, format, kept):
    (target,) = planned([name], format)
    assert target.startswith(kept) and len(os.fsencode(target)) <= 255
    assert target.endswith((".png", ".webp"))


def test_names_that_are_shortened_stay_apart():
    names = [f"{'x' * 254}{number}" for number in range(9)]
    targets = planned(names)
    assert len({*targets}) == 9 and all(len(target) <= 255 for target in targets)
    assert planned(names[:3]) == targets[:3]  # whatever else is denoised


def test_no_result_leaves_the_folder_of_results():
    targets = planned(["x/a.png", "x/../y/a.png", "x/../../in/z/a.png"])
    assert targets == ["x/a.png", "y/a.png", "z/a.png"]


def test_links_that_lead_to_themselves_are_no_matter(tmp_path):
    (tmp_path / "a.png").symlink_to("a.png")
    assert plan_outputs([Path("/in/a.png")], tmp_path) == {Path("/in/a.png"): tmp_path / "a.png"}


def test_each_file_is_found_once(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("x.png", "y.png"):
        (tmp_path / "a" / name).touch()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a" / "z.png").symlink_to("y.png")
    paths = [tmp_path / "a", tmp_path / "a" / ".." / "a" / "x.png", tmp_path / "b"]
    found = find_sources(paths)
    assert [path.name for path in found] == ["x.png", "y.png", "z.png"]


@pytest.mark.parametrize("name", ["new", "new/deeper", "there", "there/deeper"])
def test_a_folder_is_tried_without_a_trace(tmp_path, name):
    (tmp_path / "there").mkdir()
    check_writable(tmp_path / name, "--savepath DIR")
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file", "Nothing can be written to .*: Not a directory"),
        ("file/deeper", "No folder can be made at .*: Not a directory"),
        ("x" * 256, "No folder can be made at .*: File name too long|written to .* too long"),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path, name, words):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"({words}).* Received: --savepath DIR"):
        check_writable(tmp_path / name, "--savepath DIR")


def test_a_folder_that_the_system_refuses_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ConfigError, match=r"written to .*: Permission denied"):
        check_writable(tmp_path, "--savepath DIR")
