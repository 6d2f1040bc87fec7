"""Finds the training patches that a `--dataset` names, and makes them where need be."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.data.manifest import MANIFEST_NAME
from cbsn.data.paired_records import PairedRecords
from cbsn.data.records import RECORD_SUFFIX, PatchRecords
from cbsn.errors import ConfigError, DataError
from cbsn.noise.advice import advise
from cbsn.noise.estimate import estimate_noise
from cbsn.noise.synthetic import Noise
from cbsn.recipes import RECIPES, customised
from cbsn.value_range import check_white
from data_prep.prepare import prepare, prepared_folder

AUTO = "auto"

_PATCHES_SEEN = 256
"""Patches, evenly spread over all."""


def without_auto(recipe_name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the changes that a recipe can be checked with before its data are there.

    Args:
        recipe_name: str, a key of `RECIPES`, or anything else, which is left to `customised`.
        changes: as for `customised`, but `stride_b` may be `"auto"`.

    Raises:
        ConfigError: if the recipe has no such stride.
    """
    if changes.get("stride_b") != AUTO:
        return dict(changes)
    recipe = RECIPES.get(recipe_name)
    if recipe and "stride_b" not in recipe.objective_config:
        raise ConfigError(
            f"The recipe {recipe_name!r} has no stride to choose: omit --stride_b. "
            f"Received: --stride_b {AUTO}"
        )
    return {**changes, "stride_b": None}


def choose_strides(
    recipe_name: str,
    changes: Mapping[str, Any],
    records: PatchRecords | PairedRecords,
    *,
    noise: Noise | None,
    gray: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Chooses the strides by what the noise is like; a function of the patches alone.

    Args:
        recipe_name: str, a recipe with a `stride_b`.
        changes: as for `customised`; a `stride_i` among them stays.
        records: the patches.
        noise: what is added to them in training, or None.
        gray: whether their channels are equal.

    Returns:
        The changes with `stride_b`, and with `stride_i` where the recipe has one, and lines that
        say why. A stride that does not divide the patch size is replaced by the next one.

    Raises:
        DataError: if the patches do not show their noise.
        ConfigError: if no stride fits the patch size.
    """
    try:
        estimate = estimate_noise(some_patches(records, noise, gray=gray))
    except DataError as error:
        raise DataError(f"{error}. Or say the stride, such as --stride_b 5.") from error
    advice = advise(estimate)
    changes = dict(changes)
    if "stride_i" in RECIPES[recipe_name].objective_config and changes.get("stride_i") is None:
        changes["stride_i"] = advice.stride_i
    lines = advice.lines()
    wanted = advice.stride_b
    for stride in range(wanted, 2 * wanted + 1):
        changes["stride_b"] = stride
        try:
            customised(recipe_name, **changes)
        except ConfigError:
            if stride == 2 * wanted:
                raise
            continue
        break
    if stride != wanted:
        lines.append(f"{wanted} does not divide the patches evenly, so it is {stride}.")
    return changes, lines


def some_patches(
    records: PatchRecords | PairedRecords, noise: Noise | None = None, *, gray: bool
) -> Iterator[np.ndarray]:
    """Yields patches to see the noise in, [P, P, 1] if they are gray, or [P, P, 3].

    Args:
        records: the patches.
        noise: what is added to them, or None.
        gray: whether their channels are equal.
    """
    step = -(-len(records) // _PATCHES_SEEN)
    for index in range(0, len(records), step):
        with contextlib.suppress(DataError):  # a damaged record; training will say so
            patch = records[index][..., : 1 if gray else 3]
            yield noise.fixed(patch, 0, str(index)) if noise else patch


BENCHMARKS = ("SIDD", "DND")

_LOOKED_AT = 64


def open_records(
    dataset: str,
    source: Path,
    *,
    second_shots: str | None = None,
    white: float | None = None,
    convert: bool = True,
) -> PatchRecords | PairedRecords:
    """Opens the patches of a data set.

    Args:
        dataset: `SIDD` or `DND` (prepared before), a folder that `prepare_dataset.py` wrote, a
            record file or a folder of them, or pictures: a folder or a glob.
            Pictures are prepared as `prepare_dataset.py --dataset` would, unless they are.
        source: folder in which the prepared SIDD and DND lie.
        second_shots: as `dataset`, a second shot of each of its pictures, or None.
        white: what white is in the pictures, as `prepare` takes it; None as they show it.
        convert: whether to prepare pictures; if not, another process has just done it.

    Raises:
        ConfigError: if the patches were prepared with another `white`.
        DataError: if there is nothing of that name, or it is damaged, or two shots do not fit.
    """
    check_white(white)
    opened = []
    for name in (dataset, second_shots):
        if name:
            try:
                opened.append(_open(name, source, white, convert))
            except OSError as error:
                raise DataError(f"{name} cannot be read: {error}") from error
    return PairedRecords(*opened) if second_shots else opened[0]


def is_gray(records: PatchRecords | PairedRecords) -> bool:
    """Says whether pictures are gray, by some of their patches; damaged ones do not count."""
    step = -(-len(records) // _LOOKED_AT)
    for index in range(0, len(records), step):
        with contextlib.suppress(DataError):
            patch = records[index]
            shots = patch.reshape(*patch.shape[:-1], -1, 3)
            if (shots != shots[..., :1]).any():
                return False
    return True


def _open(dataset: str, source: Path, white: float | None, convert: bool) -> PatchRecords:
    if dataset.upper() in BENCHMARKS:
        return _prepared(_benchmark(dataset.upper(), source), white)
    path = Path(dataset).expanduser()
    if (
        path.suffix == RECORD_SUFFIX
        or (path / MANIFEST_NAME).exists()
        or any(path.glob(f"*{RECORD_SUFFIX}"))
    ):
        return _prepared(path, white)
    if not convert:
        return PatchRecords.open(prepared_folder(dataset))
    report = prepare(dataset, white=white, workers=os.cpu_count() or 1)
    print(report, file=sys.stderr if report.failed else sys.stdout)
    return PatchRecords.open(report.out)


def _prepared(path: Path, white: float | None) -> PatchRecords:
    """Opens patches that are there, whose white cannot be chosen any more."""
    records = PatchRecords.open(path)
    manifest = records.manifest
    if white is not None and (manifest is None or manifest.white != white):
        if manifest is None or manifest.kind != "folder":
            advice = "What white is in them is known: omit --white."
        else:
            command = ("python", "prepare_dataset.py", "--dataset", manifest.root, "--out", path)
            command = shlex.join([*map(str, command), "--white", f"{white}", "--force"])
            advice = f"Prepare them anew with `{command}`, or omit --white."
        raise ConfigError(
            f"The patches of {path} were prepared with another white. {advice} "
            f"Received: --white {white:g}"
        )
    return records


def _benchmark(name: str, source: Path) -> Path:
    candidates = (source / f"{name}256", source / f"{name}256{RECORD_SUFFIX}")
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DataError(
        f"{name} is not prepared: neither {candidates[0]} nor {candidates[1]} is there. Run "
        f"`python prepare_dataset.py --dataset {name} --source FOLDER_OF_{name}`, or say with "
        "--source where it lies."
    )
