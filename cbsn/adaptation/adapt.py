"""Adapting a trained model to the pictures that it is to denoise."""

import dataclasses
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cbsn.adaptation.picture_patches import PicturePatches
from cbsn.adaptation.tuning import LEARNING_RATE, Tuned, tune
from cbsn.checksums import CHECKSUMS
from cbsn.data.noise import Noise
from cbsn.errors import ConfigError, DataError, TrainingError
from cbsn.evaluation.noise.estimate import LAGS
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import choose_engine
from cbsn.model_folder import RECIPE, WEIGHTS, save_model
from cbsn.model_path import load_model
from cbsn.objectives import Distillation
from cbsn.precision import choose_precision
from cbsn.recipes import RECIPES, Recipe
from cbsn.training.dataset import is_gray
from cbsn.training.strides import AUTO, choose_strides
from cbsn.training.teaching import make_target

TEACHER = "teacher"
"""Name of the teacher's folder in that of its student."""

_ADAPTED = "adapted"

_CAMERA = Noise("camera", sigma=(0.3, 8.0), peak=(30.0, 3000.0))
"""What the student that ships has been trained with: it would forget that."""

_TEACHER_DONE, _TARGETS_DONE = 2 / 3, 5 / 6
"""Parts of the time after which the teacher, and what a student learns from, are there."""

_ANY_STRIDE = math.lcm(*range(1, LAGS + 1))
"""A patch size that every stride divides, as the crops are to fit the stride here."""


@dataclasses.dataclass(frozen=True)
class _Model:
    """A recipe, a network with its weights, and what is to be known of them."""

    recipe: Recipe
    network: Any
    facts: dict[str, Any]


def adapt(
    image_paths: Iterable[str | Path],
    folder: str | Path,
    minutes: float,
    model_path: str | Path,
    student_path: str | Path | None = None,
    *,
    precision: str = "auto",
    seed: int = 0,
    max_steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    **loading: Any,
) -> None:
    """Trains a model further on noisy pictures, and saves what is best to denoise them with.

    The strides are chosen by the noise, where it can be seen. An eighth of the patches is held
    out: where the blind loss on these does not fall, the weights stay as they were, and that is
    said. A student then learns from what the adapted model makes of the patches, in the last third
    of the time, by its own recipe; its weights stay unless they come closer to that, again on
    patches held out.

    With `max_steps`, and time enough for them, the result depends on the seed alone.

    Args:
        image_paths: the noisy pictures: folders, globs or files, each as for `find_images`.
        folder: where the saved model goes: the student, if there is one, with its teacher in the
            sub-folder `teacher`. An earlier one is replaced when the new one is complete.
        minutes: float > 0, how long this takes, up to a step or a patch.
        model_path: the model, as for `load_model`; its recipe must have a blind objective.
        student_path: a model of the recipe `distill`, likewise, or None for no student.
        precision: as `choose_precision` takes it.
        seed: int ≥ 0.
        max_steps: int, steps of each network after which to end in any case. Default None.
        learning_rate: float > 0.
        **loading: `recipe_name`, `channel` and `num_block` of `load_model`, for the model.

    Raises:
        ConfigError: if the minutes are none, the model cannot learn from noisy pictures alone, or
            the folder holds something else.
        DataError: if there is no picture, or none is large enough.
        ModelError: if a model cannot be loaded.
        TrainingError: if the result cannot be written.

    Example:
        >>> adapt(["noisy"], "adapted", 5, "checkpoints/my-run")
        >>> denoise = Denoiser.load("adapted")
    """
    started = time.monotonic()
    check_minutes(minutes)
    folder = Path(folder).expanduser()
    _check_folder(folder)
    precision, _ = choose_precision(precision)
    facts = {"minutes": minutes, "seed": seed}
    teacher = _load(model_path, facts, **loading)
    if not teacher.recipe.build_objective().NEEDS_BLINDNESS:
        blind = [name for name, each in RECIPES.items() if each.build_objective().NEEDS_BLINDNESS]
        raise ConfigError(
            f"A model of the recipe {teacher.recipe.name!r} cannot learn from noisy pictures alone:"
            f" for --adapt take one of {', '.join(blind)}. Received: --modelpath {model_path}"
        )
    student = None if student_path is None else _load(student_path, facts)
    if student and not student.recipe.build_objective().TAUGHT:
        raise ConfigError(
            f"A student is of the recipe distill. Received: {student_path}, of the recipe "
            f"{student.recipe.name!r}"
        )
    patches = PicturePatches.read(image_paths)
    options = {
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
    }

    def time_at(part: float) -> float:
        return started + 60 * minutes * part

    recipe = _fit(_with_strides(teacher.recipe, patches), patches, teacher.recipe.patch_size)
    strides = [
        f"{key} {value}" for key, value in recipe.objective_config.items() if "stride" in key
    ]
    print(
        f"Adapting to {len(patches)} patches of {patches.patch_size} px of {patches.pictures} "
        f"pictures, for {minutes:g} minutes: {recipe.name}, in crops of {recipe.patch_size} px"
        + "".join(f", {stride}" for stride in strides),
        flush=True,
    )
    training, held_out = patches.split()
    tuned = tune(
        recipe,
        teacher.network.get_weights(),
        training,
        held_out,
        measured=recipe.build_objective(),
        deadline=time_at(_TEACHER_DONE if student else 1),
        **options,
    )
    teacher = _better(teacher, tuned, "Blind loss", held_out)
    if student and tuned.is_better:
        targets = patches.shuffled(seed)
        targets = targets.paired(_denoised(teacher, targets, precision, time_at(_TARGETS_DONE)))
        training, held_out = targets.split()
        tuned = tune(
            _fit(student.recipe, targets, student.recipe.patch_size),
            student.network.get_weights(),
            training,
            held_out,
            measured=Distillation(amplify=1.0),
            deadline=time_at(1),
            noise=_CAMERA if student.network.channels == 3 else None,
            title="its student",
            **options,
        )
        student = _better(student, tuned, "The student's difference from its teacher", held_out)
    elif student:
        print("Its student stays as it was, too.", flush=True)
    _save(folder, student or teacher, teacher if student else None)


def check_minutes(minutes: float) -> None:
    """Refuses what is no time.

    Raises:
        ConfigError: if it is not above 0.
    """
    if not (minutes > 0 and math.isfinite(minutes)):
        raise ConfigError(f"--adapt takes minutes, above 0. Received: --adapt {minutes:g}")


def _check_folder(folder: Path) -> None:
    """Refuses a folder in which there is anything but an earlier result, as it is replaced."""
    if folder.exists() and not _is_result(folder):
        raise ConfigError(
            "--adapt_save takes the name of a new folder, or of one that it has made before, which "
            f"is replaced; something else is there. Received: --adapt_save {folder}"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"No folder can be made at {folder.parent}: {error.strerror}. "
            f"Received: --adapt_save {folder}"
        ) from error


def _is_result(folder: Path) -> bool:
    try:
        names = {path.name for path in folder.iterdir()}
        if not names:
            return True
        content = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        ours = _ADAPTED in content["training"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return ours and names <= {RECIPE, WEIGHTS, CHECKSUMS, TEACHER}


def _load(model_path: str | Path, facts: dict[str, Any], **loading: Any) -> _Model:
    recipe, network = load_model(model_path, **loading)
    digest = Denoiser(recipe, network, seed=facts["seed"]).sha256()
    return _Model(recipe, network, {_ADAPTED: False, "from": digest, **facts})


def _with_strides(recipe: Recipe, patches: PicturePatches) -> Recipe:
    """The recipe with the strides that the noise asks for, if it has strides, and one sees it."""
    if "stride_b" not in recipe.objective_config or recipe.name not in RECIPES:
        return recipe
    try:
        changes, lines = choose_strides(
            recipe.name,
            {"stride_b": AUTO, "patch_size": _ANY_STRIDE},
            patches,
            noise=None,
            gray=is_gray(patches),
        )
    except DataError:
        print("The noise report sees no noise in these pictures: the model's strides stay.")
        return recipe
    print(lines[1].removeprefix("- "))  # the first of the reasons
    strides = {key: value for key, value in changes.items() if key in recipe.objective_config}
    return dataclasses.replace(
        recipe,
        patch_size=_ANY_STRIDE,
        objective_config={**recipe.objective_config, **strides},
    )


def _fit(recipe: Recipe, patches: PicturePatches, crop: int) -> Recipe:
    """The recipe with crops that fit into the patches, and its strides into the crops."""
    multiple = recipe.build_objective().patch_multiple
    crop = min(crop, patches.patch_size) // multiple * multiple
    if not crop:
        raise DataError(
            f"To adapt, pictures must be {multiple} px large, as far as their noise reaches. "
            f"Received: most are smaller than {patches.patch_size + 1} px"
        )
    return dataclasses.replace(recipe, patch_size=crop)


def _denoised(
    teacher: _Model, patches: PicturePatches, precision: str, deadline: float
) -> list[np.ndarray]:
    """What is to be learned of the first patches, one at least."""
    engine, _ = choose_engine("auto", precision, has_loop=teacher.network.has_loop)
    denoise = Denoiser(teacher.recipe, teacher.network, engine=engine, self_ensemble=True)
    denoised = []
    for index in tqdm(range(len(patches)), unit="patch", desc="its pictures"):
        denoised.append(make_target(patches[index], [denoise]))
        if time.monotonic() >= deadline:
            break
    return denoised


def _better(model: _Model, tuned: Tuned, loss: str, held_out: PicturePatches) -> _Model:
    """The tuned model if it is better, else the one that there was; says which."""
    facts = {
        **model.facts,
        _ADAPTED: tuned.is_better,
        "step": tuned.steps,
        "held_out_loss_before": _or_none(tuned.before),
        "held_out_loss_after": _or_none(tuned.after),
    }
    verdict = (
        "The adapted weights are taken."
        if tuned.is_better
        else "That is no better: the weights stay as they were."
    )
    print(
        f"{loss} on {len(held_out)} patches held out: {tuned.before:.5f}, after {tuned.steps} "
        f"steps {tuned.after:.5f}. {verdict}",
        flush=True,
    )
    if not tuned.is_better:
        return dataclasses.replace(model, facts=facts)
    return _Model(tuned.recipe, tuned.network, facts)


def _or_none(loss: float) -> float | None:
    """None for what JSON has no number for."""
    return loss if math.isfinite(loss) else None


def _save(folder: Path, model: _Model, teacher: _Model | None) -> None:
    try:
        save_model(folder, model.recipe, model.network, model.facts)
        if teacher:
            save_model(folder / TEACHER, teacher.recipe, teacher.network, teacher.facts)
    except OSError as error:
        raise TrainingError(
            f"The adapted model cannot be written to {folder}: {error.strerror or error}. What was "
            "there is intact."
        ) from error
