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

from cbsn.augmentation import NoiseFamily, PhotoAugmentation, jpeg
from cbsn.data.pipeline import luma
from cbsn.errors import LARGEST, ConfigError, DataError, TrainingError, check_number
from cbsn.files import CHECKSUMS, expanded
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import choose_engine
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.outputs import check_writable
from cbsn.models.folder import RECIPE, WEIGHTS, model_sha256, save_model
from cbsn.models.loading import load_model
from cbsn.noise.advice import advise
from cbsn.noise.correlated_noise import CorrelatedNoise
from cbsn.noise.estimate import estimate_noise
from cbsn.noise.measured_noise import MeasuredNoise
from cbsn.objectives import OBJECTIVES
from cbsn.objectives.objective import Objective
from cbsn.precision import choose_precision
from cbsn.recipes import RECIPES, Recipe
from cbsn.training.dataset import is_gray, some_patches
from cbsn.training.distillation import make_targets, patches_at_once
from cbsn.training.tuning import PicturePatches, Tuned, tune

_ADAPTED = "adapted"

_BLIND_RATE = 1e-4
"""With more, the losses fall as well, but the brightness of flat pictures comes to waver: on SIDD
and cc15, PSNR fell by as much as 1 dB in the first 100 steps at 3e-4, where it rose at 1e-4."""

_TAUGHT_RATE = 2e-4

_FAMILY = NoiseFamily(gain=(0.6, 1.6), processed_gain=(0.04, 1.6), none=0.15)
"""How much noise a student sees relative to what the pictures have: these differ, too; and parts of
them, or others that it will be given, have next to none."""

_LEAST_NOISE = 0.5
"""Standard deviation in 8-bit levels below which no noise is seen: rounding alone makes 0.29."""

_HARM = 1 / 10
"""Error that pictures without noise may gain, relative to the noise of those that are adapted to:
next to that it is not seen. Where these are clean, that is nothing."""

_TAUGHT_CROP, _TAUGHT_BATCH = 64, 16
"""A student's crops and batches at most: of more, a processor computes too few in some minutes."""

_TARGETS_DONE = 1 / 5
"""Part of the time after which what a student learns from is there."""

_A_WEEK = 7 * 24 * 60


@dataclasses.dataclass(frozen=True)
class Model:
    """A recipe, a network with its weights, and what is to be known of them."""

    recipe: Recipe
    network: Any
    facts: dict[str, Any]


def adapt(
    image_paths: Iterable[str | Path],
    folder: str | Path,
    minutes: float,
    model_path: str | Path,
    **options: Any,
) -> None:
    """Adapts a model to pictures, as `adapted` does, and saves it.

    Args:
        image_paths: the noisy pictures: folders, globs or files, each as for `find_images`.
        folder: where the saved model goes. An earlier one is replaced when the new one is complete.
        minutes: float > 0, how long this takes, up to a step or a patch.
        model_path: the model, as for `adapted`.
        **options: of `adapted`.

    Raises:
        ConfigError: as `adapted` does, or if the folder holds something else, or nothing can be
            written there.
        TrainingError: if the result cannot be written all the same.
        CbsnError: as `adapted` does.

    Example:
        >>> adapt(["noisy"], "adapted", 5, "checkpoints/my-run")
        >>> denoise = Denoiser.load("adapted")
    """
    folder = expanded(folder)
    check_minutes(minutes)
    check_folder(folder)
    save(adapted(image_paths, minutes, model_path, **options), folder)


def adapted(
    image_paths: Iterable[str | Path],
    minutes: float,
    model_path: str | Path,
    *,
    precision: str = "auto",
    seed: int = 0,
    white: float | None = None,
    max_steps: int | None = None,
    learning_rate: float | None = None,
    **loading: Any,
) -> Model:
    """Trains a model further on noisy pictures, and returns what is best to denoise them with.

    A blind-spot network learns from the pictures as they are, with the strides that their noise
    asks for, where that can be seen. A student learns from its own pictures of them, made smaller
    and so next to clean, with noise like theirs, less of it, and none (`PhotoAugmentation`). An
    eighth of the patches is held out: where the loss on these does not fall, or pictures without
    noise would fare worse, the weights stay as they were. So they do where no noise is seen in the
    pictures.

    With `max_steps`, and time enough for them, the result depends on the seed alone.

    Args:
        image_paths: the noisy pictures: folders, globs or files, each as for `find_images`.
        minutes: float > 0, how long this takes, up to a step or a patch.
        model_path: the model, as for `load_model`; of a recipe with a blind objective, or of
            `distill`.
        precision: as `choose_precision` takes it.
        seed: int ≥ 0.
        white: float > 0, the value of white in the files, as for `read_picture`. Default None.
        max_steps: int, steps after which to end in any case. Default None.
        learning_rate: float > 0; None for what has done well.
        **loading: `recipe_name`, `channel` and `num_block` of `load_model`.

    Raises:
        ConfigError: if the minutes or the seed are out of range, or the model cannot learn from
            noisy pictures alone.
        DataError: if there is no picture, or none is large enough.
        ModelError: if the model cannot be loaded.
    """
    started = time.monotonic()
    check_minutes(minutes)
    check_number("--seed", seed, 0, LARGEST)
    precision, _ = choose_precision(precision)
    model = _load(model_path, {"minutes": minutes, "seed": seed}, **loading)
    objective = model.recipe.build_objective()
    if not _is_fit(objective):
        fit = [name for name, each in RECIPES.items() if _is_fit(each.build_objective())]
        raise ConfigError(
            f"A model of the recipe {model.recipe.name!r} cannot learn from noisy pictures alone: "
            f"for --adapt take one of {', '.join(fit)}. Received: --modelpath {model_path}"
        )
    patches = PicturePatches.read(image_paths, white=white)
    augmentation, harm, strides = None, 0.0, {}
    if "stride_b" in model.recipe.objective_config:
        strides = _strides(patches)
    recipe = _fit(model.recipe, strides, patches.patch_size)
    if objective.TAUGHT:
        models = _measured(patches, model.network.channels)
        if not models:
            print(
                "The noise report sees no noise in these pictures: the weights stay as they were.",
                flush=True,
            )
            return dataclasses.replace(model, facts={**model.facts, "step": 0})
        augmentation = PhotoAugmentation(models, recipe.patch_size, _FAMILY)
        weakest = min(np.median(curve[:, 1]) for each in models for curve in each.levels)
        harm = float(_HARM * weakest / 255) ** 2
        print(f"The network sees its own pictures of them with {augmentation}.")
    told = [f"{key} {value}" for key, value in recipe.objective_config.items() if "stride" in key]
    kinds = [(len(patches), "patch", "patches"), (patches.pictures, "picture", "pictures")]
    kinds = [f"{count} {one if count == 1 else more}" for count, one, more in kinds]
    print(
        f"Adapting to {kinds[0]} of {patches.patch_size} px of {kinds[1]}, for {minutes:g} "
        f"minute{'s' * (minutes != 1)}: {recipe.name}, in crops of {recipe.patch_size} px"
        + "".join(f", {stride}" for stride in told),
        flush=True,
    )
    ends = started + 60 * minutes
    if objective.TAUGHT:
        patches = patches.shuffled(seed)
        done = started + 60 * minutes * _TARGETS_DONE
        patches = patches.paired(_denoised(model, patches, precision, done))
    training, held_out = patches.split()
    tuned = tune(
        recipe,
        model.network.get_weights(),
        training,
        held_out,
        deadline=ends,
        learning_rate=learning_rate or (_TAUGHT_RATE if objective.TAUGHT else _BLIND_RATE),
        augmentation=augmentation,
        harm=harm,
        max_steps=max_steps,
        precision=precision,
        seed=seed,
    )
    return _better(model, tuned, held_out)


def save(model: Model, folder: Path) -> None:
    """Saves an adapted model.

    Args:
        model: what.
        folder: where to, as `check_folder` takes it.

    Raises:
        TrainingError: if it cannot be written; what was there is intact.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(folder, model.recipe, model.network, model.facts)
    except OSError as error:
        raise TrainingError(
            f"The adapted model cannot be kept in {folder}: {error.strerror or error}. What was "
            "there is intact."
        ) from error


def check_minutes(minutes: float) -> None:
    """Refuses what is no time.

    Raises:
        ConfigError: if it is not above 0, or more than a week.
    """
    if not 0 < minutes <= _A_WEEK:
        raise ConfigError(
            f"--adapt takes minutes, above 0 and at most {_A_WEEK} (a week). "
            f"Received: --adapt {minutes:g}"
        )


def check_folder(folder: Path) -> None:
    """Refuses a folder that the adapted model cannot be kept in.

    Raises:
        ConfigError: if anything but an earlier result is there, as that is replaced, or nothing can
            be written.
    """
    received = f"--adapt_save {folder}"
    try:
        is_other = folder.exists() and not _is_result(folder)
    except OSError as error:
        raise ConfigError(
            f"Nothing can be written to {folder}: {error.strerror}. Received: {received}"
        ) from error
    if is_other:
        raise ConfigError(
            "--adapt_save takes the name of a new folder, or of one that it has made before, which "
            f"is replaced; something else is there. Received: {received}"
        )
    check_writable(folder.parent, received)


def _is_result(folder: Path) -> bool:
    try:
        names = {path.name for path in folder.iterdir()}
        if not names:
            return True
        content = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        ours = _ADAPTED in content["training"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return ours and names <= {RECIPE, WEIGHTS, CHECKSUMS}


def _load(model_path: str | Path, facts: dict[str, Any], **loading: Any) -> Model:
    recipe, network = load_model(model_path, **loading)
    digest = model_sha256(recipe, network)
    return Model(recipe, network, {_ADAPTED: False, "from": digest, **facts})


def _measured(patches: PicturePatches, channels: int) -> list[CorrelatedNoise]:
    """The noise of the patches, measured in 1 or 3 channels; empty if none is seen."""
    try:
        models = MeasuredNoise(map(luma, patches) if channels == 1 else patches).models
    except DataError:
        return []
    strongest = max(curve[:, 1].max() for model in models for curve in model.levels)
    return models if strongest >= _LEAST_NOISE else []


def _is_fit(objective: Objective) -> bool:
    """Whether it needs noisy pictures only, or what can be made of these."""
    return objective.NEEDS_BLINDNESS or objective.TAUGHT


def _strides(patches: PicturePatches) -> dict[str, int]:
    """The strides that the noise asks for, if one sees it."""
    try:
        advice = advise(estimate_noise(some_patches(patches, gray=is_gray(patches))))
    except DataError:
        print("The noise report sees no noise in these pictures: the model's strides stay.")
        return {}
    print(advice.reasons[0])
    return {"stride_b": advice.stride_b, "stride_i": advice.stride_i}


def _fit(recipe: Recipe, strides: dict[str, int], largest: int) -> Recipe:
    """The recipe with other strides, if it has them, and crops that fit these and the patches."""
    config = recipe.objective_config
    config = {key: strides.get(key, value) for key, value in config.items()}
    objective = OBJECTIVES[recipe.objective](**config)
    multiple, wanted, batch = objective.patch_multiple, recipe.patch_size, recipe.batch_size
    if objective.TAUGHT:
        multiple, wanted = jpeg.MULTIPLE, min(wanted, _TAUGHT_CROP)
        batch = min(batch, _TAUGHT_BATCH)
    crop = max(multiple, min(wanted, largest) // multiple * multiple)
    if crop > largest:
        raise DataError(
            f"To adapt, most pictures must have {multiple} px or more in height and width, as far "
            f"as their noise reaches: denoise without --adapt. Received: {largest} px"
        )
    return dataclasses.replace(recipe, patch_size=crop, batch_size=batch, objective_config=config)


def _denoised(
    student: Model, patches: PicturePatches, precision: str, deadline: float
) -> list[np.ndarray]:
    """What the student makes of the first patches, one at least.

    They are denoised together, first one, then as many as there are already; towards the deadline
    as many as there is time for.
    """
    engine, _ = choose_engine("auto", precision, has_loop=student.network.has_loop)
    denoise = Denoiser(
        student.recipe, student.network, DenoiseOptions(engine=engine, self_ensemble=True)
    )
    denoised, most = [], patches_at_once(patches.patch_size)
    started = time.monotonic()
    with tqdm(total=len(patches), unit="patch", desc="its pictures") as bar:
        while len(denoised) < len(patches):
            done, now = len(denoised), time.monotonic()
            if done and now >= deadline:
                break
            fit = int((deadline - now) * done / (now - started)) if done else 1
            count = max(1, min(done, most, len(patches) - done, fit))
            some = np.stack([patches[index] for index in range(done, done + count)])
            denoised.extend(make_targets(some, [denoise]))
            bar.update(count)
    return denoised


def _better(model: Model, tuned: Tuned, held_out: PicturePatches) -> Model:
    """The tuned model if it is better, else the one that there was; says which."""
    facts = {
        **model.facts,
        _ADAPTED: tuned.is_better,
        "step": tuned.steps,
        "held_out_loss_before": _or_none(tuned.before),
        "held_out_loss_after": _or_none(tuned.after),
        "share_of_change": tuned.share,
    }
    if tuned.is_better and tuned.share < 1:
        verdict = (
            f"Of the change of the weights {tuned.share:g} is taken: with more, pictures without "
            "noise would become worse."
        )
    elif tuned.is_better:
        verdict = "The adapted weights are taken."
    elif tuned.share:
        verdict = "That is no better: the weights stay as they were."
    else:
        verdict = "Pictures without noise would become worse: the weights stay as they were."
    count = len(held_out)
    print(
        f"Loss on {count} patch{'es' * (count > 1)} held out: {tuned.before:.5f}, after "
        f"{tuned.steps} step{'s' * (tuned.steps > 1)} {tuned.after:.5f}. {verdict}",
        flush=True,
    )
    if not tuned.is_better:
        return dataclasses.replace(model, facts=facts)
    return Model(tuned.recipe, tuned.network, facts)


def _or_none(loss: float) -> float | None:
    """None for what JSON has no number for."""
    return loss if math.isfinite(loss) else None
