"""Speed of training and denoising on a GPU, and how near it is to the GPU's peak.

The *share* is the operations per second of a step's convolutions, divided by those of a large
bfloat16 matrix product measured in the same run. The rest is the most that can still be gained.
The suite also runs without a GPU, to try it out.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import inference
from benchmarks.convolutions import total_flop
from benchmarks.graph import find_convolutions
from benchmarks.harness import Sample, Side, compare, timed
from benchmarks.recipes import augmentation_of, whole_patches
from benchmarks.report import Column
from benchmarks.settings import Settings
from benchmarks.step import describe
from cbsn.devices import has_gpu, set_up
from cbsn.errors import CbsnError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models import SHIPPED
from cbsn.recipes import Recipe, customised
from cbsn.training.trainer import Trainer

TITLE = "GPU"
COLUMNS = (
    Column("seconds", "median s"),
    Column("steps_per_second", "steps/s", ".1f"),
    Column("patches_per_second", "patches/s", ".0f"),
    Column("tflops", "TFLOP/s", ".1f"),
    Column("share", "share", ".1%"),
    Column("megapixels_per_second", "MP/s", ".2f"),
    Column("ratio", "times as fast", ".2f"),
    Column("peak_gib", "peak GiB", ".2f"),
)

WAYS = {
    "bfloat16 XLA": ("mixed_bfloat16", True),
    "bfloat16": ("mixed_bfloat16", False),
    "float32 XLA": ("float32", True),
    "float32": ("float32", False),
}
"""Precision, and whether XLA compiles the step, by the name of the side."""

BASE = "bfloat16"

_MATRIX, _SMALL_MATRIX = 8192, 256
_PRODUCTS = 8
_STEPS = 20
"""Number of steps that are timed together, without waiting for the GPU after each of them."""

_TWELVE_MEGAPIXELS = (3000, 4000)


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    set_up()
    peak = compare("matrix product", [_matrix_product()], settings.repeats)
    yield peak
    best = max(sample["tflops"] for sample in peak["sides"][0]["samples"])
    for name, recipe in _recipes(settings).items():
        names = settings.select(WAYS)
        base = BASE if BASE in names else names[0]
        sides, works = [], []
        for way in names:
            step = _Steps(recipe, *WAYS[way])
            works.append(step)
            sides.append(Side(way, step, base=base))
        case = compare(f"step, {name}", sides, settings.repeats)
        for row, step in zip(case["sides"], works, strict=True):
            row.update(step.facts(row["seconds"], best))
        yield case
        del sides, works, step
    pictures = settings.pictures[-1:]
    if has_gpu() and _TWELVE_MEGAPIXELS not in pictures:
        pictures = (*pictures, _TWELVE_MEGAPIXELS)
    for height, width in pictures:
        sides = [
            Side(name, _picture(denoiser, height, width))
            for name, denoiser in _denoisers(settings).items()
        ]
        yield compare(f"inference, {height}x{width}", sides, settings.repeats)


def _recipes(settings: Settings) -> dict[str, Recipe]:
    """Returns the recipes to train, by their names in the tables."""
    size, batch, side = settings.sizes[0], settings.batches[-1], settings.patch_size
    sizes = {"filters": size.filters, "num_modules": size.num_modules, "patch_size": side}
    photo = {
        "batch_size": settings.augmented_batch,
        "patch_size": settings.augmented_patch_size,
    }
    if size.name == "tiny":
        photo["filters"] = size.filters
    recipes = {
        "cbsn": customised("cbsn", **sizes, batch_size=batch),
        "apbsn": customised("apbsn", **sizes, batch_size=batch),
        "ssbsn": customised(
            "ssbsn", **sizes, batch_size=batch, num_attention=min(3, size.num_modules)
        ),
        "cbsn, larger": customised("cbsn", **{**sizes, "patch_size": 2 * side}, batch_size=batch),
        "photo": customised("photo", **photo),
        "photo-large": customised("photo-large", **photo),
    }
    return {
        f"{name}, batch {recipe.batch_size} of {recipe.patch_size}x{recipe.patch_size}"
        + (f", {describe(size)}" if "bsn" in name else ""): recipe
        for name, recipe in recipes.items()
    }


class _Steps:
    """A measurement of the mean time of consecutive training steps."""

    def __init__(self, recipe: Recipe, precision: str, xla: bool):
        self._recipe = recipe
        self._before = _memory(reset=True)
        augmentation = None
        side, shots = recipe.patch_size, recipe.build_objective().SHOTS
        if recipe.augmentation != "none":
            augmentation = augmentation_of(recipe)
            side, shots = whole_patches(recipe), 1
        values = np.random.default_rng(0).integers(
            0, 256, (recipe.batch_size, side, side, 3 * shots), "uint8"
        )
        self._batch = tf.identity(tf.constant(values))
        self._trainer = Trainer(recipe, precision=precision, xla=xla, augmentation=augmentation)
        self._clock = timed(self._run)
        self._warm = False

    def __call__(self) -> Sample:
        """Runs the steps and returns the mean seconds of one."""
        if not self._warm:
            self._trainer.train_step(self._batch)
            self._warm = True
        return {"seconds": self._clock()["seconds"] / _STEPS}

    def _run(self) -> None:
        for _ in range(_STEPS):
            metrics = self._trainer.train_step(self._batch)
        if float(metrics["skipped"]):
            raise CbsnError("The step's gradients are not finite, so its time says nothing.")

    def facts(self, seconds: float, peak: float) -> dict[str, float]:
        """Returns figures derived from the seconds of a step and the peak in TFLOP/s."""
        rate = 1 / seconds
        facts = {"steps_per_second": rate, "patches_per_second": rate * self._recipe.batch_size}
        if flop := _step_flop(self._recipe):
            facts.update(tflops=flop * rate / 1e12, share=flop * rate / 1e12 / peak)
        if has_gpu():
            facts["peak_gib"] = (_memory() - self._before) / 2**30
        return facts


def _step_flop(recipe: Recipe) -> float:
    """Returns the operations of a step's convolutions, or 0 if the network also has attention."""
    if "num_attention" in recipe.network_config:
        return 0
    shots = recipe.build_objective().SHOTS
    shape = (recipe.batch_size, recipe.patch_size, recipe.patch_size, 3 * shots)
    step = Trainer(recipe, xla=False, accumulate=1).concrete_step(tf.zeros(shape))
    return total_flop(find_convolutions(step))


def _matrix_product() -> Side:
    size = _MATRIX if has_gpu() else _SMALL_MATRIX
    # Random, because some GPUs multiply zeros faster.
    a, b = (tf.cast(tf.random.stateless_normal((size, size), (0, i)), "bfloat16") for i in (0, 1))

    @tf.function
    def products() -> tf.Tensor:
        product = a
        for _ in range(_PRODUCTS):
            product = tf.matmul(product, b) * (1 / size)
        return product[0, 0]

    clock = timed(lambda: products().numpy())

    def measure() -> Sample:
        seconds = clock()["seconds"] / _PRODUCTS
        return {"seconds": seconds, "tflops": 2 * size**3 / seconds / 1e12}

    return Side(f"bfloat16, {size}x{size}", measure)


@functools.lru_cache(maxsize=1)
def _denoisers(settings: Settings) -> dict[str, Denoiser]:
    size = settings.sizes[0]
    cbsn = inference.denoiser(
        size.filters, size.num_modules, network=inference.OURS, precision="mixed_bfloat16"
    )
    shipped = {
        name: Denoiser.load(
            SHIPPED / name, DenoiseOptions(precision="mixed_bfloat16", engine="tensorflow")
        )
        for name in ("photo", "photo_large")
    }
    return {**shipped, f"cbsn, {describe(size)}": cbsn}


def _picture(denoise: Denoiser, height: int, width: int) -> Callable[[], Sample]:
    image = inference.picture(height, width)
    clock = timed(lambda: denoise(image))

    def measure() -> Sample:
        seconds = clock()["seconds"]
        return {"seconds": seconds, "megapixels_per_second": height * width / 1e6 / seconds}

    return measure


def _memory(*, reset: bool = False) -> int:
    """Returns peak bytes on the first GPU, or, with `reset`, current ones; 0 without a GPU."""
    if not has_gpu():
        return 0
    if reset:
        tf.config.experimental.reset_memory_stats("GPU:0")
        return tf.config.experimental.get_memory_info("GPU:0")["current"]
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]
