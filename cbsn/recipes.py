"""Recipes: a network, an objective, and everything else that makes a training what it is."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from keras import ops

from cbsn.errors import ConfigError
from cbsn.networks import NETWORKS
from cbsn.normalization import NORMALIZATIONS, Standardization
from cbsn.objectives import OBJECTIVES

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a denoiser, complete and checked.

    Args:
        name: str, what `--recipe` calls it.
        network: str, a class of `cbsn.networks`.
        objective: str, a class of `cbsn.objectives`.
        network_config: keyword arguments of the network.
        objective_config: keyword arguments of the objective.
        normalization: str, a key of `cbsn.normalization.NORMALIZATIONS`.
        patch_size: int, side of a training patch in pixels.
        batch_size: int, patches in a step, over all devices.
        max_steps: int, number of training steps.
        learning_rate: float, of Adam (β 0.9 and 0.999, ε 1e-8), at the start.
        lr_decay: float in (0, 1], factor of the learning rate every `lr_decay_steps`.
        lr_decay_steps: int, steps from one learning rate to the next.
        clip_norm: float ≥ 0, longest that the gradient of all weights together may be; it is
            scaled down to that. 0 for no limit, as in the papers.

    Raises:
        ConfigError: if a value is out of range, unknown, or does not fit another one.
    """

    name: str
    network: str
    objective: str
    network_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    objective_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    normalization: str = "standardize"
    patch_size: int = 120
    batch_size: int = 4
    max_steps: int = 500_000
    learning_rate: float = 1e-4
    lr_decay: float = 0.5
    lr_decay_steps: int = 100_000
    clip_norm: float = 0.0

    def __post_init__(self):
        for field, known in (
            ("network", NETWORKS),
            ("objective", OBJECTIVES),
            ("normalization", NORMALIZATIONS),
        ):
            if getattr(self, field) not in known:
                raise ConfigError(
                    f"Unknown {field}. Known are: {', '.join(known)}. "
                    f"Received: {field}={getattr(self, field)!r}"
                )
        for field in ("patch_size", "batch_size", "max_steps", "lr_decay_steps"):
            if getattr(self, field) < 1:
                raise ConfigError(
                    f"{field} must be at least 1. Received: {field}={getattr(self, field)}"
                )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ConfigError(
                f"learning_rate must be above 0. Received: learning_rate={self.learning_rate}"
            )
        if not 0 < self.lr_decay <= 1:
            raise ConfigError(
                f"lr_decay must be above 0 and at most 1. Received: lr_decay={self.lr_decay}"
            )
        if not (self.clip_norm >= 0 and math.isfinite(self.clip_norm)):
            raise ConfigError(
                f"clip_norm must be 0 (no limit) or above. Received: clip_norm={self.clip_norm}"
            )
        multiple = self.build_objective().patch_multiple
        if self.patch_size % multiple:
            below = self.patch_size // multiple * multiple
            near = " or ".join(str(s) for s in (below, below + multiple) if s)
            raise ConfigError(
                f"The patch size must be a multiple of the objective's strides, here of {multiple}:"
                f" take {near}, or other strides. Received: patch_size={self.patch_size}, "
                + ", ".join(f"{k}={v}" for k, v in self.objective_config.items() if "stride" in k)
            )

    def build_network(self, precision: str = "float32") -> Any:
        """Builds the network with fresh weights; `precision` is a Keras dtype policy."""
        try:
            return NETWORKS[self.network](**self.network_config, dtype=precision)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The network of recipe {self.name!r}: {error}") from error

    def build_objective(self) -> Any:
        """Builds the objective."""
        try:
            return OBJECTIVES[self.objective](**self.objective_config)
        except TypeError as error:
            raise ConfigError(f"The objective of recipe {self.name!r}: {error}") from error

    def build_normalization(self) -> Standardization:
        """Builds the normalisation."""
        return NORMALIZATIONS[self.normalization]()

    def learning_rate_at(self, step: Tensor) -> Tensor:
        """Returns the learning rate, a float32 scalar, for a number of steps done."""
        halvings = ops.cast(ops.floor_divide(step, self.lr_decay_steps), "float32")
        return ops.cast(self.learning_rate, "float32") * ops.power(
            ops.cast(self.lr_decay, "float32"), halvings
        )

    def shortened(self, max_steps: int) -> "Recipe":
        """Returns the recipe for fewer steps, its schedules shrunk in proportion.

        Args:
            max_steps: int. Schedules stay as they are where it is not below the recipe's own.
        """
        share = min(1.0, max_steps / self.max_steps)
        objective_config = dict(self.objective_config)
        if "ramp_steps" in objective_config:
            objective_config["ramp_steps"] = math.ceil(objective_config["ramp_steps"] * share)
        return dataclasses.replace(
            self,
            max_steps=max_steps,
            lr_decay_steps=max(1, math.ceil(self.lr_decay_steps * share)),
            objective_config=objective_config,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Rebuilds a recipe from `to_dict`, with all its checks.

        Raises:
            ConfigError: if a field is missing, unknown or invalid.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"Not a recipe: {error}. Received: {values!r}") from error


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # python train.py --recipe cbsn --dataset SIDD
        # The paper's settings: 36.82 dB on the SIDD benchmark, 38.45 dB on DND.
        Recipe(
            name="cbsn",
            network="ConditionalBlindSpotNetwork",
            network_config={"filters": 128, "num_modules": 9},
            objective="DownsampledInvariance",
            objective_config={"stride_b": 5, "stride_i": 2, "lmbda": 2.0, "ramp_steps": 200_000},
        ),
    )
}
"""The recipes that `--recipe` knows."""


def customised(name: str, *, max_steps: int | None = None, **changes: Any) -> Recipe:
    """Returns a recipe with some of its settings changed.

    Args:
        name: str, a key of `RECIPES`.
        max_steps: int, number of steps. With fewer than the recipe's own, its schedules shrink
            in proportion, unless they are among the changes.
        **changes: settings by name: fields of the recipe, of its network's configuration or of
            its objective's. None leaves a setting as it is.

    Raises:
        ConfigError: if the recipe is unknown, has no such setting, or the value does not fit.
    """
    if name not in RECIPES:
        raise ConfigError(
            f"Unknown recipe. Known are: {', '.join(RECIPES)}. Received: --recipe {name}"
        )
    recipe = RECIPES[name]
    if max_steps is not None:
        if max_steps < 1:
            raise ConfigError(f"--maxiter must be at least 1. Received: {max_steps}")
        recipe = recipe.shortened(max_steps)
    fields: dict[str, Any] = {}
    configs = {
        "network_config": dict(recipe.network_config),
        "objective_config": dict(recipe.objective_config),
    }
    for key, value in changes.items():
        if value is None:
            continue
        homes = [config for config in configs.values() if key in config]
        if homes:
            homes[0][key] = value
        elif hasattr(recipe, key):
            fields[key] = value
        else:
            raise ConfigError(f"The recipe {name!r} has no setting {key}. Received: {key}={value}")
    return dataclasses.replace(recipe, **fields, **configs)
