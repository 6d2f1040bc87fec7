"""Training a network further for some time, and telling whether that was of use."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from cbsn.adaptation.picture_patches import PicturePatches
from cbsn.data.picture_noise import PictureNoise
from cbsn.data.pipeline import PatchPipeline
from cbsn.recipes import Recipe
from cbsn.training.step_random import StepRandom
from cbsn.training.trainer import Trainer
from cbsn.value_range import value_range

_EMA = 0.998

_CHECKED = 32
"""Crops that the loss is compared on; each patch that is held out gives one, or several."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s{postfix}"


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What came of it.

    Args:
        recipe: that it was trained with.
        network: the trained network, its weights averaged.
        steps: int, how many it took.
        before: float, the loss on the patches that were held out, before the first step.
        after: float, likewise, after the last.
    """

    recipe: Recipe
    network: Any
    steps: int
    before: float
    after: float

    @property
    def is_better(self) -> bool:
        """Whether the loss became less; False where it is no number."""
        return self.after < self.before


def tune(
    recipe: Recipe,
    weights: list[np.ndarray],
    training: PicturePatches,
    held_out: PicturePatches,
    *,
    deadline: float,
    learning_rate: float,
    noise: PictureNoise | None = None,
    max_steps: int | None = None,
    precision: str = "float32",
    seed: int = 0,
) -> Tuned:
    """Trains a network from given weights on, till the time is over.

    The learning rate is constant, the loss what it is at the end of the recipe's training. The loss
    that tells, before and after, is the first term of the recipe's objective on the same crops with
    the same random numbers; its time counts. There is at least one step. A progress bar counts
    seconds.

    Args:
        recipe: of the network; its patch size must fit the patches.
        weights: as `network.get_weights()` has them.
        training: what to train on.
        held_out: what to measure on.
        deadline: when to be done, by `time.monotonic()`.
        learning_rate: float > 0.
        noise: what the second picture of a pair is taken anew with, as `PatchPipeline` has it.
        max_steps: int, number of steps after which to end in any case. Default None.
        precision: Keras dtype policy of the network's layers.
        seed: int ≥ 0, of crops, order, and the random numbers of the objective.
    """
    objective_config = dict(recipe.objective_config)
    if "ramp_steps" in objective_config:
        objective_config["ramp_steps"] = 0
    recipe = dataclasses.replace(
        recipe,
        objective_config=objective_config,
        learning_rate=learning_rate,
        lr_decay=1.0,
        epochs=0,
    )
    trainer = Trainer(recipe, precision=precision, ema=_EMA, seed=seed)
    trainer.initialize(weights)
    measure = _measure(recipe, trainer.model, held_out, seed, noise)
    started = time.monotonic()
    before = measure()
    # The second measurement takes as long.
    deadline -= time.monotonic() - started
    steps = _train(
        trainer,
        _pipeline(recipe, trainer.model, training, seed, noise),
        deadline,
        max_steps,
    )
    recipe = dataclasses.replace(recipe, max_steps=steps)
    return Tuned(recipe, trainer.model, steps, before, measure())


def _pipeline(
    recipe: Recipe,
    network: Any,
    patches: PicturePatches,
    seed: int,
    noise: PictureNoise | None,
) -> PatchPipeline:
    return PatchPipeline(
        patches,
        recipe.patch_size,
        recipe.batch_size,
        seed,
        channels=network.channels,
        noise=noise,
        shots=recipe.build_objective().SHOTS,
    )


def _train(
    trainer: Trainer,
    pipeline: PatchPipeline,
    deadline: float,
    max_steps: int | None,
) -> int:
    """Takes steps; returns how many."""
    started = time.monotonic()
    seconds = max(1, math.ceil(deadline - started))
    with (
        # Closed in any case: a process may hang at its end while tf.data reads on.
        contextlib.closing(pipeline.guard(iter(pipeline.dataset()))) as batches,
        tqdm(total=seconds, desc="adapting", bar_format=_BAR) as bar,
    ):
        for steps, batch in enumerate(batches, 1):
            metrics = trainer.train_step(batch)
            now = time.monotonic()
            if bar.update(min(seconds, int(now - started)) - bar.n):
                bar.set_postfix(step=steps, loss=f"{float(metrics['total']):.4f}", refresh=False)
            if now >= deadline or steps == max_steps:
                break
    return steps


def _measure(
    recipe: Recipe, network: Any, patches: PicturePatches, seed: int, noise: PictureNoise | None
) -> Callable[[], float]:
    """Returns what measures the network, as its weights are then, on always the same crops."""
    pipeline = _pipeline(recipe, network, patches, seed, noise)
    objective = recipe.build_objective()
    crops = max(_CHECKED, len(patches))
    batches = [pipeline.batch(number) for number in range(-(-crops // recipe.batch_size))]
    normalization = recipe.build_normalization()

    @tf.function
    def loss(batch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        x = tf.cast(batch, tf.float32) / value_range(batch.dtype.as_numpy_dtype)
        random = StepRandom(seed, number, recipe.batch_size)
        return objective(network, normalization.batch(x), number, random)[objective.TERMS[0]]

    loss(batches[0], tf.constant(0))  # traced now, so that what follows takes always as long

    def measure() -> float:
        losses = [loss(batch, tf.constant(number)) for number, batch in enumerate(batches)]
        return float(np.mean([each.numpy() for each in losses]))

    return measure
