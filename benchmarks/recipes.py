"""Compares the recipes: a training step of each, and a picture denoised by each.

The steps are without augmentation; its share of a step is a separate case.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import inference
from benchmarks.harness import Sample, Side, compare, timed
from benchmarks.memory import measure_memory
from benchmarks.report import Column
from benchmarks.settings import Settings, Size
from benchmarks.step import describe, step_of
from cbsn.augmentation import PhotoAugmentation
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.noise.measured_noise import CorrelatedNoise
from cbsn.precision import choose_precision
from cbsn.recipes import RECIPES, Recipe, customised
from cbsn.training.step_random import StepRandom
from cbsn.training.trainer import Trainer

TITLE = "Recipes, in the precision that `auto` takes"
COLUMNS = (
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("seconds_per_megapixel", "s per MP"),
    Column("ratio", "times as fast", ".2f"),
    Column("peak_gib", "peak GiB", ".2f"),
)
BASE = "cbsn"

AUGMENTED = "photo"
_OF_PICTURES = {name: recipe for name, recipe in RECIPES.items() if recipe.patch_depth == 1}
_WHOLE_PATCHES = 4
"""Side of the patches that augmentation takes, as a multiple of the side of its results."""


def make(spec: Mapping[str, Any]) -> Callable[[], Sample]:
    """Returns a measurement of a step, a part of one, or a picture, as `spec` describes it."""
    recipe = _recipe(spec)
    precision, _ = choose_precision("auto")
    if "part" in spec:
        return timed(_augmented(recipe, precision, spec["part"]))
    if "batch_size" in spec:
        channels = 3 * recipe.build_objective().SHOTS
        shape = (spec["batch_size"], recipe.patch_size, recipe.patch_size, channels)
        return timed(step_of(Trainer(recipe, precision=precision), tf.constant(_values(shape))))
    height, width = spec["height"], spec["width"]
    denoise = Denoiser(recipe, recipe.build_network(precision), DenoiseOptions(r3=spec["r3"]))
    image = inference.picture(height, width)
    clock = timed(lambda: denoise(image))

    def measure() -> Sample:
        seconds = clock()["seconds"]
        return {"seconds": seconds, "seconds_per_megapixel": seconds / (height * width / 1e6)}

    return measure


def _augmented(recipe: Recipe, precision: str, part: str) -> Callable[[], None]:
    """Returns a function for a step with augmentation, one without, or augmentation alone."""
    rows, size = recipe.batch_size, recipe.patch_size
    augment = augmentation_of(recipe)
    whole = whole_patches(recipe)
    pictures = tf.constant(_values((rows, whole, whole, 3)))
    if part == "step":
        return step_of(Trainer(recipe, precision=precision, augmentation=augment), pictures)
    if part == "step without":
        return step_of(
            Trainer(recipe, precision=precision), tf.constant(_values((rows, size, size, 6)))
        )
    steps = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def alone() -> tf.Tensor:
        steps.assign_add(1)
        pairs = augment(tf.cast(pictures, tf.float32) / 255, StepRandom(0, steps, rows))
        return tf.reduce_mean(pairs)

    return lambda: float(alone())


def augmentation_of(recipe: Recipe) -> PhotoAugmentation:
    """Returns the augmentation of a recipe, which computes as much as with measured noise."""
    return PhotoAugmentation([_noise()], recipe.patch_size)


def whole_patches(recipe: Recipe) -> int:
    """Returns the side of the patches that augmentation takes."""
    return recipe.patch_size * _WHOLE_PATCHES


def _noise() -> CorrelatedNoise:
    """Returns a noise model of eight tones, as expensive to compute as measured noise."""
    curve = np.stack([np.linspace(16, 240, 8), np.linspace(4, 10, 8)], axis=1)
    return CorrelatedNoise([curve] * 3, np.eye(3)[:, :, None, None])


def _values(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


def _recipe(spec: Mapping[str, Any]) -> Recipe:
    changes = {key: spec[key] for key in ("batch_size", "patch_size") if key in spec}
    if "part" not in spec:
        # Augmentation does not allow the patch sizes of the other recipes.
        changes["augmentation"] = "none"
    config = RECIPES[spec["recipe"]].network_config
    if "num_modules" in config:
        changes.update(filters=spec["filters"], num_modules=spec["num_modules"])
    # The U-Nets always have the recipe's size.
    if "num_attention" in config:
        changes["num_attention"] = min(3, spec["num_modules"])
    return customised(spec["recipe"], **changes)


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    for size in settings.sizes:
        for batch in settings.batches:
            facts = {"batch_size": batch, "patch_size": settings.patch_size}
            specs = {name: {"recipe": name, **facts} for name in _OF_PICTURES}
            yield _compare(f"step, {describe(size)}, batch {batch}", size, specs, settings)
        for height, width in settings.pictures:
            specs = {}
            for name, recipe in _OF_PICTURES.items():
                for r3 in sorted({recipe.r3, False}):
                    side = f"{name}, R3" if r3 else name
                    specs[side] = {"recipe": name, "r3": r3, "height": height, "width": width}
            yield _compare(f"{describe(size)}, {height}x{width}", size, specs, settings)
    if not settings.sides or AUGMENTED in settings.sides:
        yield _compare_augmented(settings)


def _compare(
    case: str, size: Size, specs: Mapping[str, Mapping[str, Any]], settings: Settings
) -> dict[str, Any]:
    names = settings.select(specs)
    sizes = {"filters": size.filters, "num_modules": size.num_modules}
    specs = {name: {**specs[name], **sizes} for name in names}
    return _measure(case, specs, BASE if BASE in names else names[0], settings)


def _compare_augmented(settings: Settings) -> dict[str, Any]:
    """Measures how much of a training step augmentation takes."""
    batch, size = settings.augmented_batch, settings.augmented_patch_size
    facts = {"recipe": AUGMENTED, "batch_size": batch, "patch_size": size}
    specs = {
        AUGMENTED: {**facts, "part": "step"},
        "without augmentation": {**facts, "part": "step without"},
        "augmentation alone": {**facts, "part": "augmentation"},
    }
    whole = size * _WHOLE_PATCHES
    case = f"step of {AUGMENTED}, batch {batch} of {size}x{size} out of {whole}x{whole}"
    return _measure(case, specs, AUGMENTED, settings)


def _measure(
    case: str, specs: Mapping[str, Mapping[str, Any]], base: str, settings: Settings
) -> dict[str, Any]:
    sides = []
    for name, spec in specs.items():
        facts = measure_memory("recipes", spec) if settings.memory else {}
        sides.append(Side(name, make(spec), base=base, facts=facts))
    return compare(case, sides, settings.repeats)
