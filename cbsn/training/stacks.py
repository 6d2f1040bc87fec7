"""What is different about training from stacks: recipes, scaling, planes held out."""

from typing import Any

from cbsn.data.records import Patches
from cbsn.data.stack_records import (
    NextFrames,
    Shots,
    describe_stacks,
    is_of_stacks,
    split,
)
from cbsn.errors import ConfigError, DataError
from cbsn.images.stacks.scaling import Scaling
from cbsn.inference.stack_options import refuse_white
from cbsn.recipes import Recipe
from cbsn.training.motion import warn_of_motion
from cbsn.training.options import RunOptions

_FOR_STACKS = "n2v-unet or dil-unet (white noise), or cbsn (noise that spreads over pixels)"


def check_stacks(recipe: Recipe, options: RunOptions) -> None:
    """Rejects what cannot be trained from stacks, before any work.

    Raises:
        ConfigError: if a setting is for pictures only.
    """
    data = options.dataset
    needs_teacher = recipe.build_objective().TAUGHT and not options.second_shots
    if recipe.augmentation != "none" or options.teacher or needs_teacher:
        what = "--teacher" if options.teacher else f"--recipe {recipe.name}"
        raise ConfigError(
            "Teachers are for photographs, so no recipe learns from one on stacks. Use "
            f"--recipe {_FOR_STACKS}. Received: {what} with the stack {data}"
        )
    if options.noise or options.own_noise:
        raise ConfigError(
            "Noise can be added to pictures only: omit --noise, --noise_sigma, --noise_peak and "
            f"--own_noise. Received: {options.noise or '--own_noise'} with the stack {data}"
        )
    if options.val_clean or options.val_noisy:
        raise ConfigError(
            "Validation on clean pictures is for pictures only; the loss is validated on planes "
            "held out (--hold_out). Omit --val_noisy and --val_clean, and compare the model with "
            f"clean stacks by cbsn evaluate. Received: {options.val_clean or options.val_noisy}"
        )
    refuse_white(options.white)


def default_method(recipe: Recipe) -> str:
    """Returns how stacks are scaled for a recipe if no `--normalize` says so."""
    # A noise model only needs a scaling that is the same for all pictures.
    needs_samples = recipe.build_objective().NEEDS_SAMPLES
    return "deviation" if needs_samples or recipe.normalization == "standardize" else "range"


def divide(
    records: Shots, options: RunOptions, *, measure: bool
) -> tuple[Patches, Patches | None, list[str]]:
    """Returns the patches to train on, those that are held out, and lines about stacks.

    Pictures are all trained on, and there are no lines. Warns of motion between the two shots of
    neighbouring frames if `measure` says that this process is to look for it.

    Raises:
        ConfigError: if no patch is left to train on.
        DataError: if all values of the stacks are equal.
    """
    if not is_of_stacks(records):
        return records, None, []
    manifest = records.manifest
    assert manifest is not None
    scales = Scaling.from_dict(manifest.scaling).channels
    if not any(each.deviation for each in scales):
        raise DataError(
            "All values that were looked at are equal, so there is nothing to learn. "
            f"Received: {options.dataset}, whose values are {scales[0].mean:g}"
        )
    lines = [*describe_stacks(manifest)]
    if isinstance(records, NextFrames):
        lines.append("Neighbouring frames are the two shots of each other.")
        if measure:
            warn_of_motion(records)
    training, held_out, chosen = split(records, options.hold_out)
    are_volumes = records.patch_depth > 1
    if held_out is not None:
        what = "patches" if are_volumes else "planes"
        line = f"Held out for validation: {chosen.number} of {chosen.of} {what}."
        if others := int(chosen.overlapping.sum()):
            line += f" {others} more, which overlap them, are not trained on."
        lines.append(line)
    elif options.hold_out:
        why = "there are too few patches, or all overlap" if are_volumes else "there are too few"
        lines.append(f"None is held out for validation: {why}.")
    return training, held_out, lines


def stack_changes(recipe: Recipe, records: Patches) -> dict[str, Any]:
    """Returns the changes to a recipe for the patches of stacks, which are scaled already.

    A patch's own mean and deviation would make the planes of a series flicker.
    """
    manifest = records.manifest  # type: ignore[attr-defined]
    changes: dict[str, Any] = {"scaling": dict(manifest.scaling)}
    if recipe.normalization == "standardize":
        changes["normalization"] = "0-1"
    return changes
