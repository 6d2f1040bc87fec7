from pathlib import Path

import numpy as np
import pytest

from cbsn.data.image_io import Picture, read_picture, write_picture
from cbsn.errors import ConfigError, DataError
from cbsn.inference import files
from cbsn.inference.files import denoise_files, plan_outputs


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


class Inverter:
    """Stands in for a denoiser."""

    def __call__(self, image, on_tile):
        on_tile(image.shape[0] * image.shape[1])
        if image.shape[0] == 13:
            raise MemoryError
        if image.shape[0] == 14:
            raise KeyError("a bug")
        return np.iinfo(image.dtype).max - image


@pytest.fixture
def inverter(monkeypatch):
    monkeypatch.setattr(files.Denoiser, "load", lambda *_, **__: Inverter())


def save(path, height=9, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(np.full((height, 8, 3), 7, dtype), "PNG", b"profile"))


def test_the_good_ones_are_done_and_the_bad_ones_named(tmp_path, inverter, capsys):
    source, target = tmp_path / "in", tmp_path / "new" / "out"
    save(source / "good.png")
    save(source / "last.png")
    save(source / "memory.png", height=13)
    save(source / "bug.png", height=14)
    (source / "broken.png").write_bytes((source / "good.png").read_bytes()[:50])
    assert denoise_files("model", [source], target) == 1
    assert sorted(p.name for p in target.iterdir()) == ["good.png", "last.png"]
    result = read_picture(target / "good.png")
    assert (result.pixels == 248).all() and result.icc_profile == b"profile"
    output, errors = capsys.readouterr()
    assert "2 of 5 pictures denoised" in output
    failed = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3
    assert "broken.png" in failed[0]
    assert "bug.png: KeyError: 'a bug'" in failed[1] and "Traceback" in errors
    assert "memory.png: not enough memory" in failed[2]


def test_what_is_lost_is_said(tmp_path, inverter, capsys):
    save(tmp_path / "deep.png", dtype=np.uint16)
    assert denoise_files("model", [tmp_path / "deep.png"], tmp_path / "out", format="webp") == 0
    assert "deep.webp: WEBP holds 8 bits" in capsys.readouterr().err


def test_nothing_is_done_without_pictures_or_a_folder(tmp_path, inverter):
    with pytest.raises(DataError, match="no file matches"):
        denoise_files("model", [tmp_path / "*.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="No folder can be made"):
        denoise_files("model", [tmp_path / "a.png"], tmp_path / "a.png" / "out")


def test_the_model_is_not_loaded_when_a_source_would_be_overwritten(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.setattr(files.Denoiser, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match="overwrite"):
        denoise_files("model", [tmp_path], tmp_path)
