"""The recipes side by side: a training step, and a picture as each of them denoises it."""

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
from cbsn.inference.denoiser import Denoiser
from cbsn.precision import choose_precision
from cbsn.recipes import RECIPES, Recipe, customised
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


def make(spec: Mapping[str, Any]) -> Callable[[], Sample]:
    """Returns a measurement: `spec` says recipe and size, and what of a step or a picture."""
    recipe = _recipe(spec)
    precision, _ = choose_precision("auto")
    if "batch_size" in spec:
        channels = 3 * recipe.build_objective().SHOTS
        shape = (spec["batch_size"], recipe.patch_size, recipe.patch_size, channels)
        batch = tf.constant(np.random.default_rng(0).integers(0, 256, shape, "uint8"))
        return timed(step_of(Trainer(recipe, precision=precision), batch))
    height, width = spec["height"], spec["width"]
    denoise = Denoiser(recipe, recipe.build_network(precision), r3=spec["r3"])
    image = inference.picture(height, width)
    clock = timed(lambda: denoise(image))

    def measure() -> Sample:
        seconds = clock()["seconds"]
        return {"seconds": seconds, "seconds_per_megapixel": seconds / (height * width / 1e6)}

    return measure


def _recipe(spec: Mapping[str, Any]) -> Recipe:
    changes = {key: spec[key] for key in ("batch_size", "patch_size") if key in spec}
    config = RECIPES[spec["recipe"]].network_config
    if "num_modules" in config:
        changes.update(filters=spec["filters"], num_modules=spec["num_modules"])
    # The U-Nets have one size, the recipe's.
    if "num_attention" in config:
        changes["num_attention"] = min(3, spec["num_modules"])
    return customised(spec["recipe"], **changes)


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures, and yields each case's results."""
    for size in settings.sizes:
        for batch in settings.batches:
            facts = {"batch_size": batch, "patch_size": settings.patch_size}
            specs = {name: {"recipe": name, **facts} for name in RECIPES}
            yield _compare(f"step, {describe(size)}, batch {batch}", size, specs, settings)
        for height, width in settings.pictures:
            specs = {}
            for name, recipe in RECIPES.items():
                for r3 in sorted({recipe.r3, False}):
                    side = f"{name}, R3" if r3 else name
                    specs[side] = {"recipe": name, "r3": r3, "height": height, "width": width}
            yield _compare(f"{describe(size)}, {height}x{width}", size, specs, settings)


def _compare(
    case: str, size: Size, specs: Mapping[str, Mapping[str, Any]], settings: Settings
) -> dict[str, Any]:
    sides = []
    names = settings.select(specs)
    for name in names:
        spec = {**specs[name], "filters": size.filters, "num_modules": size.num_modules}
        facts = measure_memory("recipes", spec) if settings.memory else {}
        base = BASE if BASE in names else names[0]
        sides.append(Side(name, make(spec), base=base, facts=facts))
    return compare(case, sides, settings.repeats)
