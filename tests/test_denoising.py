import numpy as np
import pytest
from PIL import Image

from cbsn import denoising
from cbsn.denoising import denoise
from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.joint_denoiser import JointDenoiser
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


OPTIONS = {"precision": "float32", "engine": "tensorflow"}


@pytest.mark.parametrize("quality", [None, "fast"])
def test_the_student_is_what_denoises(shipped, noisy, quality):
    assert denoise([shipped / "noisy.png"], shipped / "out", quality=quality, **OPTIONS) == 0
    denoiser = Denoiser.load(shipped / "student", **OPTIONS)
    np.testing.assert_array_equal(Image.open(shipped / "out" / "noisy.png"), denoiser(noisy))


def test_best_is_it_and_its_teacher(shipped, noisy):
    assert denoise([shipped / "noisy.png"], shipped / "out", quality="best", **OPTIONS) == 0
    paths = shipped / "student", shipped / "teacher"
    denoiser = JointDenoiser.load(*paths, self_ensemble=True, **OPTIONS)
    np.testing.assert_array_equal(Image.open(shipped / "out" / "noisy.png"), denoiser(noisy))


@pytest.mark.parametrize("quality", [None, "best"])
def test_what_ships_can_be_adapted_and_kept(shipped, noisy, quality, capsys):
    paths, save = [shipped / "noisy.png"], shipped / "kept"
    status = denoise(
        paths, shipped / "out", quality=quality, adapt=0.02, adapt_save=save, **OPTIONS
    )
    assert status == 0
    assert "held out" in capsys.readouterr().out
    if quality:
        denoiser = JointDenoiser.load(save, save / "teacher", self_ensemble=True, **OPTIONS)
    else:
        denoiser = Denoiser.load(save, **OPTIONS)
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
