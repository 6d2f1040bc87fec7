"""Adapts a trained model to the pictures that it will denoise."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cbsn.augmentation import NoiseFamily, PhotoAugmentation, jpeg
from cbsn.colors import luma
from cbsn.errors import (
    LARGEST,
    ConfigError,
    DataError,
    TrainingError,
    check_number,
    is_number,
)
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines.engine import in_float32
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.outputs import check_writable
from cbsn.inference.stack_options import StackOptions, open_scaled
from cbsn.models.folder import may_replace, save_model
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.noise.advice import advise
from cbsn.noise.estimate import estimate_noise
from cbsn.noise.measured_noise import CorrelatedNoise, measure_noise
from cbsn.objectives import OBJECTIVES
from cbsn.progress import progress_bar, say
from cbsn.recipes import RECIPES, Recipe
from cbsn.training.dataset import holes_for, is_gray, some_patches
from cbsn.training.distillation import make_targets, patches_at_once
from cbsn.training.teachers import Teacher
from cbsn.training.tuning import PicturePatches, Tuned, tune

# At higher rates the loss falls as well, but the brightness of flat pictures starts to waver. On
# SIDD and cc15, PSNR fell by up to 1 dB in the first 100 steps at 3e-4, but rose at 1e-4.
_BLIND_RATE = 1e-4
_TAUGHT_RATE = 2e-4

# Noise that a student sees, relative to the pictures' own. It varies because the pictures differ,
# and because parts of them, or pictures that come later, have almost no noise.
_FAMILY = NoiseFamily(gain=(0.6, 1.6), processed_gain=(0.04, 1.6), none=0.15)

_NOT_MEASURED = "No noise was measured in these pictures"
_LEAST_NOISE = 0.5  # σ in 8-bit levels; below this no noise is seen. Rounding alone causes 0.29

# Error that noise-free pictures may gain, relative to the noise of the pictures adapted to. Such an
# error is invisible next to the noise. If these pictures are clean, this adds nothing.
_HARM = 1 / 10

_TAUGHT_CROP, _TAUGHT_BATCH = 64, 16  # at most; with more, a CPU does too few steps in minutes
_TARGETS_DONE = 1 / 5  # share of the time in which to make what a student learns from
_STACK_OPTIONS = StackOptions()
_A_WEEK = 7 * 24 * 60
_ADAPTED = "adapted"


class Adapted(NamedTuple):
    """The best model for some pictures, in the precision of the model that was adapted."""

    recipe: Recipe
    network: DenoisingNetwork
    facts: Mapping[str, Any]  # for readers of the saved model: `adapted` (did it change?), …


def adapt(
    pictures: Iterable[str | Path | np.ndarray],
    model: Denoiser,
    minutes: float,
    *,
    white: float | None = None,
    stack_options: StackOptions = _STACK_OPTIONS,
    seed: int = 0,
    max_steps: int | None = None,
    learning_rate: float | None = None,
    on_share: Callable[[float], None] = lambda share: None,
) -> Adapted:
    """Trains a model further on noisy pictures, and returns the best model to denoise them with.

    A blind-spot network learns from the noisy pictures themselves, with strides or a hole chosen by
    their noise if it can be seen. A student learns from its own denoised pictures, downscaled and
    thus almost clean, with similar noise, less of it, or none (`PhotoAugmentation`). One eighth of
    the patches is held out. The weights stay unchanged if the loss on these does not fall, if
    noise-free pictures would become worse, or, for a student, if the pictures show no noise.

    Args:
        pictures: the noisy pictures: folders, globs or files, each as for `find_images`, or arrays
            [H, W] or [H, W, C].
        model: a model whose objective is blind or learns from a teacher. It is not changed.
        minutes: duration; it may be exceeded by one step or one patch.
        white: the value of white in the files, as for `read_picture`.
        stack_options: how stacks among them are read and scaled. Default `StackOptions()`.
        seed: determines the result, given `max_steps` and enough time for them.
        max_steps: maximum number of steps.
        learning_rate: None for a rate that has worked well.
        on_share: called after each step with the share of the time that has passed. It may raise an
            error, which ends the adaptation.

    Raises:
        ConfigError: a number is out of range, or the model cannot learn from noisy pictures alone.
        DataError: there is no picture, or none is large enough.

    Example:
        >>> adapted = adapt(["noisy"], Denoiser.load("photo"), minutes=5)
        >>> denoise = Denoiser(adapted.recipe, adapted.network)
    """
    started = time.monotonic()
    check_adaptation(minutes, seed)

    def passed() -> None:
        on_share(min(1.0, (time.monotonic() - started) / (60 * minutes)))

    facts = {_ADAPTED: False, "from": model.sha256(), "minutes": minutes, "seed": seed}
    is_student = OBJECTIVES[model.recipe.objective].TAUGHT
    if model.network.dimensions == 3:
        raise ConfigError(
            "A model in three dimensions is adapted by training it further: cbsn train STACK "
            f"--init MODEL --recipe {model.recipe.name}. Received: a model of the recipe "
            f"{model.recipe.name!r}"
        )
    if not _is_fit(model.recipe):
        fit = [name for name, recipe in RECIPES.items() if _is_fit(recipe)]
        raise ConfigError(
            f"A model of the recipe {model.recipe.name!r} cannot learn from noisy pictures alone. "
            f"Use a model of one of these recipes: {', '.join(fit)}."
        )
    patches = PicturePatches.read(
        pictures,
        lambda path: open_scaled(path, [model], stack_options),
        white=white,
        axes=stack_options.axes,
        repair=model.options.repair,
    )
    suited = _suited(model.recipe, patches)
    recipe = _fit(model.recipe, suited, patches.patch_size, learning_rate)
    augmentation, harm = None, 0.0
    if is_student:
        try:
            noise = _measured(patches, model.network.channels)
        except DataError as error:
            say(f"{_NOT_MEASURED}: the weights stay as they were. {error}")
            return Adapted(model.recipe, model.network, {**facts, "step": 0})
        augmentation = PhotoAugmentation(noise, recipe.patch_size, _FAMILY)
        weakest = min(np.median(curve[:, 1]) for each in noise for curve in each.levels)
        harm = float(_HARM * weakest / 255) ** 2
        say(f"The network learns from its own results, with {augmentation}.")
    _announce(recipe, patches, minutes)
    if is_student:
        patches = patches.shuffled(seed)
        until = started + 60 * minutes * _TARGETS_DONE
        patches = patches.paired(_own_pictures(model, patches, until, passed))
    deadline = started + 60 * minutes
    tuned = tune(
        recipe, model.network, patches, augmentation, deadline, max_steps, harm, seed, passed
    )
    count, steps = len(patches.split()[1]), tuned.steps
    say(
        f"Loss on {count} patch{'es' * (count > 1)} held out: {tuned.before:.5f}; after "
        f"{steps} step{'s' * (steps > 1)} {tuned.after:.5f}. {_verdict(tuned)}",
    )
    # JSON has no numbers that are not finite.
    before, after = (x if math.isfinite(x) else None for x in (tuned.before, tuned.after))
    facts |= {_ADAPTED: tuned.is_better, "step": steps}
    facts |= {"held_out_loss_before": before, "held_out_loss_after": after}
    facts["share_of_change"] = tuned.share
    if not tuned.is_better:
        return Adapted(model.recipe, model.network, facts)
    return Adapted(dataclasses.replace(recipe, max_steps=steps), tuned.network, facts)


def check_adaptation(minutes: float, seed: int, folder: Path | None = None) -> None:
    """Raises a `ConfigError` if `adapt` cannot use the values or save to the folder.

    The folder may hold an earlier result, which will be replaced, but nothing else.
    """
    if not (is_number(minutes) and 0 < minutes <= _A_WEEK):
        given = f"{minutes:g}" if is_number(minutes) else repr(minutes)
        raise ConfigError(
            "The minutes of adaptation must be a number above 0 and at most "
            f"{_A_WEEK} (a week). Received: {given}"
        )
    check_number("--seed", seed, 0, LARGEST, whole=True)
    if folder is None:
        return
    try:
        is_other = not may_replace(folder, _ADAPTED)
    except OSError as error:
        raise ConfigError(
            f"Nothing can be written to {folder}: {error.strerror}. Use another folder."
        ) from error
    if is_other:
        raise ConfigError(
            "The adapted model needs a new folder, or that of an earlier adapted model, which it "
            f"replaces; something else is there. Received: {folder}"
        )
    check_writable(folder.parent, str(folder))


def save_adapted(model: Adapted, folder: Path) -> None:
    """Saves an adapted model in a folder that `check_adaptation` has accepted."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(folder, *model)
    except OSError as error:
        raise TrainingError(
            f"The adapted model cannot be saved in {folder}: {error.strerror or error}. What was "
            "there is intact."
        ) from error


def _is_fit(recipe: Recipe) -> bool:
    """Returns whether a recipe can train on noisy pictures alone, or on what is made from them."""
    objective = OBJECTIVES[recipe.objective]
    return recipe.patch_depth == 1 and (objective.NEEDS_BLINDNESS or objective.TAUGHT)


def _suited(recipe: Recipe, patches: PicturePatches) -> dict[str, int]:
    """Returns the settings that suit the noise: a hole, else strides; empty if no noise is seen."""
    has_hole = "hole" in recipe.whole_network_config
    if not (has_hole or "stride_b" in recipe.objective_config):
        return {}
    try:
        advice = advise(estimate_noise(some_patches(patches, gray=is_gray(patches))))
    except DataError as error:
        kept = "hole is" if has_hole else "strides are"
        say(f"{_NOT_MEASURED}: the model's {kept} kept. {error}")
        return {}
    say(advice.reasons[0])
    if has_hole:
        return holes_for(recipe, advice)
    return {"stride_b": advice.stride_b, "stride_i": advice.stride_i}


def _fit(
    recipe: Recipe, suited: Mapping[str, int], largest: int, learning_rate: float | None
) -> Recipe:
    """Returns the recipe as at the end of its training, with crops that fit strides and patches."""
    changed: dict[str, Any] = {**suited, "ramp_steps": 0, "bootstrap_steps": 0}
    config = {key: changed.get(key, value) for key, value in recipe.objective_config.items()}
    holes = {key: suited[key] for key in suited if key in recipe.whole_network_config}
    objective = OBJECTIVES[recipe.objective](**config)
    multiple, wanted, batch = objective.patch_multiple, recipe.patch_size, recipe.batch_size
    rate = _BLIND_RATE
    if objective.TAUGHT:
        multiple, wanted = jpeg.MULTIPLE, min(wanted, _TAUGHT_CROP)
        batch, rate = min(batch, _TAUGHT_BATCH), _TAUGHT_RATE
    least = (holes.get("hole", 0) // multiple + 1) * multiple
    crop = max(least, min(wanted, largest) // multiple * multiple)
    if crop > largest:
        raise DataError(
            f"To adapt, most pictures must have {least} px or more in height and width, because "
            f"their noise reaches that far: denoise without adapting. Received: {largest} px"
        )
    changed = {"learning_rate": learning_rate or rate, "lr_decay": 1.0, "schedule": "steps"}
    changed |= {"patch_size": crop, "batch_size": batch, "epochs": 0, "objective_config": config}
    changed["network_config"] = {**recipe.network_config, **holes}
    return dataclasses.replace(recipe, **changed)


def _measured(patches: PicturePatches, channels: int) -> list[CorrelatedNoise]:
    """Measures the noise of the patches in 1 or 3 channels.

    Raises:
        DataError: if it cannot be measured, or there is none to learn with.
    """
    models = measure_noise(map(luma, patches) if channels == 1 else patches)
    strongest = max(curve[:, 1].max() for model in models for curve in model.levels)
    if strongest < _LEAST_NOISE:
        raise DataError(f"It is nowhere stronger than {_LEAST_NOISE:g} of 255 levels.")
    return models


def _announce(recipe: Recipe, patches: PicturePatches, minutes: float) -> None:
    count = f"{len(patches)} patch{'es' * (len(patches) != 1)} of {patches.patch_size} px"
    pictures = f"{patches.pictures} picture{'s' * (patches.pictures != 1)}"
    config = recipe.objective_config
    chosen = {**config, **recipe.network_config}
    settings = [
        f", {key} {value}" for key, value in chosen.items() if "stride" in key or key == "hole"
    ]
    say(
        f"Adapting to {count} of {pictures}, for {minutes:g} minute{'s' * (minutes != 1)}: "
        f"{recipe.name}, in crops of {recipe.patch_size} px" + "".join(settings),
    )


def _verdict(tuned: Tuned) -> str:
    if not tuned.share:
        return "Pictures without noise would become worse: the weights stay as they were."
    if not tuned.is_better:
        return "This is no better: the weights stay as they were."
    if tuned.share == 1:
        return "The adapted weights are used."
    return (
        f"Only {tuned.share:g} of the change in the weights is used: with more, pictures without "
        "noise would become worse."
    )


def _own_pictures(
    model: Denoiser, patches: PicturePatches, until: float, passed: Callable[[], None]
) -> list[np.ndarray]:
    """Denoises, in float32, the first patches: at least one, and more while there is time."""
    single = in_float32(model.recipe, model.network)
    teacher = Teacher(Denoiser(model.recipe, single, DenoiseOptions(self_ensemble=True)))
    denoised: list[np.ndarray] = []
    most = patches_at_once(patches.patch_size)
    started = time.monotonic()
    with progress_bar(total=len(patches), unit="patch", desc="own results") as bar:
        while len(denoised) < len(patches):
            done, now = len(denoised), time.monotonic()
            if done and now >= until:
                break
            # Denoise together at most as many as are done already, and as there is time for.
            fit = int((until - now) * done / (now - started)) if done else 1
            count = max(1, min(done, most, len(patches) - done, fit))
            some = np.stack([patches[index] for index in range(done, done + count)])
            denoised.extend(*make_targets(some, [teacher]))
            bar.update(count)
            passed()
    return denoised
