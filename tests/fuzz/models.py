"""What is done with saved models, checkpoints and weights that may be damaged."""

import contextlib
import io
import json
import os
import random
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from cbsn.errors import ConfigError, ModelError
from cbsn.files import CHECKSUMS, write_checksums
from cbsn.models.folder import RECIPE, WEIGHTS, save_model
from cbsn.models.loading import load_model
from cbsn.models.tf1_checkpoint import variable_names
from cbsn.recipes import customised
from cbsn.training.checkpoints import Checkpoints
from cbsn.training.trainer import Trainer
from tests.fuzz.mutate import damaged, json_changed


def _recipes():
    return [
        customised("cbsn", filters=2, num_modules=1),
        customised("n2n-resunet", filters=8, depth=1),
    ]


def _damage_one(chance, folder, names, others):
    path = folder / chance.choice(names)
    content = path.read_bytes()
    change = json_changed if path.name == RECIPE and chance.random() < 0.7 else None
    content = change(chance, content) if change else damaged(chance, content, others)
    if chance.random() < 0.02:
        path.unlink()
    else:
        path.write_bytes(content)


def _check(network):
    assert all(np.isfinite(value).all() for value in network.get_weights())


class Models:
    """Loading a saved model, whose checksums have been made anew or not."""

    def __init__(self, folder: Path):
        self.folder, self.good = folder, []
        self.others = []
        for number, recipe in enumerate(_recipes()):
            path = folder / f"good{number}"
            save_model(path, recipe, recipe.build_network(), {"step": 3})
            self.good.append(path)
            self.others.append((path / WEIGHTS).read_bytes())

    def __call__(self, chance: random.Random) -> str:
        folder = self.folder / "model"
        shutil.copytree(chance.choice((self.good[0], *self.good)), folder)
        names = chance.choice(((RECIPE,), (WEIGHTS,), (RECIPE, WEIGHTS), (CHECKSUMS,)))
        _damage_one(chance, folder, names, self.others)
        if names != (CHECKSUMS,) and chance.random() < 0.95:
            (folder / CHECKSUMS).unlink()
            write_checksums(folder)
        keras.backend.clear_session()
        try:
            recipe, network = load_model(folder)
        except ModelError as error:
            assert str(self.folder) in str(error)
            return "ModelError"
        _check(network)
        json.dumps(recipe.to_dict())
        return "loaded"


class BareWeights:
    """Loading weights that have no checksums."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recipe = _recipes()[0]
        save_model(folder / "good", self.recipe, self.recipe.build_network(), {})
        self.content = (folder / "good" / WEIGHTS).read_bytes()

    def __call__(self, chance: random.Random) -> str:
        path = self.folder / "some.weights.h5"
        path.write_bytes(damaged(chance, self.content, [self.content]))
        keras.backend.clear_session()
        try:
            _, network = load_model(path, channels=2, modules=1)
        except ModelError as error:
            assert str(path) in str(error)
            return "ModelError"
        _check(network)
        return "loaded"


class Originals:
    """Loading a checkpoint of the authors' code."""

    def __init__(self, folder: Path):
        self.folder, self.good = folder, folder / "good"
        self.good.mkdir()
        network = _recipes()[0].build_network()
        values = {weight.path.split("/", 1)[1]: weight.numpy() for weight in network.weights}
        names = variable_names(1)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            variables = [
                tf.compat.v1.get_variable(theirs, initializer=values[ours])
                for theirs, ours in names
            ]
            session.run(tf.compat.v1.global_variables_initializer())
            saver = tf.compat.v1.train.Saver(variables)
            saver.save(session, str(self.good / "model.ckpt"), write_meta_graph=False)
        self.names = [path.name for path in self.good.iterdir() if path.name.startswith("model")]
        self.others = [(self.good / name).read_bytes() for name in self.names]
        load_model(self.good / "model.ckpt")

    def __call__(self, chance: random.Random) -> str:
        folder = self.folder / "model"
        shutil.copytree(self.good, folder)
        _damage_one(chance, folder, self.names, self.others)
        keras.backend.clear_session()
        try:
            recipe, network = load_model(folder / "model.ckpt")
        except ModelError as error:
            assert str(folder) in str(error)
            return "ModelError"
        assert recipe.network_config["filters"] == 2
        _check(network)
        return "loaded"


class TrainingCheckpoints:
    """Going on from a checkpoint of a training, or the one before it."""

    def __init__(self, folder: Path):
        self.folder, self.good = folder, folder / "good"
        self.good.mkdir()
        self.trainer = Trainer(_recipes()[0])
        checkpoints = Checkpoints(self.good, self.trainer)
        for step in (9, 10):
            self.trainer.step.assign(step)
            checkpoints.save()
        newest = self.good / "checkpoints/step-10"
        self.names = sorted(path.name for path in newest.iterdir())
        self.others = [(newest / name).read_bytes() for name in self.names]

    def __call__(self, chance: random.Random) -> str:
        folder = self.folder / "run"
        shutil.copytree(self.good, folder)
        for step in chance.choice(((10,), (9, 10))):
            newest = folder / f"checkpoints/step-{step}"
            _damage_one(chance, newest, self.names, self.others)
            if chance.random() < 0.8 and (newest / CHECKSUMS).exists():
                (newest / CHECKSUMS).unlink()
                write_checksums(newest)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                step = Checkpoints(folder, self.trainer).restore()
        except (ModelError, ConfigError) as error:
            return type(error).__name__
        assert step in (9, 10)
        return f"step {step}"
