"""Training a network further for some time, and telling whether that was of use."""

import contextlib
import dataclasses
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from cbsn.augmentation import PhotoAugmentation
from cbsn.data.picture_pairs import spread
from cbsn.data.pipeline import PatchPipeline
from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.images.image_files import pixel_bytes, read_picture, to_rgb
from cbsn.inference.outputs import find_sources
from cbsn.recipes import Recipe
from cbsn.training.step_random import StepRandom
from cbsn.training.trainer import Trainer
from cbsn.value_range import value_range

PATCH_SIZE = 256
"""Side of the patches; larger than the crops that are trained on, so that these differ."""

SMALLEST = 16
"""Side of the smallest patches; in smaller ones there is next to nothing to learn from."""

MOST_PATCHES = 512
"""In memory these are 400 MB of float32, or 100 MB of bytes."""

MOST_BYTES = 2 << 30
"""Of pixels that are read: some thirty photographs of 24 megapixels, in about as many seconds."""

_HELD_OUT = 8
"""One patch of so many is held out."""


class PicturePatches:
    """Equally large patches of pictures, in memory; `PatchPipeline` takes them as records.

    Args:
        patches: at least one, [P, P, C] of one shape and dtype: uint8, uint16, or float32 in
            [0, 1]; C is 3, or 6 for two shots.
        sources: of each, the picture's name.

    Attributes:
        patch_size: int, P.
        dtype: of the patches.
        counts: list of one int, how many they are.
        pictures: int, how many pictures they are of.

    Example:
        >>> patches = PicturePatches.read(["noisy/*.png"])
        >>> training, held_out = patches.split()
    """

    def __init__(self, patches: Sequence[np.ndarray], sources: Sequence[str]):
        self._patches = [*patches]
        self._sources = [*sources]
        self.patch_size = self._patches[0].shape[0]
        self.dtype = self._patches[0].dtype
        self.counts = [len(self._patches)]
        self.pictures = len({*self._sources})

    @classmethod
    def read(
        cls, image_paths: Iterable[str | Path], *, white: float | None = None
    ) -> "PicturePatches":
        """Cuts pictures into patches, one picture at a time.

        Gray becomes three equal channels, alpha is dropped. The patches are 256 pixels wide, or
        less if half of the pictures are smaller; pictures that are smaller still are left out, as
        are those less than `SMALLEST` pixels high or wide, and damaged ones, each with a
        `CbsnWarning`. Of many or large pictures it takes some, at most `MOST_BYTES`, and of these
        `MOST_PATCHES` patches, evenly. If the pictures are not all of one dtype, the patches are
        float32.

        Args:
            image_paths: folders, globs or files, each as for `find_images`.
            white: float > 0, the value of white in the files, as for `read_picture`. Default None.

        Raises:
            DataError: if there is no picture, or none that can be read and is large enough.
        """
        paths = find_sources(image_paths)
        sizes = {path: pixel_bytes(path) for path in paths}
        fit = len(paths) * MOST_BYTES // max(1, sum(sizes.values()))
        chosen = spread(paths, max(1, min(fit, MOST_PATCHES)))
        # The smallest first, so that the others may take what room these leave.
        chosen.sort(key=lambda path: (sizes[path], path))
        found: dict[str, list[np.ndarray]] = {}
        room = MOST_PATCHES
        for number, path in enumerate(chosen):
            try:
                patches = _cut(path, room // (len(chosen) - number), white)
            except (ImageError, MemoryError) as error:
                reason = str(error) or f"{path}: not enough memory"
                warnings.warn(f"left out of the adaptation: {reason}", CbsnWarning, stacklevel=2)
                continue
            found[str(path)] = patches
            room -= len(patches)
        if not found:
            raise DataError(
                f"There is no picture to adapt to, of {SMALLEST} px or more in height and width: "
                f"denoise without --adapt. Tried: {len(chosen)}"
            )
        return cls(*_alike(found))

    def __len__(self) -> int:
        return len(self._patches)

    def __getitem__(self, index: int) -> np.ndarray:
        """The patch number `index`, [P, P, C] of `dtype`."""
        return self._patches[index]

    def describe(self, index: int) -> str:
        """Says which picture a patch is of."""
        return f"a patch of {self._sources[index]}"

    def split(self) -> tuple["PicturePatches", "PicturePatches"]:
        """Returns the patches to train on, and every eighth one, which is held out of that.

        No pixel is in both, unless there is but one patch: then it is both.
        """
        if len(self) == 1:
            return self, self
        held_out = {*range(1, len(self), _HELD_OUT)}
        return self._some({*range(len(self))} - held_out), self._some(held_out)

    def paired(self, others: Sequence[np.ndarray]) -> "PicturePatches":
        """Returns the first patches with a second shot of each, [P, P, 6].

        Args:
            others: one or more, of the patches' shape and dtype, in their order.
        """
        pairs = [
            np.concatenate(shots, axis=-1) for shots in zip(self._patches, others, strict=False)
        ]
        return PicturePatches(pairs, self._sources[: len(pairs)])

    def shuffled(self, seed: int) -> "PicturePatches":
        """Returns the patches in a random order, a function of the seed."""
        return self._some(np.random.default_rng(seed).permutation(len(self)))

    def _some(self, indices: Iterable[int]) -> "PicturePatches":
        indices = [*indices]
        return PicturePatches(
            [self._patches[index] for index in indices], [self._sources[index] for index in indices]
        )


def _cut(path: Path, count: int, white: float | None) -> list[np.ndarray]:
    """At most so many square patches of a picture, which do not overlap.

    Raises:
        ImageError: if it cannot be read, or is too small.
    """
    pixels = to_rgb(read_picture(path, white=white))
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise ImageError(f"{path} has {width} × {height} px, too few to learn from.")
    side = min(PATCH_SIZE, height, width)
    tops, lefts = (
        np.linspace(0, length - side, length // side).astype(int) for length in pixels.shape[:2]
    )
    places = [(top, left) for top in tops for left in lefts]
    # By chance, as every so-manieth might be all of one column.
    order = np.random.default_rng(0).permutation(len(places))[:count]
    return [
        pixels[top : top + side, left : left + side].copy()
        for top, left in (places[index] for index in sorted(order))
    ]


def _alike(found: dict[str, list[np.ndarray]]) -> tuple[list[np.ndarray], list[str]]:
    """The patches in one size and dtype, and the picture of each; too small ones are left out."""
    size = statistics.median_high(patches[0].shape[0] for patches in found.values())
    small = [source for source, patches in found.items() if patches[0].shape[0] < size]
    if small:
        warnings.warn(
            f"left out of the adaptation as smaller than {size} px: {len(small)}, such as "
            f"{small[0]}",
            CbsnWarning,
            stacklevel=3,
        )
    kept = [
        (source, patch[:size, :size])
        for source, patches in found.items()
        if source not in small
        for patch in patches
    ]
    dtypes = {patch.dtype for _, patch in kept}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    patches = [
        patch
        if patch.dtype == dtype
        else patch.astype(np.float32) / np.float32(value_range(patch.dtype))
        for _, patch in kept
    ]
    return patches, [source for source, _ in kept]


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
