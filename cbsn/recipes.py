"""Recipes: a network, an objective, and all other settings of a training."""

import contextlib
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
from cbsn.errors import LARGEST, LARGEST_HOLE, ConfigError
from cbsn.images.stacks.scaling import Scaling
from cbsn.networks import NETWORKS
from cbsn.networks.layers import without_initial_weights
from cbsn.networks.masking import Masking
from cbsn.normalization import NORMALIZATIONS, Normalization
from cbsn.objectives import OBJECTIVES
from cbsn.objectives.objective import Objective

Tensor = Any

_WARM_UP = 0.01  # share of the steps in which the rate rises, with `schedule="cosine"`

_KINDS: dict[Any, tuple[Any, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
}
"""For each annotation: the type of its values, and the words for it."""

RANGES = {
    name: limits
    for limits, names in {
        (0, 1): ("lr_decay", "ema"),
        (0, 12): ("z_halvings",),
        (0, 256): ("num_modules", "num_attention", "pad", "denoise_pad"),
        (0, 4096): ("reduction",),
        (1, 12): ("depth",),
        (1, 256): ("channels", "scale", "stride_b", "stride_i", "denoise_stride"),
        (1, 4096): ("filters", "patch_depth"),
        (1, 1 << 16): ("patch_size",),
        (1, 1 << 20): ("batch_size",),
        (1, LARGEST): ("max_steps", "lr_decay_steps"),
        (0, LARGEST_HOLE): ("denoise_hole",),
        (1, LARGEST_HOLE): ("hole",),
        (2, 3): ("dimensions",),
        (2, 256): ("mask_cell",),
        (2, 4096): ("samples",),
    }.items()
    for name in names
}
"""Least and most; default 0 and LARGEST. Beyond, memory or time runs out without a clear error."""

_LARGEST_NETWORK = 40_000_000  # counted by `least_weights`; such networks have about 10⁹ weights


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a denoiser, complete and checked.

    Args:
        name: its name for `--recipe`.
        network, network_config: a class of `cbsn.networks`, and its keyword arguments.
        objective, objective_config: a class of `cbsn.objectives`, and its keyword arguments.
        normalization: a key of `cbsn.normalization.NORMALIZATIONS`.
        patch_size: side of a training patch in pixels.
        patch_depth: planes of a training patch: more than 1 for a network of three dimensions.
        batch_size: patches in a step, over all devices.
        max_steps: number of training steps.
        learning_rate: initial learning rate of Adam (β 0.9 and 0.999, ε 1e-8).
        lr_decay, lr_decay_steps: factor > 0 of the learning rate, and the steps between its uses.
        epochs: number of passes over the patches, of any data set, that `max_steps` stands for; 0
            if the training is counted in steps.
        border: what the network sees beyond the edge of a picture: "reflect", its reflection, or
            "zeros", features that are 0. Networks that are not local need "zeros".
        denoise_stride: stride s of PD, which denoises a picture as s² sub-images; 1 for no PD.
        denoise_pad: width in pixels of the zeros around each sub-image.
        r3: whether random-replacing refinement (R3) follows by default.
        clip_norm: maximum norm of the gradient of all weights together; 0 for no limit.
        schedule: "steps", by `lr_decay`, or "cosine": the learning rate rises during the first
            hundredth of the steps, then falls to 0 along a cosine.
        ema: default decay < 1 of the averaged weights; 0 for none.
        augmentation: "none", or "photo" for a `PhotoAugmentation` of each batch, which needs an
            objective that is taught, and a patch size that is a multiple of 16.
        scaling: of a model trained on stacks, how their values became those that `normalization`
            gets: a `cbsn.images.stacks.scaling.Scaling` as a dictionary. Empty for pictures.

    Raises:
        ConfigError: if a value is out of range, unknown, or conflicts with another one.
    """

    name: str
    network: str
    objective: str
    network_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    objective_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    normalization: str = "standardize"
    patch_size: int = 120
    patch_depth: int = 1
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
    scaling: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
                    f"Unknown {field}. Choose from {', '.join(known)}. "
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
                    "The size of JPEG-compressed patches must be a multiple of "
                    f"{jpeg.MULTIPLE}: use {below} or {below + jpeg.MULTIPLE}. "
                    f"Received: patch_size={self.patch_size}"
                )
        if objective.NEEDS_BLINDNESS and NETWORKS[self.network].blindness == "none":
            raise ConfigError(
                f"{self.objective} needs a network that can be blind. "
                f"Received: network={self.network!r}"
            )
        if objective.NEEDS_SAMPLES:
            if not hasattr(NETWORKS[self.network], "blind_samples"):
                raise ConfigError(
                    f"{self.objective} needs a network that predicts samples. "
                    f"Received: network={self.network!r}"
                )
            last = max(objective.milestones, default=0)
            if last > self.max_steps:
                raise ConfigError(
                    "The noise model would never be learned, as the training ends before: use "
                    f"--bootstrap_steps {self.max_steps} or less, or more --steps. "
                    f"Received: bootstrap_steps={last}, max_steps={self.max_steps}"
                )
            if NORMALIZATIONS[self.normalization].of_picture:
                raise ConfigError(
                    "A noise model needs a normalisation that is the same for every picture. "
                    f"Received: normalization={self.normalization!r}"
                )
        if objective.SHOTS > 1 and NORMALIZATIONS[self.normalization].of_picture:
            raise ConfigError(
                f"{self.objective} compares two shots, so it needs a normalisation that is the "
                f"same for every picture. Received: normalization={self.normalization!r}"
            )
        multiple = objective.patch_multiple
        if self.patch_size % multiple:
            below = self.patch_size // multiple * multiple
            near = " or ".join(str(s) for s in (below, below + multiple) if s)
            raise ConfigError(
                f"The patch size must be a multiple of {multiple} for the objective's strides: use "
                f"{near}, or change the strides. Received: patch_size={self.patch_size}, "
                + ", ".join(f"{k}={v}" for k, v in self.objective_config.items() if "stride" in k)
            )
        if self.scaling:
            Scaling.from_dict(self.scaling)
        _check_kinds(self.network_config, _settings(NETWORKS[self.network]))
        self._check_patch(objective)
        if self.least_weights > _LARGEST_NETWORK:
            raise ConfigError(
                "This network is too large: it would have billions of weights. Use fewer channels "
                f"or modules. Received: network={self.network!r}, "
                + ", ".join(f"{key}={value}" for key, value in self.network_config.items())
            )

    def has_setting(self, name: str) -> bool:
        """Returns whether `customised` can change this, here or in the network or objective."""
        fields = {field.name for field in dataclasses.fields(self)}
        known = fields - {"network_config", "objective_config"}
        if self.schedule == "cosine":
            known -= {"lr_decay", "lr_decay_steps"}
        return name in {*known, *self.whole_network_config, *self.objective_config}

    def _check_patch(self, objective: Objective) -> None:
        """Checks that a patch has the network's dimensions, and room for its masks or hole."""
        if (hole := self.whole_network_config.get("hole", 0)) >= self.patch_size:
            raise ConfigError(
                "A patch must be larger than the hole: use a larger --patch_size or a smaller "
                f"--hole. Received: patch_size={self.patch_size}, hole={hole}"
            )
        dimensions = self.network_config.get("dimensions", 2)
        if (self.patch_depth > 1) != (dimensions == 3):
            raise ConfigError(
                "Patches of several planes are for networks of three dimensions, such as that of "
                "n2v-unet-3d, which need them. "
                f"Received: patch_depth={self.patch_depth}, dimensions={dimensions}"
            )
        if NETWORKS[self.network].blindness != "masked":
            return
        names = {"mask_shape": "shape", "mask_cell": "cell", "replacement": "replacement"}
        given = {names[key]: value for key, value in self.network_config.items() if key in names}
        try:
            sides = Masking(**given, dimensions=dimensions).sides
        except ValueError as error:
            raise ConfigError(f"{error}") from None
        # Masks lie in what the network gets: with strides, in sub-images of every n-th pixel.
        strides = {
            name: getattr(objective, name)
            for name in ("stride_b", "stride_i")
            if getattr(objective, name, 1) > 1
        }
        most = max(strides.values(), default=1)
        lengths = (self.patch_depth, *[self.patch_size // most] * 2)[-dimensions:]
        is_short = [side > length for side, length in zip(sides, lengths, strict=True)]
        if any(is_short):
            patch = (self.patch_depth, self.patch_size, self.patch_size)[-dimensions:]
            least = (*sides[:-2], *(most * side for side in sides[-2:]))
            needed, received = (" × ".join(map(str, each)) for each in (least, patch))
            larger = ["--patch_depth"] if any(is_short[:-2]) else []
            smaller = ["--struct_mask", "--mask_cell"]
            what = "With this mask"
            if any(is_short[-2:]):
                larger.insert(0, "--patch_size")
                smaller += [f"--{name}" for name, stride in strides.items() if stride == most]
                what += "".join(f" and {name}={stride}" for name, stride in strides.items())
            raise ConfigError(
                f"{what}, patches need {needed} pixels or more: use a larger "
                f"{' and '.join(larger)}, or a smaller {' or '.join(smaller)}. Received: {received}"
            )

    @property
    def whole_network_config(self) -> dict[str, Any]:
        """All of the network's configuration: `network_config`, and the defaults of the rest."""
        defaults = {name: each.default for name, each in _parameters(NETWORKS[self.network])}
        return {**defaults, **self.network_config}

    @property
    def least_weights(self) -> int:
        """A lower bound on the network's weights: those of one 1×1 convolution per module."""
        config = self.network_config
        modules = max(1, config.get("num_modules", 1))
        return (config.get("filters", 1) << config.get("depth", 0)) ** 2 * modules

    def build_network(self, precision: str = "float32", *, fresh: bool = True) -> Any:
        """Builds the network. `precision` is a Keras dtype policy.

        If not `fresh`, its weights are not yet drawn and must be set: this takes less time.
        """
        try:
            with contextlib.nullcontext() if fresh else without_initial_weights():
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
        """Returns the learning rate, a float32 scalar, after a number of steps.

        Keras' schedules differ: `ExponentialDecay` divides steps as float32, whose rounding moves
        to the next rate too early in long trainings; `CosineDecay` warms up before the cosine.
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
        """Returns the recipe for another number of steps, with its schedules in proportion.

        A recipe counted in steps keeps its schedules if the new number is not below its own. A
        cosine always ends with the training.
        """
        steps = max_steps if self.epochs else min(max_steps, self.max_steps)

        def scaled(schedule: int) -> int:
            return -(-schedule * steps // self.max_steps)  # rounded up, without floats

        decay, config = scaled(self.lr_decay_steps), dict(self.objective_config)
        for schedule in ("ramp_steps", "bootstrap_steps"):
            if schedule in config:
                config[schedule] = scaled(config[schedule])
        return dataclasses.replace(
            self, max_steps=max_steps, lr_decay_steps=decay, epochs=0, objective_config=config
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain values that JSON can hold."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        # As in the files of earlier versions, and so with their hash.
        if not values["scaling"]:
            del values["scaling"]
        if values["patch_depth"] == 1:
            del values["patch_depth"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Rebuilds a recipe from `to_dict`; a `ConfigError` says which field cannot be used."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"Not a recipe: {error}. Received: {reprlib.repr(values)}") from error


def _settings(network_or_objective: type) -> dict[str, Any]:
    """Returns the names and annotations of the arguments of a class."""
    return {name: each.annotation for name, each in _parameters(network_or_objective)}


def _parameters(network_or_objective: type) -> list[tuple[str, inspect.Parameter]]:
    """Returns the arguments of a class by name."""
    # Of the class itself, Python 3.10 returns the signature of Keras' `__new__`.
    init = network_or_objective.__init__  # type: ignore[misc]
    _, *parameters = inspect.signature(init).parameters.values()
    fixed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [(each.name, each) for each in parameters if each.kind in fixed]


def _check_kinds(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Checks the values of a recipe, which may come from a file and be anything in JSON."""
    for name, value in values.items():
        if name not in kinds:
            known, received = ", ".join(kinds) or "none", reprlib.repr(name)
            raise ConfigError(f"Unknown setting. Known settings: {known}. Received: {received}")
        kind, words = _KINDS.get(kinds[name], (Mapping, "settings by name"))
        number = kinds[name] in (int, float)
        if not isinstance(value, kind) or (number and isinstance(value, bool)):
            raise ConfigError(f"{name} must be {words}. Received: {name}={reprlib.repr(value)}")
        least, most = RANGES.get(name, (0, LARGEST))
        if number and not least <= value <= most:
            limit = f"at most {most}" if value > most else f"at least {least}"
            raise ConfigError(f"{name} must be {limit}. Received: {name}={reprlib.repr(value)}")


# Shared by AP-BSN and SS-BSN.
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

# Shared by both recipes of the network with a diamond-shaped hole.
_DIAMOND: dict[str, Any] = {
    "network": "TriangularMaskedBlindSpotNetwork",
    "batch_size": 8,
    "max_steps": 200_000,
    "learning_rate": 3e-4,
    "lr_decay_steps": 40_000,
    "border": "zeros",
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

# The training of the models that ship with the package.
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
        # cbsn train SIDD --recipe cbsn
        # The paper's settings: 36.82 dB on the SIDD benchmark, 38.45 dB on DND.
        Recipe(
            name="cbsn",
            network="ConditionalBlindSpotNetwork",
            network_config={"filters": 128, "num_modules": 9, "channels": 3},
            objective="DownsampledInvariance",
            objective_config={"stride_b": 5, "stride_i": 2, "lmbda": 2.0, "ramp_steps": 200_000},
        ),
        # cbsn train SIDD --recipe apbsn
        # The paper's settings: with R3, 35.97 dB on the SIDD benchmark, 38.09 dB on DND. The steps
        # are 20 epochs of 80,000 patches; the learning rate falls after 8 and 16 epochs.
        Recipe(
            name="apbsn",
            network="DilatedBlindSpotNetwork",
            network_config={"filters": 128, "num_modules": 9, "channels": 3},
            batch_size=8,
            max_steps=200_000,
            lr_decay_steps=80_000,
            **_PIXEL_SHUFFLE,
        ),
        # cbsn train SIDD --recipe ssbsn
        # The paper's settings: with self-ensemble, 37.42 dB on the SIDD benchmark, 38.46 dB on DND.
        # The same epochs in batches of 4; the learning rate falls after 16 epochs.
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
        # cbsn train SIDD --recipe tmbsn
        # The network and the training are the paper's in kind, not in every detail. Published:
        # 37.71 dB on the SIDD benchmark, 38.54 dB on DND.
        Recipe(
            name="tmbsn",
            network_config={"filters": 24, "depth": 3, "hole": 9, "denoise_hole": 3, "channels": 3},
            objective="Noise2Void",
            objective_config={"error": "absolute"},
            **_DIAMOND,
        ),
        # cbsn train SIDD --recipe cbsn-hole
        # C-BSN's loss without downsampling: a hole that fits the noise, and none to denoise.
        Recipe(
            name="cbsn-hole",
            network_config={"filters": 24, "depth": 3, "hole": 9, "denoise_hole": 0, "channels": 3},
            objective="DownsampledInvariance",
            objective_config={"stride_b": 1, "stride_i": 2, "lmbda": 2.0, "ramp_steps": 80_000},
            **_DIAMOND,
        ),
        # cbsn train photos --recipe n2v-unet
        # For noise that is independent between pixels.
        Recipe(name="n2v-unet", objective="Noise2Void", **_BLIND_UNET),
        # cbsn train photos --recipe n2v2-unet
        # For the same noise, without the checkerboards that Noise2Void may leave.
        Recipe(
            name="n2v2-unet",
            objective="Noise2Void",
            **{
                **_BLIND_UNET,
                "network_config": {
                    **_BLIND_UNET["network_config"],
                    "replacement": "median",
                    "pooling": "blur",
                    "top_skip": False,
                },
            },
        ),
        # cbsn train cells.tif --recipe n2v-unet-3d
        # For volumes with the same noise: it sees the planes above and below, too.
        Recipe(
            name="n2v-unet-3d",
            objective="Noise2Void",
            patch_depth=16,
            **{
                **_BLIND_UNET,
                "batch_size": 4,
                "network_config": {
                    **_BLIND_UNET["network_config"],
                    "filters": 16,
                    "depth": 2,
                    "dimensions": 3,
                    "z_halvings": 1,
                },
            },
        ),
        # cbsn train photos --recipe dil-unet
        # For the same noise. The network denoises with every pixel visible, as in part of training.
        Recipe(
            name="dil-unet",
            objective="DownsampledInvariance",
            objective_config={"stride_b": 1, "stride_i": 1, "lmbda": 2.0, "ramp_steps": 20_000},
            **_BLIND_UNET,
        ),
        # cbsn train cells.tif --recipe pn2v-unet
        # For the same noise where fine detail must stay. It learns the noise, too, and so can make
        # use of the pixel itself.
        Recipe(
            name="pn2v-unet",
            objective="ProbabilisticNoise2Void",
            objective_config={"bootstrap_steps": 20_000},
            normalization="0-1",
            **{
                **_BLIND_UNET,
                "network": "ProbabilisticBlindSpotUNet",
                "network_config": {
                    **_BLIND_UNET["network_config"],
                    "samples": 32,
                    "noise_model": "gmm",
                },
            },
        ),
        # cbsn train shots/first --recipe n2n-resunet --second_shots shots/second
        Recipe(
            name="n2n-resunet",
            network="ResidualAttentionUNet",
            network_config={"filters": 32, "depth": 3, "reduction": 8, "channels": 3},
            objective="Noise2Noise",
            objective_config={"lmbda": 0.0},
            normalization="0-1",
            **_UNET_TRAINING,
        ),
        # cbsn train photos --recipe distill --teacher photo_large
        # A small network learns from a trained one. Without squeeze-and-excitation it is local, so
        # tiles are exact.
        Recipe(
            name="distill",
            network="ResidualAttentionUNet",
            network_config={"filters": 24, "depth": 3, "reduction": 0, "channels": 3},
            objective="Distillation",
            normalization="0-1",
            **_UNET_TRAINING,
        ),
        # cbsn train photos --recipe photo
        # Ships as `photo`: 39.0 dB on 32 SIDD blocks, 35.7 dB on cc15.
        Recipe(
            name="photo",
            network_config={"filters": 16, "depth": 3, "reduction": 0, "channels": 3},
            max_steps=26_000,
            **_PHOTO,
        ),
        # cbsn train photos --recipe photo-large --rounds 2
        # Ships as `photo_large`: 39.4 dB on 32 SIDD blocks, 35.9 dB on cc15.
        Recipe(
            name="photo-large",
            network_config={"filters": 32, "depth": 4, "reduction": 0, "channels": 3},
            max_steps=29_000,
            **_PHOTO,
        ),
    )
}
"""The recipes that `--recipe` accepts, by name."""


def customised(name: str, *, max_steps: int | None = None, **changes: Any) -> Recipe:
    """Returns a recipe with some of its settings changed.

    Args:
        name: a key of `RECIPES`.
        max_steps: see `Recipe.lasting`. Schedules among the changes are not scaled.
        **changes: fields of the recipe, of its network's configuration or of its objective's. None
            keeps a setting as it is.

    Raises:
        ConfigError: if the recipe is unknown, has no such setting, or a value does not fit.
    """
    if name not in RECIPES:
        raise ConfigError(
            f"Unknown recipe. Choose from {', '.join(RECIPES)}. Received: --recipe {name}"
        )
    recipe = RECIPES[name]
    if max_steps is not None:
        recipe = recipe.lasting(max_steps)
    fields: dict[str, Any] = {}
    configs: dict[str, Any] = {
        "network_config": dict(recipe.network_config),
        "objective_config": dict(recipe.objective_config),
    }
    for key, value in changes.items():
        if value is None:
            continue
        if not recipe.has_setting(key):
            raise ConfigError(f"The recipe {name!r} has no setting {key}. Received: {key}={value}")
        home = next((config for config in configs.values() if key in config), fields)
        if home is fields and key in _settings(NETWORKS[recipe.network]):
            home = configs["network_config"]  # where the recipe has the network's default
        home[key] = value
    return dataclasses.replace(recipe, **fields, **configs)
