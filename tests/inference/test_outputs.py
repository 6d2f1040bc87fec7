import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cbsn.errors import ConfigError
from cbsn.inference.outputs import (
    check_writable,
    default_folder,
    find_sources,
    plan_outputs,
    plan_uncertainty,
)

NOT_WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="these paths are equal there")


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
        (["a.jpg", "b.JPEG", "c.JPG"], "same", ["a.jpg", "b.JPEG", "c.JPG"]),
        (["a.TIFF", "b.webp", "c.png"], "same", ["a.TIFF", "b.webp", "c.png"]),
        (["a.heic", "b.AVIF", "c.gif", "d.jxl"], "same", ["a.png", "b.png", "c.png", "d.png"]),
        (["a.jp2", "b"], "same", ["a.png", "b.png"]),
        (
            ["a.jpg", "a.jpeg", "a.heic", "a.png"],
            "same",
            ["a.jpg", "a.jpeg", "a.heic.png", "a.png"],
        ),
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


@pytest.mark.parametrize(
    ("names", "top", "targets"),
    [
        (["2024/a.jpg", "b.jpg"], "/in", ["2024/a.png", "b.png"]),
        (["2024/may/a.jpg"], "/in", ["2024/may/a.png"]),
        (["x/a.png", "x/y/a.png"], "/in/x", ["a.png", "y/a.png"]),
        (["x/a.jpg", "x/a.png"], "/in", ["x/a.jpg.png", "x/a.png"]),
        # Whatever is said, no result leaves the folder.
        (["a.png", "x/b.png"], "/in/x", ["a.png", "x/b.png"]),
    ],
)
def test_the_tree_is_kept_below_a_folder(names, top, targets):
    sources = [Path("/in", name) for name in names]
    found = plan_outputs(sources, "/out", top=Path(top))
    assert [str(each.relative_to("/out")) for each in found.values()] == targets


def test_names_that_some_file_systems_take_for_the_same():
    composed, decomposed = "x/na\u00efve.png", "y/nai\u0308ve.png"
    assert planned([composed, decomposed]) == [composed, decomposed]


@pytest.mark.parametrize(
    ("names", "format", "targets"),
    [
        (["IMG.JPG", "img.png"], "auto", ["IMG.JPG.png", "img.png"]),
        (["IMG.JPG", "img.jpeg"], "auto", ["IMG.JPG.png", "img.jpeg.png"]),
        (["nai\u0308ve.jpg", "na\u00efve.png"], "auto", ["nai\u0308ve.jpg.png", "na\u00efve.png"]),
        pytest.param(["A.png", "a.png"], "auto", ["A.png", "a~7f071235.png"], marks=NOT_WINDOWS),
        pytest.param(["A.tif", "AA.tif", "a.tif", "aA.tif"], "webp", None, marks=NOT_WINDOWS),
    ],
)
def test_names_of_one_folder_that_some_file_systems_take_for_the_same(names, format, targets):
    found = planned(names, format)
    assert found == (targets or found)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(names)


def test_an_original_whose_name_some_file_systems_take_for_that_of_a_result(tmp_path):
    """On them, both are one file."""
    (tmp_path / "link.png").symlink_to("x/b.png")
    sources = [tmp_path / "link.png", tmp_path / "y" / "B.jpg"]
    with pytest.raises(ConfigError, match=r"y/B\.jpg would overwrite .*/link\.png"):
        plan_outputs(sources, tmp_path / "x")
    outputs = {Path("/in/A.png"): Path("/out/A.png"), Path("/out/a.uncertainty.tif"): Path("/o/b")}
    with pytest.raises(ConfigError, match=r"would overwrite /out/a\.uncertainty\.tif"):
        plan_uncertainty(outputs)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, of pictures."""
    for name in ("a.png", "x/b.png", "x/y/c.png", "z/d [1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        (["a.png"], "denoised"),
        (["x/b.png"], "x/denoised"),
        (["x"], "denoised"),
        (["x/"], "denoised"),
        (["x/y"], "x/denoised"),
        (["."], "denoised"),
        ([".."], "../denoised"),
        (["x/.."], "x/../denoised"),
        (["/"], "/denoised"),
        (["*.png"], "denoised"),
        (["x/*.png"], "x/denoised"),
        (["x/**/*.png"], "x/denoised"),
        (["z/d [1].png"], "z/denoised"),
        (["z/d [[]1].png"], "z/denoised"),
        (["x/b.png", "x/*.png", "x/y"], "x/denoised"),
        (["nowhere/*.png"], "denoised"),
    ],
)
def test_the_folder_if_none_is_given(here, given, folder):
    assert default_folder(given) == Path(folder)
    if given != ["."]:  # whose full path is a folder like any other
        assert default_folder([here / each for each in given]) == here / folder


def test_the_folder_of_pictures_from_several_places(here):
    assert default_folder(["x/b.png", "z"]) == here / "denoised"
    assert default_folder(["x/b.png", here / "x" / "y"]) == here / "x" / "denoised"
    assert default_folder(["x/y/c.png", "x/*.png"]) == here / "x" / "denoised"


def test_the_home_folder_and_a_drive_hold_their_results(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert default_folder(["~"]) == default_folder([here]) == here / "denoised"
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "x")
    assert default_folder(["x"]) == Path("x/denoised")
    assert default_folder(["x/y"]) == Path("x/denoised")


def test_several_drives_have_no_folder(here, monkeypatch):
    def refuse(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", refuse)
    with pytest.raises(ConfigError, match=r"several drives.* or --out"):
        default_folder(["x", "x/y"])
    assert planned(["x/a.png", "y/b.png"]) == ["a.png", "b.png"]
    with pytest.raises(ConfigError, match="several drives"):
        planned(["x/a.png", "y/a.png"])


def test_a_folder_that_may_not_be_read_is_reported_later(here, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    assert default_folder(["x/b.png"]) == Path("x/denoised")


def test_overwriting_a_source_is_refused():
    with pytest.raises(ConfigError, match=r"/in/a\.png would overwrite /in/a\.png"):
        plan_outputs([Path("/in/a.png")], "/in")


def test_files_next_to_the_sources_are_not_replaced(tmp_path):
    """In a folder of results, they are earlier results."""
    for name in ("in/a.jpg", "in/b.jpg", "in/a.png", "out/a.png", "out/a.uncertainty.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "b.png").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("in")
    sources = [tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg"]
    for folder in (tmp_path / "in", tmp_path / "link"):
        words = rf"{folder}/a\.png \(and 1 more\) is there already.* Received: --out {folder}$"
        with pytest.raises(ConfigError, match=words):
            plan_outputs(sources, folder)
    with pytest.raises(ConfigError, match=r"b\.png is there already.*another --out, or remove"):
        plan_outputs(sources[1:], tmp_path / "in")
    plan_uncertainty(plan_outputs(sources, tmp_path / "out"))  # those of an earlier run
    outputs = plan_outputs(sources, tmp_path / "in", "webp")
    plan_uncertainty(outputs)
    (tmp_path / "in" / "b.uncertainty.tif").touch()
    words = r"in/b\.uncertainty\.tif is there already.* Received: --uncertainty$"
    with pytest.raises(ConfigError, match=words):
        plan_uncertainty(outputs)


def test_files_next_to_what_the_sources_lead_to_are_not_replaced(tmp_path):
    for name in ("in/a.jpg", "in/a.png", "links/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "links" / "a.jpg").symlink_to("../in/a.jpg")
    with pytest.raises(ConfigError, match=r"in/a\.png is there already"):
        plan_outputs([tmp_path / "links" / "a.jpg"], tmp_path / "in")


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
        ("file", "cannot be written to: Not a directory"),
        ("file/deeper", "cannot be created: Not a directory"),
        ("x" * 256, "cannot be (created|written to): File name too long"),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path, name, words):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"({words}).* Received: --savepath DIR"):
        check_writable(tmp_path / name, "--savepath DIR")


@pytest.mark.parametrize(("name", "what"), [("link", "written to"), ("link/new", "created")])
def test_a_link_that_leads_nowhere_is_named(tmp_path, name, what):
    """No folder can be made in its place."""
    (tmp_path / "link").symlink_to("nowhere")
    words = rf"cannot be {what}: .*/link is a link that leads nowhere\. Use another.*--out DIR$"
    with pytest.raises(ConfigError, match=words):
        check_writable(tmp_path / name, "--out DIR")


def test_a_folder_that_the_system_refuses_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written to: Permission denied"):
        check_writable(tmp_path, "--savepath DIR")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["a.png", "b.tif"], ["a.uncertainty.tif", "b.uncertainty.tif"]),
        (["a.png", "a.tif", "b.png"], ["a.png", "a.tif", "b"]),
        (["A.png", "a.jpg"], ["A.png", "a.jpg"]),  # the same on some file systems
        (["x/a.png", "y/a.png"], ["x/a", "y/a"]),
        (["a.uncertainty.png"], ["a.uncertainty"]),
    ],
)
def test_the_files_of_the_uncertainty_lie_next_to_the_results(targets, expected):
    outputs = {Path("/in", name): Path("/out", name) for name in targets}
    found = plan_uncertainty(outputs)
    names = [str(path.relative_to("/out")) for path in found.values()]
    assert [*found] == [*outputs]
    assert names == [
        each.removesuffix(".uncertainty.tif") + ".uncertainty.tif" for each in expected
    ]


def test_the_uncertainty_of_a_stack_keeps_its_suffix(tmp_path):
    for name in ("a.ome.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    names = {"a.ome.tif": "a.ome.zarr", "b.tif": "b.tif"}
    outputs = {tmp_path / source: Path("/out", target) for source, target in names.items()}
    found = [path.name for path in plan_uncertainty(outputs).values()]
    assert found == ["a.uncertainty.ome.zarr", "b.uncertainty.tif"]


@pytest.mark.parametrize(
    "names",
    [["a.png", "a.uncertainty.tif"], ["a.uncertainty.tif", "a.png", "a.png.uncertainty.tif"]],
)
def test_the_uncertainty_overwrites_no_result(names):
    outputs = {Path("/in", name): Path("/out", name) for name in names}
    with pytest.raises(ConfigError, match=r"would overwrite /out/a.*Received: --uncertainty"):
        plan_uncertainty(outputs)
    into = {Path("/in/a.jpg"): Path("/in/a.png"), Path("/in/a.uncertainty.tif"): Path("/out/x.tif")}
    with pytest.raises(ConfigError, match=r"would overwrite /in/a.uncertainty.tif"):
        plan_uncertainty(into)


def test_the_name_of_the_uncertainty_is_cut_if_it_is_too_long():
    (found,) = plan_uncertainty({Path("/in/a.png"): Path("/out", "x" * 251 + ".png")}).values()
    assert len(found.name) <= 255 and found.name.endswith(".uncertainty.tif")
