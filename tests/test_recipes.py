import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.recipes import RECIPES, Recipe, customised
from cbsn.training.step_random import StepRandom


@pytest.fixture
def recipe():
    return RECIPES["cbsn"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_named_and_survive_json(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_learning_rate_golden(golden, recipe):
    data = np.load(golden("common/lr_schedule.npz"))
    objective = recipe.build_objective()
    for step, rate, ramp in zip(data["steps"], data["lr"], data["schedule"], strict=True):
        np.testing.assert_allclose(recipe.learning_rate_at(step), rate, rtol=1e-7)
        np.testing.assert_allclose(objective.ramp(step), ramp, rtol=1e-7)


def test_lasting_keeps_the_proportions(recipe):
    short = recipe.lasting(5000)
    assert (short.max_steps, short.lr_decay_steps) == (5000, 1000)
    assert short.objective_config["ramp_steps"] == 2000
    assert recipe.lasting(900_000).lr_decay_steps == 100_000
    assert recipe.lasting(1).lr_decay_steps == 1
    assert RECIPES["pn2v-unet"].lasting(1000).objective_config["bootstrap_steps"] == 200


@pytest.mark.parametrize(("name", "decay_epochs"), [("apbsn", (8, 16)), ("ssbsn", (16,))])
@pytest.mark.parametrize("steps_per_epoch", [1, 7, 12_345])
def test_epochs_are_of_any_length(name, decay_epochs, steps_per_epoch):
    recipe = RECIPES[name]
    assert recipe.epochs == 20
    lasting = recipe.lasting(20 * steps_per_epoch)
    assert lasting.epochs == 0
    falls = [
        epoch
        for epoch in range(1, 20)
        if lasting.learning_rate_at(epoch * steps_per_epoch)
        < 0.5 * lasting.learning_rate_at(epoch * steps_per_epoch - 1)
    ]
    assert tuple(falls) == decay_epochs
    np.testing.assert_allclose(lasting.learning_rate_at(0), 1e-4, rtol=1e-6)
    last = lasting.learning_rate_at(20 * steps_per_epoch - 1)
    np.testing.assert_allclose(last, 1e-4 * 0.1 ** len(decay_epochs), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 121}, "120 or 130.*patch_size=121, stride_b=5, stride_i=2"),
        ({"patch_size": 0}, "patch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"lr_decay": 2.0}, "lr_decay"),
        ({"epochs": -1}, "epochs=-1"),
        ({"denoise_stride": 0}, "denoise_stride=0"),
        ({"denoise_pad": -2}, "denoise_pad=-2"),
        ({"border": "wrap"}, "reflect, zeros.*border='wrap'"),
        ({"network": "Lambda"}, "network='Lambda'"),
        ({"network": "ResidualAttentionUNet"}, "needs a network that can be blind"),
        ({"objective": "Noise2Noise", "objective_config": {}}, "needs a normalisation"),
        ({"objective_config": {"stride": 2}}, "stride"),
        ({"patch_size": math.nan}, "patch_size must be a whole number.*=nan"),
        ({"max_steps": 10**30}, "max_steps must be at most"),
        ({"batch_size": True}, "batch_size must be a whole number.*=True"),
        ({"learning_rate": "fast"}, "learning_rate must be a number.*='fast'"),
        ({"r3": 1}, "r3 must be true or false"),
        ({"network": ["a"]}, "network must be text"),
        ({"network_config": 7}, "network_config must be settings by name"),
        ({"network_config": {"filters": 10**9}}, "filters must be at most"),
        ({"network_config": {"filters": 4096, "num_modules": 256}}, "too large.*filters=4096"),
        ({"network_config": {"filters": 2.5}}, "filters must be a whole number"),
        ({"network_config": {"trainable": False}}, "settings: filters, .*: 'trainable'"),
        ({"objective_config": {"stride_b": "5"}}, "stride_b must be a whole number"),
        ({"objective_config": {"lmbda": math.inf}}, "lmbda must be at most"),
        ({"objective_config": {"lmbda": math.nan}}, "lmbda=nan"),
        ({"name": "a\nb"}, "name must be printable"),
        ({"name": "\ud800"}, "name must be printable"),
        ({"schedule": "linear"}, "steps, cosine.*schedule='linear'"),
        ({"augmentation": "turns"}, "none, photo.*augmentation='turns'"),
        ({"augmentation": "photo"}, "learns from a teacher.*objective='DownsampledInvariance'"),
        ({"augmentation": None}, "augmentation must be text"),
        ({"ema": 1.0}, "ema must be below 1.*ema=1.0"),
        ({"ema": -0.1}, "ema must be at least 0"),
        ({"ema": 1.5}, "ema must be at most 1"),
        ({"ema": math.nan}, "ema=nan"),
    ],
)
def test_bad_recipes_say_what_to_change(recipe, change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(recipe, **change)


@pytest.mark.parametrize(("size", "near"), [(8, "16 or 32"), (72, "64 or 80"), (127, "112 or 128")])
def test_augmented_patches_must_fit_jpeg_blocks(size, near):
    with pytest.raises(ConfigError, match=rf"multiple of 16: use {near}.*patch_size={size}"):
        customised("photo", patch_size=size)
    assert customised("distill", patch_size=size).patch_size == size


def test_a_bad_network_config_is_an_error(recipe):
    with pytest.raises(ConfigError, match="filters"):
        dataclasses.replace(recipe, network_config={"filters": 0}).build_network()


def test_unknown_fields_are_refused(recipe):
    with pytest.raises(ConfigError, match="colour"):
        Recipe.from_dict({**recipe.to_dict(), "colour": "red"})


def test_customised_puts_each_setting_in_its_place(recipe):
    changed = customised("cbsn", filters=16, stride_b=4, patch_size=60, lmbda=None)
    assert changed.network_config == {"filters": 16, "num_modules": 9, "channels": 3}
    assert changed.objective_config == {**recipe.objective_config, "stride_b": 4}
    assert (changed.patch_size, changed.max_steps) == (60, 500_000)
    assert customised("cbsn") == recipe


def test_customised_shrinks_only_what_is_not_given():
    changed = customised("cbsn", max_steps=5000, lr_decay_steps=3000)
    assert changed.lr_decay_steps == 3000
    assert changed.objective_config["ramp_steps"] == 2000


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dncnn", {}, "Choose from cbsn, apbsn, ssbsn.*--recipe dncnn"),
        ("cbsn", {"sigma": 3}, "no setting sigma"),
        ("apbsn", {"lmbda": 1.0}, "'apbsn' has no setting lmbda"),
        *(("cbsn", {key: 1}, f"no setting {key}") for key in ("to_dict", "network_config")),
        ("cbsn", {"max_steps": 0}, "max_steps must be at least 1"),
        ("cbsn", {"mask_shape": "x:1"}, "'cbsn' has no setting mask_shape"),
        ("n2v-unet", {"mask_shape": "ring"}, "Received: ring"),
        ("tmbsn", {"patch_size": 9}, "larger --patch_size or a smaller --hole.*_size=9, hole=9"),
        ("n2v-unet", {"mask_shape": "x:40"}, "4 × 81 pixels .*--patch_size.*Received: 64 × 64"),
        ("n2v-unet", {"mask_cell": 66}, "66 × 66 pixels .*--mask_cell"),
        ("n2v-unet", {"patch_depth": 8}, "patch_depth=8, dimensions=2"),
        ("n2v-unet-3d", {"patch_depth": 1}, "patch_depth=1, dimensions=3"),
        ("n2v-unet-3d", {"patch_depth": 3}, "4 × 4 × 4 pixels .*--patch_depth.*3 × 64 × 64"),
        ("n2v-unet-3d", {"mask_shape": "z:9"}, "19 × 4 × 4 pixels"),
        ("pn2v-unet", {"normalization": "standardize"}, "same for every picture"),
        ("pn2v-unet", {"network": "BlindSpotUNet"}, "network that predicts samples"),
        ("pn2v-unet", {"noise_model": 3}, "noise_model must be text"),
        ("n2v-unet", {"patch_size": 3}, "a larger --patch_size, or a smaller --struct_mask"),
        ("n2v-unet-3d", {"mask_shape": "z:9"}, "a larger --patch_depth, or a smaller --struct_m"),
        (
            "dil-unet",
            {"stride_b": 2, "mask_shape": "x:20"},
            "mask and stride_b=2, patches need 8 × 82 .*--mask_cell or --stride_b.*: 64 × 64",
        ),
        ("dil-unet", {"stride_i": 16, "mask_shape": "x:2"}, "need 64 × 80 .*--mask_cell or --st"),
        ("pn2v-unet", {"samples": 1}, "samples must be at least 2"),
        (
            "pn2v-unet",
            {"max_steps": 100, "bootstrap_steps": 101},
            "--bootstrap_steps 100 or less.*bootstrap_steps=101, max_steps=100",
        ),
        ("pn2v-unet", {"bootstrap_steps": 100_001}, "100001, max_steps=100000"),
        ("n2v-unet", {"samples": 8}, "'n2v-unet' has no setting samples"),
    ],
)
def test_impossible_customs_are_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        customised(name, **changes)


def test_customised_knows_the_settings_that_a_recipe_leaves_as_they_are():
    changed = customised("n2v-unet", mask_shape="x:2", patch_size=32)
    config = RECIPES["n2v-unet"].network_config
    assert changed.network_config == {**config, "mask_shape": "x:2"}
    assert changed.build_network().masking.sides == (4, 5)


def test_pictures_keep_the_form_of_earlier_recipes():
    """Runs of earlier versions go on, as their recipes have no patch depth."""
    assert "patch_depth" not in RECIPES["n2v-unet"].to_dict()
    assert RECIPES["n2v-unet-3d"].to_dict()["patch_depth"] == 16


def test_masks_fit_the_sub_images_of_strides():
    """Patches as small as the message says are accepted, and the loss can be computed."""
    recipe = customised("dil-unet", stride_b=2, mask_shape="x:20", patch_size=82, filters=4)
    noisy = tf.zeros((1, 82, 82, 3))
    terms = recipe.build_objective()(recipe.build_network(), noisy, 0, StepRandom(0, 0, 1))
    assert np.isfinite(terms["total"])


@pytest.mark.parametrize("steps", [1, 7, 1000, 100_000])
def test_the_noise_model_is_learned_before_the_end(steps):
    """However few the steps are, for which the bootstrap is scaled; it may be as long as they."""
    recipe = customised("pn2v-unet", max_steps=steps)
    assert 0 < recipe.objective_config["bootstrap_steps"] <= steps
    assert customised("pn2v-unet", max_steps=steps, bootstrap_steps=steps).max_steps == steps


def test_the_whole_configuration_is_that_of_the_network():
    """As the network itself states it, and with the recipe's values."""
    for recipe in RECIPES.values():
        whole, built = recipe.whole_network_config, recipe.build_network().get_config()
        assert whole == {key: built[key] for key in whole}
        assert whole.items() >= dict(recipe.network_config).items()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_network_that_is_not_fresh_is_one_to_fill(name):
    """Its convolutions are not drawn; it takes the weights of another; the next is fresh again."""
    small = {"filters": 8} if "filters" in RECIPES[name].whole_network_config else {}
    recipe = customised(name, **small)
    empty, fresh = recipe.build_network(fresh=False), recipe.build_network()
    for network, is_drawn in ((empty, False), (fresh, True)):
        kernels = [each.numpy() for each in network.weights if len(each.shape) > 3]
        assert kernels and all(kernel.any() == is_drawn for kernel in kernels)
    empty.set_weights(fresh.get_weights())
    for value, expected in zip(empty.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("step", "part"),
    [
        (0, 1 / 10),  # the first step does something, too
        (4, 5 / 10),
        (9, 1.0),
        (250, 1.0),
        (500, 1.0),
        (999, 1.0),
        (1000, 1.0),
        (5000, 1.0),
    ],
)
def test_a_cosine_follows_a_hundredth_of_the_steps(step, part):
    recipe = RECIPES["photo"].lasting(1000)
    # Half a turn from the first to the last step, where it stays.
    expected = 1e-3 * part * math.cos(math.pi / 2 * min(step, 1000) / 1000) ** 2
    # As a cosine is near −1 at the end, what is left is rounded to 2⁻²⁴, of half the rate.
    rounding = {"rtol": 1e-5, "atol": 1e-3 * 2**-23}
    for kind in (int, np.int64, tf.constant):
        np.testing.assert_allclose(recipe.learning_rate_at(kind(step)), expected, **rounding)


@pytest.mark.parametrize("steps", [1, 2, 100, 26_000, 300_000])
def test_a_cosine_lasts_as_long_as_the_training(steps):
    """Also where that is longer than the recipe has it."""
    recipe = RECIPES["photo"].lasting(steps)
    rates = np.array([recipe.learning_rate_at(s) for s in np.linspace(0, steps, 101).astype(int)])
    assert (rates[:-1] > 0).all()
    np.testing.assert_allclose(rates[-1], 0, atol=1e-9)
    if steps >= 100:
        np.testing.assert_allclose(rates[50], 0.5e-3, rtol=1e-4)
        assert (np.diff(rates[1:]) < 0).all()


def test_recipes_of_before_there_were_cosines_still_load(recipe):
    """A `recipe.json` lacks what has come later, and means what it did."""
    later = ("schedule", "ema", "augmentation")
    for each in (recipe, RECIPES["distill"]):
        values = {key: value for key, value in each.to_dict().items() if key not in later}
        read = Recipe.from_dict(values)
        assert read == each
        assert (read.schedule, read.ema, read.augmentation) == ("steps", 0.0, "none")


@pytest.mark.parametrize("name", RECIPES)
def test_only_rates_that_fall_in_steps_have_the_settings_of_these(name):
    recipe = RECIPES[name]
    for setting in ("lr_decay", "lr_decay_steps"):
        assert recipe.has_setting(setting) == (recipe.schedule == "steps")
    if recipe.schedule == "cosine":
        with pytest.raises(ConfigError, match="has no setting lr_decay_steps"):
            customised(name, lr_decay_steps=100)
