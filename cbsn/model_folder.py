"""A saved model: a folder with `recipe.json`, `model.weights.h5` and `SHA256SUMS`.

The architecture is rebuilt from the recipe; nothing pickled is ever loaded.
"""

import io
import json
from pathlib import Path
from typing import Any

from cbsn.checksums import verify_checksums, write_checksums
from cbsn.errors import CbsnError, ModelError
from cbsn.files import atomic_folder, write_json
from cbsn.recipes import Recipe

RECIPE = "recipe.json"
WEIGHTS = "model.weights.h5"
FORMAT = 1


class _WeightsFile(io.BytesIO):
    """A file in memory with the name that Keras wants."""

    def __str__(self) -> str:
        return WEIGHTS


def is_model_folder(folder: Path) -> bool:
    """Says whether `folder` looks like a saved model."""
    return (folder / RECIPE).is_file()


def save_model(
    folder: Path,
    recipe: Recipe,
    network: Any,
    training: dict[str, Any],
    *,
    float16: bool = False,
) -> None:
    """Writes a model, replacing an earlier one of that name only when it is complete.

    Args:
        folder: where to; its parent must exist.
        recipe: the recipe, whose network `network` is.
        network: a Keras model; its weights are saved.
        training: facts for a reader, such as `{"step": 1000, "val_psnr": 36.2}`.
        float16: whether weights are rounded to 11 bits, which takes half the room. Those of
            layers that compute in float32 whatever the policy is, such as the last one, are not.

    Raises:
        OSError: it cannot be written; an earlier one is intact.
    """
    if float16:
        values = network.get_weights()
        network = recipe.build_network("float16")
        network.set_weights(values)
    with atomic_folder(folder) as temporary:
        # In memory first, for HDF5 crashes the process when the disk is full.
        weights = _WeightsFile()
        network.save_weights(weights)
        (temporary / WEIGHTS).write_bytes(weights.getbuffer())
        write_json(
            temporary / RECIPE,
            {"format": FORMAT, "recipe": recipe.to_dict(), "training": training},
        )
        write_checksums(temporary)


def load_model(folder: Path, precision: str = "float32") -> tuple[Recipe, Any]:
    """Reads a model that `save_model` wrote.

    Args:
        folder: the saved-model folder.
        precision: Keras dtype policy of the network's layers.

    Returns:
        The recipe and the network with its weights.

    Raises:
        ModelError: if a file is missing, altered, or not understood.
    """
    verify_checksums(folder, (RECIPE, WEIGHTS))
    try:
        content = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(
                f"{folder}: this version reads saved models of format {FORMAT}. "
                f"Received: format {content['format']}"
            )
        recipe = Recipe.from_dict(content["recipe"])
        network = recipe.build_network(precision)
        network.load_weights(folder / WEIGHTS)
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        reason = str(error) if isinstance(error, CbsnError) else repr(error)
        raise ModelError(f"{folder}: not a usable saved model ({reason})") from error
    return recipe, network
