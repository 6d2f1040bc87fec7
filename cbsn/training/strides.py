"""`--stride_b auto`: the strides of a training, chosen by the noise in its patches."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cbsn.data.noise import Noise
from cbsn.data.paired_records import PairedRecords
from cbsn.data.records import PatchRecords
from cbsn.errors import ConfigError, DataError
from cbsn.noise.advice import advise
from cbsn.noise.measure import estimate_noise
from cbsn.recipes import RECIPES, customised

AUTO = "auto"

_LOOKED_AT = 256
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
    step = -(-len(records) // _LOOKED_AT)
    for index in range(0, len(records), step):
        with contextlib.suppress(DataError):  # a damaged record; training will say so
            patch = records[index][..., : 1 if gray else 3]
            yield noise.fixed(patch, 0, str(index)) if noise else patch
