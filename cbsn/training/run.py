"""Runs a training: resolves the settings, builds what they ask for, and trains."""

import contextlib
import dataclasses
import json
import math
import shlex
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from cbsn.augmentation import OwnNoiseAugmentation, PhotoAugmentation
from cbsn.data.pairs import PicturePairs
from cbsn.data.pipeline import PatchPipeline
from cbsn.data.records import Patches, PatchRecords
from cbsn.data.stack_records import NEXT, is_of_stacks
from cbsn.devices import has_gpu
from cbsn.errors import CbsnWarning, ConfigError, TrainingStopped
from cbsn.models import SHIPPED
from cbsn.models.loading import read_initial
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.objectives import Noise2Noise
from cbsn.precision import choose_precision
from cbsn.progress import say
from cbsn.recipes import RECIPES, Recipe, customised
from cbsn.training.checkpoints import check_rounds, lock_run, open_run
from cbsn.training.dataset import (
    BENCHMARKS,
    choose_hole,
    choose_mask_shape,
    choose_strides,
    holds_stacks,
    is_gray,
    open_records,
    without_auto,
)
from cbsn.training.distillation import TARGETS, measure_own, teach
from cbsn.training.distribution import Workers
from cbsn.training.held_out import HeldOutLoss
from cbsn.training.loop import TrainingLoop
from cbsn.training.options import MEAN, ONE, DataOptions, RunOptions
from cbsn.training.stacks import check_stacks, default_method, divide, stack_changes
from cbsn.training.teachers import check_teachers
from cbsn.training.trainer import Trainer

Changes = Mapping[str, Any]

_TEACHER = SHIPPED / "photo"  # default teacher of recipes with an augmentation
_MANY_STEPS = 50_000  # more than a CPU takes in a day, except with the smallest networks
_HOW_READ = ("white", "axes", "select", "normalize", "nan", "repair")  # the pictures or stacks
_ENDLESS = 10**9  # steps
_NEXT_ROUND = 0.4  # factor of each round's steps and learning rate, relative to the one before


def train(recipe_name: str, changes: Changes, options: RunOptions) -> Path:
    """Trains a recipe, from its start or from where the run of that name stopped.

    With several workers (`TF_CONFIG`), each calls this with the same arguments. The run's folder
    holds `checkpoints/` to go on from, the saved models `last` and, with validation, `best`,
    TensorBoard's `events/`, `metrics.jsonl`, and `run.json`. If there are several rounds, those
    before the last are separate runs, named `NAME-round1` and so on.

    Args:
        recipe_name: a key of `RECIPES`.
        changes: settings of the recipe to change, see `cbsn.recipes.customised`. `stride_b`,
            `hole` and `mask_shape` may be `"auto"`, to choose them by the noise in the patches.
        options: everything else about the run.

    Returns:
        The run's folder.

    Raises:
        ConfigError, DataError, ImageError, ModelError: settings, data, models or an earlier run
            cannot be used, or do not fit each other.
        TrainingError: the training cannot go on: too many steps in a row are not finite, a
            checkpoint cannot be written, or a worker is gone. Earlier checkpoints are intact.
        TrainingStopped: SIGINT, SIGTERM or SIGHUP stopped the training, and it has been saved.
    """
    recipe = _without_data(recipe_name, changes, options)
    is_stack = holds_stacks(options.dataset, options.stacks)
    if is_stack:
        check_stacks(recipe, options)
    if recipe.augmentation != "none" and not (options.teacher or options.second_shots):
        options = dataclasses.replace(options, teacher=(str(_TEACHER),))
    _check(recipe, changes, options, is_stack)
    workers = Workers.join(options.cpu_devices)
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    if workers.is_chief and options.resume:
        check_rounds(options.folder, options.rounds)
    for number, each in enumerate(_rounds(recipe_name, changes, options), 1):
        stopped = _run(resolve(recipe_name, *each, workers), workers)
        if stopped and number < options.rounds:
            raise TrainingStopped(
                f"Stopped as requested, after round {number} of {options.rounds}. Run the same "
                "command again to continue."
            )
    if workers.is_chief:
        path = shlex.quote(str(options.folder))
        infer = f"cbsn denoise PICTURES --model {path}"
        say(f"Denoise with: {infer}")
    return options.folder


def _without_data(recipe_name: str, changes: Changes, options: RunOptions) -> Recipe:
    """Returns a recipe as far as it is known without the data, to check it.

    What they decide is missing: strides and masks that are chosen by the noise, and of epochs the
    number of steps, in place of which there are more than in any training.
    """
    changes = without_auto(recipe_name, changes)
    if options.epochs:
        changes["max_steps"] = changes.get("max_steps") or _ENDLESS
    return customised(recipe_name, **changes)


def _check(recipe: Recipe, changes: Changes, options: RunOptions, is_stack: bool) -> None:
    """Rejects conflicting settings, before any work and before waiting for other workers."""
    if options.rounds > 1 and recipe.augmentation == "none":
        fit = [name for name, each in RECIPES.items() if each.augmentation != "none"]
        raise ConfigError(
            f"--rounds is only for the recipes {' and '.join(fit)}. "
            f"Received: --recipe {recipe.name} --rounds {options.rounds}"
        )
    if not is_stack and options.hold_out != DataOptions.hold_out:
        raise ConfigError(
            "--hold_out is for stacks; on pictures, a training is validated with --val_noisy and "
            f"--val_clean. Received: --hold_out {options.hold_out:g} with the pictures "
            f"{options.dataset}"
        )
    benchmarks = {str(each).upper() for each in (options.dataset, options.second_shots)}
    if options.source != DataOptions.source and not benchmarks & {*BENCHMARKS}:
        raise ConfigError(
            "--source is the folder of the prepared SIDD or DND, and other pictures are named by "
            "themselves: omit it. "
            f"Received: --source {options.source} with the pictures {options.dataset}"
        )
    if options.epochs and changes.get("max_steps"):
        raise ConfigError(
            "--epochs and --steps both set how long to train: omit one of them. "
            f"Received: --epochs {options.epochs} --steps {changes['max_steps']}"
        )
    choose_precision(options.precision)
    if options.second_shots == NEXT and not is_stack and not Path(NEXT).exists():
        raise ConfigError(
            f"--second_shots {NEXT} takes the next frame of stacks, and {options.dataset} holds "
            "none: give the folder of the other shots."
        )
    if recipe.augmentation != "none" and (options.noise or options.own_noise):
        raise ConfigError(
            f"The recipe {recipe.name!r} measures the noise of --input and adds such noise: "
            "omit --noise, --noise_sigma, --noise_peak and --own_noise, or use --recipe distill. "
            f"Received: {options.noise or f'--own_noise {options.own_noise}'}"
        )
    objective = recipe.build_objective()
    has_perceptual = isinstance(objective, Noise2Noise) and objective.lmbda > 0
    if options.perceptual_weights is not None and not has_perceptual:
        raise ConfigError(
            "--perceptual_weights are for the perceptual term of the recipe 'n2n-resunet' with a "
            "--lmbda above 0: give these, too, or omit it. Received: --recipe "
            f"{recipe.name} --perceptual_weights {options.perceptual_weights}"
        )
    takes, missing = [], ""
    if objective.SHOTS == 1:
        what = "learns from one noisy shot of each picture"
    elif objective.TAUGHT:
        takes, what = ["--second_shots", "--teacher"], "learns from a teacher's results"
        missing = (
            "Give a trained model, such as --teacher photo, or its results for the same pictures, "
            "with --second_shots FOLDER."
        )
    else:
        takes, what = ["--second_shots"], "takes two noisy shots of each picture"
        missing = (
            "Give the second ones with --second_shots FOLDER; or give clean pictures and "
            "--noise_sigma 25."
        )
        if is_stack:
            missing = f"Take neighbouring frames, with --second_shots {NEXT}, or another recipe."
        if options.noise:
            missing = ""  # noise drawn twice makes two shots
    teachers = " ".join(map(str, options.teacher))
    for flag, value in ("--second_shots", options.second_shots), ("--teacher", teachers):
        if value and flag not in takes:
            raise ConfigError(
                f"The recipe {recipe.name!r} {what}: omit {flag}. Received: {flag} {value}"
            )
    if missing and not (options.second_shots or options.teacher):
        raise ConfigError(f"The recipe {recipe.name!r} {what}. {missing}")


def _rounds(
    recipe_name: str, changes: Changes, options: RunOptions
) -> Iterator[tuple[Changes, RunOptions]]:
    """Yields the recipe's changes and the options of each round, as `train` takes them."""
    recipe = customised(recipe_name)
    for number in range(1, options.rounds):
        name = f"{options.name}-round{number}"
        yield changes, dataclasses.replace(options, name=name, rounds=1)
        before = str(options.checkpoints / name)
        epochs = math.ceil(options.epochs * _NEXT_ROUND)
        models: dict[str, Any] = {"teacher": (before,), "init": before, "second_shots": None}
        models |= {"teacher_holes": (), "targets": MEAN}
        options = dataclasses.replace(options, **models, gray=None, epochs=epochs)
        steps = changes.get("max_steps")
        if not options.epochs:
            steps = math.ceil((steps or recipe.max_steps) * _NEXT_ROUND)
        rate = (changes.get("learning_rate") or recipe.learning_rate) * _NEXT_ROUND
        changes = {**changes, "max_steps": steps, "learning_rate": rate}
    yield changes, options


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one round of a training."""

    recipe: Recipe  # with strides, channels and steps chosen for the data
    options: RunOptions
    records: Patches  # to train on; without the teacher's pictures, which are made later
    held_out: Patches | None  # of stacks
    about_stacks: list[str]  # lines that say what is trained on
    augmentation: PhotoAugmentation | OwnNoiseAugmentation | None
    validation: PicturePairs | None
    initial: list[np.ndarray] | None  # weights to start with; None for fresh ones
    precision: tuple[str, str]  # one of `cbsn.precision.PRECISIONS`, and why
    why_strides: list[str]

    @property
    def noise_text(self) -> str | None:
        """A description of the noise added to the pictures; None without any."""
        added = self.augmentation or self.options.noise
        return str(added) if added else None


def resolve(recipe_name: str, changes: Changes, options: RunOptions, workers: Workers) -> Settings:
    """Completes the settings from the models and the data that the flags name."""
    initial = None
    if options.init:
        if options.gray is not None:
            changes = {**changes, "channels": 1 if options.gray else 3}
        changes, initial = read_initial(options.init, recipe_name, changes)
    # Reports settings that do not fit each other, or models, before the data are prepared.
    recipe = _without_data(recipe_name, changes, options)
    network = recipe.build_network(fresh=False)
    thinnest = recipe.patch_depth // network.z_grid if network.dimensions == 3 else None
    precision = choose_precision(options.precision, thinnest)
    check_teachers(options.teacher, options.teacher_holes)
    validation = None
    if options.val_clean is not None and workers.is_chief:
        noisy = options.val_noisy or options.noise
        validation = PicturePairs(noisy, options.val_clean, options.val_images, white=options.white)
        validation.check()
    with workers.chief_first():
        method = default_method(RECIPES[recipe_name])
        opened = open_records(
            options,
            convert=workers.is_chief,
            normalize=method,
            patch_depth=recipe.patch_depth,
        )
    records, held_out, about_stacks = divide(opened, options, measure=workers.is_chief)
    if is_of_stacks(opened):
        changes = {**changes, **stack_changes(RECIPES[recipe_name], records)}
    elif changes.get("scaling"):
        raise ConfigError(
            "The model of --init was trained on stacks, so it cannot go on with pictures. "
            f"Received: --init {options.init} with the pictures {options.dataset}"
        )
    gray = is_gray(records)
    if options.gray or (options.gray is None and gray and initial is None):
        changes = {**changes, "channels": 1}
    changes, why_strides = choose_strides(recipe_name, changes, records, options.noise, gray)
    changes, why_hole = choose_hole(recipe_name, changes, records, options.noise, gray)
    changes, why_mask = choose_mask_shape(recipe_name, changes, records, options.noise, gray)
    recipe = _without_data(recipe_name, changes, options)
    epochs = options.epochs or (0 if changes.get("max_steps") else recipe.epochs)
    if epochs:
        steps = epochs * math.ceil(len(records) / recipe.batch_size)
        changes = {**changes, "max_steps": steps}
    recipe = customised(recipe_name, **changes, ema=options.ema)
    channels = recipe.network_config["channels"]
    augmentation: PhotoAugmentation | OwnNoiseAugmentation | None = None
    if recipe.augmentation != "none":
        augmentation = PhotoAugmentation(measure_own(records, channels), recipe.patch_size)
    elif options.own_noise:
        own = measure_own(records, channels)
        augmentation = OwnNoiseAugmentation(own, recipe.patch_size, options.own_noise)
    return Settings(
        recipe,
        options,
        records,
        held_out,
        about_stacks,
        augmentation,
        validation,
        initial,
        precision,
        [*why_strides, *why_hole, *why_mask],
    )


def _trainer(settings: Settings, workers: Workers) -> Trainer:
    recipe, options = settings.recipe, settings.options
    gpus = len(tf.config.get_visible_devices("GPU"))
    precision, _ = settings.precision
    facts = [recipe.to_dict(), precision, options.seed]
    facts += [settings.records.counts, gpus, settings.noise_text]
    workers.agree(zlib.crc32(json.dumps(facts).encode()), "flags, precision, data and GPUs")
    objective = recipe.build_objective()
    if isinstance(objective, Noise2Noise):
        objective.perceptual_weights = options.perceptual_weights
    trainer = Trainer(
        recipe,
        objective=objective,
        precision=precision,
        ema=recipe.ema,
        seed=options.seed,
        accumulate=options.accumulate,
        xla=options.xla,
        strategy=workers.strategy,
        augmentation=settings.augmentation,
    )
    if settings.initial is not None:
        trainer.initialize(settings.initial)
    return trainer


def _pipeline(settings: Settings, workers: Workers) -> PatchPipeline:
    recipe, options = settings.recipe, settings.options
    return PatchPipeline(
        settings.records,
        recipe.patch_size,
        recipe.batch_size,
        options.seed,
        worker=workers.index,
        workers=workers.count,
        skip_bad_records=options.skip_bad_records,
        channels=recipe.network_config["channels"],
        noise=options.noise,
        shots=recipe.build_objective().SHOTS,
        whole=settings.augmentation is not None,
        patch_depth=recipe.patch_depth,
    )


def _turned_for(network: DenoisingNetwork, pipeline: PatchPipeline) -> PatchPipeline:
    """Returns the pipeline of crops that are turned only in ways that suit the network's mask."""
    return dataclasses.replace(pipeline, orientations=network.orientations, flips_z=network.flips_z)


def _run(settings: Settings, workers: Workers) -> bool:
    """Trains in the run's folder; returns whether a request to stop came too late."""
    options, folder = settings.options, settings.options.folder
    pipeline = _pipeline(settings, workers)  # before the network, as its mistakes are told at once
    trainer = _trainer(settings, workers)
    pipeline = _turned_for(trainer.network, pipeline)
    with contextlib.ExitStack() as lock, workers.watch():
        with workers.chief_first():
            if workers.is_chief:
                lock.enter_context(lock_run(folder))
                facts = {
                    "average": bool(settings.recipe.ema),
                    "rounds": options.rounds,
                    "seed": options.seed,
                    "dataset": options.dataset,
                    "second_shots": options.second_shots,
                    "noise": settings.noise_text,
                    "init": options.init,
                    "teacher": [*options.teacher],
                    "teacher_holes": [*options.teacher_holes],
                    "targets": options.targets,
                    **{name: getattr(options, name) for name in _HOW_READ},
                }
                open_run(folder, {**settings.recipe.to_dict(), **facts}, resume=options.resume)
                _print_settings(settings, trainer, workers)
            if options.teacher:
                records = settings.records
                assert isinstance(records, PatchRecords)  # as a teacher excludes second shots
                taught = teach(
                    records,
                    options.teacher,
                    folder / TARGETS,
                    holes=options.teacher_holes,
                    targets=options.targets,
                    precision=options.precision,
                    skip_bad_records=options.skip_bad_records,
                    write=workers.is_chief,
                )
                pipeline = dataclasses.replace(pipeline, records=taught)
        held_out = None
        if settings.held_out is not None and workers.is_chief:
            skip = options.skip_bad_records
            held_out = HeldOutLoss(trainer, settings.held_out, options.seed, skip_bad_records=skip)
        validation = settings.validation
        loop = TrainingLoop(folder, trainer, pipeline, validation, options, workers, held_out)
        return loop.run()


def _print_settings(settings: Settings, trainer: Trainer, workers: Workers) -> None:
    if settings.recipe.max_steps >= _MANY_STEPS and not has_gpu():
        warnings.warn(
            f"{settings.recipe.max_steps:,} steps can take weeks without a GPU. A small network "
            "takes far less: --channels 16 --steps 4000 --learning_rate 2e-3 --ema 0.995.",
            CbsnWarning,
            stacklevel=2,
        )
    precision, why = settings.precision
    say(
        f"Precision {precision}: {why}. Workers: {workers.count}, devices: "
        f"{workers.strategy.num_replicas_in_sync}, parts of a batch on each: {trainer.accumulate}."
    )
    for line in (*settings.about_stacks, *settings.why_strides):
        say(line)
    teacher, noise = settings.options.teacher, settings.noise_text
    if teacher:
        holes = settings.options.teacher_holes
        with_holes = f", with holes of {', '.join(map(str, holes))} px" if holes else ""
        one = settings.options.targets == ONE
        drawn = "; each crop learns from one of the pictures" if one else ""
        say(f"Teacher: {' and '.join(map(str, teacher))}{with_holes}{drawn}.")
    if noise and (teacher or settings.augmentation):
        say(f"The student sees the teacher's pictures with {noise}.")
    elif noise:
        say(f"The pictures are assumed to be clean; added to them: {noise}.")
