"""Cuts pictures into patches in memory, and trains a network further on them for some time."""

import contextlib
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cbsn.augmentation import PhotoAugmentation
from cbsn.data.pairs import spread
from cbsn.data.pipeline import PatchPipeline
from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.images.image_files import read_header, read_picture, to_rgb
from cbsn.images.picture import picture_of
from cbsn.images.stacks.opening import is_stack
from cbsn.images.stacks.scaling import NOT_FINITE, Scaling, count_missing, without_alpha
from cbsn.images.stacks.stack import Stack
from cbsn.inference.outputs import find_sources
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.noise.repair import parse_repairs, repair_picture
from cbsn.progress import progress_bar
from cbsn.recipes import Recipe
from cbsn.training.step_random import StepRandom
from cbsn.training.trainer import Trainer, unit
from cbsn.value_range import to_unit

PATCH_SIZE = 256  # larger than the training crops, so that these differ
SMALLEST = 16  # side of a patch; a smaller one contains almost nothing to learn from
MOST_PATCHES = 512  # these take 400 MB of memory as float32, or 100 MB as bytes
MOST_BYTES = 2 << 30  # of pixels: 30 photographs of 24 megapixels, read in about 30 seconds

_HELD_OUT = 8  # one of this many patches is held out
_EMA = 0.998
_CHECKED = 32  # crops to compare the loss on, at least one of each patch that is held out
_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.125)  # of the weights' change; the largest harmless is used

# Factor by which the error on noise-free pictures may always grow: 0.05 dB, half of what is
# promised, since other pictures may become worse than these.
_HARM = 10 ** (0.05 / 10)

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s{postfix}"


OpenStack = Callable[[Path], contextlib.AbstractContextManager[list[tuple[Stack, Scaling]]]]
"""Opens the stacks of a file, with the scaling of each."""


class PicturePatches:
    """Patches of pictures in memory, [P, P, 3·shots] of one dtype, for a `PatchPipeline`.

    `sources` names the picture of each patch.
    """

    channels, patch_depth = 3, 1

    def __init__(self, patches: Sequence[np.ndarray], sources: Sequence[str], shots: int = 1):
        self._patches = [*patches]
        self._sources = [*sources]
        self.shots = shots
        self.patch_size = self._patches[0].shape[0]
        self.dtype = self._patches[0].dtype
        self.counts: Sequence[int] = [len(self._patches)]
        self.pictures = len({*self._sources})

    @classmethod
    def read(
        cls,
        pictures: Iterable[str | Path | np.ndarray],
        open_stack: OpenStack,
        *,
        white: float | None = None,
        axes: str | None = None,
        repair: str | None = None,
    ) -> "PicturePatches":
        """Cuts pictures into patches, one picture at a time.

        Gray becomes three equal channels, and alpha is dropped. The patches are 256 pixels wide, or
        less if half of the pictures are smaller. Omits pictures smaller than the patches or than
        `SMALLEST` in height or width, and damaged ones, with a `CbsnWarning`. Reads at most
        `MOST_BYTES` of pictures and takes at most `MOST_PATCHES` patches, both spread evenly. If
        the dtypes differ, all patches become float32.

        Stacks are scaled as `open_stack` says; all of their planes count. For what counts as one
        with `axes`, see `is_stack`. `repair` says what is repaired in pictures, see
        `cbsn.noise.repair.parse_repairs`.
        """
        repairs = parse_repairs(repair)
        sources = _sources(pictures)
        sizes = {name: _size(source, axes) for name, source in sources.items()}
        fit = len(sizes) * MOST_BYTES // max(1, sum(sizes.values()))
        chosen = spread([*sizes], max(1, min(fit, MOST_PATCHES)))
        # The smallest come first, so that the others can use the room that they leave.
        chosen.sort(key=lambda name: (sizes[name], name))
        found: dict[str, list[np.ndarray]] = {}
        room = MOST_PATCHES
        for number, name in enumerate(chosen):
            try:
                most, source = room // (len(chosen) - number), sources[name]
                if isinstance(source, Path) and is_stack(source, axes):
                    patches = _cut_stack(name, source, most, open_stack)
                else:
                    patches = _cut(name, source, most, white, repairs)
            except (ImageError, MemoryError) as error:
                reason = str(error) or f"{name}: not enough memory"
                warnings.warn(f"not used for the adaptation: {reason}", CbsnWarning, stacklevel=2)
                continue
            found[name] = patches
            room -= len(patches)
        if not found:
            raise DataError(
                f"No picture has the {SMALLEST} px in height and width that adaptation needs: "
                f"denoise without adapting. Tried: {len(chosen)}"
            )
        return cls(*_alike(found))

    def __len__(self) -> int:
        return len(self._patches)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._patches)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._patches[index]

    def describe(self, index: int) -> str:
        """Returns a text that names the picture of a patch."""
        return f"a patch of {self._sources[index]}"

    def split(self) -> tuple["PicturePatches", "PicturePatches"]:
        """Returns the patches to train on, and every eighth patch, which is held out.

        No pixel is in both, unless there is only one patch: then it is in both.
        """
        if len(self) == 1:
            return self, self
        held_out = {*range(1, len(self), _HELD_OUT)}
        return self._some({*range(len(self))} - held_out), self._some(held_out)

    def paired(self, others: Sequence[np.ndarray]) -> "PicturePatches":
        """Returns pairs of the first patches and `others`, of the same shape, dtype and order."""
        pairs = [
            np.concatenate(shots, axis=-1) for shots in zip(self._patches, others, strict=False)
        ]
        return PicturePatches(pairs, self._sources[: len(pairs)], shots=2)

    def shuffled(self, seed: int) -> "PicturePatches":
        """Returns the patches in a random order that depends on the seed only."""
        return self._some(np.random.default_rng(seed).permutation(len(self)))

    def _some(self, indices: Iterable[int]) -> "PicturePatches":
        indices = [*indices]
        return PicturePatches(
            [self._patches[index] for index in indices],
            [self._sources[index] for index in indices],
            self.shots,
        )


def _sources(pictures: Iterable[str | Path | np.ndarray]) -> dict[str, Path | np.ndarray]:
    """Returns files and arrays by their names."""
    given = [*pictures]
    patterns = [os.fspath(each) for each in given if not isinstance(each, np.ndarray)]
    arrays = [each for each in given if isinstance(each, np.ndarray)]
    files = find_sources(patterns) if patterns or not arrays else []
    return {
        **{str(path): path for path in files},
        **{f"array {number}": array for number, array in enumerate(arrays)},
    }


def _size(source: Path | np.ndarray, axes: str | None) -> int:
    """Returns how many bytes of pixels are read of a picture; 0 of a stack, read plane by plane."""
    if isinstance(source, np.ndarray):
        return source.nbytes
    return 0 if is_stack(source, axes) else read_header(source).pixel_bytes


def _cut_stack(name: str, source: Path, count: int, open_stack: OpenStack) -> list[np.ndarray]:
    """Returns at most `count` patches of a file's stacks, from planes that are spread evenly."""
    patches: list[np.ndarray] = []
    with open_stack(source) as stacks:
        for number, (stack, scaling) in enumerate(stacks):
            wanted = (count - len(patches)) // (len(stacks) - number)
            planes = spread([*stack.layout.indices()], max(1, min(wanted, stack.layout.planes)))
            for place, index in enumerate(planes):
                scale = scaling.of(stack.layout.file_channel(index))
                plane = without_alpha(stack.read(index))
                if count_missing(plane):  # of planes that were not looked at to scale them
                    raise ImageError(f"{name} {NOT_FINITE}")
                if fault := scale.faulty(plane):
                    plane = fault[1]
                pixels = np.atleast_3d(scale.apply(plane))
                pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
                patches += _pieces(
                    name, pixels, wanted // len(planes) + (place < wanted % len(planes))
                )
    return patches


def _cut(
    name: str,
    source: Path | np.ndarray,
    count: int,
    white: float | None,
    repairs: tuple[str, ...],
) -> list[np.ndarray]:
    """Returns at most `count` square patches of a picture, without overlap."""
    if isinstance(source, np.ndarray):
        picture = picture_of(source, white=white)
    else:
        picture = read_picture(source, white=white)
    if repairs:
        repair_picture(picture.pixels, repairs)
    return _pieces(name, to_rgb(picture), count)


def _pieces(name: str, pixels: np.ndarray, count: int) -> list[np.ndarray]:
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise ImageError(f"{name} has {width} × {height} px, too few to learn from.")
    side = min(PATCH_SIZE, height, width)
    tops, lefts = (
        np.linspace(0, length - side, length // side).astype(int) for length in (height, width)
    )
    places = [(top, left) for top in tops for left in lefts]
    # Chosen at random, as evenly spaced ones might all be in one column.
    order = np.random.default_rng(0).permutation(len(places))[:count]
    return [
        pixels[top : top + side, left : left + side].copy()
        for top, left in (places[index] for index in sorted(order))
    ]


def _alike(found: dict[str, list[np.ndarray]]) -> tuple[list[np.ndarray], list[str]]:
    """Returns patches of one size and dtype, without those too small, and the picture of each."""
    size = statistics.median_high(patches[0].shape[0] for patches in found.values())
    small = [source for source, patches in found.items() if patches[0].shape[0] < size]
    if small:
        note = f"not used for the adaptation, smaller than {size} px: {len(small)}, such as "
        warnings.warn(note + small[0], CbsnWarning, stacklevel=3)
    kept = [(source, each) for source, each in found.items() if source not in small]
    sources = [source for source, patches in kept for _ in patches]
    patches = [patch[:size, :size] for _, patches in kept for patch in patches]
    if len({patch.dtype for patch in patches}) > 1:
        # Floats are in [0, 1] already.
        patches = [to_unit(patch) for patch in patches]
    return patches, sources


class Tuned(NamedTuple):
    """A network that was trained further, and its loss on the held-out patches."""

    network: DenoisingNetwork
    steps: int
    before: float
    after: float
    share: float = 1.0  # of the weights' change that is taken; 0 if even an eighth does harm

    @property
    def is_better(self) -> bool:
        """Whether the loss fell without harm; False if it is NaN."""
        return self.share > 0 and self.after < self.before


def tune(
    recipe: Recipe,
    network: DenoisingNetwork,
    patches: PicturePatches,
    augmentation: PhotoAugmentation | None,
    deadline: float,
    max_steps: int | None,
    harm: float,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> Tuned:
    """Trains a copy of a network, in its precision, until `deadline` by `time.monotonic()`.

    It takes at least one step. The loss before and after is the first term of the objective, on the
    same crops with the same random numbers. The time to measure it counts.

    With an augmentation, which makes the training pairs from the second picture of each pair, the
    learning rate falls to 0 along a cosine, over `max_steps` or the time. If the mean squared error
    of noise-free pictures, for values in [0, 1], then grows by more than 0.05 dB and by more than
    `harm`, only part of the weights' change is taken: down to an eighth, or else none.

    `on_step` is called after each step; an error that it raises ends the training.
    """
    weights = network.get_weights()
    precision = network.dtype_policy.name
    trainer = Trainer(recipe, precision=precision, ema=_EMA, seed=seed, augmentation=augmentation)
    trainer.initialize(weights)
    training, held_out = (
        PatchPipeline(
            part,
            recipe.patch_size,
            recipe.batch_size,
            seed,
            channels=network.channels,
            shots=recipe.build_objective().SHOTS,
            whole=augmentation is not None,
            orientations=network.orientations,
        )
        for part in patches.split()
    )
    count = -(-max(_CHECKED, len(held_out.records)) // recipe.batch_size)
    batches = [held_out.batch(step) for step in range(count)]
    measure = _measure(recipe, trainer.model, batches, seed, augmentation)
    started = time.monotonic()
    before, error = measure()
    # The second measurement takes as long as the first.
    deadline -= time.monotonic() - started
    falls = augmentation is not None
    steps = _train(trainer, training, deadline, max_steps, falls, on_step)
    after, share = _without_harm(trainer.model, weights, measure, max(error * _HARM, error + harm))
    return Tuned(trainer.model, steps, before, after, share)


def _measure(
    recipe: Recipe,
    network: DenoisingNetwork,
    batches: Sequence[np.ndarray],
    seed: int,
    augmentation: PhotoAugmentation | None,
) -> Callable[[], tuple[float, float]]:
    """Returns a function that measures the network's current loss and noise-free error."""
    objective, normalization = recipe.build_objective(), recipe.build_normalization()

    @tf.function
    def of_batch(batch: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = unit(batch)
        random = StepRandom(seed, number, recipe.batch_size)
        error = tf.zeros(())
        if augmentation is not None:
            x = augmentation(x, random)
            clean = normalization.batch(x[..., network.channels :])
            output = tf.cast(network(clean, blind=False), tf.float32)
            error = tf.reduce_mean(tf.square(output - clean))
        terms = objective(network, normalization.batch(x), number, random)
        return terms[objective.TERMS[0]], error

    of_batch(batches[0], tf.constant(0))  # traced now, so that all measurements take the same time

    def measure() -> tuple[float, float]:
        found = [of_batch(batch, tf.constant(number)) for number, batch in enumerate(batches)]
        loss, error = (float(np.mean(values)) for values in zip(*found, strict=True))
        return loss, error

    return measure


def _train(
    trainer: Trainer,
    pipeline: PatchPipeline,
    deadline: float,
    max_steps: int | None,
    falls: bool,
    on_step: Callable[[], None],
) -> int:
    """Trains until the deadline or `max_steps`; the learning rate may fall. Returns the steps."""
    started = time.monotonic()
    seconds = max(1, math.ceil(deadline - started))
    now = started
    with (
        # Closed in any case: a process may hang at its end while tf.data reads on.
        contextlib.closing(pipeline.guard(iter(pipeline.dataset()))) as batches,
        progress_bar(total=seconds, desc="adapting", bar_format=_BAR) as bar,
    ):
        for steps, batch in enumerate(batches, 1):
            if falls:
                done = (steps - 1) / max_steps if max_steps else (now - started) / seconds
                trainer.rate_scale.assign(0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))
            metrics = trainer.train_step(batch)
            now = time.monotonic()
            if bar.update(min(seconds, int(now - started)) - bar.n):
                bar.set_postfix(step=steps, loss=f"{float(metrics['total']):.4f}", refresh=False)
            on_step()
            if now >= deadline or steps == max_steps:
                break
    return steps


def _without_harm(
    network: DenoisingNetwork,
    first: list[np.ndarray],
    measure: Callable[[], tuple[float, float]],
    most: float,
) -> tuple[float, float]:
    """Keeps the largest share of the change with an error up to `most`; returns loss and share."""
    last = network.get_weights()
    trained, error = measure()
    loss = trained
    for share in _SHARES:
        if share < 1:
            network.set_weights([a + share * (b - a) for a, b in zip(first, last, strict=True)])
            loss, error = measure()
        if error <= most:
            return loss, share
    return trained, 0.0
