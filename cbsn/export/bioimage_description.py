"""A model's description for the BioImage Model Zoo: `rdf.yaml` and the README of a package.

Fields are those of the model description 0.5; see the documentation of bioimageio.spec.
"""

import datetime
import math
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import cbsn
from cbsn.client.transport import DENOISED, IMAGES
from cbsn.errors import ConfigError
from cbsn.export.papers import papers_of
from cbsn.images.stacks.scaling import Scale
from cbsn.inference.denoiser import Denoiser
from cbsn.recipes import Recipe

# The oldest version with all fields used here. Current tools read it, too, and programs in Java
# read none of the later ones, in which the documentation and the covers are no longer plain names.
FORMAT_VERSION = "0.5.4"

MODEL, README, COVER = "model.onnx", "README.md", "cover.png"
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"
SAMPLE_INPUT, SAMPLE_OUTPUT = "sample_input.tif", "sample_output.tif"

EXACT = 1e-4
"""Largest difference between engines, where the network sees 0 and 1 as black and white."""

_LARGEST = 64  # least side of tiles that is worth while
_WHOLE = {"z": 1, "y": 16, "x": 16}  # least sizes of images that are not cut into tiles
_NAMES = set(string.ascii_letters + string.digits + "_+- ()")  # characters allowed in a name
_ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")
_GITHUB = re.compile(r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})")

_LEARNED_FROM = {
    "Noise2Noise": "pairs of noisy images",
    "Distillation": "noisy images and what a trained model made of them",
}
_NOISY_ALONE = "noisy images alone"

_OPTIMIZER = "Adam"


class Axis(NamedTuple):
    """A spatial axis of the input.

    The sizes `least`, `least` + `step`, … are valid. A tile needs a `halo` of this many pixels at
    each end to become what it is in the whole image; 0 if no halo suffices.
    """

    name: str
    least: int
    step: int
    halo: int


def spatial_axes(denoiser: Denoiser, scale: Scale | None) -> list[Axis]:
    """Returns the spatial axes of a model's images, in order."""
    network = denoiser.network
    grids = {"y": (network.grid, network.halo), "x": (network.grid, network.halo)}
    if network.dimensions == 3:
        grids = {"z": (network.z_grid, network.z_halo), **grids}
    side = _least_side(denoiser, scale)
    if side is None:
        return [Axis(name, _WHOLE[name], 1, 0) for name in grids]
    axes = []
    for name, (grid, halo) in grids.items():
        # The description wants something to be left of a tile without its halo. Programs place
        # tiles at multiples of what is left, and of the network's grid these must be multiples.
        missing = 0 if name == "z" else max(0, side - 2 * halo - grid)
        axes.append(Axis(name, 2 * halo + grid + -(-missing // grid) * grid, grid, halo))
    return axes


def _least_side(denoiser: Denoiser, scale: Scale | None) -> int | None:
    """Returns the side in pixels from which on tiles, with a halo, give what the whole image would.

    None if none do.
    """
    recipe, network = denoiser.recipe, denoiser.network
    # Turned, a tile lies differently on the network's grid. R3's masks depend on the place.
    turns = denoiser.options.self_ensemble and network.grid > 1
    whole = recipe.denoise_stride == 1 and recipe.denoise_pad == 0
    if not (network.is_local and network.halo > 0 and whole) or denoiser.r3 or turns:
        return None
    if not recipe.build_normalization().of_picture:
        return 1
    # The statistics are those of the image, or of all planes that a model was trained on. The least
    # deviation that counts is 1 / side.
    if scale is None or scale.deviation <= 0:
        return None
    side = math.ceil((scale.high - scale.low) / scale.deviation)
    return side if side <= _LARGEST else None


def parse_author(text: str) -> dict[str, str]:
    """Returns an author, of `NAME`, `NAME, AFFILIATION` or `NAME, AFFILIATION, ORCID, @GITHUB`.

    Raises:
        ConfigError: if there is no name, something is said twice, or GitHub has no such accounts.

    Example:
        >>> parse_author("Ada Lovelace, University of London, @ada")
        {'name': 'Ada Lovelace', 'github_user': 'ada', 'affiliation': 'University of London'}
    """
    name, *rest = (part.strip() for part in text.split(","))
    author, affiliation = {"name": name}, []
    if {"/", "\\"} & {*name}:
        raise ConfigError(
            "--author: the BioImage Model Zoo takes no names with / or \\. "
            f"Received: --author {text}"
        )
    wrong = not name or name.startswith("@") or not all(rest)
    for part in rest:
        key = "github_user" if part.startswith("@") else "orcid" if _ORCID.fullmatch(part) else ""
        if not key:
            affiliation.append(part)
        elif key in author:
            raise ConfigError(f"--author names {part} and another one. Received: --author {text}")
        else:
            wrong = wrong or (key == "github_user" and not _GITHUB.fullmatch(part))
            author[key] = part.removeprefix("@")
    if wrong:
        raise ConfigError(
            "--author takes a name, which may be followed by an affiliation, an ORCID and a GitHub "
            f"account: 'Ada Lovelace, University of London, @ada'. Received: --author {text!r}"
        )
    if affiliation:
        author["affiliation"] = ", ".join(affiliation)
    return author


def exactness_of(denoised: np.ndarray, scale: Scale | None) -> float:
    """Returns how far engines may be apart.

    They agree to `EXACT` in the range that the network sees; float32 adds its rounding to values of
    stacks.
    """
    span = scale.high - scale.low if scale else 1.0
    return EXACT * span + 2 * float(np.finfo(np.float32).eps * np.abs(denoised).max())


def tolerance_of(denoised: np.ndarray, scale: Scale | None) -> dict[str, Any]:
    """Returns how far results of other engines and machines may be off.

    That is `exactness_of`. The description accepts an absolute tolerance of at most 1 % of the
    highest value, so that of values around 0 or below is a relative one.
    """
    off = exactness_of(denoised, scale)
    allowed: dict[str, Any] = {"relative_tolerance": 0.0, "mismatched_elements_per_million": 0}
    if off <= 0.01 * denoised.max():
        return {"absolute_tolerance": off, **allowed}
    small = float(np.quantile(np.abs(denoised), 0.001, method="lower"))
    relative = min(0.01, off / small) if small else 0.01
    allowed |= {"relative_tolerance": relative, "mismatched_elements_per_million": 5000}
    return {"absolute_tolerance": 0.0, **allowed}


def learned_from(recipe: Recipe) -> str:
    """Returns in words what a recipe's objective learns from."""
    return _LEARNED_FROM.get(recipe.objective, _NOISY_ALONE)


def patches_of(recipe: Recipe) -> str:
    """Returns in words the size of the patches that a recipe trains on.

    Example:
        >>> patches_of(RECIPES["n2v-unet-3d"])
        '16 x 64 x 64 pixels'
    """
    depth = f"{recipe.patch_depth} x " if recipe.patch_depth > 1 else ""
    return f"{depth}{recipe.patch_size} x {recipe.patch_size} pixels"


def describe(
    denoiser: Denoiser,
    axes: Sequence[Axis],
    scale: Scale | None,
    *,
    name: str,
    authors: Sequence[Mapping[str, str]],
    license: str,
    tolerance: Mapping[str, Any],
    checksums: Mapping[str, str],
    opset: int,
    facts: Mapping[str, Any],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the content of `rdf.yaml`.

    Args:
        denoiser: the model, with the options of the export.
        axes: see `spatial_axes`.
        scale: of a model that was trained on stacks; None for pictures.
        name: of the model; other characters than those allowed become spaces.
        authors: see `parse_author`.
        license: an SPDX identifier.
        tolerance: see `tolerance_of`.
        checksums: SHA-256 of the files, by name.
        opset: version of ONNX's operators.
        facts: what a reader of the package may want to know, for `config`.
        training: what the model says about its training.
    """
    recipe, network = denoiser.recipe, denoiser.network
    name = "".join(letter if letter in _NAMES else " " for letter in name).strip() or "model"
    data: dict[str, Any] = {"type": "float32", "unit": "arbitrary unit"}
    values = "in the values of the stack's file"
    if scale is None:
        data["range"] = [0.0, 1.0]
        values = "float32 from 0 (black) to 1 (white)"

    def tensor(
        id: str, what: str, test: str, sample: str, sizes: Mapping[str, Any]
    ) -> dict[str, Any]:
        spatial = [{"type": "space", "id": axis.name, **sizes[axis.name]} for axis in axes]
        colors = ["red", "green", "blue"] if network.channels == 3 else ["intensity"]
        return {
            "id": id,
            "description": f"{what}, {values}",
            "axes": [
                {"type": "batch", "id": "batch"},
                *spatial,
                {"type": "channel", "id": "channel", "channel_names": colors},
            ],
            "test_tensor": {"source": test, "sha256": checksums[test]},
            "sample_tensor": {"source": sample, "sha256": checksums[sample]},
            "data": dict(data),  # as YAML would write the second one as a reference
        }

    taken, given = {}, {}
    for axis in axes:
        taken[axis.name] = {"size": {"min": axis.least, "step": axis.step}}
        given[axis.name] = {"size": {"tensor_id": IMAGES, "axis_id": axis.name, "offset": 0}}
        if axis.halo:
            taken[axis.name]["concatenable"] = True  # type: ignore[assignment]
            given[axis.name]["halo"] = axis.halo  # type: ignore[assignment]
    kind = "planes of microscope stacks" if scale else "photographs"
    kind = "volumes of microscopes" if denoiser.of_volumes else kind
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": f"{name} - {recipe.name} denoising"[:128],
        "description": f"Denoises {kind}. It was trained on {learned_from(recipe)}, without clean "
        f"ones, by the recipe {recipe.name} of cbsn {cbsn.__version__}.",
        "authors": [dict(author) for author in authors],
        "cite": [paper._asdict() for paper in papers_of(recipe)],
        "license": license,
        "documentation": README,
        "covers": [COVER],
        "tags": _tags(recipe, network.dimensions),
        "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "inputs": [tensor(IMAGES, "Noisy images", TEST_INPUT, SAMPLE_INPUT, taken)],
        "outputs": [tensor(DENOISED, "Denoised images", TEST_OUTPUT, SAMPLE_OUTPUT, given)],
        "weights": {
            "onnx": {
                "source": MODEL,
                "sha256": checksums[MODEL],
                "opset_version": opset,
                "comment": "Scaling, padding and undoing them are part of the graph.",
            }
        },
        "config": {
            "bioimageio": {
                # deepImageJ needs it to list a model to which bioimage.io has given no id.
                "nickname": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
                "reproducibility_tolerance": [dict(tolerance)],
                "task": "denoising",
                "architecture_type": recipe.network[:32],
                "model_parameter_count": int(network.count_params()),
                "training": _training(recipe, training),
            },
            # Without tiles, deepImageJ takes the whole image at once.
            "deepimagej": {"allow_tiling": axes[-1].halo > 0, "pyramidal_model": False},
            "cbsn": dict(facts),
        },
    }


def _tags(recipe: Recipe, dimensions: int) -> list[str]:
    tags = ["denoising", "image-restoration", f"{dimensions}d", "cbsn", recipe.name]
    if learned_from(recipe) == _NOISY_ALONE:
        tags.append("self-supervised")
    if "UNet" in recipe.network:
        tags.append("unet")
    return tags


def _training(recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that the description has for a training."""
    masked = recipe.network_config.get("mask_shape", "point") != "point"
    kept = " in the ways in which the mask stays the same" if masked else ""
    schedule = f"multiplied by {recipe.lr_decay:g} every {recipe.lr_decay_steps} steps"
    return {
        "training_preprocessing": f"normalization {recipe.normalization}; patches of "
        f"{patches_of(recipe)}, turned and mirrored{kept}",
        "training_batch_size": float(recipe.batch_size),
        "initial_learning_rate": float(recipe.learning_rate),
        "learning_rate_schedule": "cosine" if recipe.schedule == "cosine" else schedule,
        "loss_function": recipe.objective,
        "loss_function_kwargs": dict(recipe.objective_config),
        "optimizer": _OPTIMIZER,
        "max_steps": recipe.max_steps,
        **facts,
    }
