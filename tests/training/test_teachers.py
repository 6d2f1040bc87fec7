import keras
import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import save_model
from cbsn.recipes import customised
from cbsn.training.teachers import Teacher, load_teachers
from tests.cases import slow_except

OPTIONS = DenoiseOptions(self_ensemble=True, engine="tensorflow")


def _model(recipe_name="tmbsn", **changes):
    keras.utils.set_random_seed(1)
    recipe = customised(recipe_name, filters=4, **changes)
    network = recipe.build_network()
    if recipe.normalization == "0-1":  # or everything would be clipped
        network.tail[-1].bias.assign([0.5] * network.channels)
    return Denoiser(recipe, network, OPTIONS)


def _with_hole(model, hole):
    """The same model, which denoises with another hole."""
    config = {"filters": 4, "depth": 1, "denoise_hole": hole}
    config |= {"channels": model.network.channels, "normalization": model.recipe.normalization}
    recipe = customised(model.recipe.name, **config)
    network = recipe.build_network()
    network.set_weights(model.network.get_weights())
    return Denoiser(recipe, network, OPTIONS)


@pytest.mark.parametrize("channels", slow_except((1, 3), 3))
@pytest.mark.parametrize("normalization", slow_except(("standardize", "0-1"), "standardize"))
def test_each_hole_makes_the_picture_that_a_model_with_it_makes(random, channels, normalization):
    model = _model(depth=1, channels=channels, normalization=normalization)
    patches = random.random((3, 24, 24, 3), np.float32)
    pictures = Teacher(model, (9, 0, 5))(patches)
    assert len(pictures) == 3
    for hole, picture in zip((9, 0, 5), pictures, strict=True):
        expected = _with_hole(model, hole).batch(patches, white=1.0)
        assert picture.dtype == np.float32
        # Sums of float32 of this size, in another order.
        np.testing.assert_allclose(picture, expected, atol=1e-5)
        assert expected.std() > 3e-3
    assert np.abs(pictures[0] - pictures[2]).max() > 1e-3


def test_without_holes_it_is_what_the_model_makes(random):
    model = _model("cbsn", num_modules=1)
    patches = random.random((2, 20, 20, 3), np.float32)
    (picture,) = Teacher(model)(patches)
    np.testing.assert_array_equal(picture, model.batch(patches, white=1.0))


def test_only_some_models_have_holes():
    with pytest.raises(
        ConfigError, match=r"tmbsn and cbsn-hole: omit.*--teacher_holes 3 9.*of cbsn"
    ):
        Teacher(_model("cbsn", num_modules=1), (3, 9))
    with pytest.raises(ConfigError, match=r"^--teacher_holes must be odd.*holes 4$"):
        Teacher(_model(depth=1), (3, 4))
    scale = {"low": 0, "high": 1, "mean": 0, "deviation": 1}
    scaling = {"method": "deviation", "channels": [scale]}
    stacks = _model(depth=1)
    stacks.recipe = customised("tmbsn", filters=4, depth=1, scaling=scaling)
    with pytest.raises(ConfigError, match="trained on stacks"):
        Teacher(stacks, (3,))


def test_several_models_may_teach(tmp_path):
    model = _model(depth=1)
    save_model(tmp_path / "model", model.recipe, model.network, {})
    teachers = load_teachers([tmp_path / "model"] * 2, (1, 3), "float32")
    assert [teacher.holes for teacher in teachers] == [(1, 3), (1, 3)]
    assert teachers[0].model.options.self_ensemble
