import dataclasses
import math

import numpy as np
import pytest

from cbsn.errors import ConfigError
from cbsn.recipes import RECIPES, Recipe, customised


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
        ({"objective": "Noise2Noise", "objective_config": {}}, "one normalisation"),
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
        ({"network_config": {"trainable": False}}, "settings filters, .*: 'trainable'"),
        ({"objective_config": {"stride_b": "5"}}, "stride_b must be a whole number"),
        ({"objective_config": {"lmbda": math.inf}}, "lmbda must be at most"),
        ({"objective_config": {"lmbda": math.nan}}, "lmbda=nan"),
        ({"name": "a\nb"}, "name must be printable"),
        ({"name": "\ud800"}, "name must be printable"),
    ],
)
def test_bad_recipes_say_what_to_change(recipe, change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(recipe, **change)


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
        ("dncnn", {}, "Known are: cbsn, apbsn, ssbsn.*--recipe dncnn"),
        ("cbsn", {"sigma": 3}, "no setting sigma"),
        ("apbsn", {"lmbda": 1.0}, "'apbsn' has no setting lmbda"),
        ("cbsn", {"max_steps": 0}, "--maxiter"),
    ],
)
def test_impossible_customs_are_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        customised(name, **changes)
