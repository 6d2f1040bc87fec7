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
from cbsn.augmentation import PhotoAugmentation
from cbsn.data.pipeline import PatchPipeline
from cbsn.recipes import Recipe
from cbsn.training.step_random import StepRandom
from cbsn.training.trainer import Trainer
from cbsn.value_range import value_range

_EMA = 0.998

_CHECKED = 32
"""Crops that the loss is compared on; each patch that is held out gives one, or several."""

_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.125)
"""How much of the change of the weights is taken: the most that does no harm."""

_HARM = 10 ** (0.05 / 10)
"""Factor by which the error on noise-free pictures may grow in any case: 0.05 dB, half of what is
promised, as other pictures than those at hand may fare worse."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s{postfix}"


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A network that was trained further.

    Args:
        recipe: that it was trained with.
        network: the trained network, its weights averaged.
        steps: int, how many it took.
        before: float, the loss on the patches that were held out, before the first step.
        after: float, the same loss with the weights of `network`.
        share: float in [0, 1], part of the change of the weights that is in `network`; 0 if any
            would make noise-free pictures worse.
    """

    recipe: Recipe
    network: Any
    steps: int
    before: float
    after: float
    share: float = 1.0

    @property
    def is_better(self) -> bool:
        """Whether the loss became less, without harm; False where it is no number."""
        return self.share > 0 and self.after < self.before


@dataclasses.dataclass(frozen=True)
class _Measured:
    """The loss on the patches that are held out, and the mean squared error without noise."""

    loss: float
    error: float = 0.0


def tune(
    recipe: Recipe,
    weights: list[np.ndarray],
    training: PicturePatches,
    held_out: PicturePatches,
    *,
    deadline: float,
    learning_rate: float,
    augmentation: PhotoAugmentation | None = None,
    harm: float = 0.0,
    max_steps: int | None = None,
    precision: str = "float32",
    seed: int = 0,
) -> Tuned:
    """Trains a network from given weights on, till the time is over.

    The learning rate falls to 0 along a cosine, over the steps or, without `max_steps`, the time;
    of blind networks it is constant. The loss is what it is at the end of the recipe's training.
    The loss that tells, before and after, is the first term of the recipe's objective on the same
    crops with the same random numbers; its time counts. There is at least one step. A progress bar
    counts seconds.

    With an augmentation, pictures without noise must not fare worse: if their mean squared error
    grows by more than 0.05 dB and more than `harm`, only a part of the change of the weights is
    taken, down to an eighth.

    Args:
        recipe: of the network; its patch size must fit the patches.
        weights: as `network.get_weights()` has them.
        training: what to train on.
        held_out: what to measure on.
        deadline: when to be done, by `time.monotonic()`.
        learning_rate: float > 0.
        augmentation: makes what is learned out of the second picture of each pair of patches.
            Default None: the patches are learned as they are.
        harm: float ≥ 0, how much the mean squared error of pictures without noise, in units of
            [0, 1], may grow. Default 0.
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
        schedule="steps",
        epochs=0,
    )
    trainer = Trainer(recipe, precision=precision, ema=_EMA, seed=seed, augmentation=augmentation)
    trainer.initialize(weights)
    measure = _measure(recipe, trainer.model, held_out, seed, augmentation)
    started = time.monotonic()
    before = measure()
    # The second measurement takes as long.
    deadline -= time.monotonic() - started
    steps = _train(
        trainer,
        _pipeline(recipe, trainer.model, training, seed, whole=augmentation is not None),
        deadline,
        max_steps,
        falls=augmentation is not None,
    )
    recipe = dataclasses.replace(recipe, max_steps=steps)
    after, share = _without_harm(trainer.model, weights, before, measure, harm)
    return Tuned(recipe, trainer.model, steps, before.loss, after.loss, share)


def _without_harm(
    network: Any,
    first: list[np.ndarray],
    before: _Measured,
    measure: Callable[[], _Measured],
    harm: float,
) -> tuple[_Measured, float]:
    """Takes back so much of the change of the weights that noise-free pictures stay as good."""
    last = network.get_weights()
    trained = measure()
    for share in _SHARES:
        if share < 1:
            network.set_weights([a + share * (b - a) for a, b in zip(first, last, strict=True)])
        after = trained if share == 1 else measure()
        if after.error <= max(before.error * _HARM, before.error + harm):
            return after, share
    return trained, 0.0


def _pipeline(
    recipe: Recipe,
    network: Any,
    patches: PicturePatches,
    seed: int,
    *,
    whole: bool,
) -> PatchPipeline:
    return PatchPipeline(
        patches,
        recipe.patch_size,
        recipe.batch_size,
        seed,
        channels=network.channels,
        shots=recipe.build_objective().SHOTS,
        whole=whole,
    )


def _train(
    trainer: Trainer,
    pipeline: PatchPipeline,
    deadline: float,
    max_steps: int | None,
    falls: bool,
) -> int:
    """Takes steps, with a learning rate that falls or not; returns how many."""
    started = time.monotonic()
    seconds = max(1, math.ceil(deadline - started))

    def falling(steps: int, now: float) -> float:
        done = steps / max_steps if max_steps else (now - started) / seconds
        return 0.5 + 0.5 * math.cos(math.pi * min(done, 1.0))

    with (
        # Closed in any case: a process may hang at its end while tf.data reads on.
        contextlib.closing(pipeline.guard(iter(pipeline.dataset()))) as batches,
        tqdm(total=seconds, desc="adapting", bar_format=_BAR) as bar,
    ):
        for steps, batch in enumerate(batches, 1):
            if falls:
                trainer.rate_scale.assign(falling(steps - 1, time.monotonic()))
            metrics = trainer.train_step(batch)
            now = time.monotonic()
            if bar.update(min(seconds, int(now - started)) - bar.n):
                bar.set_postfix(step=steps, loss=f"{float(metrics['total']):.4f}", refresh=False)
            if now >= deadline or steps == max_steps:
                break
    return steps


def _measure(
    recipe: Recipe,
    network: Any,
    patches: PicturePatches,
    seed: int,
    augmentation: PhotoAugmentation | None,
) -> Callable[[], _Measured]:
    """Returns what measures the network, as its weights are then, on always the same crops."""
    pipeline = _pipeline(recipe, network, patches, seed, whole=augmentation is not None)
    objective = recipe.build_objective()
    crops = max(_CHECKED, len(patches))
    batches = [pipeline.batch(number) for number in range(-(-crops // recipe.batch_size))]
    normalization = recipe.build_normalization()

    @tf.function
    def of_batch(batch: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.cast(batch, tf.float32) / value_range(batch.dtype.as_numpy_dtype)
        random = StepRandom(seed, number, recipe.batch_size)
        error = tf.zeros(())
        if augmentation is not None:
            x = augmentation(x, random)
            clean = normalization.batch(x[..., network.channels :])
            output = tf.cast(network(clean, blind=False), tf.float32)
            error = tf.reduce_mean(tf.square(output - clean))
        terms = objective(network, normalization.batch(x), number, random)
        return terms[objective.TERMS[0]], error

    of_batch(batches[0], tf.constant(0))  # traced now, so that what follows takes always as long

    def measure() -> _Measured:
        found = [of_batch(batch, tf.constant(number)) for number, batch in enumerate(batches)]
        return _Measured(*(float(np.mean([each[i] for each in found])) for i in range(2)))

    return measure
