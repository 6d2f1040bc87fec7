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
    """A tiny model in place of the one that ships."""
    recipe = customised("distill", filters=4, depth=1)
    save_model(tmp_path / "student", recipe, recipe.build_network(), {})
    monkeypatch.setattr(denoising, "STUDENT", tmp_path / "student")
    return tmp_path


@pytest.fixture
def noisy(tmp_path, random):
    pixels = random.integers(0, 256, (20, 24, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    return pixels


OPTIONS = {"precision": "float32", "engine": "tensorflow"}


@pytest.mark.parametrize("quality", [None, "fast", "best"])
def test_the_model_that_ships_denoises(shipped, noisy, quality):
    assert denoise([shipped / "noisy.png"], shipped / "out", quality=quality, **OPTIONS) == 0
    ensemble = quality == "best"
    denoiser = Denoiser.load(shipped / "student", self_ensemble=ensemble, **OPTIONS)
    np.testing.assert_array_equal(Image.open(shipped / "out" / "noisy.png"), denoiser(noisy))


def test_what_ships_can_be_adapted_and_kept(shipped, noisy, capsys):
    paths, kept = [shipped / "noisy.png"], shipped / "kept"
    options = {**OPTIONS, "quality": "best"}
    assert denoise(paths, shipped / "out", adapt=0.02, adapt_save=kept, **options) == 0
    assert "held out" in capsys.readouterr().out
    denoiser = Denoiser.load(kept, self_ensemble=True, **OPTIONS)
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
