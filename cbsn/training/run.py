"""A training from its flags to its end."""

import contextlib
import dataclasses
import functools
import json
import math
import shlex
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from cbsn.augmentation import OwnNoiseAugmentation, PhotoAugmentation
from cbsn.data.picture_pairs import PicturePairs
from cbsn.data.pipeline import PatchPipeline
from cbsn.errors import ConfigError, TrainingStopped
from cbsn.models.loading import SHIPPED, read_initial
from cbsn.precision import choose_precision
from cbsn.recipes import RECIPES, Recipe, customised
from cbsn.training.checkpoints import lock_run, open_run
from cbsn.training.dataset import AUTO, choose_strides, is_gray, open_records, without_auto
from cbsn.training.distillation import TARGETS, measure_own, teach
from cbsn.training.distribution import Cluster, Workers, make_strategy
from cbsn.training.loop import TrainingLoop
from cbsn.training.options import RunOptions
from cbsn.training.trainer import Trainer

TEACHER = SHIPPED / "photo"
"""Who teaches recipes with an augmentation, unless told otherwise: the small model that ships."""

_NEXT_ROUND = 0.4
"""Part of the steps, and of the learning rate, that each further round has."""


def train(recipe_name: str, changes: Mapping[str, Any], options: RunOptions) -> Path:
    """Trains a recipe, from its start or from where the run of that name stopped.

    With several workers (`TF_CONFIG`), each calls this with the same arguments. The run's folder
    holds `checkpoints/` to go on from, the saved models `last` and, with validation, `best`,
    TensorBoard's `events/`, `metrics.jsonl`, and `run.json`. Of several rounds, those before the
    last are runs of their own, `NAME-round1` and so on.

    Args:
        recipe_name: str, what to train.
        changes: settings of the recipe to change, as `cbsn.recipes.customised` takes them;
            `stride_b` may be `"auto"`, to be chosen by the noise in the patches.
        options: all that is not the recipe's.

    Returns:
        The run's folder.

    Raises:
        ConfigError: if settings do not fit each other, the data, or an earlier run, or if another
            process trains that run.
        DataError: if the data set or the validation pictures cannot be used.
        ImageError: if a validation picture cannot be read.
        ModelError: if the run has checkpoints, but all are damaged.
        TrainingError: if it cannot go on: too many steps in a row are not finite, a checkpoint
            cannot be written, or another worker is gone. Earlier checkpoints are intact.
        TrainingStopped: if SIGINT or SIGTERM asked it to stop; it has saved itself.
    """
    devices = _Devices(options.cpu_devices)
    for number, each in enumerate(_rounds(recipe_name, changes, options), 1):
        folder, stopped = _train(recipe_name, *each, devices)
        if stopped and number < options.rounds:
            raise TrainingStopped(
                f"Stopped as asked to, when round {number} of {options.rounds} was done. The same "
                "command goes on from here."
            )
    if devices.workers.is_chief:
        path = shlex.quote(str(folder))
        infer = f"python infer.py --modelpath {path} --imagepath PICTURES --savepath out"
        print(f"Denoise with: {infer}")
    return folder


class _Devices:
    """The devices and processes that train, which can be set up once only in a process."""

    def __init__(self, cpu_devices: int):
        self._cpu_devices = cpu_devices

    @functools.cached_property
    def workers(self) -> Workers:
        """All that take part."""
        cluster = Cluster.read()
        if cluster:
            print(f"Worker {cluster.index} waits for all of {cluster.addresses}.", flush=True)
        return Workers(make_strategy(cluster, self._cpu_devices), cluster)


def _rounds(
    recipe_name: str, changes: Mapping[str, Any], options: RunOptions
) -> Iterator[tuple[Mapping[str, Any], RunOptions]]:
    """The settings of each round, as for `train`."""
    recipe = customised(recipe_name)
    if options.rounds > 1 and recipe.augmentation == "none":
        fit = [name for name, each in RECIPES.items() if each.augmentation != "none"]
        raise ConfigError(
            f"--rounds is for the recipes {' and '.join(fit)}. "
            f"Received: --recipe {recipe_name} --rounds {options.rounds}"
        )
    for number in range(1, options.rounds):
        name = f"{options.name}-round{number}"
        yield changes, dataclasses.replace(options, name=name, rounds=1)
        before = str(options.checkpoints / name)
        options = dataclasses.replace(
            options,
            teacher=(before,),
            second_shots=None,
            init=before,
            gray=None,
            epochs=math.ceil(options.epochs * _NEXT_ROUND),
        )
        steps = changes.get("max_steps")
        if not options.epochs:
            steps = math.ceil((steps or recipe.max_steps) * _NEXT_ROUND)
        rate = (changes.get("learning_rate") or recipe.learning_rate) * _NEXT_ROUND
        changes = {**changes, "max_steps": steps, "learning_rate": rate}
    yield changes, options


def _train(
    recipe_name: str, changes: Mapping[str, Any], options: RunOptions, devices: _Devices
) -> tuple[Path, bool]:
    """Trains one round; returns its folder, and whether it was asked to stop in its last step."""
    if options.epochs and changes.get("max_steps"):
        raise ConfigError(
            "--epochs and --maxiter both say how long to train; omit one of them. "
            f"Received: --epochs {options.epochs} --maxiter {changes['max_steps']}"
        )
    precision, why = choose_precision(options.precision)
    initial = None
    if options.init:
        if options.gray is not None:
            changes = {**changes, "channels": 1 if options.gray else 3}
        changes, initial = read_initial(options.init, recipe_name, changes)
    recipe = customised(recipe_name, **without_auto(recipe_name, changes))
    augmented = recipe.augmentation != "none"
    if augmented and not (options.teacher or options.second_shots):
        options = dataclasses.replace(options, teacher=(str(TEACHER),))
    shots = _check_shots(recipe, options)
    workers = devices.workers
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    recipe.build_network()  # its settings may not fit each other, which is to be known at once
    validation = None
    if options.val_clean is not None and workers.is_chief:
        noisy = options.val_noisy or options.noise
        validation = PicturePairs(noisy, options.val_clean, options.val_images, white=options.white)
        validation.check()
    with workers.chief_first():
        records = open_records(
            options.dataset,
            options.source,
            second_shots=options.second_shots,
            white=options.white,
            convert=workers.is_chief,
        )
    gray = is_gray(records)
    if options.gray or (options.gray is None and gray and initial is None):
        changes = {**changes, "channels": 1}
    why_strides = []
    if changes.get("stride_b") == AUTO:
        changes, why_strides = choose_strides(
            recipe_name, changes, records, noise=options.noise, gray=gray
        )
    recipe = customised(recipe_name, **changes)
    channels = recipe.network_config["channels"]
    augmentation = None
    if augmented:
        augmentation = PhotoAugmentation(measure_own(records, channels).models, recipe.patch_size)
    elif options.own_noise:
        own = measure_own(records, channels, options.own_noise)
        augmentation = OwnNoiseAugmentation(own, recipe.patch_size)
    pipeline = PatchPipeline(
        records,
        recipe.patch_size,
        recipe.batch_size,
        options.seed,
        worker=workers.index,
        workers=workers.count,
        skip_bad_records=options.skip_bad_records,
        channels=channels,
        noise=options.noise,
        shots=shots,
        whole=augmentation is not None,
    )
    epochs = options.epochs or (0 if changes.get("max_steps") else recipe.epochs)
    if epochs:
        steps = epochs * pipeline.steps_per_epoch
        recipe = customised(recipe_name, **{**changes, "max_steps": steps})
    gpus = len(tf.config.get_visible_devices("GPU"))
    noise = augmentation or options.noise
    noise = str(noise) if noise else None
    ema = recipe.ema if options.ema is None else options.ema
    facts = [recipe.to_dict(), precision, ema, options.seed, records.counts, gpus, noise]
    workers.agree(zlib.crc32(json.dumps(facts).encode()), "flags, precision, data and GPUs")
    trainer = Trainer(
        recipe,
        precision=precision,
        ema=ema,
        seed=options.seed,
        accumulate=options.accumulate,
        xla=options.xla,
        strategy=workers.strategy,
        perceptual_weights=options.perceptual_weights,
        augmentation=augmentation,
    )
    if initial is not None:
        trainer.initialize(initial)
    folder = options.checkpoints / options.name
    settings = {
        "average": bool(ema),
        "seed": options.seed,
        "dataset": options.dataset,
        "second_shots": options.second_shots,
        "noise": noise,
        "init": options.init,
        "teacher": [*options.teacher],
    }
    with contextlib.ExitStack() as lock, workers.watch():
        with workers.chief_first():
            if workers.is_chief:
                lock.enter_context(lock_run(folder))
                open_run(folder, recipe, settings, resume=options.resume)
                print(
                    f"Precision {precision}: {why}. Workers: {workers.count}, devices: "
                    f"{workers.strategy.num_replicas_in_sync}, parts of a batch on each: "
                    f"{trainer.accumulate}."
                )
                for line in why_strides:
                    print(line)
                if options.teacher:
                    print(f"Teacher: {' and '.join(map(str, options.teacher))}.")
                if noise and (options.teacher or augmented):
                    print(f"The student sees the teacher's pictures with {noise}.")
                elif noise:
                    print(f"The pictures are taken to be clean; added to them: {noise}.")
            if options.teacher:
                pipeline.records = teach(
                    records,
                    options.teacher,
                    folder / TARGETS,
                    precision=options.precision,
                    skip_bad_records=options.skip_bad_records,
                    write=workers.is_chief,
                )
        stopped = TrainingLoop(folder, trainer, pipeline, validation, options, workers).run()
    return folder, stopped


def _check_shots(recipe: Recipe, options: RunOptions) -> int:
    """Returns how many pictures of each scene the objective takes, if they are there."""
    objective = recipe.build_objective()
    flags = {
        "--second_shots": options.second_shots,
        "--teacher": options.teacher,
        "--noise": options.noise,
    }
    given = {flag for flag, value in flags.items() if value}
    if objective.SHOTS == 1:
        takes, what = set(), "takes one shot of each picture"
        missing = ""
    elif objective.TAUGHT:
        takes, what = {"--second_shots", "--teacher"}, "learns what a teacher makes of pictures"
        missing = (
            "Give a trained model, such as --teacher photo; or what one has made of the same "
            "pictures, with --second_shots FOLDER."
        )
    else:
        takes, what = {"--second_shots", "--noise"}, "takes two noisy shots of each picture"
        missing = (
            "Give the second ones with --second_shots FOLDER; or give clean pictures, and "
            "--noise_sigma 25."
        )
    if recipe.augmentation != "none" and (options.noise or options.own_noise):
        raise ConfigError(
            f"The recipe {recipe.name!r} measures the noise of --dataset, and adds such noise: "
            "omit --noise, --noise_sigma, --noise_peak and --own_noise, or take --recipe distill. "
            f"Received: {options.noise or f'--own_noise {options.own_noise}'}"
        )
    for flag in sorted(given - takes - {"--noise"}):
        raise ConfigError(
            f"The recipe {recipe.name!r} {what}: omit {flag}. Received: {flag} {flags[flag]}"
        )
    if missing and not given & takes:
        raise ConfigError(f"The recipe {recipe.name!r} {what}. {missing}")
    return objective.SHOTS
