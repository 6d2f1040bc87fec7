"""Finding and loading a trained model by the path or name that a user gives."""

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.devices import set_up
from cbsn.errors import CbsnWarning, ConfigError, ModelError, plain_reason
from cbsn.models import SHIPPED
from cbsn.models.folder import (
    WEIGHTS,
    is_model_folder,
    load_folder,
    load_weights,
    read_facts,
)
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.recipes import RECIPES, Recipe, customised

RENAMED = {"student": "photo", "teacher": "photo_large"}  # former models, and their successors
_KINDS = ("dimensions", "pooling", "top_skip")  # make another network, though its class is the same
# No weight depends on these.
_OF_TRAINING = ("mask_shape", "mask_cell", "replacement", "hole", "denoise_hole")
RUN_MODELS = ("best", "last")  # the saved models in a run's folder, the preferred one first


def is_model(path: Path) -> bool:
    """Returns whether a path is that of a run or a saved model, or the name of a shipped one."""
    with contextlib.suppress(OSError):
        if path.exists():
            return any(is_model_folder(each) for each in (path, *(path / n for n in RUN_MODELS)))
        return _model_folder(path) is not None
    return False


def load_model(
    model_path: str | Path,
    *,
    recipe: str | None = None,
    channels: int | None = None,
    modules: int | None = None,
    hole: int | None = None,
    precision: str = "float32",
) -> tuple[Recipe, DenoisingNetwork]:
    """Loads a recipe and its trained network.

    Args:
        model_path: a run's folder (its best weights, else its last), a saved-model folder, the
            name of a shipped model, the prefix of an original TensorFlow 1.15 checkpoint, or a
            `*.weights.h5` file: in a saved-model folder it stands for the folder, else it is bare.
        recipe: name of the recipe of bare weights, if not `cbsn`. It must agree with other models.
        channels: channels of the network, if not the recipe's; otherwise like `recipe`.
        modules: dilated convolution modules in each branch; like `channels`.
        hole: width of the hole to denoise with, if not the model's.
        precision: Keras dtype policy of the network's layers.

    Raises:
        ConfigError: the network has no hole, or it cannot have this width.
        ModelError: there is no model, or it cannot be read.
    """
    set_up()
    try:
        path = Path(model_path).expanduser()
        folder, prefix = _model_folder(path), _checkpoint_prefix(path)
        is_bare = path.name.endswith(".weights.h5") and path.is_file()
        if folder is None and not is_bare and prefix is None:
            raise ModelError(_not_found(path))
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no home
        raise ModelError(
            f"{model_path} cannot be searched for a model ({plain_reason(error)}). Give a path "
            "that you may read."
        ) from error
    if folder is not None:
        found, network = load_folder(folder, precision)
    elif is_bare:
        found = customised(recipe or "cbsn", filters=channels, num_modules=modules)
        advice = (
            "Keep the file in its folder, next to its recipe.json; or describe its network to cbsn "
            "denoise or cbsn export with --recipe, --channels and --modules."
        )
        network = load_weights(found, path, precision, advice)
    elif prefix is not None:
        found, network = _original_checkpoint(prefix, precision)
    facts = {"recipe": found.name, **found.network_config}
    for flag, key, value in (
        ("recipe", "recipe", recipe),
        ("channels", "filters", channels),
        ("modules", "num_modules", modules),
    ):
        held = facts.get(key)
        if value is not None and held != value:
            raise ModelError(
                f"{path} has {key}={held}; omit --{flag}, which is read from the model. "
                f"Received: --{flag} {value}"
            )
    if hole is not None:
        found, network = _with_hole(found, network, hole)
    return found, network


def _with_hole(
    recipe: Recipe, network: DenoisingNetwork, hole: int
) -> tuple[Recipe, DenoisingNetwork]:
    """Returns a model that denoises with another hole."""
    if "denoise_hole" not in recipe.whole_network_config:
        known = [name for name, each in RECIPES.items() if "hole" in each.network_config]
        raise ConfigError(
            f"Only models of the recipes {' and '.join(known)} have a hole: omit --hole. "
            f"Received: --hole {hole}, with a model of {recipe.name}"
        )
    config = {**recipe.network_config, "denoise_hole": hole}
    recipe = dataclasses.replace(recipe, network_config=config)
    other = recipe.build_network(network.dtype_policy.name, fresh=False)
    other.set_weights(network.get_weights())
    return recipe, other


def read_training(model_path: str | Path) -> dict[str, Any]:
    """Returns what a saved model says about its training, such as its steps.

    Args:
        model_path: see `load_model`. Weights without a folder say nothing.
    """
    folder = _model_folder(Path(model_path).expanduser())
    return read_facts(folder) if folder else {}


def _model_folder(path: Path) -> Path | None:
    """Returns the saved-model folder that `path` refers to, if any."""
    candidates = [path, *(path / name for name in RUN_MODELS)]
    if path.name == WEIGHTS:
        candidates.append(path.parent)
    if len(path.parts) == 1:
        candidates.append(SHIPPED / path.name.replace("-", "_"))
    found = next((folder for folder in candidates if is_model_folder(folder)), None)
    if found is None and str(path) in RENAMED:
        name = RENAMED[str(path)]
        note = f"The model {path} is no longer included; using {name} instead."
        warnings.warn(note, CbsnWarning, stacklevel=3)
        found = SHIPPED / name
    return found


def _checkpoint_prefix(path: Path) -> Path | None:
    """Returns the checkpoint prefix that `path` is, or whose `.index` or `.data-…` file it is."""
    if not path.name:  # such as /
        return None
    for prefix in (path, path.with_suffix("")):
        if prefix.with_name(prefix.name + ".index").is_file():
            return prefix
    return None


def _original_checkpoint(prefix: Path, precision: str) -> tuple[Recipe, DenoisingNetwork]:
    # Imported only here, as it needs TensorFlow: saved models load on any Keras backend.
    from cbsn.models.tf1_checkpoint import TF1Checkpoint

    checkpoint = TF1Checkpoint(prefix)
    try:
        recipe = customised("cbsn", filters=checkpoint.filters, num_modules=checkpoint.num_modules)
        network = recipe.build_network(precision, fresh=False)
    except ConfigError as error:
        text = f"{prefix}: damaged, or not a checkpoint of the original C-BSN code ({error})"
        raise ModelError(text) from error
    checkpoint.load_into(network)
    return recipe, network


def _not_found(path: Path) -> str:
    shipped = sorted(p.name.replace("_", "-") for p in SHIPPED.glob("*") if is_model_folder(p))
    message = (
        f"No model at {path}. A model is a run's folder (with best/ or last/ in it), a saved-model "
        "folder (with recipe.json), the prefix of an original TensorFlow checkpoint "
        "(with PREFIX.index next to it), or a *.weights.h5 file."
    )
    if shipped:
        message += f" Shipped models: {', '.join(shipped)}."
    near = sorted(path.parent.glob("*.index")) if path.parent.is_dir() else []
    if near:
        message += " Checkpoints nearby: " + ", ".join(str(p.with_suffix("")) for p in near[:3])
    return message


def read_initial(
    model_path: str | Path, recipe_name: str, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads the weights that `--init` names, as the start of another training.

    Returns the changes to the recipe to train, extended by the size of the model's network and in
    the form that `cbsn.recipes.customised` takes, and the weights. The recipe must have the model's
    kind of network and its normalisation, and no other size may be given. A mask may be; without
    one, the model's is kept. Of models trained on stacks, the scaling is among the changes, and
    takes the place of the recipe's normalisation.
    """
    model, network = load_model(model_path)
    wanted = RECIPES.get(recipe_name, model)  # an unknown one is reported elsewhere
    scaled = {"normalization": model.normalization, "scaling": model.scaling}
    stacks = scaled if model.scaling else {}
    # With defaults, as a recipe may state what the model's own leaves to the network.
    theirs, ours = model.whole_network_config, wanted.whole_network_config
    pairs: dict[str, tuple[Any, Any]] = {"network": (model.network, wanted.network)}
    if not stacks:
        pairs["normalization"] = (model.normalization, wanted.normalization)
    pairs |= {key: (theirs[key], ours.get(key)) for key in _KINDS if key in theirs}
    for key, (value, needed) in pairs.items():
        if value != needed:
            raise ConfigError(
                f"The recipe {recipe_name!r} has {key}={needed!r}, but the model of --init "
                f"has {value!r}. Use the model's recipe, --recipe {model.name}, or another model. "
                f"Received: --init {model_path}"
            )
    size = {}
    for key, value in theirs.items():
        given = changes.get(key)
        if key in _OF_TRAINING and given is not None:
            continue
        if given not in (None, value):
            raise ConfigError(
                f"The model of --init has {key}={value}: omit the flag. Received: {key}={given}"
            )
        if key in model.network_config or value != ours[key]:
            size[key] = value
    return {**changes, **size, **stacks}, network.get_weights()
