import numpy as np
import pytest
from PIL import Image

from cbsn import denoising
from cbsn.denoising import denoise
from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.model_folder import save_model
from cbsn.recipes import customised


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A tiny teacher and a tiny student in place of those that ship."""
    sizes = {"teacher": ("cbsn", {"num_modules": 1}), "student": ("distill", {"depth": 1})}
    for name, (recipe_name, size) in sizes.items():
        recipe = customised(recipe_name, filters=4, **size)
        save_model(tmp_path / name, recipe, recipe.build_network(), {})
        monkeypatch.setattr(denoising, name.upper(), tmp_path / name)
    return tmp_path


@pytest.fixture
def noisy(tmp_path, random):
    pixels = random.integers(0, 256, (20, 24, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    return pixels


@pytest.mark.parametrize(
    ("quality", "name", "self_ensemble"),
    [(None, "student", False), ("fast", "student", False), ("best", "teacher", True)],
)
def test_quality_chooses_the_model(shipped, noisy, quality, name, self_ensemble):
    options = {"precision": "float32", "engine": "tensorflow"}
    assert denoise([shipped / "noisy.png"], shipped / "out", quality=quality, **options) == 0
    denoiser = Denoiser.load(shipped / name, self_ensemble=self_ensemble, **options)
    np.testing.assert_array_equal(Image.open(shipped / "out" / "noisy.png"), denoiser(noisy))


@pytest.mark.parametrize("quality", [None, "best"])
def test_what_ships_can_be_adapted_and_kept(shipped, noisy, quality, capsys):
    options = {"quality": quality, "precision": "float32", "engine": "tensorflow"}
    save = shipped / "kept"
    paths = [shipped / "noisy.png"]
    assert denoise(paths, shipped / "out", adapt=0.02, adapt_save=save, **options) == 0
    assert "held out" in capsys.readouterr().out
    denoiser = Denoiser.load(
        save, self_ensemble=quality == "best", precision="float32", engine="tensorflow"
    )
    assert denoiser.recipe.name == ("cbsn" if quality else "distill")
    np.testing.assert_array_equal(Image.open(shipped / "out" / "noisy.png"), denoiser(noisy))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_path": "m", "quality": "best"}, "--modelpath m --quality best"),
        ({"adapt_save": "kept"}, "--adapt MINUTES.*--adapt_save kept"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        denoise(["noisy.png"], "out", **options)
