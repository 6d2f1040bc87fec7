"""Trained models as teachers: what each makes of noisy patches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from cbsn.devices import has_gpu
from cbsn.errors import ConfigError, check_hole
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines.calls import Calls
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.passes import AUTO_TILE, GPU_PIXELS
from cbsn.inference.tiling import Tiling
from cbsn.models.loading import load_model
from cbsn.networks.denoising_network import DenoisingNetwork
from cbsn.orientations import orient
from cbsn.recipes import Recipe


class Teacher:
    """Denoises patches in their eight orientations (self-ensemble), with one hole or several.

    Args:
        model: a trained model.
        holes: widths of the network's hole, each of which makes a picture of its own; the network
            looks at a patch only once for all of them. Default (), the hole it denoises with, or
            none if it has no hole to choose.

    Raises:
        ConfigError: if the network has no holes to choose from, or not these.
    """

    def __init__(self, model: Denoiser, holes: Sequence[int] = ()):
        self.model = model
        self.holes = tuple(holes)
        if not holes:
            return
        network = model.network
        _check_holes(model.recipe, network, holes)
        self._run = _make_run(network, self.holes)
        tiling = Tiling(model.recipe.border, None, network.halo, network.size_multiple)
        self._calls = Calls((tiling, tiling), GPU_PIXELS if has_gpu() else AUTO_TILE**2)

    def __call__(self, unit: np.ndarray) -> list[np.ndarray]:
        """Returns a picture of each patch for each hole: lists of float32 [N, H, W, C] in [0, 1].

        Takes patches of the same shape.
        """
        if not self.holes:
            return [self.model.batch(unit, white=1.0)]
        channels = self.model.network.channels
        # A network for gray pictures gets each colour by itself.
        seen = np.concatenate(np.split(unit, unit.shape[-1] // channels, axis=-1))
        made = np.split(self._ensemble(seen), len(self.holes), axis=-1)
        parts = unit.shape[-1] // channels
        return [np.concatenate(np.split(each, parts), axis=-1) for each in made]

    def _ensemble(self, pictures: np.ndarray) -> np.ndarray:
        """Returns [N, H, W, holes·C] for pictures [N, H, W, C], each averaged over orientations."""
        x = ops.convert_to_tensor(pictures)
        mean, deviation = map(np.asarray, self.model.recipe.build_normalization().moments(x))
        x = ((pictures - mean) / deviation).astype(np.float32)
        orientations = self.model.network.orientations
        count = pictures.shape[-1] * len(self.holes)
        total = np.zeros((*pictures.shape[:-1], count), np.float32)
        for orientation in orientations:
            turned = np.stack([orient(each, orientation) for each in x])
            size = self._calls.tiles(*turned.shape[1:-1])
            results = (
                self._calls.finish(self._run, part, self._calls.start(self._run, part))
                for part in np.array_split(turned, -(-len(turned) // size))
            )
            for each, result in zip(total, np.concatenate([*results]), strict=True):
                orient(each, orientation)[...] += result  # into a view of it
        repeated = np.ndim(mean) and (1, 1, 1, len(self.holes))
        if repeated:
            mean, deviation = np.tile(mean, repeated), np.tile(deviation, repeated)
        return np.clip(total / len(orientations) * deviation + mean, 0, 1).astype(np.float32)


def _make_run(network: Any, holes: Sequence[int]) -> Any:
    """Returns a function of tiles [n, h, w, C] that returns [n, h, w, holes·C]."""
    import tensorflow as tf

    sizes = tf.TensorSpec((None, None, None, network.channels), tf.float32)
    return tf.function(
        lambda x: ops.concatenate(network.with_holes(x, holes), axis=-1), input_signature=[sizes]
    )


def _check_holes(recipe: Recipe, network: DenoisingNetwork, holes: Sequence[int]) -> None:
    """Raises a ConfigError if a model cannot teach with these holes."""
    for hole in holes:
        check_hole("--teacher_holes", hole)
    received = f"Received: --teacher_holes {' '.join(map(str, holes))}"
    if not hasattr(network, "with_holes"):
        raise ConfigError(
            "Teachers of several holes are models of the recipes tmbsn and cbsn-hole: omit "
            f"--teacher_holes. {received}, with a model of {recipe.name}"
        )
    if recipe.scaling:
        raise ConfigError(
            "The teacher was trained on stacks: omit --teacher_holes, which is for pictures. "
            f"{received}"
        )


def check_teachers(paths: Sequence[str | Path], holes: Sequence[int] = ()) -> None:
    """Raises the errors that `load_teachers` would, but prepares nothing to denoise with."""
    for path in paths:
        model = load_model(path)
        if holes:
            _check_holes(*model, holes)


def load_teachers(
    paths: Sequence[str | Path], holes: Sequence[int] = (), precision: str = "auto"
) -> list[Teacher]:
    """Loads trained models as teachers; for the errors, see `Denoiser.load` and `Teacher`."""
    options = DenoiseOptions(self_ensemble=True, precision=precision)
    return [Teacher(Denoiser.load(path, options), holes) for path in paths]
