"""Opens the patches of training pictures, prepares them if necessary, and inspects them."""

import contextlib
import dataclasses
import os
import shlex
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.data.manifest import MANIFEST_NAME, STACK, Manifest
from cbsn.data.pairs import PairedRecords, spread
from cbsn.data.records import RECORD_SUFFIX, Patches, PatchRecords, spread_patches
from cbsn.data.stack_records import NEXT, NextFrames, Shots, is_of_stacks
from cbsn.errors import CbsnError, CbsnWarning, ConfigError, DataError
from cbsn.images.finding import find_images
from cbsn.noise.advice import Advice, advise
from cbsn.noise.repair import parse_repairs
from cbsn.noise.structure import choose_mask, measure_structure
from cbsn.noise.survey import TooFewBlocksError
from cbsn.noise.synthetic import Noise
from cbsn.progress import say, say_fault
from cbsn.recipes import RECIPES, Recipe, customised
from cbsn.training.options import SETTINGS, DataOptions
from data_prep.prepare import depth_for, prepare, prepared_folder
from data_prep.stack_sources import ReadingOptions, find_stacks

BENCHMARKS = ("SIDD", "DND")  # data sets that are named so, and lie in a folder of their own

_AUTO = "auto"  # as `stride_b` or `mask_shape`: choose it by the noise in the patches
_RANGE, _ROOM = (0.1, 99.9), 0.25  # percentiles of a stack's values, and the share added to them
_LOOKED_AT_FOR_GRAY, _LOOKED_AT_FOR_NOISE = 64, 256  # patches, spread evenly
_VOLUMES_FOR_NOISE = 32  # patches that are volumes, to compare their planes


def open_records(
    options: DataOptions,
    *,
    convert: bool = True,
    normalize: str = "deviation",
    patch_depth: int = 1,
) -> Shots:
    """Opens the patches of a data set, and of its second shots if there are any.

    Pictures and stacks that are not prepared yet are prepared as by `cbsn prepare`. Pass
    `convert=False` if another process has just done that. `normalize` is how stacks are scaled if
    the options leave it open. With a `patch_depth` above 1, stacks become volumes from which crops
    of that depth can be cut.
    """
    opened = []
    are_next = options.second_shots == NEXT and holds_stacks(options.dataset, options.stacks)
    for name in (options.dataset, None if are_next else options.second_shots):
        if not name:
            continue
        try:
            opened.append(_open(name, options, normalize, patch_depth, convert))
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error}") from error
    if are_next:
        return NextFrames(opened[0])
    return PairedRecords(opened[0], opened[1]) if options.second_shots else opened[0]


def holds_stacks(dataset: str, stacks: ReadingOptions) -> bool:
    """Returns whether a data set is one of stacks; False if nothing can be read there."""
    path = Path(dataset).expanduser()
    if dataset.upper() in BENCHMARKS or path.suffix == RECORD_SUFFIX:
        return False
    with contextlib.suppress(CbsnError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore", CbsnWarning)  # they come again when the files are read
        if (path / MANIFEST_NAME).exists():
            return Manifest.read(path).kind == STACK
        if not any(path.glob(f"*{RECORD_SUFFIX}")):
            return find_stacks(path, find_images(path), stacks) is not None
    return False


def _open(
    dataset: str, options: DataOptions, normalize: str, patch_depth: int, convert: bool
) -> PatchRecords:
    path, source, white = Path(dataset).expanduser(), options.source, options.white
    stacks = options.stacks
    if (name := dataset.upper()) in BENCHMARKS:
        candidates = (source / f"{name}256", source / f"{name}256{RECORD_SUFFIX}")
        found = next((candidate for candidate in candidates if candidate.exists()), None)
        if found is None:
            if others := sorted(source.glob(f"{name}*/{MANIFEST_NAME}")):  # with other patches
                folders = " or ".join(str(each.parent) for each in others)
                raise DataError(
                    f"There is no {candidates[0]}, which {name} stands for, but there is "
                    f"{folders}: give that folder. Received: {dataset}"
                )
            raise DataError(
                f"{name} is not prepared: neither {candidates[0]} nor {candidates[1]} exists. "
                f"Run `cbsn prepare {name} --source FOLDER_OF_{name}`, or "
                "give the folder of the prepared files with --source."
            )
        path = found
    elif not (
        path.suffix == RECORD_SUFFIX
        or (path / MANIFEST_NAME).exists()
        or any(path.glob(f"*{RECORD_SUFFIX}"))
    ):
        if stacks.normalize == "auto" and holds_stacks(dataset, stacks):
            stacks = dataclasses.replace(stacks, normalize=normalize)
        if patch_depth > 1:
            patch_depth = depth_for(dataset, patch_depth, stacks)
        if not convert:
            folder = prepared_folder(dataset, stacks=stacks, patch_depth=patch_depth)
            return PatchRecords.open(folder)
        report = prepare(
            dataset,
            white=white,
            patch_depth=patch_depth,
            workers=os.cpu_count() or 1,
            **vars(stacks),
        )
        (say_fault if report.failed else say)(report)
        if not Manifest.read(report.out).sources:
            raise DataError(
                f"Nothing in {dataset} can be trained on. The reasons are listed above."
            )
        return PatchRecords.open(report.out)
    records = PatchRecords.open(path)
    manifest = records.manifest
    _check_settings(path, manifest, stacks)
    if white is not None and (manifest is None or manifest.white != white):
        if manifest is None or manifest.kind != "folder":
            advice = "Their white is known: omit --white."
        else:
            what = ("--input", manifest.root, "--out", str(path), "--white", str(white))
            command = shlex.join(("cbsn", "prepare", *what, "--force"))
            advice = f"Prepare them again with `{command}`, or omit --white."
        raise ConfigError(
            f"The patches of {path} were prepared with another white. {advice} "
            f"Received: --white {white:g}"
        )
    return records


def _check_settings(path: Path, manifest: Manifest | None, given: ReadingOptions) -> None:
    """Raises a ConfigError if flags ask for stacks that were prepared otherwise, or for stacks."""
    wanted, found = ",".join(parse_repairs(given.repair)), manifest.repair if manifest else ""
    if wanted and wanted != found:
        raise ConfigError(
            f"The patches of {path} were prepared with another --repair: {found or 'none'}. Omit "
            "it, or prepare the pictures with it, in another folder. "
            f"Received: --repair {given.repair}"
        )
    if manifest is None or manifest.kind != STACK:
        if given.given:
            raise ConfigError(
                f"{path} holds patches of pictures; {', '.join(given.given)} are for stacks: omit "
                "them."
            )
        return
    for name, value in given.settings.items():
        if f"--{name}" in given.given and getattr(manifest, name) != value:
            raise ConfigError(
                f"The patches of {path} were prepared with another --{name}: "
                f"{getattr(manifest, name)}. Omit it, or prepare the stacks with it, in another "
                f"folder. Received: --{name} {value}"
            )


def is_gray(patches: Patches) -> bool:
    """Returns whether pictures are gray, judging by some of their patches."""
    if patches.channels == 1:
        return True
    for _, patch in spread_patches(patches, _LOOKED_AT_FOR_GRAY):
        shots = patch.reshape(*patch.shape[:-1], -1, 3)
        if (shots != shots[..., :1]).any():
            return False
    return True


def some_patches(
    patches: Patches, noise: Noise | None = None, *, gray: bool
) -> Iterator[np.ndarray]:
    """Yields some patches to inspect their noise: [P, P, 1] if they are gray, else [P, P, 3].

    Takes the first shots of pairs, and adds `noise` to the patches. Those of stacks, whose values
    have any range, are scaled to [0, 1] together, with some room for noise. Of volumes these are
    planes, evenly spread, and the more of each, the fewer there are.
    """
    low, high = _range(patches) if is_of_stacks(patches) else (0.0, 1.0)
    depth = patches.patch_depth
    planes = min(depth, -(-_LOOKED_AT_FOR_NOISE // max(1, len(patches))))
    for index, patch in spread_patches(patches, _LOOKED_AT_FOR_NOISE):
        for plane in spread([*patch], planes) if depth > 1 else [patch]:
            plane = plane[..., : 1 if gray else 3]
            if (low, high) != (0.0, 1.0):
                plane = (plane - np.float32(low)) / np.float32(high - low)
            yield noise.fixed(plane, 0, str(index)) if noise else plane


def _range(patches: Patches) -> tuple[float, float]:
    some = [patch for _, patch in spread_patches(patches, _LOOKED_AT_FOR_GRAY)]
    low, high = np.percentile(some, _RANGE) if some else (0.0, 1.0)
    room = _ROOM * (high - low) or 1.0
    return float(low - room), float(high + room)


def without_auto(recipe_name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe's changes without an `_AUTO`, so that they can be checked without data.

    Raises:
        ConfigError: if a flag does not suit the recipe.
    """
    recipe = RECIPES.get(recipe_name)  # an unknown one is reported elsewhere
    for flag, (setting, _) in SETTINGS.items():
        value = changes.get(setting)
        if recipe and value is not None and not recipe.has_setting(setting):
            raise ConfigError(
                f"The recipe {recipe_name!r} has no --{flag}: omit it. Received: --{flag} {value}"
            )
    stride = changes.get("stride_b")
    if recipe and recipe.has_setting("hole") and stride not in (None, 1):
        raise ConfigError(
            f"The recipe {recipe_name!r} has a hole instead of strides: use --hole {_AUTO}, and "
            f"omit --stride_b. Received: --stride_b {stride}"
        )
    autos = [name for name in ("stride_b", "hole", "mask_shape") if changes.get(name) == _AUTO]
    return {**changes, **dict.fromkeys(autos)}


def choose_strides(
    recipe_name: str, changes: Mapping[str, Any], patches: Patches, noise: Noise | None, gray: bool
) -> tuple[dict[str, Any], list[str]]:
    """Replaces an `_AUTO` by the stride that suits the noise, and returns lines that say why.

    If the recipe has a `stride_i` and it is not given, chooses that, too. If the `stride_b` does
    not divide the patch size, takes the next larger one that does.
    """
    if changes.get("stride_b") != _AUTO:
        return dict(changes), []
    advice = _advise(patches, noise, gray, "set the stride, such as --stride_b 5")
    changes = dict(changes)
    if "stride_i" in RECIPES[recipe_name].objective_config and changes.get("stride_i") is None:
        changes["stride_i"] = advice.stride_i
    lines = advice.lines()
    wanted = advice.stride_b
    first = None
    for stride in range(wanted, 2 * wanted + 1):
        changes["stride_b"] = stride
        try:
            customised(recipe_name, **without_auto(recipe_name, changes))
            break
        except ConfigError as error:
            first = first or error
    else:
        assert first
        raise first
    if stride != wanted:
        lines.append(f"{wanted} does not divide the patch size, so the stride is {stride}.")
    return changes, lines


def choose_hole(
    recipe_name: str, changes: Mapping[str, Any], patches: Patches, noise: Noise | None, gray: bool
) -> tuple[dict[str, Any], list[str]]:
    """Replaces an `_AUTO` by the hole that suits the noise, and returns lines that say why.

    The hole to denoise with, if it is not given, becomes no larger than that.
    """
    if changes.get("hole") != _AUTO:
        return dict(changes), []
    advice = _advise(patches, noise, gray, "set the hole, such as --hole 9")
    given = {} if changes.get("denoise_hole") is None else {"denoise_hole": changes["denoise_hole"]}
    lines = [f"Hole: {advice.hole} px", *(f"- {reason}" for reason in advice.reasons)]
    return {**changes, **holes_for(RECIPES[recipe_name], advice), **given}, lines


def _advise(patches: Patches, noise: Noise | None, gray: bool, otherwise: str) -> Advice:
    """Returns what suits the noise of patches; a DataError says what else to do."""
    structure = measure_structure(lambda: some_patches(patches, noise, gray=gray), aligned=False)
    if structure.estimate is None:
        raise DataError(f"{structure.reason}. Or {otherwise}.")
    return advise(structure.estimate, structure.found_lines)


def holes_for(recipe: Recipe, advice: Advice) -> dict[str, int]:
    """Returns the holes that suit the noise; that of denoising is the recipe's, or smaller."""
    smaller = min(recipe.whole_network_config["denoise_hole"], advice.hole)
    return {"hole": advice.hole, "denoise_hole": smaller}


def choose_mask_shape(
    recipe_name: str, changes: Mapping[str, Any], patches: Patches, noise: Noise | None, gray: bool
) -> tuple[dict[str, Any], list[str]]:
    """Replaces an `_AUTO` by the mask that suits the noise, and returns lines that say why."""
    if changes.get("mask_shape") != _AUTO:
        return dict(changes), []
    volumes = (each for _, each in spread_patches(patches, _VOLUMES_FOR_NOISE))
    try:
        shape, reasons = choose_mask(
            lambda: some_patches(patches, noise, gray=gray),
            volumes if patches.patch_depth > 1 else None,
        )
    except TooFewBlocksError as error:
        reason = str(error).removesuffix(".")
        raise DataError(
            f"{reason}. Or set the mask: --struct_mask point for white noise, x:2 for noise that 3 "
            "pixels of a row share. If more share it, --recipe cbsn --stride_b 5."
        ) from error
    return {**changes, "mask_shape": shape}, [f"Mask: {shape}", *(f"- {each}" for each in reasons)]
