"""A saved model: a folder with `recipe.json`, `model.weights.h5` and `SHA256SUMS`.

The architecture is rebuilt from the recipe; nothing pickled is ever loaded.
"""

import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from cbsn.errors import CbsnError, ModelError
from cbsn.files import write_json, write_text
from cbsn.recipes import Recipe

RECIPE = "recipe.json"
WEIGHTS = "model.weights.h5"
CHECKSUMS = "SHA256SUMS"
FORMAT = 1


def is_model_folder(folder: Path) -> bool:
    """Says whether `folder` looks like a saved model."""
    return (folder / RECIPE).is_file()


def save_model(folder: Path, recipe: Recipe, network: Any, training: dict[str, Any]) -> None:
    """Writes a model, replacing an earlier one of that name only when it is complete.

    Args:
        folder: where to; its parent must exist.
        recipe: the recipe, whose network `network` is.
        network: a Keras model; its weights are saved.
        training: facts for a reader, such as `{"step": 1000, "val_psnr": 36.2}`.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        network.save_weights(temporary / WEIGHTS)
        write_json(
            temporary / RECIPE,
            {"format": FORMAT, "recipe": recipe.to_dict(), "training": training},
        )
        lines = [f"{_sha256(temporary / name)}  {name}\n" for name in (RECIPE, WEIGHTS)]
        write_text(temporary / CHECKSUMS, "".join(lines))
        if folder.exists():
            # A folder cannot be renamed onto another one: set the old one aside first.
            aside = folder.with_name(f"{temporary.name}.old")
            folder.rename(aside)
            temporary.rename(folder)
            shutil.rmtree(aside)
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    _verify(folder)
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


def _verify(folder: Path) -> None:
    """Compares the files with their checksums."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        for line in lines:
            expected, name = line.split(maxsplit=1)
            if _sha256(folder / name) != expected:
                raise ModelError(
                    f"{folder / name} is not the file that was saved (its SHA-256 differs from "
                    f"{CHECKSUMS}). Copy the folder again."
                )
        missing = {RECIPE, WEIGHTS} - {line.split(maxsplit=1)[1] for line in lines}
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{folder}: incomplete saved model ({error})") from error
    if missing:
        raise ModelError(f"{folder}: {CHECKSUMS} does not name {', '.join(sorted(missing))}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
