import dataclasses

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


def test_shortened_keeps_the_proportions(recipe):
    short = recipe.shortened(5000)
    assert (short.max_steps, short.lr_decay_steps) == (5000, 1000)
    assert short.objective_config["ramp_steps"] == 2000
    assert recipe.shortened(900_000).lr_decay_steps == 100_000
    assert recipe.shortened(1).lr_decay_steps == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 121}, "120 or 130.*patch_size=121, stride_b=5, stride_i=2"),
        ({"patch_size": 0}, "patch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"lr_decay": 2.0}, "lr_decay"),
        ({"network": "Lambda"}, "network='Lambda'"),
        ({"objective_config": {"stride": 2}}, "stride"),
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
    assert changed.network_config == {"filters": 16, "num_modules": 9}
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
        ("dncnn", {}, "Known are: cbsn.*--recipe dncnn"),
        ("cbsn", {"sigma": 3}, "no setting sigma"),
        ("cbsn", {"max_steps": 0}, "--maxiter"),
    ],
)
def test_impossible_customs_are_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        customised(name, **changes)
