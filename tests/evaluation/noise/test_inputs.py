import numpy as np
import pytest
from PIL import Image

from cbsn.cli.noise import denoise_pictures, find_pictures, read_pairs, read_pictures
from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.inference.denoiser import Denoiser


@pytest.fixture
def folder(tmp_path):
    """Five gray pictures, one of them with alpha, of the values 10, 20, …"""
    (tmp_path / "noisy").mkdir()
    for number in range(1, 6):
        gray = Image.new("L", (8, 6), 10 * number)
        picture = Image.merge("LA", (gray, gray)) if number == 3 else gray
        picture.save(tmp_path / "noisy" / f"{number}.png")
    return tmp_path / "noisy"


def test_each_file_once(folder):
    found = find_pictures([str(folder), str(folder / "2.png"), str(folder / "[45].png")])
    assert [path.name for path in found] == [f"{number}.png" for number in range(1, 6)]
    some = find_pictures([str(folder)], images=2)
    assert [path.name for path in some] == ["1.png", "3.png"]
    assert len(find_pictures([str(folder)], images=9)) == 5


def test_nothing_to_find(folder):
    with pytest.raises(DataError, match=r"no file matches .*\*\.tif"):
        find_pictures([str(folder), str(folder / "*.tif")])
    with pytest.raises(ConfigError, match=r"--images must be at least 0\. Received: --images -1"):
        find_pictures([str(folder)], images=-1)


def test_pictures_are_without_alpha(folder):
    pictures = [*read_pictures(find_pictures([str(folder)]))]
    assert [picture.shape for picture in pictures] == [(6, 8, 1)] * 5
    assert [picture[0, 0, 0] for picture in pictures] == [10, 20, 30, 40, 50]


def test_pairs_have_equal_names(folder, tmp_path):
    paths = find_pictures([str(folder)])
    denoised = tmp_path / "denoised"
    denoised.mkdir()
    for path in paths:
        Image.new("L", (8, 6), 7).save(denoised / f"{path.stem}.tif")
    pairs = [*read_pairs(paths, str(denoised))]
    assert [noisy[0, 0, 0] for noisy, _ in pairs] == [10, 20, 30, 40, 50]
    assert {float(other[0, 0, 0]) for _, other in pairs} == {7}
    (denoised / "4.tif").unlink()
    with pytest.raises(DataError, match=r"has none for .*4\.png"):
        next(read_pairs(paths, str(denoised)))


def test_a_model_denoises(folder, monkeypatch, capsys):
    given = {}

    class Half:
        recipe = type("Recipe", (), {"name": "half"})
        choices = "As it likes."

        def __call__(self, picture, *, white):
            assert white == 255
            return picture // 2

    def load(path, **options):
        given.update(options, path=path)
        return Half()

    monkeypatch.setattr(Denoiser, "load", load)
    paths = find_pictures([str(folder)])
    pairs = [*denoise_pictures(paths, "model", tile="0", precision="float32")]
    assert given == {"path": "model", "tile": "0", "precision": "float32"}
    assert capsys.readouterr().out == "half (model): As it likes.\n"
    assert len(pairs) == 5
    for noisy, denoised in pairs:
        np.testing.assert_array_equal(denoised, noisy // 2)


def test_what_fails_is_named(folder, monkeypatch):
    def broken(path, **options):
        def denoise(picture, *, white):
            raise ImageError("It is too noisy.")

        denoise.recipe, denoise.choices = type("Recipe", (), {"name": "none"}), ""
        return denoise

    monkeypatch.setattr(Denoiser, "load", broken)
    with pytest.raises(ImageError, match=r"1\.png: It is too noisy\."):
        next(denoise_pictures(find_pictures([str(folder)]), "model"))
