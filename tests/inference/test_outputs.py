from pathlib import Path

import pytest

from cbsn.errors import ConfigError
from cbsn.inference.outputs import plan_outputs


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
