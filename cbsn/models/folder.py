"""A saved model: a folder with `recipe.json`, `model.weights.h5` and `SHA256SUMS`.

The architecture is rebuilt from the recipe; nothing pickled is ever loaded.
"""

import io
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.errors import ConfigError, ModelError, plain_reason
from cbsn.files import (
    CHECKSUMS,
    atomic_folder,
    read_small,
    verify_checksums,
    write_checksums,
    write_json,
)
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.recipes import Recipe

METRICS_FILE = "metrics.jsonl"  # in a run's folder, for scripts that follow the run
RECIPE, WEIGHTS = "recipe.json", "model.weights.h5"
FORMAT = 1

_LARGEST_RECIPE = 1 << 20  # bytes allowed for its file; ours have a few hundred
_BYTES = 2  # least size of a weight in a file


class _WeightsFile(io.BytesIO):
    """A file in memory, named as Keras requires."""

    def __str__(self) -> str:
        return WEIGHTS


def is_model_folder(folder: Path) -> bool:
    """Returns whether `folder` looks like a saved model."""
    return (folder / RECIPE).is_file()


def may_replace(folder: Path, fact: str) -> bool:
    """Returns whether nothing else would be lost if a model replaced what is there.

    That is nothing, an empty folder, or one that holds nothing but a model, of whose training it
    states `fact`.
    """
    if not folder.exists():
        return True
    try:
        names = {path.name for path in folder.iterdir()}
        return not names or (fact in read_facts(folder) and names <= {RECIPE, WEIGHTS, CHECKSUMS})
    except (OSError, ValueError, AttributeError):  # of JSON that is no object
        return False


def save_model(
    folder: Path, recipe: Recipe, network: DenoisingNetwork, training: Mapping[str, Any]
) -> None:
    """Writes a model. It replaces an earlier one of that name only when it is complete.

    The folder's parent must exist. `training` holds facts for readers, such as `{"step": 1000}`. If
    the model cannot be written (OSError), an earlier one stays intact.
    """
    with atomic_folder(folder) as temporary:
        # In memory first, because HDF5 crashes the process when the disk is full.
        weights = _WeightsFile()
        network.save_weights(weights)
        (temporary / WEIGHTS).write_bytes(weights.getbuffer())
        content = {"format": FORMAT, "recipe": recipe.to_dict(), "training": training}
        write_json(temporary / RECIPE, content)
        write_checksums(temporary)


def load_folder(folder: Path, precision: str = "float32") -> tuple[Recipe, DenoisingNetwork]:
    """Reads the recipe and the network that `save_model` wrote."""
    verify_checksums(folder, (RECIPE, WEIGHTS))
    try:
        content = json.loads(read_small(folder / RECIPE, _LARGEST_RECIPE))
        if content["format"] != FORMAT:
            raise ModelError(
                f"{folder}: this version reads saved models of format {FORMAT}. "
                f"Received: format {reprlib.repr(content['format'])}"
            )
        recipe = Recipe.from_dict(content["recipe"])
    except ModelError:
        raise
    # Also for JSON that is nested too deeply, or is not UTF-8, which is a ValueError.
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        reason = str(error) if isinstance(error, ConfigError) else plain_reason(error)
        raise ModelError(
            f"{folder}: not a usable saved model; {RECIPE} is not a recipe of this version "
            f"({reason}). Copy the folder again, or use another model."
        ) from error
    return recipe, load_weights(recipe, folder / WEIGHTS, precision, "Copy the folder again.")


def read_facts(folder: Path) -> dict[str, Any]:
    """Returns the facts about the training that `save_model` wrote; none of another program's."""
    facts = json.loads(read_small(folder / RECIPE, _LARGEST_RECIPE)).get("training")
    return facts if isinstance(facts, dict) else {}


def load_weights(recipe: Recipe, path: Path, precision: str, advice: str) -> DenoisingNetwork:
    """Builds a recipe's network and reads its weights from a `*.weights.h5` file of Keras.

    Error messages end with `advice`, a sentence on what to do if the weights do not fit.
    """
    size = ", ".join(f"{key}={value}" for key, value in recipe.network_config.items())
    needed = f"weights of the network of recipe {recipe.name!r} with {size}"
    try:
        # Checked before memory is taken, because the stated network size may be wrong.
        held = path.stat().st_size // _BYTES
        if held < recipe.least_weights:
            raise ModelError(f"{path} is too small for {needed}. {advice}")
        network = recipe.build_network(precision, fresh=False)
        network.load_weights(path)
    except (ModelError, MemoryError):
        raise
    except ConfigError as error:
        raise ModelError(f"{path}: {error}. {advice}") from error
    except Exception as error:  # damaged bytes make HDF5 and Keras raise almost anything
        reason = plain_reason(error)
        raise ModelError(f"{path} cannot be read as {needed} ({reason}). {advice}") from error
    for weight, value in zip(network.weights, network.get_weights(), strict=True):
        if not np.isfinite(value).all():
            raise ModelError(
                f"{path}: {weight.path} holds values that are not finite, so all results would "
                "be, too. Use another model, such as an earlier one of that run."
            )
    return network
