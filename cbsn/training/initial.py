"""`--init`: the weights that a training starts with."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cbsn.errors import ConfigError
from cbsn.model_path import load_model
from cbsn.recipes import RECIPES


def read_initial(
    model_path: str, recipe_name: str, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads the weights of a model, for another training of its network.

    Args:
        model_path: as `cbsn.model_path.load_model` takes it.
        recipe_name: str, what is to be trained.
        changes: settings of the recipe to change, as `cbsn.recipes.customised` takes them.

    Returns:
        The changes, with the size of the model's network, and its weights.

    Raises:
        ConfigError: if the recipe has another network, another normalisation, or a size of the
            network is given that is not the model's.
        ModelError: if there is no such model, or it cannot be read.
    """
    model, network = load_model(model_path)
    wanted = RECIPES.get(recipe_name, model)  # an unknown one is refused elsewhere, in words
    for field in ("network", "normalization"):
        theirs, ours = getattr(model, field), getattr(wanted, field)
        if theirs != ours:
            raise ConfigError(
                f"The recipe {recipe_name!r} has {field}={ours!r}, the model of --init has "
                f"{theirs!r}. Take the model's recipe, --recipe {model.name}, or another model. "
                f"Received: --init {model_path}"
            )
    for key, value in model.network_config.items():
        if changes.get(key) not in (None, value):
            raise ConfigError(
                f"The model of --init has {key}={value}: omit the flag. "
                f"Received: {key}={changes[key]}"
            )
    return {**changes, **model.network_config}, network.get_weights()
