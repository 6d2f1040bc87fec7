"""Recipes: a network, an objective, and everything else that makes a training what it is."""

import dataclasses
import inspect
import json
import math
import numbers
import reprlib
from collections.abc import Mapping
from typing import Any

from keras import ops

from cbsn.augmentation import jpeg
from cbsn.errors import LARGEST, ConfigError
from cbsn.networks import NETWORKS
from cbsn.normalization import NORMALIZATIONS, Normalization
from cbsn.objectives import OBJECTIVES

Tensor = Any

_WARM_UP = 0.01  # part of a training with `schedule="cosine"` in which the learning rate rises

_KINDS: dict[Any, tuple[Any, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
}
"""By annotation: what a value must be, and how to say so."""

_RANGES = {
    name: limits
    for limits, names in {
        (0, 1): ("lr_decay", "ema"),
        (0, 256): ("num_modules", "num_attention", "pad", "denoise_pad"),
        (0, 4096): ("reduction",),
        (1, 12): ("depth",),
        (1, 256): ("channels", "scale", "stride_b", "stride_i", "denoise_stride"),
        (1, 4096): ("filters",),
        (1, 1 << 16): ("patch_size",),
        (1, 1 << 20): ("batch_size",),
        (1, LARGEST): ("max_steps", "lr_decay_steps"),
        (2, 256): ("mask_cell",),
    }.items()
    for name in names
}
"""Least and most, else 0 and LARGEST. Beyond, memory and time end before a library says why."""

_LARGEST_NETWORK = 40_000_000  # as `least_weights` counts them; such networks have about 10⁹


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a denoiser, complete and checked.

    Args:
        name: what `--recipe` calls it.
        network, network_config: a class of `cbsn.networks`, and its keyword arguments.
        objective, objective_config: a class of `cbsn.objectives`, and its keyword arguments.
        normalization: a key of `cbsn.normalization.NORMALIZATIONS`.
        patch_size: side of a training patch in pixels.
        batch_size: patches in a step, over all devices.
        max_steps: number of training steps.
        learning_rate: of Adam (β 0.9 and 0.999, ε 1e-8), at the start.
        lr_decay, lr_decay_steps: factor > 0 of the learning rate, every this many steps.
        epochs: passes over the patches that `max_steps` stands for, whatever the data set; 0 for a
            training that is counted in steps.
        border: what the network is given beyond the edge of a picture: "reflect", its reflection,
            or "zeros", features that are 0. Networks that are not local need "zeros".
        denoise_stride: a picture is denoised as this number squared of sub-images (PD); 1 for none.
        denoise_pad: zeros around each of them.
        r3: whether random-replacing refinement follows, unless told otherwise.
        clip_norm: longest that the gradient of all weights together may be; 0 for no limit.
        schedule: "steps", as `lr_decay` says, or "cosine": the learning rate rises in the first
            hundredth of the steps, and then falls to 0 along a cosine.
        ema: decay < 1 of the averaged weights, unless a run says otherwise; 0 for none.
        augmentation: "none", or "photo": `PhotoAugmentation` of each batch, which needs an
            objective that is taught, and a patch size that is a multiple of 16.

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
    epochs: int = 0
    border: str = "reflect"
    denoise_stride: int = 1
    denoise_pad: int = 0
    r3: bool = False
    clip_norm: float = 0.0
    schedule: str = "steps"
    ema: float = 0.0
    augmentation: str = "none"

    def __post_init__(self):
        _check_kinds(vars(self), {each.name: each.type for each in dataclasses.fields(self)})
        if not (self.name and self.name.isprintable()):
            raise ConfigError(f"A recipe's name must be printable. Received: {self.name!r}")
        for field, known in (
            ("network", NETWORKS),
            ("objective", OBJECTIVES),
            ("normalization", NORMALIZATIONS),
            ("border", ("reflect", "zeros")),
            ("schedule", ("steps", "cosine")),
            ("augmentation", ("none", "photo")),
        ):
            if getattr(self, field) not in known:
                raise ConfigError(
                    f"Unknown {field}. Known are: {', '.join(known)}. "
                    f"Received: {field}={getattr(self, field)!r}"
                )
        for field, end, limit in (
            ("learning_rate", 0, "above 0"),
            ("lr_decay", 0, "above 0"),
            ("ema", 1, "below 1"),
        ):
            if (value := getattr(self, field)) == end:
                raise ConfigError(f"{field} must be {limit}. Received: {field}={value}")
        _check_kinds(self.objective_config, _settings(OBJECTIVES[self.objective]))
        objective = self.build_objective()
        if self.augmentation != "none":
            if not objective.TAUGHT:
                raise ConfigError(
                    "Augmentation needs an objective that learns from a teacher's pictures. "
                    f"Received: augmentation={self.augmentation!r}, objective={self.objective!r}"
                )
            if self.patch_size % jpeg.MULTIPLE:
                below = max(1, self.patch_size // jpeg.MULTIPLE) * jpeg.MULTIPLE
                raise ConfigError(
                    f"Patches that are compressed as JPEGs must have a size that is a multiple of "
                    f"{jpeg.MULTIPLE}: take {below} or {below + jpeg.MULTIPLE}. "
                    f"Received: patch_size={self.patch_size}"
                )
        if objective.NEEDS_BLINDNESS and NETWORKS[self.network].blindness == "none":
            raise ConfigError(
                f"{self.objective} needs a network that can be blind. "
                f"Received: network={self.network!r}"
            )
        if objective.SHOTS > 1 and NORMALIZATIONS[self.normalization].of_picture:
            raise ConfigError(
                f"{self.objective} compares two shots, so they need one normalisation, whatever "
                f"the picture. Received: normalization={self.normalization!r}"
            )
        multiple = objective.patch_multiple
        if self.patch_size % multiple:
            below = self.patch_size // multiple * multiple
            near = " or ".join(str(s) for s in (below, below + multiple) if s)
            raise ConfigError(
                f"The patch size must be a multiple of the objective's strides, here of {multiple}:"
                f" take {near}, or other strides. Received: patch_size={self.patch_size}, "
                + ", ".join(f"{k}={v}" for k, v in self.objective_config.items() if "stride" in k)
            )
        _check_kinds(self.network_config, _settings(NETWORKS[self.network]))
        if self.least_weights > _LARGEST_NETWORK:
            raise ConfigError(
                "That network is too large: it would have billions of weights. Take fewer channels "
                f"or modules. Received: network={self.network!r}, "
                + ", ".join(f"{key}={value}" for key, value in self.network_config.items())
            )

    @property
    def least_weights(self) -> int:
        """How many weights the network has at least: those of one 1×1 convolution of a module."""
        config = self.network_config
        modules = max(1, config.get("num_modules", 1))
        return (config.get("filters", 1) << config.get("depth", 0)) ** 2 * modules

    def build_network(self, precision: str = "float32") -> Any:
        """Builds the network with fresh weights; `precision` is a Keras dtype policy."""
        try:
            return NETWORKS[self.network](**self.network_config, dtype=precision)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The network of recipe {self.name!r}: {error}") from error

    def build_objective(self) -> Any:
        """Builds the objective."""
        return OBJECTIVES[self.objective](**self.objective_config)

    def build_normalization(self) -> Normalization:
        """Builds the normalisation."""
        return NORMALIZATIONS[self.normalization]()

    def learning_rate_at(self, step: Tensor) -> Tensor:
        """Returns the learning rate, a float32 scalar, for a number of steps done.

        Keras' schedules differ: `ExponentialDecay` divides steps as float32, which rounds up to the
        next rate early in long trainings; the warm-up of `CosineDecay` comes before the cosine.
        """
        rate = ops.cast(self.learning_rate, "float32")
        if self.schedule == "cosine":
            done = ops.cast(step, "float32") / self.max_steps
            rising = ops.minimum(1.0, (done + 1 / self.max_steps) / _WARM_UP)
            falling = 0.5 + 0.5 * ops.cos(math.pi * ops.minimum(done, 1.0))
            return rate * rising * falling
        decays = ops.cast(ops.floor_divide(step, self.lr_decay_steps), "float32")
        return rate * ops.power(ops.cast(self.lr_decay, "float32"), decays)

    def lasting(self, max_steps: int) -> "Recipe":
        """Returns the recipe for another number of steps, its schedules in proportion.

        Where the recipe is counted in steps, and these are not below its own, schedules stay as
        they are; a cosine ends with the training in any case.
        """
        steps = max_steps if self.epochs else min(max_steps, self.max_steps)

        def scaled(schedule: int) -> int:
            return -(-schedule * steps // self.max_steps)  # rounded up, without floats

        decay, config = scaled(self.lr_decay_steps), dict(self.objective_config)
        if "ramp_steps" in config:
            config["ramp_steps"] = scaled(config["ramp_steps"])
        return dataclasses.replace(
            self, max_steps=max_steps, lr_decay_steps=decay, epochs=0, objective_config=config
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Rebuilds a recipe from `to_dict`; a ConfigError says which field cannot be used."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"Not a recipe: {error}. Received: {reprlib.repr(values)}") from error


def _settings(network_or_objective: type) -> dict[str, Any]:
    """Names and annotations of what it is made with."""
    parameters = inspect.signature(network_or_objective).parameters.values()
    return {each.name: each.annotation for each in parameters if each.kind != each.VAR_KEYWORD}


def _check_kinds(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Checks what a recipe is made of, which a file may hold: anything that JSON has."""
    for name, value in values.items():
        if name not in kinds:
            known, received = ", ".join(kinds) or "none", reprlib.repr(name)
            raise ConfigError(f"There are the settings {known}. Received: {received}")
        kind, words = _KINDS.get(kinds[name], (Mapping, "settings by name"))
        number = kinds[name] in (int, float)
        if not isinstance(value, kind) or (number and isinstance(value, bool)):
            raise ConfigError(f"{name} must be {words}. Received: {name}={reprlib.repr(value)}")
        least, most = _RANGES.get(name, (0, LARGEST))
        if number and not least <= value <= most:
            limit = f"at most {most}" if value > most else f"at least {least}"
            raise ConfigError(f"{name} must be {limit}. Received: {name}={reprlib.repr(value)}")


# Of AP-BSN and SS-BSN.
_PIXEL_SHUFFLE: dict[str, Any] = {
    "objective": "AsymmetricPixelShuffle",
    "objective_config": {"stride_b": 5, "pad": 2},
    "normalization": "0-255",
    "epochs": 20,
    "lr_decay": 0.1,
    "border": "zeros",
    "denoise_stride": 2,
    "denoise_pad": 2,
    "r3": True,
}

_UNET_TRAINING: dict[str, Any] = {
    "patch_size": 64,
    "batch_size": 16,
    "max_steps": 100_000,
    "learning_rate": 1e-3,
    "lr_decay_steps": 20_000,
    "border": "zeros",
}
_BLIND_UNET: dict[str, Any] = {
    "network": "BlindSpotUNet",
    "network_config": {"filters": 32, "depth": 3, "mask_cell": 4, "channels": 3},
    **_UNET_TRAINING,
}

# How the models that ship were trained.
_PHOTO: dict[str, Any] = {
    "network": "ResidualAttentionUNet",
    "objective": "Distillation",
    "normalization": "0-1",
    "augmentation": "photo",
    "patch_size": 128,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "ema": 0.999,
    "clip_norm": 1.0,
    "border": "zeros",
}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # python train.py --recipe cbsn --dataset SIDD
        # The paper's settings: 36.82 dB on the SIDD benchmark, 38.45 dB on DND.
        Recipe(
            name="cbsn",
            network="ConditionalBlindSpotNetwork",
            network_config={"filters": 128, "num_modules": 9, "channels": 3},
            objective="DownsampledInvariance",
            objective_config={"stride_b": 5, "stride_i": 2, "lmbda": 2.0, "ramp_steps": 200_000},
        ),
        # python train.py --recipe apbsn --dataset SIDD
        # The paper's settings: with R3 35.97 dB on the SIDD benchmark, 38.09 dB on DND. The steps
        # stand for 20 epochs of 80,000 patches; the learning rate falls after 8 and after 16.
        Recipe(
            name="apbsn",
            network="DilatedBlindSpotNetwork",
            network_config={"filters": 128, "num_modules": 9, "channels": 3},
            batch_size=8,
            max_steps=200_000,
            lr_decay_steps=80_000,
            **_PIXEL_SHUFFLE,
        ),
        # python train.py --recipe ssbsn --dataset SIDD
        # The paper's settings: self-ensembled 37.42 dB on the SIDD benchmark, 38.46 dB on DND. As
        # above, in batches of 4; the learning rate falls after 16 epochs.
        Recipe(
            name="ssbsn",
            network="SelfSimilarityBlindSpotNetwork",
            network_config={
                "filters": 128,
                "num_modules": 9,
                "num_attention": 3,
                "scale": 2,
                "channels": 3,
            },
            max_steps=400_000,
            lr_decay_steps=320_000,
            **_PIXEL_SHUFFLE,
        ),
        # python train.py --recipe n2v-unet --dataset photos
        # For noise that is independent from pixel to pixel.
        Recipe(name="n2v-unet", objective="Noise2Void", **_BLIND_UNET),
        # python train.py --recipe dil-unet --dataset photos
        # Likewise; the network that denoises sees every pixel in training, too.
        Recipe(
            name="dil-unet",
            objective="DownsampledInvariance",
            objective_config={"stride_b": 1, "stride_i": 1, "lmbda": 2.0, "ramp_steps": 20_000},
            **_BLIND_UNET,
        ),
        # python train.py --recipe n2n-resunet --dataset shots/first --second_shots shots/second
        Recipe(
            name="n2n-resunet",
            network="ResidualAttentionUNet",
            network_config={"filters": 32, "depth": 3, "reduction": 8, "channels": 3},
            objective="Noise2Noise",
            objective_config={"lmbda": 0.0},
            normalization="0-1",
            **_UNET_TRAINING,
        ),
        # python train.py --recipe distill --dataset photos --teacher photo_large
        # A small network learns what a trained one does. Without squeeze-and-excitation it is
        # local, so that tiles are exact.
        Recipe(
            name="distill",
            network="ResidualAttentionUNet",
            network_config={"filters": 24, "depth": 3, "reduction": 0, "channels": 3},
            objective="Distillation",
            normalization="0-1",
            **_UNET_TRAINING,
        ),
        # python train.py --recipe photo --dataset photos
        # What ships as `photo`: 39.0 dB on 32 SIDD blocks, 35.7 dB on cc15.
        Recipe(
            name="photo",
            network_config={"filters": 16, "depth": 3, "reduction": 0, "channels": 3},
            max_steps=26_000,
            **_PHOTO,
        ),
        # python train.py --recipe photo-large --dataset photos --rounds 2
        # What ships as `photo_large`: 39.4 dB on 32 SIDD blocks, 35.9 dB on cc15.
        Recipe(
            name="photo-large",
            network_config={"filters": 32, "depth": 4, "reduction": 0, "channels": 3},
            max_steps=29_000,
            **_PHOTO,
        ),
    )
}
"""The recipes that `--recipe` knows."""


def customised(name: str, *, max_steps: int | None = None, **changes: Any) -> Recipe:
    """Returns a recipe with some of its settings changed.

    Args:
        name: a key of `RECIPES`.
        max_steps: as for `Recipe.lasting`; schedules that are among the changes stay as given.
        **changes: fields of the recipe, of its network's configuration or of its objective's. None
            leaves a setting as it is.

    Raises:
        ConfigError: if the recipe is unknown, has no such setting, or the value does not fit.
    """
    if name not in RECIPES:
        raise ConfigError(
            f"Unknown recipe. Known are: {', '.join(RECIPES)}. Received: --recipe {name}"
        )
    recipe = RECIPES[name]
    if max_steps is not None:
        recipe = recipe.lasting(max_steps)
    fields: dict[str, Any] = {}
    configs: dict[str, Any] = {
        "network_config": dict(recipe.network_config),
        "objective_config": dict(recipe.objective_config),
    }
    changeable = {field.name for field in dataclasses.fields(recipe)} - {*configs}
    for key, value in changes.items():
        if value is None:
            continue
        home = next((config for config in configs.values() if key in config), fields)
        if home is fields and key not in changeable:
            raise ConfigError(f"The recipe {name!r} has no setting {key}. Received: {key}={value}")
        home[key] = value
    return dataclasses.replace(recipe, **fields, **configs)
