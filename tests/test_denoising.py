import numpy as np
import pytest
from PIL import Image

from cbsn.cli import denoise as denoising
from cbsn.cli.denoise import denoise
from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import save_model
from cbsn.recipes import customised


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Tiny models in place of those that ship."""
    for name, filters in (("photo", 2), ("photo_large", 4)):
        recipe = customised("distill", filters=filters, depth=1)
        save_model(tmp_path / name, recipe, recipe.build_network(), {})
    monkeypatch.setattr(denoising, "SHIPPED", tmp_path)
    return tmp_path


@pytest.fixture
def noisy(tmp_path, random):
    pixels = random.integers(0, 256, (20, 24, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    return pixels


OPTIONS = {"precision": "float32", "engine": "tensorflow"}


@pytest.mark.parametrize(
    ("quality", "name", "ensemble"),
    [
        (None, "photo_large", False),
        ("fast", "photo", False),
        ("default", "photo_large", False),
        ("best", "photo_large", True),
    ],
)
def test_the_models_that_ship_denoise(shipped, noisy, quality, name, ensemble):
    assert denoise([shipped / "noisy.png"], shipped / "out", quality=quality, **OPTIONS) == 0
    denoiser = Denoiser.load(shipped / name, DenoiseOptions(self_ensemble=ensemble, **OPTIONS))
    np.testing.assert_array_equal(Image.open(shipped / "out" / "noisy.png"), denoiser(noisy))


@pytest.mark.parametrize(("quality", "filters"), [("fast", 2), ("best", 4)])
def test_what_ships_can_be_adapted_and_kept(shipped, random, quality, filters, capsys):
    noisy = (128 + random.normal(0, 20, (160, 160, 3))).clip(0, 255).astype("uint8")
    Image.fromarray(noisy).save(shipped / "noisy.png")
    paths, kept = [shipped / "noisy.png"], shipped / "kept"
    options = {**OPTIONS, "quality": quality}
    assert denoise(paths, shipped / "out", adapt=0.02, adapt_save=kept, **options) == 0
    assert "held out" in capsys.readouterr().out
    denoiser = Denoiser.load(kept, DenoiseOptions(self_ensemble=quality == "best", **OPTIONS))
    assert denoiser.recipe.network_config["filters"] == filters
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
